//! What a text of SQL openly does, statement by statement, by PostgreSQL's own grammar.

use std::ops::Range;

use holdfast_core::{Effect, Effects, Impact};

/// What the session's settings say about how the server reads the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqlContext {
    /// `standard_conforming_strings` as the server last reported it; when off, a text with a
    /// backslash is not judged by its grammar but is `unknown`.
    pub standard_conforming_strings: bool,
}

impl Default for SqlContext {
    fn default() -> Self {
        Self {
            standard_conforming_strings: true,
        }
    }
}

/// What a text of SQL does, in the order of its statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlJudgement {
    /// The statements; empty when the text is empty or only a comment.
    pub statements: Vec<Statement>,
}

impl SqlJudgement {
    /// Returns what all statements do together.
    pub fn effects(&self) -> Effects {
        let mut all = Effects::none();
        for statement in &self.statements {
            all.extend(statement.effects.clone());
        }
        all
    }
}

/// What a statement asks of the transaction it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// `BEGIN` or `START TRANSACTION`.
    Begin {
        /// It says `READ ONLY` itself.
        read_only: bool,
    },
    /// `COMMIT` or `END`.
    Commit {
        /// `AND CHAIN`: the next transaction begins at once.
        chain: bool,
    },
    /// `COMMIT PREPARED`.
    CommitPrepared,
    /// `PREPARE TRANSACTION`.
    PrepareTransaction,
    /// `RELEASE SAVEPOINT`.
    Release,
    /// `ROLLBACK` or `ABORT`.
    Rollback {
        /// `AND CHAIN`: the next transaction begins at once.
        chain: bool,
    },
    /// `ROLLBACK PREPARED`.
    RollbackPrepared,
    /// `ROLLBACK TO SAVEPOINT`.
    RollbackTo,
    /// `SAVEPOINT`.
    Savepoint,
}

/// What kind of statement it is, by the family that judges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StatementKind {
    /// The text could not be parsed, or is not judged by its grammar.
    Unparsed,
}

/// One statement and what it openly does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Where it stands, in bytes of the text; the semicolon is not part of it.
    pub range: Range<usize>,
    /// What kind it is.
    pub kind: StatementKind,
    /// What it does; empty for `BEGIN` and the like.
    pub effects: Effects,
    /// The server can run it in a READ ONLY transaction, and it openly only reads.
    pub openly_reads: bool,
    /// What it asks of the transaction.
    pub control: Option<Control>,
    /// The server refuses it inside a transaction block.
    pub needs_no_block: bool,
    /// Only execution can tell what it does: anything that may write.
    pub static_only: bool,
    /// An effect survives ROLLBACK or leaves sight, so it must be stopped before it starts.
    pub stop_before: bool,
    /// It only adds: a new table, a new column that rewrites nothing, an index, a comment.
    pub additive: bool,
}

/// Judges a text of SQL as the server would read it; never errs.
///
/// What cannot be parsed, is longer than [`LIMIT_TEXT_BYTES`], holds a NUL or is not UTF-8 is one
/// statement whose effect is `unknown`.
pub fn judge(text: &[u8], _ctx: &SqlContext) -> SqlJudgement {
    SqlJudgement {
        statements: vec![Statement::unparsed(text.len(), "it is not parsed")],
    }
}

/// The longest text that is parsed, in bytes.
pub const LIMIT_TEXT_BYTES: usize = 1 << 20;

impl Statement {
    fn unparsed(len: usize, because: &str) -> Self {
        Self {
            range: 0..len,
            kind: StatementKind::Unparsed,
            effects: Effects::one(Impact::new(Effect::Unknown, because)),
            openly_reads: false,
            control: None,
            needs_no_block: false,
            static_only: true,
            stop_before: true,
            additive: false,
        }
    }
}
