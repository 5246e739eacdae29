//! Each promise in docs/promises.md names a test that exists; each invariant is promised.

use std::collections::{BTreeMap, BTreeSet};

use toml::Table;

use super::Finding;
use crate::tree::Tree;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let Some(document) = tree.file(DOCUMENT) else {
        return Vec::new();
    };
    let packages = packages(tree);
    let mut findings = Vec::new();
    let mut ids = BTreeSet::new();
    let mut promised = BTreeSet::new();
    for row in rows(&document.text) {
        let mut say = |text: String| findings.push(Finding::new(DOCUMENT, row.line, text));
        if !ids.insert(row.id) {
            say(format!("`{}` is there twice", row.id));
        }
        promised.extend(row.keeps.split([',', ' ']).filter(|id| !id.is_empty()));
        if row.tests.is_empty() {
            say(format!("`{}` names no test", row.id));
        }
        for test in &row.tests {
            if let Err(text) = find_test(tree, &packages, test) {
                say(text);
            }
        }
    }
    for invariant in INVARIANTS {
        if !promised.contains(invariant) {
            let text = format!("no promise keeps {invariant}");
            findings.push(Finding::new(DOCUMENT, 0, text));
        }
    }
    findings
}

/// One row: `| P-001 | I1 | what is promised | `package::test` |`.
#[derive(Debug)]
struct Row<'a> {
    line: usize,
    id: &'a str,
    keeps: &'a str,
    tests: Vec<&'a str>,
}

fn rows(text: &str) -> impl Iterator<Item = Row<'_>> {
    text.lines().enumerate().filter_map(|(at, line)| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let id = cells.next().filter(|id| id.starts_with("P-"))?;
        let keeps = cells.next()?;
        let tests = cells.nth(1).unwrap_or_default();
        Some(Row {
            line: at + 1,
            id,
            keeps,
            tests: tests.split('`').skip(1).step_by(2).collect(),
        })
    })
}

fn find_test(tree: &Tree, packages: &BTreeMap<String, String>, test: &str) -> Result<(), String> {
    let (package, name) = match (test.split_once("::"), test.rsplit_once("::")) {
        (Some((package, _)), Some((_, name))) => (package, name),
        _ => return Err(format!("`{test}` is not `package::test_name`")),
    };
    let Some(folder) = packages.get(package) else {
        return Err(format!("`{test}`: there is no package `{package}`"));
    };
    let head = format!("fn {name}(");
    // A file that must not compile is a test, too: its driver runs the whole folder.
    let refused = format!("/tests/it/refused/{name}.rs");
    let exists = tree.rust(folder).any(|(file, rust)| {
        file.path.ends_with(&refused) || rust.tests().any(|line| line.code.contains(&head))
    });
    match exists {
        true => Ok(()),
        false => Err(format!("`{test}`: there is no such test below {folder}")),
    }
}

/// The packages of the workspace and their folders, which end with a slash.
fn packages(tree: &Tree) -> BTreeMap<String, String> {
    let mut packages = BTreeMap::new();
    for file in tree.matching("", "/Cargo.toml") {
        let manifest = file.text.parse::<Table>().unwrap_or_default();
        let name = manifest.get("package").and_then(|p| p.get("name"));
        if let Some(name) = name.and_then(|name| name.as_str()) {
            let folder = file.path.trim_end_matches("Cargo.toml");
            packages.insert(name.to_owned(), folder.to_owned());
        }
    }
    packages
}

const DOCUMENT: &str = "docs/promises.md";
const INVARIANTS: [&str; 11] = [
    "I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10", "I11",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    fn texts(rows: &str) -> Vec<String> {
        let all = INVARIANTS.join(", ");
        let document = format!("{rows}\n| P-999 | {all} | all | `a::kept` |\n");
        let tree = planted(&[
            (DOCUMENT, &document),
            ("crates/a/Cargo.toml", "[package]\nname = \"a\"\n"),
            ("crates/a/tests/it/main.rs", "#[test]\nfn kept() {}\n"),
            ("crates/a/tests/it/refused/by_hand.rs", ""),
            ("crates/a/src/lib.rs", "fn product() {}\n"),
        ]);
        check(&tree)
            .into_iter()
            .map(|finding| finding.text)
            .collect()
    }

    #[test]
    fn a_promise_with_its_tests_is_fine() {
        let none: [String; 0] = [];
        assert_eq!(
            texts("| P-001 | I1 | p | `a::kept`, `a::refused::by_hand` |"),
            none
        );
    }

    #[test]
    fn a_promise_without_a_test_that_exists_is_found() {
        let rows = [
            "| P-001 | I1 | p | `a::broken` |",
            "| P-001 | I1 | p | `b::kept` |",
            "| P-001 | I1 | p | `kept` |",
            "| P-001 | I1 | p | `a::product` |",
            "| P-001 | I1 | p | |",
            "| P-999 | I1 | p | `a::kept` |",
        ];
        for row in rows {
            assert_eq!(texts(row).len(), 1, "{row}");
        }
    }

    #[test]
    fn an_invariant_that_nobody_promises_is_found() {
        let tree = planted(&[(DOCUMENT, "")]);
        assert_eq!(check(&tree).len(), INVARIANTS.len());
    }
}
