//! Texts that differ in nothing but whole numbers.

/// The most digits of a number that is looked past: every such number is an `int4` to the grammar.
const LIMIT_DIGITS: usize = 9;

/// Writes `text` with a zero in place of every whole number, so that texts which differ in nothing else
/// become equal; answers whether that could be done.
///
/// It is done only where bytes alone tell what is a number: no quotes, no comments, no dollar signs, no
/// backslashes, and ASCII. A number is digits that no letter, digit, point or underscore touches.
///
/// # Source
/// <https://www.postgresql.org/docs/18/sql-syntax-lexical.html>
pub(super) fn shape(text: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    let mut before = b' ';
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        match byte {
            b'\'' | b'"' | b'$' | b'\\' | 0x80.. => return false,
            b'-' | b'*' if before == b'-' || before == b'/' => return false,
            b'0'..=b'9' if !touches(before) => {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let (_, after) = rest.split_at(digits);
                let next = after.first().copied().unwrap_or(b' ');
                if digits > LIMIT_DIGITS || touches(next) {
                    return false;
                }
                out.push(b'0');
                before = b'0';
                rest = after;
                continue;
            }
            _ => out.push(*byte),
        }
        before = *byte;
        rest = after;
    }
    true
}

/// Tells whether a byte beside digits makes them part of something else.
fn touches(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<String> {
        let mut out = Vec::new();
        shape(text.as_bytes(), &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn texts_that_differ_in_whole_numbers_become_equal() {
        let one = of("SELECT abalance FROM pgbench_accounts WHERE aid = 17;");
        assert_eq!(
            one,
            of("SELECT abalance FROM pgbench_accounts WHERE aid = 999999999;")
        );
        assert!(one.is_some());
        assert_eq!(
            of("SELECT t1.c2 FROM t1"),
            Some("SELECT t1.c2 FROM t1".to_owned())
        );
        assert_ne!(of("SELECT 1 FROM t1"), of("SELECT 1 FROM t2"));
        assert_eq!(of("SELECT -5"), of("SELECT -6"));
    }

    #[test]
    fn what_may_be_something_else_is_not_looked_past() {
        for text in [
            "SELECT '1'",
            "SELECT \"1\"",
            "SELECT $1",
            "SELECT $a$1$a$",
            "SELECT 1 -- 1",
            "SELECT 1 /* 1 */",
            "SELECT 1.5",
            "SELECT 1e5",
            "SELECT 0x1f",
            "SELECT 1_000",
            "SELECT 1234567890",
            "SELECT 1a",
            "SELECT E\\1",
            "SELECT ä1",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
