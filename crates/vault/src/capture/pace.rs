//! How soon what has arrived is made durable: at once where a commit waits for it, else seldom.
//!
//! Where nobody waits, every message that wakes us and every sync takes processor time from the
//! source, if both share a machine, and from the vault's other sources. What is not read yet lies in
//! the socket of our machine and is safe from whatever becomes of the source.

use std::time::{Duration, Instant};

use crate::config::AckMode;
use crate::limits;
use crate::source::{Connection, SourceError};

/// How soon the log is made durable and its source told so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// A commit may wait for it.
    AtOnce,
    /// Nobody waits: it is taken in and synced together with what comes soon after.
    Gathered,
}

impl Pace {
    /// Finds out whether commits may wait for us, whatever the configuration says of it.
    pub(super) fn find(mode: AckMode, connection: &mut Connection) -> Result<Self, SourceError> {
        if mode == AckMode::Synchronous {
            return Ok(Self::AtOnce);
        }
        let shown = connection.query(
            "SHOW synchronous_standby_names",
            "look at what commits wait for",
        )?;
        let is_empty = shown.single().is_none_or(|names| names.trim().is_empty());
        Ok(if is_empty {
            Self::Gathered
        } else {
            Self::AtOnce
        })
    }

    /// Returns how long what was taken in first may still wait for its sync.
    pub(super) fn left(self, since: Instant, now: Instant) -> Duration {
        match self {
            Self::AtOnce => Duration::ZERO,
            Self::Gathered => limits::SYNC_EVERY.saturating_sub(now.duration_since(since)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_waits_for_is_synced_a_little_later_and_no_more_than_that() {
        let began = Instant::now();
        let half = began + limits::SYNC_EVERY / 2;
        assert_eq!(Pace::AtOnce.left(began, began), Duration::ZERO);
        assert_eq!(Pace::Gathered.left(began, began), limits::SYNC_EVERY);
        assert_eq!(Pace::Gathered.left(began, half), limits::SYNC_EVERY / 2);
        let later = began + limits::SYNC_EVERY * 9;
        assert_eq!(Pace::Gathered.left(began, later), Duration::ZERO);
    }

    #[test]
    fn a_lost_second_holds_all_that_an_asynchronous_source_may_lose() {
        // Gathered, synced, and put into the repository; what the store takes comes on top.
        let all = limits::GATHER + limits::SYNC_EVERY + limits::SHIP_EVERY;
        assert!(all < Duration::from_secs(1));
    }
}
