//! The clock guard: nothing expires unless every clock and every record agrees on the time. Pure.

use std::time::Duration;

use holdfast_core::{Code, Coded, Timestamp};

use crate::limits;

/// Everything that knows something of the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockFacts {
    /// This machine's clock.
    pub local: Timestamp,
    /// The storage's clock.
    pub storage: Timestamp,
    /// What both showed when the run before ended, if there was one.
    pub before: Option<ClockPair>,
    /// The times of entries in the ledgers, of points, proofs and heartbeats in the repository.
    pub records: Vec<Timestamp>,
}

/// Two clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ClockPair {
    /// This machine's clock.
    pub local: Timestamp,
    /// The storage's clock.
    pub storage: Timestamp,
}

/// A time on which everything agreed: the only way to a plan of what expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgreedTime(Timestamp);

impl AgreedTime {
    /// Returns the time: the earlier of the clocks, so that nothing expires too early.
    pub fn at(self) -> Timestamp {
        self.0
    }

    /// Takes the storage's time alone: enough to lengthen a lock, and used for nothing else.
    pub(super) fn to_lengthen(storage: Timestamp) -> Self {
        Self(storage)
    }
}

/// Why nothing may expire now. Nothing was removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// The clock went backwards.
    #[error("the clock shows {now}, before {before}, when the last run ended")]
    Backwards {
        /// What it shows.
        now: Timestamp,
        /// What it showed.
        before: Timestamp,
    },
    /// The two clocks disagree.
    #[error("this machine's clock shows {local} and the storage's {storage}")]
    Disagree {
        /// This machine's.
        local: Timestamp,
        /// The storage's.
        storage: Timestamp,
    },
    /// Something on record is of a later time.
    #[error("the clock shows {now}, but something was recorded at {newest}")]
    Future {
        /// What the clock shows.
        now: Timestamp,
        /// The newest time on record.
        newest: Timestamp,
    },
    /// A long time without any record: the clock may have jumped over it.
    #[error("nothing was recorded from {from} to {to}: the clock may have jumped")]
    Gap {
        /// The last record before.
        from: Timestamp,
        /// The first after.
        to: Timestamp,
        /// When records will have followed each other for long enough.
        until: Timestamp,
    },
    /// The clocks drifted apart, or together, since the run before.
    #[error("since the last run one clock went on by {local_s} s and the other by {storage_s} s")]
    Jumped {
        /// This machine's.
        local_s: i64,
        /// The storage's.
        storage_s: i64,
    },
    /// The newest record is too old.
    #[error("the clock shows {now}, but nothing was recorded since {newest}")]
    Silent {
        /// What the clock shows.
        now: Timestamp,
        /// The newest time on record.
        newest: Timestamp,
    },
    /// There is no record at all.
    #[error("nothing in the repository or the ledgers tells the time")]
    Unknown,
}

impl Coded for ClockError {
    fn code(&self) -> Code {
        Code::ZS351
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Backwards { .. } | Self::Disagree { .. } | Self::Jumped { .. } => {
                "nothing was removed; set the clocks right (NTP) and run it again".to_owned()
            }
            Self::Future { .. } => {
                "nothing was removed; set the clock right. If it ran ahead when \
                something was recorded, nothing expires until that time has come"
                    .to_owned()
            }
            Self::Gap { until, .. } => format!(
                "nothing was removed; if the clock is right, let the vault run and try again after {until}"
            ),
            Self::Silent { .. } | Self::Unknown => {
                "nothing was removed; start the vault, or set the clock right, and run it again"
                    .to_owned()
            }
        })
    }
}

impl ClockFacts {
    /// Returns the time on which everything agrees.
    ///
    /// # Errors
    /// [`ClockError`] names the disagreement; nothing may then expire.
    pub fn agree(mut self) -> Result<AgreedTime, ClockError> {
        let (local, storage) = (self.local, self.storage);
        if apart(local, storage) > limits::CLOCK_LIMIT {
            return Err(ClockError::Disagree { local, storage });
        }
        let now = local.min(storage);
        if let Some(before) = self.before {
            since_before(before, ClockPair { local, storage })?;
        }
        self.records.sort_unstable();
        let newest = *self.records.last().ok_or(ClockError::Unknown)?;
        if newest > now.plus(limits::CLOCK_LIMIT) {
            return Err(ClockError::Future { now, newest });
        }
        if now.since(newest) > limits::SILENCE_LIMIT {
            return Err(ClockError::Silent { now, newest });
        }
        let mut gaps = self.records.iter().zip(self.records.iter().skip(1));
        let gap = gaps.rfind(|(from, to)| to.since(**from) > limits::RECORD_GAP);
        if let Some((from, to)) = gap {
            let until = to.plus(limits::RECORD_SETTLED);
            if now < until {
                let (from, to) = (*from, *to);
                return Err(ClockError::Gap { from, to, until });
            }
        }
        Ok(AgreedTime(now))
    }
}

fn since_before(before: ClockPair, now: ClockPair) -> Result<(), ClockError> {
    let pairs = [(before.local, now.local), (before.storage, now.storage)];
    for (before, now) in pairs {
        if now.plus(limits::CLOCK_GRAIN) < before {
            return Err(ClockError::Backwards { now, before });
        }
    }
    let (local, storage) = (
        now.local.since(before.local),
        now.storage.since(before.storage),
    );
    let apart = local.abs_diff(storage);
    if apart > limits::CLOCK_LIMIT {
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        return Err(ClockError::Jumped {
            local_s: seconds(local),
            storage_s: seconds(storage),
        });
    }
    Ok(())
}

fn apart(a: Timestamp, b: Timestamp) -> Duration {
    a.since(b).max(b.since(a))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    const NOW: Timestamp = Timestamp(1_777_000_000_000_000);

    /// Records of every hour of the last ten days, the newest a minute old.
    fn records() -> Vec<Timestamp> {
        let newest = NOW.minus(Duration::from_secs(60));
        (0..240).map(|hours| newest.minus(HOUR * hours)).collect()
    }

    fn facts() -> ClockFacts {
        ClockFacts {
            local: NOW,
            storage: NOW.minus(Duration::from_secs(2)),
            before: Some(ClockPair {
                local: NOW.minus(24 * HOUR),
                storage: NOW.minus(24 * HOUR),
            }),
            records: records(),
        }
    }

    #[test]
    fn clocks_that_agree_give_the_earlier_time() {
        assert_eq!(
            facts().agree().unwrap().at(),
            NOW.minus(Duration::from_secs(2))
        );
        let first = ClockFacts {
            before: None,
            ..facts()
        };
        assert!(first.agree().is_ok());
    }

    #[test]
    fn a_clock_that_jumped_by_years_expires_nothing() {
        let ahead = NOW.plus(2 * YEAR);
        let behind = NOW.minus(2 * YEAR);
        let storage = facts().storage;
        for (local, storage) in [
            (ahead, storage),
            (behind, storage),
            (NOW, ahead),
            (NOW, behind),
            // Both at once: a directory on the same machine.
            (ahead, ahead),
            (behind, behind),
        ] {
            for before in [None, facts().before] {
                let jumped = ClockFacts {
                    local,
                    storage,
                    before,
                    ..facts()
                };
                assert!(jumped.agree().is_err(), "{local} {storage} {before:?}");
            }
        }
    }

    #[test]
    fn a_jumped_clock_that_the_vault_has_followed_expires_nothing_for_a_day() {
        let ahead = NOW.plus(2 * YEAR);
        let jumped = |hours: u32| {
            let now = ahead.plus(HOUR * hours);
            let mut records = records();
            records.extend((0..=hours).map(|hour| ahead.plus(HOUR * hour)));
            ClockFacts {
                local: now,
                storage: now,
                before: None,
                records,
            }
        };
        for hours in [0, 1, 12, 23] {
            let refused = jumped(hours).agree().unwrap_err();
            assert!(matches!(refused, ClockError::Gap { .. }), "{refused}");
        }
        // A vault that really was away is believed after a day.
        assert!(jumped(24).agree().is_ok());
    }

    #[test]
    fn what_was_recorded_in_the_future_expires_nothing() {
        let mut one = facts();
        one.records.push(NOW.plus(YEAR));
        assert!(matches!(one.agree(), Err(ClockError::Future { .. })));
    }

    #[test]
    fn a_silent_repository_expires_nothing() {
        let mut one = facts();
        one.records.retain(|at| NOW.since(*at) > HOUR * 2);
        assert!(matches!(
            one.clone().agree(),
            Err(ClockError::Silent { .. })
        ));
        one.records.clear();
        assert!(matches!(one.agree(), Err(ClockError::Unknown)));
    }

    #[test]
    fn a_clock_that_went_on_alone_since_the_last_run_expires_nothing() {
        let mut one = facts();
        one.before = Some(ClockPair {
            local: NOW.minus(HOUR),
            storage: NOW.minus(2 * HOUR),
        });
        assert!(matches!(one.agree(), Err(ClockError::Jumped { .. })));
        let mut one = facts();
        one.before = Some(ClockPair {
            local: NOW.plus(HOUR),
            storage: NOW.minus(HOUR),
        });
        assert!(matches!(one.agree(), Err(ClockError::Backwards { .. })));
        // A storage tells whole seconds.
        let mut one = facts();
        one.before = Some(ClockPair {
            local: one.local,
            storage: one.storage.plus(Duration::from_millis(900)),
        });
        assert!(one.agree().is_ok());
    }
}
