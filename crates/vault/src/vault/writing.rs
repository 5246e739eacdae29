//! Being the one writer: heartbeats, looking for a newer epoch, locks that grow, a clock that is watched.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use holdfast_core::ledger::Draft;
use holdfast_core::{ErrorChain, Principal, Timestamp};
use holdfast_store::object::{ObjectError, Promise};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::Vault;
use crate::limits;
use crate::retention::{
    self, LockKeeper, LockReport, Mark, MarkError, MarkKind, MarkRequest, Span,
};

/// How the repository as a whole stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RepositoryStatus {
    /// Where it is.
    pub place: String,
    /// What may be said of locked objects.
    #[serde(flatten)]
    pub promise: Promise,
    /// The epoch of this writer.
    pub epoch: u64,
    /// Everything is kept at least this long.
    pub lock_for: Span,
    /// What the newest look at the locks found and did.
    pub locks: LockReport,
}

impl Vault {
    /// Tells how the repository as a whole stands, from memory.
    pub fn repository_status(&self) -> RepositoryStatus {
        let shared = &self.shared;
        let locks = shared.locks.lock().unwrap_or_else(PoisonError::into_inner);
        RepositoryStatus {
            place: shared.config.repository.to_string(),
            promise: shared.repository.store().promise(),
            epoch: shared.repository.fence().map_or(0, |fence| fence.epoch()),
            lock_for: shared.config.retention.lock_for,
            locks: locks.clone(),
        }
    }

    /// Keeps a restore point whatever the rules say, or releases it again; recorded first. Blocks.
    ///
    /// # Errors
    /// [`MarkError`]; nothing is then changed.
    pub fn mark(&self, request: MarkRequest) -> Result<Mark, MarkError> {
        let shared = &self.shared;
        let now = (shared.clock)();
        let record = |mark: &Mark| {
            let (kind, what) = match mark.kind {
                MarkKind::Keep => ("point.kept", "is kept"),
                MarkKind::Release => ("point.released", "is not kept any more"),
            };
            let draft = Draft::new(kind, mark.by.clone(), now)
                .source(mark.source.clone())
                .with("point", mark.point.to_string())
                .with("because", mark.because.as_str())
                .with(
                    "summary",
                    format!("{} {what}: {}", mark.point, mark.because),
                );
            let draft = match mark.until {
                Some(until) => draft.with("until", until.to_string()),
                None => draft,
            };
            shared.ledger.append(draft).map(drop)
        };
        let (store, reader) = (shared.repository.store(), shared.repository.reader());
        let signing = (&shared.key, now);
        let marked = retention::mark(store.as_ref(), reader, request, signing, record)?;
        shared.look_at_locks.notify_one();
        Ok(marked)
    }

    /// Leaves heartbeats and looks for a newer epoch until `stop`, or until there is one: then the vault
    /// stops, and why is returned.
    pub(super) async fn keep_writing(self, stop: CancellationToken) -> Option<ObjectError> {
        let fence = self.shared.repository.fence()?.clone();
        let mut watch = ClockWatch::begin((self.shared.clock)());
        let mut beaten: Option<Instant> = None;
        let mut failing = false;
        while !stop.is_cancelled() {
            self.watch_clock(&mut watch);
            let is_due = beaten.is_none_or(|at| at.elapsed() >= fence.heartbeat());
            let now = Instant::now();
            let held = fence.clone();
            let looked = tokio::task::spawn_blocking(move || match is_due {
                true => held.beat().map(|_| ()),
                false => held.check(),
            });
            match looked.await {
                Ok(Err(error @ ObjectError::Fenced { .. })) => {
                    tracing::error!(what = %ErrorChain(&error), "the vault stops");
                    stop.cancel();
                    return Some(error);
                }
                Ok(Err(error)) => {
                    if !failing {
                        tracing::warn!(what = %ErrorChain(&error), "no heartbeat");
                    }
                    failing = true;
                }
                Ok(Ok(())) => {
                    failing = false;
                    beaten = if is_due { Some(now) } else { beaten };
                }
                Err(error) => tracing::error!(%error, "a look for a newer epoch ended by a defect"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(fence.check_every()) => {}
            }
        }
        None
    }

    /// Records a jump of the clock: the ledger then shows a time that nothing expires by.
    fn watch_clock(&self, watch: &mut ClockWatch) {
        let now = (self.shared.clock)();
        let Some(jump_s) = watch.look(now) else {
            return;
        };
        tracing::error!(
            jump_s,
            "the clock jumped; nothing expires until it is right"
        );
        let draft = Draft::new("clock.jumped", Principal::service("vault"), now)
            .with("seconds", jump_s)
            .with("summary", format!("the clock jumped by {jump_s} s"));
        if let Err(error) = self.shared.ledger.append(draft) {
            tracing::error!(what = %ErrorChain(&error), "the jump is not recorded");
        }
    }

    /// Lengthens the locks of what unexpired points need, until `stop`.
    pub(super) async fn keep_locked(self, stop: CancellationToken) {
        let shared = &self.shared;
        let retention = &shared.config.retention;
        let Some(fence) = shared.repository.fence() else {
            return;
        };
        if retention.lock_for == Span::ZERO {
            return;
        }
        let reader = shared.repository.reader().clone();
        let mut keeper = LockKeeper::new(reader, retention.rules.clone(), retention.lock_for);
        if let Ok(claim) = fence.claim_key() {
            keeper = keeper.beside(claim);
        }
        let mut wait = limits::LOCKS_FIRST;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = shared.look_at_locks.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            let store = shared.repository.store().clone();
            let looked = tokio::task::spawn_blocking(move || {
                let report = keeper.look(store.as_ref());
                (keeper, report)
            });
            let Ok((again, report)) = looked.await else {
                tracing::error!(
                    "a look at the locks ended by a defect; no lock is lengthened any more"
                );
                return;
            };
            keeper = again;
            wait = keeper.wait(report.as_ref().ok());
            match report {
                Ok(report) => self.tell_locks(report),
                Err(error) => {
                    tracing::error!(what = %ErrorChain(&error), "locks are not lengthened");
                }
            }
        }
    }

    fn tell_locks(&self, report: LockReport) {
        tracing::info!(
            objects = report.objects,
            asked = report.asked,
            lengthened = report.lengthened,
            left = report.left,
            failed = report.failed,
            requests_per_month = report.requests_per_month,
            dollars_per_month = report.dollars_per_month,
            "locks of what unexpired points need"
        );
        let mut locks = self
            .shared
            .locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *locks = report;
    }
}

/// Compares the clock with one that only goes on.
struct ClockWatch {
    wall: Timestamp,
    steady: Instant,
}

impl ClockWatch {
    fn begin(wall: Timestamp) -> Self {
        Self {
            wall,
            steady: Instant::now(),
        }
    }

    /// Returns by how many seconds the clock jumped since the last look, if it did.
    fn look(&mut self, wall: Timestamp) -> Option<i64> {
        let steady = Instant::now();
        let expected = self.wall.plus(steady.duration_since(self.steady));
        let jump: Duration = wall.since(expected).max(expected.since(wall));
        *self = Self { wall, steady };
        if jump <= limits::CLOCK_LIMIT {
            return None;
        }
        Some(wall.0.saturating_sub(expected.0) / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_clock_is_told_once_with_its_direction() {
        let begin = Timestamp(1_777_000_000_000_000);
        let year = Duration::from_secs(365 * 86_400);
        let mut watch = ClockWatch::begin(begin);
        assert_eq!(watch.look(begin), None);
        let ahead = watch.look(begin.plus(year)).unwrap();
        assert!((31_535_990..=31_536_000).contains(&ahead), "{ahead}");
        assert_eq!(watch.look(begin.plus(year)), None);
        assert!(watch.look(begin).unwrap() < -31_535_000);
    }
}
