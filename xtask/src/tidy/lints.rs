//! Lints are the workspace's; a breach says why; `unsafe` is nowhere.

use toml::Table;

use super::Finding;
use crate::tree::{Line, Tree, has_word};

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, rust) in tree.rust("") {
        for line in rust.lines() {
            if has_word(line.code, UNSAFE) {
                let text = "`unsafe` is forbidden in every crate";
                findings.push(Finding::new(&file.path, line.number, text));
            }
        }
        let product: Vec<Line<'_>> = rust.product().collect();
        for (at, line) in product.iter().enumerate() {
            if line.code.contains("#[allow(") || line.code.contains("#![allow(") {
                let text = "outside tests, write `#[expect(lint, reason = \"...\")]`";
                findings.push(Finding::new(&file.path, line.number, text));
            }
            let rest = product.get(at..).unwrap_or_default();
            if is_expect(line.code) && !attribute(rest).contains("reason =") {
                let text = "`#[expect]` gives a reason";
                findings.push(Finding::new(&file.path, line.number, text));
            }
        }
    }
    for file in tree.matching("", "Cargo.toml") {
        let Ok(manifest) = file.text.parse::<Table>() else {
            continue;
        };
        if let Some(text) = manifest_fault(&manifest) {
            findings.push(Finding::new(&file.path, 0, text));
        }
    }
    findings
}

fn is_expect(code: &str) -> bool {
    code.contains("#[expect(") || code.contains("#![expect(")
}

/// The attribute that opens in the first line, up to the line that closes it.
fn attribute(lines: &[Line<'_>]) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(line.code);
        if line.code.trim_end().ends_with(")]") {
            break;
        }
    }
    text
}

fn manifest_fault(manifest: &Table) -> Option<&'static str> {
    if let Some(workspace) = manifest.get("workspace") {
        let lints = workspace.get("lints").and_then(|lints| lints.get("rust"));
        let level = lints.and_then(|rust| rust.get("unsafe_code"));
        return (level.and_then(|level| level.as_str()) != Some("forbid"))
            .then_some("the workspace forbids `unsafe_code`");
    }
    let lints = manifest
        .get("lints")
        .and_then(|lints| lints.get("workspace"));
    (lints.and_then(toml::Value::as_bool) != Some(true))
        .then_some("`[lints] workspace = true` is missing")
}

const UNSAFE: &str = "unsafe";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    fn count(path: &str, text: &str) -> usize {
        check(&planted(&[(path, text)])).len()
    }

    #[test]
    fn an_allowed_lint_is_found_outside_tests_only() {
        let text = "#[allow(dead_code)]\nfn f() {}\n";
        assert_eq!(count("crates/x/src/a.rs", text), 1);
        assert_eq!(count("crates/x/tests/it/a.rs", text), 0);
    }

    #[test]
    fn an_expectation_without_a_reason_is_found() {
        assert_eq!(count("crates/x/src/a.rs", "#[expect(clippy::panic)]\n"), 1);
        let reasoned = "#[expect(\n    clippy::panic,\n    reason = \"x\"\n)]\nfn f() {}\n";
        assert_eq!(count("crates/x/src/a.rs", reasoned), 0);
    }

    #[test]
    fn unsafe_code_is_found_also_in_tests() {
        assert_eq!(
            count("crates/x/tests/it/a.rs", "fn f() { unsafe { g() } }\n"),
            1
        );
        assert_eq!(count("crates/x/src/a.rs", "// unsafe\n"), 0);
    }

    #[test]
    fn a_crate_without_the_lints_of_the_workspace_is_found() {
        assert_eq!(count("crates/x/Cargo.toml", "[package]\nname = \"x\"\n"), 1);
        let fine = "[package]\nname = \"x\"\n[lints]\nworkspace = true\n";
        assert_eq!(count("crates/x/Cargo.toml", fine), 0);
        assert_eq!(count("Cargo.toml", "[workspace]\n"), 1);
    }
}
