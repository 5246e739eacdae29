//! When the next restore point is due, and whether it is a full one.

use std::time::Duration;

use holdfast_core::{Lsn, PointId, Timestamp};

use super::super::{Capture, CaptureError};
use crate::config::PointsConfig;

/// What is to be done about restore points now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::capture) enum Due {
    /// A base backup from nothing.
    Full,
    /// A restore point on the newest one.
    Next,
    /// Nothing.
    Nothing,
}

/// What the newest restore point says, read once for each.
#[derive(Default)]
pub(in crate::capture) struct Schedule {
    newest: Option<Newest>,
}

#[derive(Clone)]
pub(super) struct Newest {
    point: PointId,
    pub(super) began: Timestamp,
    pub(super) start_lsn: Lsn,
    pub(super) stop_lsn: Lsn,
    segment_bytes: u64,
    /// When the last full one of its line began.
    full_began: Timestamp,
}

impl Schedule {
    /// Tells what is due, given the newest restore point that the log continues.
    pub(in crate::capture) fn due(
        &mut self,
        capture: &Capture,
        point: &PointId,
    ) -> Result<Due, CaptureError> {
        let Some(newest) = self.newest(capture, point)? else {
            return Ok(Due::Nothing);
        };
        let (flushed, is_wanted) = {
            let facts = capture.standing.facts();
            (facts.flushed, facts.point_wanted)
        };
        let due = match decide(&newest, &capture.points, flushed, capture.now()) {
            Due::Nothing if is_wanted => Due::Next,
            due => due,
        };
        Ok(due)
    }

    /// Returns what the newest restore point says.
    pub(super) fn newest(
        &mut self,
        capture: &Capture,
        point: &PointId,
    ) -> Result<Option<Newest>, CaptureError> {
        let is_known = self
            .newest
            .as_ref()
            .is_some_and(|newest| newest.point == *point);
        if !is_known {
            self.newest = read(capture, point)?;
        }
        Ok(self.newest.clone())
    }
}

fn read(capture: &Capture, point: &PointId) -> Result<Option<Newest>, CaptureError> {
    let reader = capture.repository.reader();
    let points = reader.points(&capture.standing.config.name)?;
    let find = |id: &PointId| points.iter().find(|one| one.point == *id);
    let Some(newest) = find(point) else {
        return Ok(None);
    };
    let Some(postgres) = &newest.postgres else {
        return Ok(None);
    };
    let mut full = newest;
    // INVARIANT: each turn goes to an older point, of which there are finitely many.
    for _ in 0..points.len() {
        match full.parent.as_ref().and_then(find) {
            Some(parent) => full = parent,
            None => break,
        }
    }
    Ok(Some(Newest {
        point: newest.point.clone(),
        began: newest.began,
        start_lsn: postgres.start_lsn,
        stop_lsn: postgres.stop_lsn,
        segment_bytes: u64::from(postgres.segment_bytes),
        full_began: full.began,
    }))
}

fn decide(newest: &Newest, points: &PointsConfig, flushed: Lsn, now: Timestamp) -> Due {
    // The end of a backup begins a new segment: until something is in it, nothing has changed.
    let idle = newest
        .stop_lsn
        .0
        .next_multiple_of(newest.segment_bytes.max(1))
        .saturating_add(IDLE_BYTES);
    if flushed.0 <= idle {
        return Due::Nothing;
    }
    let age = |since: Timestamp| {
        // A clock that was set back makes nothing due.
        if since <= now {
            now.since(since)
        } else {
            Duration::ZERO
        }
    };
    let is_due =
        age(newest.began) >= points.every || flushed.since(newest.stop_lsn).0 >= points.log_bytes;
    match is_due {
        false => Due::Nothing,
        true if age(newest.full_began) >= points.full_every => Due::Full,
        true => Due::Next,
    }
}

/// What a server writes that does nothing.
const IDLE_BYTES: u64 = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn due(age: i64, full_age: i64, log: u64) -> Due {
        let newest = Newest {
            point: PointId::from_random([0; PointId::RANDOM_BYTES]),
            began: Timestamp(100 * HOUR - age),
            start_lsn: Lsn(0x0200_0028),
            stop_lsn: Lsn(0x0210_0000),
            segment_bytes: 16 << 20,
            full_began: Timestamp(100 * HOUR - full_age),
        };
        let points = PointsConfig {
            every: Duration::from_secs(3600),
            full_every: Duration::from_secs(24 * 3600),
            log_bytes: 1 << 30,
            ..PointsConfig::default()
        };
        decide(
            &newest,
            &points,
            Lsn(0x0210_0000 + log),
            Timestamp(100 * HOUR),
        )
    }

    #[test]
    fn a_point_is_due_by_time_or_by_log_and_a_full_one_now_and_then() {
        assert_eq!(due(HOUR, HOUR, 20 << 20), Due::Next);
        assert_eq!(due(HOUR - 1, HOUR, 20 << 20), Due::Nothing);
        assert_eq!(due(0, 0, 1 << 30), Due::Next);
        assert_eq!(due(0, 0, (1 << 30) - 1), Due::Nothing);
        assert_eq!(due(HOUR, 24 * HOUR, 20 << 20), Due::Full);
        assert_eq!(due(0, 24 * HOUR, 20 << 20), Due::Nothing);
    }

    #[test]
    fn an_idle_source_and_a_clock_that_was_set_back_make_nothing_due() {
        assert_eq!(due(50 * HOUR, 50 * HOUR, 15 << 20), Due::Nothing);
        assert_eq!(due(-HOUR, -HOUR, 20 << 20), Due::Nothing);
    }
}
