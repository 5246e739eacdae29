//! The body of a code block in PL/pgSQL: the statements that can be seen in it.
//!
//! This is no parser of PL/pgSQL. It cuts the body into words, takes what begins like a statement
//! up to its semicolon, and asks the parser; what it misses is measured when the block runs.

mod words;

use super::found::Found;
use super::{functions, inner};
use words::{Word, words};

/// Judges what can be seen in the body of a code block.
pub(super) fn judge(text: &str, found: &mut Found<'_>) {
    let words = words(text);
    let dynamic = words.iter().any(|word| word.is("execute"));
    let mut before: Option<&Word<'_>> = None;
    let mut raises = false;
    for (index, word) in words.iter().enumerate() {
        if found.allowance == 0 {
            return;
        }
        let next = words.get(index.saturating_add(1));
        match word {
            Word::Name { text: name, .. } => {
                raises = match begins(before) {
                    true => word.is("raise"),
                    false => raises,
                };
                if next.is_some_and(|next| next.is_mark('(')) {
                    functions::named(name, found);
                }
                if starts_statement(word, before) {
                    let rest = words.get(index..).unwrap_or_default();
                    fragment(text, rest, found);
                }
            }
            Word::Text { value, .. } if dynamic && !raises => literal(value, found),
            Word::Text { .. } | Word::Mark { .. } => {}
        }
        before = Some(word);
    }
}

/// After these a new statement of the block begins.
fn begins(before: Option<&Word<'_>>) -> bool {
    before.is_none_or(|word| {
        word.is_mark(';')
            || word.is_mark('>')
            || ["begin", "then", "else", "loop"].iter().any(|x| word.is(x))
    })
}

fn starts_statement(word: &Word<'_>, before: Option<&Word<'_>>) -> bool {
    let Word::Name { text, .. } = word else {
        return false;
    };
    let text = text.to_ascii_lowercase();
    let nested = before.is_some_and(|before| {
        ["in", "query", "for", "execute"]
            .iter()
            .any(|x| before.is(x))
            || before.is_mark('=')
    });
    (inner::is_first(&text) || text == "perform") && (begins(before) || nested)
}

/// Judges the text from the first of `words` to its semicolon, or to `LOOP` of a `FOR`.
fn fragment(text: &str, words: &[Word<'_>], found: &mut Found<'_>) {
    let Some(first) = words.first() else {
        return;
    };
    let end = words
        .iter()
        .find(|word| word.is_mark(';') || word.is("loop"))
        .map_or(text.len(), Word::start);
    let statement = text.get(first.start()..end).unwrap_or_default();
    if first.is("perform") {
        let rest = text.get(first.end()..end).unwrap_or_default();
        inner::statements(&format!("SELECT {rest}"), found);
    } else if !inner::statements(statement, found) {
        without_into(text, words, end, found);
    }
}

/// `RETURNING id INTO x` is of PL/pgSQL, not of SQL: the statement is asked for without its end.
fn without_into(text: &str, words: &[Word<'_>], end: usize, found: &mut Found<'_>) {
    let Some(first) = words.first() else {
        return;
    };
    let into = words
        .iter()
        .take_while(|word| word.start() < end)
        .skip_while(|word| !word.is("returning"))
        .find(|word| word.is("into"));
    if let Some(into) = into {
        let statement = text.get(first.start()..into.start()).unwrap_or_default();
        inner::statements(statement, found);
    }
}

/// Judges a literal that `EXECUTE` may run: as it stands, filled in as by `format`, or continued.
fn literal(value: &str, found: &mut Found<'_>) {
    if !inner::looks_like_sql(value) {
        return;
    }
    let filled = value
        .replace("%I", "x")
        .replace("%s", "x")
        .replace("%L", "'x'");
    let _parsed = inner::statements(&filled, found)
        || inner::statements(&format!("{filled} x"), found)
        || inner::statements(&format!("{filled} x\""), found)
        || inner::statements(&format!("{filled}'"), found);
}
