//! The words of a text of PL/pgSQL, by the lexical rules of PostgreSQL.
//!
//! # Source
//! <https://www.postgresql.org/docs/18/sql-syntax-lexical.html>

/// One word with where it begins and ends, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word<'t> {
    /// A single character that is no part of a name.
    Mark { mark: char, at: usize },
    /// A name or keyword, with dots inside of it when they follow at once.
    Name {
        text: &'t str,
        start: usize,
        end: usize,
    },
    /// A string constant, without its quotes.
    Text {
        value: String,
        start: usize,
        end: usize,
    },
}

impl Word<'_> {
    /// Tells whether it is this keyword.
    pub(super) fn is(&self, keyword: &str) -> bool {
        matches!(self, Word::Name { text, .. } if text.eq_ignore_ascii_case(keyword))
    }

    /// Tells whether it is this character.
    pub(super) fn is_mark(&self, expected: char) -> bool {
        matches!(self, Word::Mark { mark, .. } if *mark == expected)
    }

    /// Where it begins.
    pub(super) fn start(&self) -> usize {
        match self {
            Word::Mark { at, .. } => *at,
            Word::Name { start, .. } | Word::Text { start, .. } => *start,
        }
    }

    /// Where it ends.
    pub(super) fn end(&self) -> usize {
        match self {
            Word::Mark { mark, at } => at.saturating_add(mark.len_utf8()),
            Word::Name { end, .. } | Word::Text { end, .. } => *end,
        }
    }
}

/// Cuts a text into its words; comments and blanks are left out.
pub(super) fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..)
        && let Some(first) = rest.chars().next()
    {
        let escapes =
            matches!(first, 'e' | 'E') && rest.get(1..).is_some_and(|x| x.starts_with('\''));
        let len = if first.is_whitespace() {
            first.len_utf8()
        } else if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment(rest)
        } else if first == '\'' || escapes {
            let (value, len) = quoted(rest, escapes);
            words.push(Word::Text {
                value,
                start: at,
                end: at.saturating_add(len),
            });
            len
        } else if let Some((value, len)) = dollar(rest) {
            words.push(Word::Text {
                value: value.to_owned(),
                start: at,
                end: at.saturating_add(len),
            });
            len
        } else if first == '"' || first == '_' || first.is_alphabetic() {
            let len = name(rest);
            words.push(Word::Name {
                text: rest.get(..len).unwrap_or_default(),
                start: at,
                end: at.saturating_add(len),
            });
            len
        } else {
            words.push(Word::Mark { mark: first, at });
            first.len_utf8()
        };
        at = at.saturating_add(len.max(1));
    }
    words
}

/// Length of a comment that may hold others.
fn comment(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0_usize;
    while let Some(pair) = bytes.get(at..at.saturating_add(2)) {
        match pair {
            b"/*" => depth = depth.saturating_add(1),
            b"*/" => depth = depth.saturating_sub(1),
            _ => {
                at = at.saturating_add(1);
                continue;
            }
        }
        at = at.saturating_add(2);
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// Value and length of a constant in single quotes.
fn quoted(rest: &str, escapes: bool) -> (String, usize) {
    let mut value = String::new();
    let skip = if escapes { 2 } else { 1 };
    let mut chars = rest.char_indices().skip(skip).peekable();
    while let Some((at, char)) = chars.next() {
        match char {
            '\'' => match chars.next_if(|(_, next)| *next == '\'') {
                Some(_) => value.push('\''),
                None => return (value, at.saturating_add(1)),
            },
            '\\' if escapes => value.extend(chars.next().map(|(_, next)| next)),
            other => value.push(other),
        }
    }
    (value, rest.len())
}

/// Value and length of a constant in dollar quotes.
fn dollar(rest: &str) -> Option<(&str, usize)> {
    let after = rest.strip_prefix('$')?;
    let tag = after.find('$')?;
    let is_tag = after
        .get(..tag)?
        .chars()
        .enumerate()
        .all(|(at, x)| x == '_' || x.is_alphabetic() || (at > 0 && x.is_numeric()));
    if !is_tag {
        return None;
    }
    let opening = rest.get(..tag.saturating_add(2))?;
    let body = rest.get(opening.len()..)?;
    let end = body.find(opening).unwrap_or(body.len());
    let len = opening.len().saturating_mul(2).saturating_add(end);
    Some((body.get(..end)?, len.min(rest.len())))
}

/// Length of a name, quoted or not, with the names after its dots.
fn name(rest: &str) -> usize {
    let mut is_quoted = false;
    for (at, char) in rest.char_indices() {
        match char {
            '"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            '_' | '.' | '$' => {}
            other if other.is_alphanumeric() => {}
            _ => return at,
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        words(text)
            .iter()
            .map(|word| match word {
                Word::Mark { mark, .. } => mark.to_string(),
                Word::Name { text, .. } => (*text).to_owned(),
                Word::Text { value, .. } => format!("[{value}]"),
            })
            .collect()
    }

    #[test]
    fn words_are_cut_as_the_server_cuts_them() {
        let rows: [(&str, &[&str]); 8] = [
            ("a := 1;", &["a", ":", "=", "1", ";"]),
            ("x -- y ; z\n w", &["x", "w"]),
            ("x /* a /* b */ ; */ y", &["x", "y"]),
            ("'it''s' E'a\\'b' 'a\\'", &["[it's]", "[a'b]", "[a\\]"]),
            ("$$ a ; $$ $t$ $$ $t$", &["[ a ; ]", "[ $$ ]"]),
            ("s.\"T x\".y(1)", &["s.\"T x\".y", "(", "1", ")"]),
            ("'open", &["[open]"]),
            ("$1 + $2", &["$", "1", "+", "$", "2"]),
        ];
        for (text, expected) in rows {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
