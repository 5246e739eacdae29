//! What may be promised of a place: not what it says of itself, but what it was seen to refuse.
//!
//! A probe object is stored and locked, and then everything is tried that would take it away before its
//! time. A refusal counts only where the same key is seen to be able to do the same to something that is
//! not locked: a key without the right to delete is refused by its policy, which proves nothing of locks.

mod bucket;
mod directory;

use holdfast_core::{Check, CheckOutcome, Timestamp};
use serde::{Deserialize, Serialize};

use super::s3::CredentialSource;
use super::{Location, ObjectError, Promise};

/// What was tried at a place, and what may be said of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetReport {
    /// The place.
    pub place: String,
    /// When, by the clock of the storage.
    pub at: Timestamp,
    /// What was tried, in order.
    pub checks: Vec<Check>,
    /// What may be said of locked objects.
    #[serde(flatten)]
    pub promise: Promise,
}

impl TargetReport {
    /// Returns the checks that found something wrong.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        let failed = |check: &&Check| check.outcome == CheckOutcome::Failed;
        self.checks.iter().filter(failed)
    }
}

/// Tries what the place refuses. Blocks for some seconds; a bucket keeps some small objects below
/// `holdfast-probe/` until their locks end.
///
/// `strong` is a key that may delete, to be tried beside the vault's own, which should not be able to.
///
/// # Errors
/// [`ObjectError`] when the place cannot be asked; what it refuses or lets happen is in the report.
pub fn probe(
    location: &Location,
    strong: Option<&CredentialSource>,
) -> Result<TargetReport, ObjectError> {
    match location {
        Location::Directory(root) => directory::probe(root),
        Location::S3(location) => bucket::probe(location, strong),
    }
}

/// What is known so far.
#[derive(Debug, Default)]
struct Findings {
    checks: Vec<Check>,
}

impl Findings {
    fn note(&mut self, name: &str, outcome: CheckOutcome, detail: impl Into<String>) {
        self.checks.push(Check {
            name: name.to_owned(),
            outcome,
            detail: detail.into(),
        });
    }

    /// Notes whether something is as it has to be.
    fn is(&mut self, name: &str, found: Result<String, String>) {
        match found {
            Ok(detail) => self.note(name, CheckOutcome::Passed, detail),
            Err(detail) => self.note(name, CheckOutcome::Failed, detail),
        }
    }

    /// Returns what is wrong first, or nothing.
    fn worst(&self) -> Option<String> {
        let mut failed = self.checks.iter();
        let failed = failed.find(|check| check.outcome == CheckOutcome::Failed)?;
        Some(format!("{}: {}", failed.name, failed.detail))
    }
}
