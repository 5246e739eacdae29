//! A dependency that is declared is used.

use std::collections::BTreeSet;

use toml::Table;

use super::Finding;
use crate::tree::{Tree, has_word};

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut declared = BTreeSet::new();
    for file in tree.matching("", "/Cargo.toml") {
        let folder = file.path.trim_end_matches("Cargo.toml");
        let manifest = file.text.parse::<Table>().unwrap_or_default();
        for section in SECTIONS {
            for name in names(&manifest, section) {
                declared.insert(name.clone());
                let word = name.replace('-', "_");
                let is_used = tree
                    .rust(folder)
                    .any(|(_, rust)| rust.lines().any(|line| has_word(line.code, &word)));
                if !is_used {
                    let text = format!("`{name}` is declared and not used: take it out");
                    findings.push(Finding::new(&file.path, line_of(&file.text, &name), text));
                }
            }
        }
    }
    let root = tree.file("Cargo.toml");
    let workspace = root.and_then(|file| file.text.parse::<Table>().ok());
    let shared = workspace.as_ref().and_then(|w| w.get("workspace"));
    for name in shared
        .and_then(|w| w.as_table())
        .into_iter()
        .flat_map(|w| names(w, "dependencies"))
    {
        if !declared.contains(&name) {
            let line = root.map_or(0, |file| line_of(&file.text, &name));
            let text = format!("`{name}` is used by no member: take it out");
            findings.push(Finding::new("Cargo.toml", line, text));
        }
    }
    findings
}

/// What a section names, for every system or for some.
fn names(manifest: &Table, section: &str) -> Vec<String> {
    let found = tables(manifest, section);
    found.flat_map(Table::keys).cloned().collect()
}

/// The tables of a section: the one of every system, and those of some.
pub fn tables<'a>(manifest: &'a Table, section: &'a str) -> impl Iterator<Item = &'a Table> {
    let of_some = manifest.get("target").and_then(|value| value.as_table());
    let of_some = of_some.into_iter().flat_map(Table::values);
    let of_some = of_some.filter_map(|value| value.as_table());
    std::iter::once(manifest)
        .chain(of_some)
        .filter_map(move |table| table.get(section)?.as_table())
}

/// The first line that declares the dependency.
pub fn line_of(text: &str, dependency: &str) -> usize {
    let starts = |line: &str| {
        let rest = line.strip_prefix(dependency).unwrap_or_default();
        rest.starts_with([' ', '=', '.'])
    };
    text.lines().position(starts).map_or(0, |at| at + 1)
}

const SECTIONS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    #[test]
    fn a_dependency_without_a_use_is_found() {
        let tree = planted(&[
            (
                "Cargo.toml",
                "[workspace.dependencies]\na-b = \"1\"\nc = \"1\"\nd = \"1\"\n",
            ),
            (
                "crates/x/Cargo.toml",
                "[target.'cfg(unix)'.dependencies]\na-b = {}\n[dependencies]\nc = {}\n",
            ),
            ("crates/x/src/lib.rs", "use a_b::C; // c::D\n"),
        ]);
        let findings = check(&tree);
        let texts: Vec<&str> = findings
            .iter()
            .map(|finding| finding.text.as_str())
            .collect();
        assert_eq!(
            texts,
            [
                "`c` is declared and not used: take it out",
                "`d` is used by no member: take it out"
            ]
        );
        assert_eq!((findings[0].line, findings[1].line), (4, 4));
    }

    #[test]
    fn the_line_of_a_dependency_is_told() {
        assert_eq!(line_of("[d]\ntokio-util = {}\ntokio = {}\n", "tokio"), 3);
    }
}
