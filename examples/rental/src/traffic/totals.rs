//! What traffic has done so far.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::desk::DeskError;
use crate::journal::Kind;

/// Counts that the workers share.
#[derive(Debug)]
pub struct Tally {
    started: Instant,
    bookings: Counts,
    cancellations: Counts,
    payments: Counts,
    reads: AtomicU64,
    failed_reads: AtomicU64,
    rest: Mutex<Rest>,
}

/// The sum of a run, or of its part so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Totals {
    /// Since the start.
    pub seconds: f64,
    /// Reservations.
    pub bookings: Sum,
    /// Payments.
    pub payments: Sum,
    /// Cancellations.
    pub cancellations: Sum,
    /// Counter lists read.
    pub reads: u64,
    /// Counter lists that could not be read.
    pub failed_reads: u64,
    /// Connections opened.
    pub connections: u64,
    /// Longest time between two acknowledged commits, in seconds.
    pub longest_gap_s: f64,
    /// Median time from the start of an operation to its acknowledged COMMIT, in milliseconds.
    pub commit_p50_ms: f64,
    /// 99th percentile of the same.
    pub commit_p99_ms: f64,
    /// The last error of the database.
    pub last_error: Option<String>,
}

/// One kind of operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sum {
    /// COMMIT was acknowledged.
    pub acknowledged: u64,
    /// The office said no: double booking, nothing due.
    pub refused: u64,
    /// The database was away; nothing was saved.
    pub failed: u64,
    /// The answer to COMMIT was lost.
    pub unknown: u64,
}

#[derive(Debug, Default)]
struct Counts {
    acknowledged: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
}

#[derive(Debug)]
struct Rest {
    last_acknowledged: Instant,
    longest_gap: Duration,
    /// Microseconds of acknowledged operations.
    latencies: Vec<u32>,
    last_error: Option<String>,
}

impl Tally {
    /// All zero.
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            bookings: Counts::default(),
            cancellations: Counts::default(),
            payments: Counts::default(),
            reads: AtomicU64::new(0),
            failed_reads: AtomicU64::new(0),
            rest: Mutex::new(Rest {
                last_acknowledged: now,
                longest_gap: Duration::ZERO,
                latencies: Vec::new(),
                last_error: None,
            }),
        }
    }

    /// Counts one operation that changes the books.
    pub fn count(&self, kind: Kind, took: Duration, outcome: &Result<(), DeskError>) {
        let counts = match kind {
            Kind::Booking => &self.bookings,
            Kind::Cancellation => &self.cancellations,
            Kind::Payment => &self.payments,
        };
        let counter = match outcome {
            Ok(()) => &counts.acknowledged,
            Err(DeskError::Unknown { .. }) => &counts.unknown,
            Err(
                DeskError::NotFound { .. } | DeskError::Refused { .. } | DeskError::Taken { .. },
            ) => &counts.refused,
            Err(
                DeskError::Away { .. }
                | DeskError::Broken { .. }
                | DeskError::Busy
                | DeskError::ReadOnly,
            ) => &counts.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut rest = self.rest();
        match outcome {
            Ok(()) => {
                let gap = rest.last_acknowledged.elapsed();
                rest.longest_gap = rest.longest_gap.max(gap);
                rest.last_acknowledged = Instant::now();
                rest.latencies
                    .push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
            }
            Err(error) => remember(&mut rest, error),
        }
    }

    /// Counts one reading.
    pub fn count_read(&self, outcome: &Result<(), DeskError>) {
        match outcome {
            Ok(()) => self.reads.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                remember(&mut self.rest(), error);
                self.failed_reads.fetch_add(1, Ordering::Relaxed)
            }
        };
    }

    /// The sum so far; `connections` is what the pool has opened.
    pub fn totals(&self, connections: u64) -> Totals {
        let rest = self.rest();
        let mut latencies = rest.latencies.clone();
        latencies.sort_unstable();
        let percentile = |percent: usize| {
            let index = latencies.len().saturating_sub(1) * percent / 100;
            latencies
                .get(index)
                .map_or(0.0, |micros| f64::from(*micros) / 1_000.0)
        };
        Totals {
            seconds: self.started.elapsed().as_secs_f64(),
            bookings: self.bookings.sum(),
            payments: self.payments.sum(),
            cancellations: self.cancellations.sum(),
            reads: self.reads.load(Ordering::Relaxed),
            failed_reads: self.failed_reads.load(Ordering::Relaxed),
            connections,
            longest_gap_s: rest
                .longest_gap
                .max(rest.last_acknowledged.elapsed())
                .as_secs_f64(),
            commit_p50_ms: percentile(50),
            commit_p99_ms: percentile(99),
            last_error: rest.last_error.clone(),
        }
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn sum(&self) -> Sum {
        Sum {
            acknowledged: self.acknowledged.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
        }
    }
}

fn remember(rest: &mut Rest, error: &DeskError) {
    if error.is_outage() || matches!(error, DeskError::Broken { .. }) {
        rest.last_error = Some(error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Sum, Tally};
    use crate::desk::DeskError;
    use crate::journal::Kind;

    #[test]
    fn each_outcome_is_counted_once_and_in_its_place() {
        let tally = Tally::new();
        let reason = || "x".to_owned();
        let outcomes = [
            Ok(()),
            Err(DeskError::Unknown { reason: reason() }),
            Err(DeskError::Refused { reason: reason() }),
            Err(DeskError::NotFound { what: "x" }),
            Err(DeskError::Away { reason: reason() }),
            Err(DeskError::Busy),
            Err(DeskError::ReadOnly),
        ];
        for outcome in &outcomes {
            tally.count(Kind::Payment, Duration::from_millis(3), outcome);
        }
        let totals = tally.totals(2);
        assert_eq!(
            totals.payments,
            Sum {
                acknowledged: 1,
                refused: 2,
                failed: 3,
                unknown: 1
            }
        );
        assert_eq!((totals.bookings, totals.connections), (Sum::default(), 2));
        assert!((totals.commit_p50_ms - 3.0).abs() < 0.001);
        assert!(totals.last_error.is_some());
    }
}
