//! Text that came from somebody else, made safe to print.

use std::fmt;

/// Foreign text as it may appear in messages, logs and the ledger: escaped and cut.
///
/// Control characters, line breaks, bidirectional controls and backticks are escaped, and the text
/// ends with `…` after [`Untrusted::LIMIT_CHARS`] characters, so that an agent cannot forge a line of
/// ours or hide the end of a statement.
#[derive(Clone, Copy)]
pub struct Untrusted<'a>(pub &'a str);

impl Untrusted<'_> {
    /// The longest form that is printed, in characters of the source text.
    pub const LIMIT_CHARS: usize = 200;
}

impl fmt::Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, character) in self.0.chars().enumerate() {
            if index == Self::LIMIT_CHARS {
                return f.write_str("…");
            }
            let invisible = matches!(character,
                '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
            if character.is_control() || character == '`' || invisible {
                write!(f, "{}", character.escape_unicode())?;
            } else {
                write!(f, "{character}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_forge_a_line_or_hide_its_end() {
        let shown = Untrusted("a\nerror[ZH001]: `x`\u{202e}b").to_string();
        assert_eq!(shown, r"a\u{a}error[ZH001]: \u{60}x\u{60}\u{202e}b");
        let long = "x".repeat(10_000);
        assert_eq!(
            Untrusted(&long).to_string().chars().count(),
            Untrusted::LIMIT_CHARS + 1
        );
    }
}
