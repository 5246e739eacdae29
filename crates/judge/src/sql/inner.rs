//! SQL inside of SQL: texts that functions run, and statements in the bodies of code blocks.
//!
//! What is seen here is only ever added: a text can be built from pieces, so whoever runs one is
//! also judged by what it does when it runs.

use holdfast_core::Effect;

use super::found::Found;
use super::{SqlContext, StatementKind, judge_at};

/// Judges a text of SQL that runs inside of a statement, and answers whether it parsed.
pub(super) fn statements(text: &str, found: &mut Found<'_>) -> bool {
    if found.depth >= LIMIT_DEPTH {
        return false;
    }
    let Some(left) = found.allowance.checked_sub(text.len()) else {
        let because = "it holds more code than is looked at";
        found.does_unnamed(Effect::Unknown, because);
        found.allowance = 0;
        return true;
    };
    found.allowance = left;
    let depth = found.depth.saturating_add(1);
    let judgement = judge_at(text.as_bytes(), &SqlContext::default(), depth);
    let mut parsed = true;
    for statement in &judgement.statements {
        match statement.kind {
            StatementKind::Unparsed => parsed = false,
            _ => found.takes_over(statement),
        }
    }
    parsed
}

/// Returns how many bytes of inner texts are parsed for a statement of `len` bytes.
///
/// A text is seldom looked at twice; without a limit a crafted one could be looked at thousands of
/// times.
pub(super) fn allowance(len: usize) -> usize {
    len.saturating_mul(4).saturating_add(4 << 10)
}

/// Tells whether a text begins as a statement does.
pub(super) fn looks_like_sql(text: &str) -> bool {
    let word: String = text
        .trim_start()
        .chars()
        .take_while(char::is_ascii_alphabetic)
        .take(LIMIT_WORD)
        .collect();
    is_first(&word.to_ascii_lowercase())
}

/// Tells whether a word in lower case can begin a statement.
pub(super) fn is_first(word: &str) -> bool {
    FIRST.contains(&word)
}

/// How many texts may lie inside each other; a deeper one is judged when it runs.
const LIMIT_DEPTH: usize = 3;
const LIMIT_WORD: usize = 12;
const FIRST: &[&str] = &[
    "alter",
    "analyze",
    "call",
    "checkpoint",
    "cluster",
    "comment",
    "copy",
    "create",
    "delete",
    "do",
    "drop",
    "explain",
    "grant",
    "import",
    "insert",
    "load",
    "lock",
    "merge",
    "notify",
    "reassign",
    "refresh",
    "reindex",
    "reset",
    "revoke",
    "security",
    "select",
    "set",
    "table",
    "truncate",
    "update",
    "vacuum",
    "values",
    "with",
];
