//! No marks of unfinished work on the main branch.

use super::Finding;
use crate::tree::{Tree, has_word};

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        if file.path == OWN || !is_written_by_us(&file.path) {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            for mark in MARKS.iter().filter(|mark| has_word(line, mark)) {
                let text = format!("`{mark}`: finish it, or open an issue for it");
                findings.push(Finding::new(&file.path, number + 1, text));
            }
        }
    }
    findings
}

fn is_written_by_us(path: &str) -> bool {
    [
        ".rs", ".md", ".toml", ".sh", ".sql", ".cedar", ".html", "Makefile", "setup", ".ci/run",
    ]
    .iter()
    .any(|suffix| path.ends_with(suffix))
}

const OWN: &str = "xtask/src/tidy/words.rs";
const MARKS: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    #[test]
    fn a_mark_of_unfinished_work_is_found() {
        let tree = planted(&[
            ("crates/a/src/b.rs", "// TODO: later\n"),
            ("docs/c.md", "FIXME\n"),
            ("docs/d.md", "a TODOLIST is a word\n"),
        ]);
        assert_eq!(check(&tree).len(), 2);
    }
}
