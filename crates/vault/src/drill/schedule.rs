//! Which drill of a source is due: the newest point when it changed, and older ones in between.

use std::time::Duration;

use holdfast_core::{DrillOf, Lsn, PointId, Timestamp};

use super::history::{Known, PointDrill};
use crate::config::DrillConfig;
use crate::limits;

/// A drill that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Which kind.
    pub(crate) of: DrillOf,
    /// Which point.
    pub(crate) point: PointId,
}

/// How a source stands when it is asked what is due.
#[derive(Clone, Debug)]
pub(crate) struct View<'a> {
    /// What is known of its drills.
    pub(crate) known: Option<&'a Known>,
    /// Its newest point; nothing is due without one.
    pub(crate) newest: Option<&'a PointId>,
    /// How far its log is kept; it changed when a drill did not reach that.
    pub(crate) end: Lsn,
    /// When a drill was last begun that could not be run to its end.
    pub(crate) broken_off: Option<Timestamp>,
    /// The time.
    pub(crate) now: Timestamp,
}

impl View<'_> {
    /// Returns the drill of the newest point, if it is time for one.
    pub(crate) fn newest_due(&self, config: &DrillConfig) -> Option<Due> {
        let point = self.newest?;
        let due = Due {
            of: DrillOf::Newest,
            point: point.clone(),
        };
        let is_waiting = self
            .broken_off
            .is_some_and(|at| self.is_within(at, limits::DRILL_AGAIN));
        if is_waiting {
            return None;
        }
        let Some(last) = self.known.and_then(Known::newest) else {
            return Some(due);
        };
        let failures = self.known.map_or(0, |known| known.failures);
        let wait = match (failures, &last.point == point) {
            // What failed is looked at again soon, and less and less often while it goes on failing.
            (1.., _) => again(failures).min(config.every),
            (0, false) => Duration::ZERO,
            (0, true) if last.reached < self.end => config.every,
            (0, true) => config.every.max(config.unchanged_every),
        };
        (!self.is_within(last.drilled_at, wait)).then_some(due)
    }

    /// Returns the drill of an older point, if it is time for one; `points` are all, oldest first, and
    /// `random` says which of those that are equally due.
    ///
    /// The age class comes first whose last drill is longest ago, in it the points that were never
    /// drilled, so that every point has its turn.
    pub(crate) fn older_due(
        &self,
        config: &DrillConfig,
        points: &[(PointId, Timestamp)],
        random: u64,
    ) -> Option<Due> {
        let known = self.known?;
        // An unproven source has other needs.
        known.newest().filter(|report| report.passed())?;
        let older_at = known
            .points
            .values()
            .filter(|drill| drill.of == DrillOf::Older);
        let last = older_at.map(|drill| drill.at).max().or(known.first);
        if last.is_some_and(|at| self.is_within(at, config.older_every)) {
            return None;
        }
        let older = points
            .iter()
            .filter(|(point, _)| self.newest.is_some_and(|newest| newest != point));
        let mut classes: Vec<Vec<(Option<PointDrill>, &PointId)>> =
            vec![Vec::new(); limits::DRILL_AGES.len().saturating_add(1)];
        for (point, at) in older {
            let age = self.now.since(*at);
            let class = limits::DRILL_AGES.iter().filter(|limit| age >= **limit);
            if let Some(class) = classes.get_mut(class.count()) {
                class.push((known.points.get(point).copied(), point));
            }
        }
        // `None`, a class of which nothing was drilled, is before every time.
        classes
            .iter()
            .filter_map(|class| {
                let last = class.iter().filter_map(as_older).max();
                Some((last, self.of_class(class, random)?))
            })
            .min_by_key(|(last, _)| *last)
            .map(|(_, point)| Due {
                of: DrillOf::Older,
                point: point.clone(),
            })
    }

    /// Chooses a point of an age class: one of those that were never drilled, or else the one whose drill
    /// is longest ago.
    fn of_class<'a>(
        &self,
        class: &[(Option<PointDrill>, &'a PointId)],
        random: u64,
    ) -> Option<&'a PointId> {
        let never = class.iter().filter(|(drill, _)| drill.is_none());
        let never: Vec<&PointId> = never.map(|(_, point)| *point).collect();
        if let Ok(count @ 1..) = u64::try_from(never.len()) {
            let index = usize::try_from(random % count).unwrap_or(0);
            return never.get(index).copied();
        }
        class
            .iter()
            .filter_map(|(drill, point)| Some(((*drill)?.at, *point)))
            .filter(|(at, _)| !self.is_within(*at, limits::DRILL_SAME))
            .min_by_key(|(at, _)| *at)
            .map(|(_, point)| point)
    }

    /// Tells whether a time is no longer ago than `wait`; one that is yet to come is of a clock that
    /// jumped, and does not count.
    fn is_within(&self, at: Timestamp, wait: Duration) -> bool {
        at <= self.now && self.now.since(at) < wait
    }
}

/// Returns when a point was drilled as one that is not the newest.
fn as_older((drill, _): &(Option<PointDrill>, &PointId)) -> Option<Timestamp> {
    drill
        .filter(|drill| drill.of == DrillOf::Older)
        .map(|drill| drill.at)
}

/// How long to wait after so many drills that failed.
fn again(failures: u32) -> Duration {
    let doubled = failures.saturating_sub(1).min(10);
    limits::DRILL_FAILED_AGAIN.saturating_mul(1 << doubled)
}

#[cfg(test)]
mod tests;
