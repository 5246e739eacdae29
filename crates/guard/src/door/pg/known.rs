//! Texts of SQL and what is known about them, kept by text and bounded by bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use holdfast_core::Effect;
use holdfast_judge::sql::{Control, SqlContext, SqlJudgement, Statement, StatementKind, judge};

use crate::limits::PG_VERDICTS_BYTES_MAX;

/// A text with its judgement.
#[derive(Debug)]
pub(super) struct Known {
    /// The text as the client sent it.
    pub text: Bytes,
    /// What it openly does.
    pub judgement: SqlJudgement,
}

/// How a statement is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// It controls the transaction.
    Control(Control),
    /// It reads, or changes the session only: it may run read only.
    Reads,
    /// It must be decided before it starts.
    Stops,
    /// It could not be parsed: the server is asked whether it can.
    Unparsed,
    /// It may write: what it did is measured before it is committed.
    Writes,
}

impl Known {
    /// Tells how a statement of a text is let through.
    pub(super) fn class(statement: &Statement) -> Class {
        if let Some(control) = statement.control {
            return match control {
                Control::Savepoint | Control::Release | Control::RollbackTo => Class::Writes,
                Control::Begin { .. }
                | Control::Commit { .. }
                | Control::CommitPrepared
                | Control::PrepareTransaction
                | Control::Rollback { .. }
                | Control::RollbackPrepared => Class::Control(control),
            };
        }
        let effects = &statement.effects;
        let beyond = effects.contains(Effect::Disarm) || effects.contains(Effect::Escape);
        if statement.kind == StatementKind::Unparsed {
            Class::Unparsed
        } else if statement.stop_before || beyond || statement.needs_no_block {
            Class::Stops
        } else if statement.openly_reads {
            Class::Reads
        } else {
            Class::Writes
        }
    }

    /// Tells whether all statements may run read only.
    pub(super) fn all_read(&self) -> bool {
        let mut statements = self.judgement.statements.iter();
        statements.all(|statement| Self::class(statement) == Class::Reads)
    }

    /// Returns the only statement, if there is only one.
    pub(super) fn only(&self) -> Option<&Statement> {
        match self.judgement.statements.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }
}

/// The texts that were judged lately, for all sessions.
#[derive(Default)]
pub(super) struct Verdicts {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_text: HashMap<(bool, Bytes), Arc<Known>>,
    bytes: usize,
}

/// What one kept judgement costs besides its text, in bytes; measured shapes are smaller.
const ENTRY_BYTES: usize = 1_024;

/// Longer texts are rarely sent twice, and one of them would push out many short ones.
const LIMIT_KEPT_TEXT_BYTES: usize = 64 << 10;

impl Verdicts {
    /// Judges a text, or returns what is known of it.
    pub(super) fn judge(&self, text: Bytes, context: SqlContext) -> Arc<Known> {
        let key = (context.standard_conforming_strings, text);
        if let Some(known) = self.lock().by_text.get(&key) {
            return Arc::clone(known);
        }
        // A copy of its own, so that a short text does not keep a large buffer alive.
        let text = Bytes::copy_from_slice(&key.1);
        let known = Arc::new(Known {
            judgement: judge(&text, &context),
            text: text.clone(),
        });
        if text.len() <= LIMIT_KEPT_TEXT_BYTES {
            let cost = text.len().saturating_add(ENTRY_BYTES);
            let mut kept = self.lock();
            if kept.bytes.saturating_add(cost) > PG_VERDICTS_BYTES_MAX {
                kept.by_text.clear();
                kept.bytes = 0;
            }
            kept.bytes = kept.bytes.saturating_add(cost);
            kept.by_text.insert((key.0, text), Arc::clone(&known));
        }
        known
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
