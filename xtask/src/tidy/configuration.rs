//! Each key of `holdfast.toml` is explained in docs/configuration.md.

use super::Finding;
use crate::tree::{RustText, Tree};

pub fn check(tree: &Tree) -> Vec<Finding> {
    let Some(document) = tree.file(DOCUMENT) else {
        return Vec::new();
    };
    let has_row = |key: &str| {
        let row = format!("| `{key}` |");
        document.text.lines().any(|line| line.starts_with(&row))
    };
    let mut findings = Vec::new();
    for file in tree.matching(SOURCES, ".rs") {
        let keys = file.rust.as_ref().map(keys).unwrap_or_default();
        for (line, key) in keys.into_iter().filter(|(_, key)| !has_row(key)) {
            let text = format!("`{key}` has no row in {DOCUMENT}");
            findings.push(Finding::new(&file.path, line, text));
        }
    }
    findings
}

/// The fields of the structs that refuse unknown keys, except those that only hold further tables.
fn keys(source: &RustText) -> Vec<(usize, String)> {
    let mut keys = Vec::new();
    let mut inside = false;
    for line in source.product() {
        if line.code.contains("deny_unknown_fields") {
            inside = true;
        } else if line.code == "}" {
            inside = false;
        }
        let field = line.code.trim().trim_start_matches("pub ");
        let Some((name, kind)) = field.split_once(": ").filter(|_| inside) else {
            continue;
        };
        let is_name = name
            .chars()
            .all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c));
        let is_table = TABLES.iter().any(|table| kind.starts_with(table));
        if is_name && !is_table {
            keys.push((line.number, name.to_owned()));
        }
    }
    keys
}

/// The file `config.rs` and the folder beside it.
const SOURCES: &str = "crates/holdfast/src/config";
const DOCUMENT: &str = "docs/configuration.md";
/// Types that are sections of the file, not keys.
const TABLES: &[&str] = &[
    "GuardConfig",
    "ObjectStorageConfig",
    "VaultConfig",
    "Vec<SourceConfig>",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    #[test]
    fn a_key_without_a_row_is_found() {
        let source = "#[serde(deny_unknown_fields)]\npub struct A {\n    /// The b.\n    pub b: u32,\n    c: Option<u32>,\n    guard: GuardConfig,\n}\nstruct D {\n    e: u32,\n}\n";
        let further = "#[serde(deny_unknown_fields)]\npub struct F {\n    pub g: u32,\n}\n";
        let tree = planted(&[
            ("crates/holdfast/src/config.rs", source),
            ("crates/holdfast/src/config/vault.rs", further),
            (DOCUMENT, "| `b` | 1 | the b |\n"),
        ]);
        let mut findings = check(&tree);
        findings.sort_by_key(|finding| finding.line);
        let found: Vec<_> = findings.iter().map(|f| (f.line, f.path.as_str())).collect();
        let expected = [
            (3, "crates/holdfast/src/config/vault.rs"),
            (5, "crates/holdfast/src/config.rs"),
        ];
        assert_eq!(found, expected);
    }
}
