//! Each key of `holdfast.toml` is explained in docs/configuration.md.

use super::Finding;
use crate::tree::{RustText, Tree};

pub fn check(tree: &Tree) -> Vec<Finding> {
    let (Some(source), Some(document)) = (tree.file(SOURCE), tree.file(DOCUMENT)) else {
        return Vec::new();
    };
    let keys = source.rust.as_ref().map(keys).unwrap_or_default();
    let is_missing = |(_, key): &(usize, String)| {
        let row = format!("| `{key}` |");
        !document.text.lines().any(|line| line.starts_with(&row))
    };
    let missing = keys.into_iter().filter(is_missing);
    missing
        .map(|(line, key)| {
            let text = format!("`{key}` has no row in {DOCUMENT}");
            Finding::new(SOURCE, line, text)
        })
        .collect()
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

const SOURCE: &str = "crates/holdfast/src/config.rs";
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
        let tree = planted(&[(SOURCE, source), (DOCUMENT, "| `b` | 1 | the b |\n")]);
        let findings = check(&tree);
        assert_eq!(findings.len(), 1);
        assert_eq!(
            (findings[0].line, findings[0].text.contains("`c`")),
            (5, true)
        );
    }
}
