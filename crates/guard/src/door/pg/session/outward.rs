//! What no ROLLBACK takes back and no gate sees: numbers of sequences, and ways out of the database.

use std::sync::Arc;

use holdfast_judge::sql::{Statement, StatementKind};

use super::super::measured::{Hidden, hidden};
use super::Session;
use super::plan::{Item, Ran};

impl Session {
    /// Something is about to run that may hide a `setval`.
    pub(super) fn needs_sample(&self, item: &Item) -> bool {
        let Item::Run { ran, .. } = item else {
            return false;
        };
        let least = match self.has_code {
            true => Hidden::Behind,
            false => Hidden::Called,
        };
        let hides = |ran: &Ran| {
            ran.known.is_none() || ran.statements().iter().any(|one| hidden(one) >= least)
        };
        self.sample.is_none() && ran.iter().any(hides)
    }

    /// Notes that the session makes functions.
    pub(super) fn note_code(&mut self, ran: &[Ran]) {
        let makes = |one: &Statement| {
            matches!(one.kind, StatementKind::Routine | StatementKind::Do)
                || one.kind == StatementKind::Execute
        };
        self.has_code |= ran.iter().any(|ran| ran.statements().iter().any(makes));
    }

    /// Looks after a transaction that went past the gate whether a sequence was set.
    pub(super) fn mend(&mut self) {
        let Some(sample) = self.sample.take().filter(|sample| !sample.is_empty()) else {
            return;
        };
        let (source, database) = (Arc::clone(&self.source), self.database.clone());
        tokio::spawn(async move {
            if let Err(why) = source.control.mend(&database, &sample, &[]).await {
                tracing::warn!(%why, "whether a sequence was set cannot be told");
            }
        });
    }

    /// Code whose text does not tell what it calls, where the lease has a way out of the database.
    pub(super) fn may_leave(&self, ran: &Ran, statement: &Statement) -> bool {
        if !self.leads_out {
            return false;
        }
        let known = ran.known.as_ref();
        let text = known.and_then(|known| known.text.get(statement.range.clone()));
        let text = String::from_utf8_lossy(text.unwrap_or_default()).to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let is_code = matches!(statement.kind, StatementKind::Do | StatementKind::Routine);
        has(RUN_TEXT) || is_code && has(DYNAMIC)
    }

    /// One of the statements has to be decided, because it may leave the database.
    pub(super) fn leaves(&self, ran: &[Ran]) -> bool {
        ran.iter().any(|ran| {
            let mut statements = ran.statements().iter();
            statements.any(|one| self.may_leave(ran, one))
        })
    }
}

/// Functions that run SQL which they are given as text.
const RUN_TEXT: &[&str] = &[
    "connectby",
    "crosstab",
    "cursor_to_xml",
    "query_to_xml",
    "ts_rewrite",
    "ts_stat",
    "xpath_table",
];

/// What stands in code that calls such a way out, or builds the call from pieces.
const DYNAMIC: &[&str] = &[
    "dblink",
    "execute",
    "http",
    "lo_export",
    "pg_background",
    "pg_read",
    "u&",
];
