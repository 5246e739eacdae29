//! A log that is damaged where it is kept: what lies behind is restored only from a new base.

use std::time::Instant;

use holdfast_core::Lsn;

use super::{Capture, CaptureError};
use crate::limits;
use crate::status::ProofStatus;

impl Capture {
    /// Notes that what was taken in as log cannot be read from a position on.
    pub(super) fn damaged(&self, at: Lsn) {
        {
            let mut facts = self.standing.facts();
            let before = facts.damaged_at.unwrap_or_default();
            facts.damaged_at = Some(before.max(at));
        }
        self.links.base.notify_one();
    }

    /// Treats damage as the end of what is continued, so that a new base is taken behind it.
    ///
    /// A source that damages its log again and again is told of, and gets a new base now and then.
    pub(super) fn heal(&self) -> Result<(), CaptureError> {
        let at = {
            let facts = self.standing.facts();
            let is_time = facts
                .healed
                .is_none_or(|healed| healed.elapsed() >= limits::HEAL_EVERY);
            facts.damaged_at.filter(|_| is_time)
        };
        let Some(at) = at else {
            return Ok(());
        };
        self.spool.keep_unbroken_from(at)?;
        {
            let mut facts = self.standing.facts();
            facts.damaged_at = None;
            facts.healed = Some(Instant::now());
            facts.log_from = facts.log_from.max(at);
            facts.point = None;
            facts.proof = None;
            facts.proof_status = ProofStatus::default();
        }
        self.note("source.log_damaged", |draft| {
            draft.with("at", at.to_string())
        });
        Ok(())
    }
}
