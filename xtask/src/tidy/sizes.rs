//! Files stay short enough to be read.

use super::Finding;
use crate::tree::Tree;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, rust) in tree.rust("") {
        let code = rust
            .product()
            .filter(|line| !line.code.trim().is_empty())
            .count();
        let all = rust.raw.len();
        if code > LIMIT_CODE_LINES {
            let text =
                format!("{code} lines of code, {LIMIT_CODE_LINES} at most: split by subject");
            findings.push(Finding::new(&file.path, 0, text));
        }
        if all > LIMIT_LINES {
            let text = format!("{all} lines, {LIMIT_LINES} at most: move the tests to `tests.rs`");
            findings.push(Finding::new(&file.path, 0, text));
        }
    }
    findings
}

/// Lines with code, without tests, comments and empty lines.
const LIMIT_CODE_LINES: usize = 600;
/// All lines.
const LIMIT_LINES: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    #[test]
    fn a_file_that_is_too_long_is_found() {
        let rows = [
            ("f();\n".repeat(600), 0),
            ("f();\n".repeat(601), 1),
            ("// f\n".repeat(1_000), 0),
            ("// f\n".repeat(1_001), 1),
        ];
        for (text, expected) in rows {
            let tree = planted(&[("crates/a/src/b.rs", &text)]);
            assert_eq!(check(&tree).len(), expected);
        }
    }
}
