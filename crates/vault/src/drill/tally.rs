//! How far one kind of check came, and what it found.

use std::time::Duration;

use holdfast_core::{Check, CheckOutcome, ErrorChain, Untrusted};

use crate::limits;
use crate::source::SourceError;

/// How far one kind of check came.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) done: u64,
    /// What the time did not reach.
    pub(super) left: u64,
    findings: Vec<String>,
    more_findings: u64,
    /// Why it could not be done at all, somewhere.
    pub(super) missing: Option<String>,
    /// Who did it, when that is not the drill itself.
    pub(super) by: Option<String>,
}

impl Tally {
    /// Notes something that is wrong.
    pub(super) fn find(&mut self, finding: String) {
        if self.findings.len() < limits::DRILL_FINDINGS {
            self.findings.push(finding);
        } else {
            self.more_findings = self.more_findings.saturating_add(1);
        }
    }

    /// Notes that a question failed; a lost connection ends the whole database.
    pub(super) fn note(&mut self, name: &str, error: &SourceError) -> Result<(), SourceError> {
        match verdict(error) {
            Answer::Late => self.left = self.left.saturating_add(1),
            Answer::Short => self.missing = Some(short(error)),
            Answer::Wrong => self.find(format!("{}: {}", Untrusted(name), ErrorChain(error))),
        }
        match error {
            SourceError::Refused { .. } => Ok(()),
            _ => Err(SourceError::nonsense(
                "ask the restored server",
                "the server closed the connection",
            )),
        }
    }

    pub(super) fn into_check(self, name: &str) -> Check {
        let mut numbers = format!("{} checked", self.done);
        if let Some(by) = &self.by {
            numbers = format!("{numbers} by {by}");
        }
        if self.left > 0 {
            numbers = format!("{numbers}, {} not for want of time", self.left);
        }
        if !self.findings.is_empty() {
            let mut text = self.findings.join("; ");
            if self.more_findings > 0 {
                text = format!("{text}; and {} more", self.more_findings);
            }
            return check(name, CheckOutcome::Failed, format!("{text} ({numbers})"));
        }
        match (self.done, self.left, self.missing) {
            (_, _, Some(why)) => check(name, CheckOutcome::NotRun, format!("{why} ({numbers})")),
            (0, _, None) | (_, 1.., None) => check(name, CheckOutcome::NotRun, numbers),
            (_, 0, None) => check(name, CheckOutcome::Passed, numbers),
        }
    }
}

/// What an error of a question says about the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing: we ourselves gave it no more time.
    Late,
    /// Nothing: this machine has not enough of something.
    Short,
    /// Something is wrong with it.
    Wrong,
}

/// Tells what an error says about the point.
///
/// SOURCE: PostgreSQL 18, appendix A: 57014 is a statement that was cancelled, class 53 is want of disk,
/// memory or connections.
pub(super) fn verdict(error: &SourceError) -> Answer {
    match error.sqlstate() {
        Some("57014") => Answer::Late,
        Some(state) if state.starts_with("53") => Answer::Short,
        _ => Answer::Wrong,
    }
}

/// Says that this machine has not enough of something.
pub(super) fn short(error: &SourceError) -> String {
    format!("this machine has too little: {}", ErrorChain(error))
}

/// Says that a check was not reached.
pub(super) fn late(name: &str, budget: Duration) -> Check {
    let detail = format!("the time was up ({} s)", budget.as_secs());
    check(name, CheckOutcome::NotRun, detail)
}

/// Makes the result of a check.
pub(super) fn check(name: &str, outcome: CheckOutcome, detail: impl Into<String>) -> Check {
    Check {
        name: name.to_owned(),
        outcome,
        detail: detail.into(),
    }
}
