//! Texts of SQL and what is known about them, kept by text and bounded by bytes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use holdfast_core::Effect;
use holdfast_judge::sql::{Control, SqlContext, SqlJudgement, Statement, StatementKind, judge};

use super::shape::shape;
use crate::limits::PG_VERDICTS_BYTES_MAX;

/// A text with its judgement.
#[derive(Debug)]
pub(super) struct Known {
    /// The text as the client sent it.
    pub text: Bytes,
    /// What it openly does.
    pub judgement: SqlJudgement,
    /// All statements may run read only.
    pub all_read: bool,
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

    fn new(text: &[u8], context: SqlContext) -> Self {
        let judgement = judge(text, &context);
        let mut statements = judgement.statements.iter();
        let all_read = statements.all(|statement| Self::class(statement) == Class::Reads);
        Self {
            // A copy of its own, so that a short text does not keep a large buffer alive.
            text: Bytes::copy_from_slice(text),
            judgement,
            all_read,
        }
    }

    /// Answers whether the judgement is the same for every text of this shape: one that selects, and
    /// of whose numbers nothing stands in what it reads.
    fn is_of_its_shape(&self) -> bool {
        let Some(only) = self.only().filter(|_| self.all_read) else {
            return false;
        };
        let said = format!("{:?}", only.effects);
        let text = String::from_utf8_lossy(&self.text).into_owned();
        let mut numbers = text
            .split(|letter: char| !letter.is_ascii_digit())
            .filter(|number| !number.is_empty());
        only.kind == StatementKind::Select && numbers.all(|number| !said.contains(number))
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
    /// Texts that only read, by their shape where numbers do not matter and by themselves otherwise;
    /// one map for each way to read strings.
    reads: [HashMap<Bytes, Arc<Known>>; 2],
    bytes: usize,
}

/// What one kept judgement costs besides its text, in bytes; measured shapes are smaller.
const ENTRY_BYTES: usize = 1_024;

/// Longer texts are rarely sent twice, and one of them would push out many short ones.
const LIMIT_KEPT_TEXT_BYTES: usize = 64 << 10;

thread_local! {
    static SHAPE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Verdicts {
    /// Judges a text, or returns what is known of it.
    pub(super) fn judge(&self, text: &[u8], context: SqlContext) -> Arc<Known> {
        let key = (
            context.standard_conforming_strings,
            Bytes::copy_from_slice(text),
        );
        if let Some(known) = self.lock().by_text.get(&key) {
            return Arc::clone(known);
        }
        let known = Arc::new(Known::new(text, context));
        if text.len() <= LIMIT_KEPT_TEXT_BYTES {
            let mut kept = self.lock();
            kept.make_room(text.len());
            let key = (key.0, known.text.clone());
            kept.by_text.insert(key, Arc::clone(&known));
        }
        known
    }

    /// Returns what is known of a text that only reads, or of one that differs from it in nothing but
    /// numbers; `None` when it may do something else.
    pub(super) fn reads(&self, text: &[u8], context: SqlContext) -> Option<Arc<Known>> {
        if text.len() > LIMIT_KEPT_TEXT_BYTES {
            let known = self.judge(text, context);
            return known.all_read.then_some(known);
        }
        SHAPE.with_borrow_mut(|shaped| {
            let has_shape = shape(text, shaped);
            let key = if has_shape { &shaped[..] } else { text };
            let way = usize::from(context.standard_conforming_strings);
            let known = self
                .lock()
                .reads
                .get(way)
                .and_then(|one| one.get(key).cloned());
            if known.is_some() {
                return known;
            }
            if has_shape {
                let known = Arc::new(Known::new(text, context));
                if known.is_of_its_shape() {
                    self.lock().keep_read(way, key, &known);
                    return Some(known);
                }
            }
            let known = self.judge(text, context);
            if known.all_read && !has_shape {
                self.lock().keep_read(way, text, &known);
            }
            known.all_read.then_some(known)
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn keep_read(&mut self, way: usize, key: &[u8], known: &Arc<Known>) {
        self.make_room(key.len());
        if let Some(reads) = self.reads.get_mut(way) {
            reads.insert(Bytes::copy_from_slice(key), Arc::clone(known));
        }
    }

    /// Forgets everything when one more would be too much.
    fn make_room(&mut self, text_bytes: usize) {
        let cost = text_bytes.saturating_add(ENTRY_BYTES);
        if self.bytes.saturating_add(cost) > PG_VERDICTS_BYTES_MAX {
            *self = Self::default();
        }
        self.bytes = self.bytes.saturating_add(cost);
    }
}
