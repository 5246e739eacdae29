//! Error codes: well-formed, unique, used, each with a page, each page with a code.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use crate::tree::Tree;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let Some(table) = tree.file(TABLE) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let used = words_of_product(tree);
    for entry in entries(&table.text) {
        let mut say = |text: String| findings.push(Finding::new(TABLE, entry.line, text));
        let code = entry.code.as_str();
        if !is_well_formed(code) {
            say(format!(
                "`{code}` is not Z, a class letter of HIBLSU and three digits"
            ));
        }
        if let Some(line) = seen.insert(entry.code.clone(), entry.line) {
            say(format!("`{code}` is already in line {line}"));
        }
        if !used.contains(code) {
            say(format!("`{code}` is used nowhere"));
        }
        let page = format!("{PAGES}{code}.md");
        match tree.file(&page) {
            None => say(format!("`{code}` has no page {page}")),
            Some(file) => {
                for text in faults(&file.text, code, &entry.title) {
                    findings.push(Finding::new(&page, 1, text));
                }
            }
        }
    }
    for file in tree.matching(PAGES, ".md") {
        let name = file.path.trim_start_matches(PAGES).trim_end_matches(".md");
        if name != "index" && !seen.contains_key(name) {
            findings.push(Finding::new(
                &file.path,
                0,
                format!("there is no code `{name}`"),
            ));
        }
    }
    findings
}

/// One row of the table of codes.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The five characters.
    pub code: String,
    /// What it means, without a full stop.
    pub title: String,
    /// Its line, from 1.
    pub line: usize,
}

/// Reads the rows `ZH001 "title",` of the table.
pub fn entries(text: &str) -> Vec<Entry> {
    let rows = text.lines().enumerate().filter_map(|(at, line)| {
        let (code, title) = line.trim().split_once(" \"")?;
        let title = title.strip_suffix("\",")?;
        let is_code = code.starts_with('Z') && code.chars().all(|c| c.is_ascii_alphanumeric());
        is_code.then(|| Entry {
            code: code.to_owned(),
            title: title.to_owned(),
            line: at + 1,
        })
    });
    rows.collect()
}

/// The file with the table of codes.
pub const TABLE: &str = "crates/core/src/code.rs";

/// The folder with a page for each code.
pub const PAGES: &str = "docs/errors/";

fn is_well_formed(code: &str) -> bool {
    let class = code.as_bytes().get(1);
    code.len() == 5
        && code.starts_with('Z')
        && class.is_some_and(|letter| b"HIBLSU".contains(letter))
        && code.bytes().skip(2).all(|digit| digit.is_ascii_digit())
}

fn faults(page: &str, code: &str, title: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let heading = format!("# {code}: {title}");
    if page.lines().next() != Some(&heading) {
        texts.push(format!("the first line is `{heading}`"));
    }
    for part in PARTS {
        if !page.lines().any(|line| line == *part) {
            texts.push(format!("`{part}` is missing"));
        }
    }
    texts
}

/// Every word of the product's code outside the table.
fn words_of_product(tree: &Tree) -> BTreeSet<&str> {
    let mut words = BTreeSet::new();
    for (file, rust) in tree.rust("crates/") {
        if file.path == TABLE {
            continue;
        }
        for line in rust.product() {
            let split = line.code.split(|c: char| !c.is_ascii_alphanumeric());
            words.extend(split.filter(|word| word.len() == 5 && word.starts_with('Z')));
        }
    }
    words
}

const PARTS: &[&str] = &["## What happened", "## What did not", "## What to do"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    const PAGE: &str =
        "# ZH001: held\n\n## What happened\na\n## What did not\nb\n## What to do\nc\n";

    fn texts(table: &str, page: (&str, &str), user: &str) -> Vec<String> {
        let tree = planted(&[(TABLE, table), page, ("crates/guard/src/lib.rs", user)]);
        check(&tree)
            .into_iter()
            .map(|finding| finding.text)
            .collect()
    }

    const USE: &str = "fn f() -> Code { Code::ZH001 }";

    #[test]
    fn a_code_with_its_page_and_a_use_is_fine() {
        let none: [String; 0] = [];
        assert_eq!(
            texts("    ZH001 \"held\",\n", ("docs/errors/ZH001.md", PAGE), USE),
            none
        );
    }

    #[test]
    fn a_code_listed_twice_is_found() {
        let table = "ZH001 \"held\",\nZH001 \"held\",\n";
        assert_eq!(
            texts(table, ("docs/errors/ZH001.md", PAGE), USE),
            ["`ZH001` is already in line 1"]
        );
    }

    #[test]
    fn a_malformed_code_is_found() {
        for code in ["ZX001", "ZH01", "ZHA01", "ZH0011"] {
            let found = texts(&format!("{code} \"held\",\n"), ("README.md", ""), USE);
            assert!(
                found.iter().any(|text| text.contains("class letter")),
                "{code}"
            );
        }
    }

    #[test]
    fn a_code_without_use_or_page_is_found() {
        let found = texts(
            "ZH001 \"held\",\n",
            ("README.md", ""),
            "// ZH001 in a comment",
        );
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_page_without_a_code_and_a_wrong_heading_are_found() {
        let wrong = PAGE.replace("held", "hold");
        assert_eq!(
            texts("ZH001 \"held\",\n", ("docs/errors/ZH001.md", &wrong), USE).len(),
            1
        );
        assert_eq!(
            texts("", ("docs/errors/ZH001.md", PAGE), USE),
            ["there is no code `ZH001`"]
        );
    }
}
