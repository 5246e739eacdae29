//! Links between documents lead to files, and so do the documents that errors and comments name.

use std::collections::BTreeSet;

use super::Finding;
use crate::tree::Tree;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut known: BTreeSet<&str> = tree.files.iter().map(|file| file.path.as_str()).collect();
    for file in &tree.files {
        // A link may lead to a folder as well.
        let ends = file.path.match_indices('/');
        known.extend(ends.filter_map(|(at, _)| file.path.get(..at)));
    }
    let mut findings = Vec::new();
    for file in tree.matching("", ".md") {
        for (number, line) in file.text.lines().enumerate() {
            for target in targets(line) {
                let path = resolve(&file.path, target);
                if !known.contains(path.as_str()) {
                    let text = format!("the link to `{target}` leads nowhere");
                    findings.push(Finding::new(&file.path, number + 1, text));
                }
            }
        }
    }
    for (file, rust) in tree.rust("") {
        for (number, line) in rust.raw.iter().enumerate() {
            let gone = named(line).find(|path| !known.contains(path));
            if let Some(path) = gone.filter(|_| !file.path.starts_with("xtask/")) {
                let text = format!("there is no `{path}`");
                findings.push(Finding::new(&file.path, number + 1, text));
            }
        }
    }
    findings
}

/// The documents that a line of Rust names by their full path: `docs/threat-model.md`.
fn named(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("docs/").filter_map(|(at, _)| {
        let rest = line.get(at..)?;
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let end = rest.find(".md")?;
        let path = rest.get(..end + 3)?;
        let is_path = path
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "/.-_".contains(c));
        (is_path && before.is_none_or(|c| !"/.".contains(c))).then_some(path)
    })
}

/// The local files that a line of Markdown links to: `[text](file#part)`, `![text](file)`.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    let links = line.split("](").skip(1);
    links.filter_map(|rest| {
        let target = rest.split([')', ' ', '#']).next()?;
        let is_local =
            !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:");
        is_local.then_some(target)
    })
}

fn resolve(from: &str, target: &str) -> String {
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let text =
            "[a](../README.md) [b](gone.md) [c](https://x.y/z) ![d](img/e.svg#f) [g](#h) [i](img/)";
        let tree = planted(&[
            ("README.md", ""),
            ("docs/img/e.svg", ""),
            ("docs/x.md", text),
        ]);
        let findings = check(&tree);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].text.contains("gone.md"));
    }

    #[test]
    fn a_document_that_an_error_names_must_be_there() {
        let text = "const H: &str = \"see docs/errors/<CODE>.md, docs/gone.md\"; // docs/x.md\n";
        let tree = planted(&[("docs/x.md", ""), ("crates/a/src/b.rs", text)]);
        let findings = check(&tree);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].text.contains("docs/gone.md"));
    }
}
