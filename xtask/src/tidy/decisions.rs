//! Decisions are numbered once, without gaps, and have their parts.

use std::collections::BTreeMap;

use super::Finding;
use crate::tree::Tree;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen: BTreeMap<u32, String> = BTreeMap::new();
    for file in tree.matching(FOLDER, ".md") {
        let name = file.path.trim_start_matches(FOLDER);
        let number = name.split_once('-').filter(|(digits, _)| digits.len() == 4);
        let Some(number) = number.and_then(|(digits, _)| digits.parse().ok()) else {
            findings.push(Finding::new(&file.path, 0, "the name is `NNNN-title.md`"));
            continue;
        };
        if let Some(other) = seen.insert(number, file.path.clone()) {
            let text = format!("the number {number:04} is also that of {other}");
            findings.push(Finding::new(&file.path, 0, text));
        }
        for part in PARTS {
            if !file.text.lines().any(|line| line == *part) {
                findings.push(Finding::new(&file.path, 0, format!("`{part}` is missing")));
            }
        }
    }
    for (expected, (number, path)) in (1..).zip(&seen) {
        if *number != expected {
            let text = format!("the number {expected:04} is missing before it");
            findings.push(Finding::new(path, 0, text));
            break;
        }
    }
    findings
}

const FOLDER: &str = "docs/decisions/";
const PARTS: &[&str] = &[
    "## Context",
    "## Decision",
    "## Alternatives",
    "## Consequences",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    const WHOLE: &str = "# T\n## Context\n## Decision\n## Alternatives\n## Consequences\n";

    #[test]
    fn a_number_used_twice_and_a_gap_are_found() {
        let tree = planted(&[
            ("docs/decisions/0001-a.md", WHOLE),
            ("docs/decisions/0001-b.md", WHOLE),
            ("docs/decisions/0003-c.md", WHOLE),
        ]);
        assert_eq!(check(&tree).len(), 2);
    }

    #[test]
    fn a_missing_part_is_found() {
        let tree = planted(&[("docs/decisions/0001-a.md", "# T\n## Context\n")]);
        assert_eq!(check(&tree).len(), 3);
    }
}
