//! Letting a server that replays its log take writes at the log's end, without writing all its pages first.
//!
//! A server that reaches a recovery target by itself ends with a checkpoint, which takes as long as what
//! was replayed is large. One that follows its log and is told to take over replays all that there is,
//! writes one record, and makes the checkpoint beside its work. So the log is cut off at the target
//! instead, and the server is told at once.
//!
//! # Source
//! PostgreSQL 13 to 18: `xlog.c` (`PerformRecoveryXLogAction`), `xlogrecovery.c`
//! (`WaitForWALToBecomeAvailable`: the request is looked at when there is no more log),
//! `postmaster.c` (`CheckPromoteSignal`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The file that makes a server follow its log.
pub(crate) const FOLLOWS: &str = "standby.signal";
/// The file that asks it to take over.
const ASKS: &str = "promote";
const PID_FILE: &str = "postmaster.pid";

/// Returns what a server that follows is given on its command line beside the rest.
pub(crate) fn settings(data: &Path) -> &'static [(&'static str, &'static str)] {
    match follows(data) {
        // The log lies in `pg_wal`, all of it.
        true => &[
            ("restore_command", ""),
            ("wal_retrieve_retry_interval", "10ms"),
        ],
        false => &[],
    }
}

fn follows(data: &Path) -> bool {
    fs::symlink_metadata(data.join(FOLLOWS)).is_ok()
}

/// A server that is to take over as soon as its log ends.
#[derive(Debug)]
pub(crate) struct Promotion {
    data: PathBuf,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It was asked, and has not taken the request yet.
    Asked,
    /// It follows, and was not asked.
    Follows,
    /// There is nothing to ask.
    Over,
}

impl Promotion {
    /// Looks whether a server follows that is being started on `data`.
    pub(crate) fn of(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            step: match follows(data) {
                true => Step::Follows,
                false => Step::Over,
            },
        }
    }

    /// Asks once the server can be asked, and tells whether it must be sent `SIGUSR1` now, again and
    /// again until it has taken the request.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub(crate) fn is_due(&mut self) -> io::Result<bool> {
        let asks = self.data.join(ASKS);
        match self.step {
            Step::Over => return Ok(false),
            // Earlier its start would take the request away.
            Step::Follows if !has_state(&self.data) => return Ok(false),
            Step::Follows => {
                fs::write(&asks, "")?;
                self.step = Step::Asked;
            }
            Step::Asked if fs::symlink_metadata(&asks).is_err() => self.step = Step::Over,
            Step::Asked => {}
        }
        Ok(self.step == Step::Asked)
    }
}

/// SOURCE: PostgreSQL 18, `utils/pidfile.h`: line 8 is the state; it comes with the process that replays.
fn has_state(data: &Path) -> bool {
    let text = fs::read_to_string(data.join(PID_FILE)).unwrap_or_default();
    text.lines()
        .nth(7)
        .is_some_and(|state| !state.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_asked_once_it_can_be_and_until_it_has_taken_the_request() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        assert!(!Promotion::of(data).is_due().unwrap());
        assert!(settings(data).is_empty());
        fs::write(data.join(FOLLOWS), "").unwrap();
        assert_eq!(settings(data).len(), 2);
        let mut promotion = Promotion::of(data);
        assert!(!promotion.is_due().unwrap());
        fs::write(data.join(PID_FILE), "1\n2\n3\n4\n5\n6\n7\nstarting\n").unwrap();
        assert!(promotion.is_due().unwrap() && data.join(ASKS).exists());
        assert!(promotion.is_due().unwrap());
        fs::remove_file(data.join(ASKS)).unwrap();
        assert!(!promotion.is_due().unwrap());
        // Asked once, it is not asked again.
        assert!(!promotion.is_due().unwrap() && !data.join(ASKS).exists());
    }
}
