//! Packs are data: TOML that can be read, with cases beside them, and no Rust.

use toml::Table;

use super::Finding;
use crate::tree::Tree;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.matching(FOLDER, "") {
        if file.path.ends_with(".rs") {
            findings.push(Finding::new(&file.path, 0, "a pack is data, not Rust"));
        }
        if !file.path.ends_with(".toml") {
            continue;
        }
        if let Err(error) = file.text.parse::<Table>() {
            findings.push(Finding::new(&file.path, 0, error.to_string()));
        }
        if let Some(folder) = file.path.strip_suffix("/pack.toml") {
            let cases = format!("{folder}/cases.toml");
            if tree.file(&cases).is_none() {
                let text = "a pack comes with its cases, in `cases.toml` beside it";
                findings.push(Finding::new(&file.path, 0, text));
            }
        }
    }
    findings
}

const FOLDER: &str = "packs/";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    #[test]
    fn a_broken_pack_and_a_pack_without_cases_are_found() {
        let tree = planted(&[
            ("packs/a/pack.toml", "x = [\n"),
            ("packs/a/cases.toml", ""),
            ("packs/b/pack.toml", "x = 1\n"),
            ("packs/b/help.rs", ""),
        ]);
        assert_eq!(check(&tree).len(), 3);
    }
}
