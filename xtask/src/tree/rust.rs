//! Rust text with its comments and literals blanked, and with its tests told apart.
//!
//! This is a lexer, not a parser: rules look for words, and a word in a comment or in a string is
//! not a use of it.

/// The lines of one Rust file.
#[derive(Debug)]
pub struct RustText {
    /// The lines, with comments and the insides of literals replaced by blanks.
    pub code: Vec<String>,
    /// The lines as they are.
    pub raw: Vec<String>,
    tests_from: usize,
}

/// One line of code.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Its number, from 1.
    pub number: usize,
    /// Its code: no comments, no insides of literals.
    pub code: &'a str,
}

impl RustText {
    /// Reads a file; `is_test` says that all of it is test code.
    pub fn new(text: &str, is_test: bool) -> Self {
        let code: Vec<String> = blank(text).lines().map(str::to_owned).collect();
        let tests_from = if is_test { 0 } else { first_test_line(&code) };
        Self {
            raw: text.lines().map(str::to_owned).collect(),
            code,
            tests_from,
        }
    }

    /// The lines that the product is made of.
    pub fn product(&self) -> impl Iterator<Item = Line<'_>> {
        self.lines().filter(|line| line.number <= self.tests_from)
    }

    /// The lines that are tests.
    pub fn tests(&self) -> impl Iterator<Item = Line<'_>> {
        self.lines().filter(|line| line.number > self.tests_from)
    }

    /// Every line.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.code.iter().enumerate().map(|(at, code)| Line {
            number: at + 1,
            code,
        })
    }
}

/// Whether `word` is in `code`, not as a part of a longer name.
pub fn has_word(code: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let starts_name = word.starts_with(is_name);
    let ends_name = word.ends_with(is_name);
    code.match_indices(word).any(|(at, _)| {
        let before = code.get(..at).and_then(|text| text.chars().next_back());
        let after = code
            .get(at + word.len()..)
            .and_then(|text| text.chars().next());
        let is_inside = starts_name && before.is_some_and(is_name);
        let goes_on = ends_name && after.is_some_and(is_name);
        !is_inside && !goes_on
    })
}

/// The number of lines before the test module, which stands last in a file.
fn first_test_line(code: &[String]) -> usize {
    let is_mark = |line: &String| line.trim_start().starts_with("#[cfg(test)]");
    let mut search = 0;
    while let Some(found) = code.iter().skip(search).position(is_mark) {
        let at = search + found;
        let next = code
            .iter()
            .skip(at + 1)
            .map(|line| line.trim())
            .find(|line| !line.is_empty() && !line.starts_with("#["));
        if next.is_some_and(|line| has_word(line, "mod") && line.ends_with('{')) {
            return at;
        }
        search = at + 1;
    }
    code.len()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    LineComment,
    BlockComment(u32),
    Text,
    RawText(usize),
}

/// Replaces comments and the insides of literals by blanks; lines stay lines.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut state = State::Code;
    while let Some(c) = rest.chars().next() {
        let (next, taken, keep) = step(state, rest, c);
        let (eaten, left) = rest.split_at(taken.min(rest.len()));
        for e in eaten.chars() {
            out.push(if keep || e == '\n' { e } else { ' ' });
        }
        state = next;
        rest = left;
    }
    out
}

/// Returns the next state, how many bytes this step takes, and whether they are code.
fn step(state: State, rest: &str, c: char) -> (State, usize, bool) {
    let one = c.len_utf8();
    match state {
        State::Code if rest.starts_with("//") => (State::LineComment, 2, false),
        State::Code if rest.starts_with("/*") => (State::BlockComment(1), 2, false),
        State::Code if c == '"' => (State::Text, 1, true),
        State::Code if c == 'r' => match raw_opening(rest) {
            Some(hashes) => (State::RawText(hashes), hashes + 2, true),
            None => (State::Code, 1, true),
        },
        State::Code if c == '\'' => match character(rest) {
            Some(length) => (State::Code, length, false),
            None => (State::Code, 1, true),
        },
        State::Code => (State::Code, one, true),
        State::LineComment if c == '\n' => (State::Code, 1, true),
        State::LineComment => (State::LineComment, one, false),
        State::BlockComment(depth) if rest.starts_with("/*") => {
            (State::BlockComment(depth + 1), 2, false)
        }
        State::BlockComment(1) if rest.starts_with("*/") => (State::Code, 2, false),
        State::BlockComment(depth) if rest.starts_with("*/") => {
            (State::BlockComment(depth - 1), 2, false)
        }
        State::BlockComment(depth) => (State::BlockComment(depth), one, false),
        State::Text if c == '"' => (State::Code, 1, true),
        State::Text if c == '\\' => {
            let escaped = rest.chars().nth(1).map_or(0, char::len_utf8);
            (State::Text, 1 + escaped, false)
        }
        State::Text => (State::Text, one, false),
        State::RawText(hashes) => {
            let closing =
                c == '"' && rest.chars().skip(1).take_while(|c| *c == '#').count() >= hashes;
            match closing {
                true => (State::Code, 1 + hashes, true),
                false => (State::RawText(hashes), one, false),
            }
        }
    }
}

/// The number of `#` of a raw string that opens here: `r"`, `r#"`; `br"` is read from its `r` on.
///
/// No name can stand directly before a quote or before `#"`, so what is before the `r` does not matter.
fn raw_opening(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.chars().take_while(|c| *c == '#').count();
    after.chars().nth(hashes).filter(|c| *c == '"')?;
    Some(hashes)
}

/// The length of a character literal that opens here; `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let mut chars = rest.chars();
    chars.next()?;
    let first = chars.next()?;
    if first == '\\' {
        // `'\''` and `'\\'`: the escaped character never closes the literal.
        let escaped = chars.next()?.len_utf8();
        let tail = rest.get(2 + escaped..)?;
        return tail.find('\'').map(|at| 2 + escaped + at + 1);
    }
    let length = 1 + first.len_utf8();
    rest.get(length..)?.starts_with('\'').then_some(length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_kept() {
        let rows = [
            ("let a = 1; // fs::read", "let a = 1;"),
            ("/* a /* b */ c */ let b;", "                  let b;"),
            (r#"let s = "fs::read \" x";"#, r#"let s = "             ";"#),
            (r##"let s = r#"a"b"# ;"##, r##"let s = r#"   "# ;"##),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
            (r"let c = '\''; fs::x", r"let c =     ; fs::x"),
            ("let c = '\"'; fs::x", "let c =    ; fs::x"),
        ];
        for (text, expected) in rows {
            assert_eq!(blank(text).trim_end(), expected, "{text}");
        }
        assert_eq!(blank("\"a\nb\" /*\n*/ c").lines().count(), 3);
    }

    #[test]
    fn words_are_whole_names() {
        assert!(has_word("let x = fs::read(p)", "fs::"));
        assert!(!has_word("let x = myfs::read(p)", "fs::"));
        assert!(!has_word("HashMapLike", "HashMap"));
    }

    #[test]
    fn the_test_module_is_told_apart() {
        let text =
            "#[cfg(test)]\nmod outside;\nfn a() {}\n#[cfg(test)]\npub(crate) mod tests {\n}\n";
        let rust = RustText::new(text, false);
        assert_eq!(rust.product().count(), 3);
        assert_eq!(rust.tests().count(), 3);
        assert_eq!(RustText::new(text, true).product().count(), 0);
    }
}
