//! What a text of SQL openly does, statement by statement, by PostgreSQL's own grammar.

mod alter;
mod alter_table;
mod body;
mod copy;
mod create;
mod database;
mod dispatch;
mod drop;
mod foreign;
mod found;
mod functions;
mod gathered;
mod inner;
mod maintenance;
mod modify;
mod name;
mod prepare;
mod replication;
mod role;
mod routine;
mod select;
mod session;
mod settings;
#[cfg(test)]
mod tests;
mod transaction;
mod trigger;
mod walk;

use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use holdfast_core::{Effect, Effects, Impact};
use pg_raw_parse::nodes::RawStmt;

use found::Found;
use gathered::Gathered;

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
    /// Returns what all statements do together, one impact for each effect and reason.
    pub fn effects(&self) -> Effects {
        let mut all = Gathered::default();
        for statement in &self.statements {
            for impact in statement.effects.impacts() {
                all.add(impact.clone());
            }
        }
        all.finish()
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
    /// `ALTER` of what is no table, `RENAME`, `SET SCHEMA`, `OWNER TO`.
    Alter,
    /// `ALTER TABLE` and its likes.
    AlterTable,
    /// `CALL`.
    Call,
    /// `COMMENT`.
    Comment,
    /// `SET CONSTRAINTS`.
    Constraints,
    /// `COPY`.
    Copy,
    /// `CREATE` of a table, view, type or something else that only adds.
    Create,
    /// `DECLARE`, `FETCH`, `MOVE`, `CLOSE`.
    Cursor,
    /// Databases and tablespaces.
    Database,
    /// `DEALLOCATE`.
    Deallocate,
    /// `DELETE`.
    Delete,
    /// `DISCARD`.
    Discard,
    /// `DO`.
    Do,
    /// `DROP`.
    Drop,
    /// `EXECUTE`.
    Execute,
    /// `EXPLAIN`.
    Explain,
    /// Extensions, foreign servers and tables.
    Foreign,
    /// `CREATE INDEX`.
    Index,
    /// `INSERT`.
    Insert,
    /// `LISTEN` and `UNLISTEN`.
    Listen,
    /// `LOAD`.
    Load,
    /// `LOCK TABLE`.
    Lock,
    /// `VACUUM`, `ANALYZE`, `CLUSTER`, `REINDEX`, `REFRESH`, `CHECKPOINT`.
    Maintenance,
    /// `MERGE`.
    Merge,
    /// `NOTIFY`.
    Notify,
    /// `PREPARE`.
    Prepare,
    /// Publications and subscriptions.
    Replication,
    /// Roles, rights and security labels.
    Role,
    /// Functions, procedures and languages.
    Routine,
    /// `SELECT`, `VALUES`, `TABLE`.
    Select,
    /// `SET` and `RESET`.
    Set,
    /// `SHOW`.
    Show,
    /// `ALTER SYSTEM`.
    System,
    /// `BEGIN`, `COMMIT` and the like.
    Transaction,
    /// Triggers, rules and row security policies.
    Trigger,
    /// `TRUNCATE`.
    Truncate,
    /// It parses, but is of no family that is known here.
    Unknown,
    /// The text could not be parsed, or is not judged by its grammar.
    Unparsed,
    /// `UPDATE`.
    Update,
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
    /// The name of the prepared transaction that it makes or ends.
    pub prepared: Option<String>,
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
pub fn judge(text: &[u8], ctx: &SqlContext) -> SqlJudgement {
    judge_at(text, ctx, 0)
}

/// The longest text that is parsed, in bytes.
pub const LIMIT_TEXT_BYTES: usize = 1 << 20;

/// The most statements of one text that are judged one by one.
const LIMIT_STATEMENTS: usize = 20_000;

/// Judges a text that stands inside `depth` others.
fn judge_at(text: &[u8], ctx: &SqlContext, depth: usize) -> SqlJudgement {
    let statements = match readable(text, ctx) {
        // The parser's binding answers some impossible shapes with a panic; they are unknown.
        Ok(sql) => catch_unwind(AssertUnwindSafe(|| parsed(sql, depth)))
            .unwrap_or_else(|_| vec![Statement::unparsed(text.len(), "the parser gave up")]),
        Err(because) => vec![Statement::unparsed(text.len(), because)],
    };
    SqlJudgement { statements }
}

/// Refuses what the server might read otherwise than the parser does.
fn readable<'t>(text: &'t [u8], ctx: &SqlContext) -> Result<&'t str, &'static str> {
    if text.len() > LIMIT_TEXT_BYTES {
        return Err("it is too long to be parsed");
    }
    if text.contains(&0) {
        return Err("it holds a NUL");
    }
    if !ctx.standard_conforming_strings && text.contains(&b'\\') {
        return Err("it holds a backslash while standard_conforming_strings is off");
    }
    std::str::from_utf8(text).map_err(|_| "it is not UTF-8")
}

fn parsed(sql: &str, depth: usize) -> Vec<Statement> {
    let tree = match pg_raw_parse::parse(sql) {
        Ok(tree) => tree,
        Err(_) => return vec![Statement::unparsed(sql.len(), "it does not parse")],
    };
    if tree.len() > LIMIT_STATEMENTS {
        return vec![Statement::unparsed(sql.len(), "it has too many statements")];
    }
    let mut made = BTreeSet::new();
    tree.iter()
        .map(|raw| statement(sql, raw, depth, &mut made))
        .collect()
}

fn statement(sql: &str, raw: &RawStmt, depth: usize, made: &mut BTreeSet<String>) -> Statement {
    let range = range(sql, raw);
    let kind = dispatch::kind(raw.stmt());
    let mut found = Found::new(kind, Some(made), depth);
    found.allowance = inner::allowance(range.len());
    found.visit(raw.stmt());
    while let Some(node) = found.next() {
        dispatch::judge(node, &mut found);
    }
    let kind = found.kind;
    let control = found.control;
    let prepared = found.prepared.take();
    let needs_no_block = found.needs_no_block;
    let (outcome, new) = found.finish();
    match kind {
        StatementKind::Create | StatementKind::Index | StatementKind::Comment => made.extend(new),
        StatementKind::AlterTable | StatementKind::Insert | StatementKind::Select => {}
        // The same name may mean another table from here on.
        _ => made.clear(),
    }
    Statement {
        range,
        kind,
        effects: outcome.effects,
        openly_reads: outcome.openly_reads,
        control,
        prepared,
        needs_no_block,
        static_only: outcome.static_only,
        stop_before: outcome.stop_before,
        additive: outcome.additive,
    }
}

/// Where the statement stands, without the blanks around it.
fn range(sql: &str, raw: &RawStmt) -> Range<usize> {
    let start = usize::try_from(raw.stmt_location).unwrap_or(0);
    let len = usize::try_from(raw.stmt_len).unwrap_or(0);
    let end = match len {
        0 => sql.len(),
        len => start.saturating_add(len).min(sql.len()),
    };
    let text = sql.get(start..end).unwrap_or_default();
    let blanks = text.len().saturating_sub(text.trim_start().len());
    let start = start.saturating_add(blanks);
    start..start.saturating_add(text.trim().len())
}

impl Statement {
    fn unparsed(len: usize, because: &str) -> Self {
        Self {
            range: 0..len,
            kind: StatementKind::Unparsed,
            effects: Effects::one(Impact::new(Effect::Unknown, because)),
            openly_reads: false,
            control: None,
            prepared: None,
            needs_no_block: false,
            static_only: true,
            stop_before: true,
            additive: false,
        }
    }
}
