//! SQL inside of SQL: texts that functions run, and the bodies of code blocks.
//!
//! What is seen here is only ever added: a body can build its statements from pieces, so whoever
//! holds it is judged by what it does when it runs.

use super::SqlContext;
use super::found::Found;

/// Judges a text of SQL that a function is given.
pub(super) fn statements(text: &str, found: &mut Found<'_>) {
    if found.depth >= LIMIT_DEPTH {
        return;
    }
    let ctx = SqlContext::default();
    for statement in
        &super::judge_at(text.as_bytes(), &ctx, found.depth.saturating_add(1)).statements
    {
        if statement.kind != super::StatementKind::Unparsed {
            found.takes_over(statement);
        }
    }
}

/// Judges the statements that can be seen in the body of a code block.
pub(super) fn body(text: &str, found: &mut Found<'_>) {
    statements(text, found);
}

/// Tells whether a text begins as a statement does.
pub(super) fn looks_like_sql(text: &str) -> bool {
    let word: String = text
        .trim_start()
        .chars()
        .take_while(char::is_ascii_alphabetic)
        .take(LIMIT_WORD)
        .collect();
    let word = word.to_ascii_lowercase();
    FIRST.contains(&word.as_str())
}

const LIMIT_DEPTH: usize = 4;
const LIMIT_WORD: usize = 12;
const FIRST: &[&str] = &[
    "alter", "analyze", "call", "cluster", "comment", "copy", "create", "delete", "do", "drop",
    "execute", "grant", "import", "insert", "load", "lock", "merge", "notify", "reassign",
    "refresh", "reindex", "reset", "revoke", "select", "set", "table", "truncate", "update",
    "vacuum", "values", "with",
];
