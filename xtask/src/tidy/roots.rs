//! Each crate begins with what it is for, each room with its invariants; no `mod.rs`.

use super::Finding;
use crate::tree::Tree;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, _) in tree.rust("") {
        if file.path.ends_with("/mod.rs") {
            let text = "a module is `foo.rs` with `foo/`, not `foo/mod.rs`";
            findings.push(Finding::new(&file.path, 0, text));
        }
        let is_root = file.path.ends_with("/src/lib.rs") || file.path.ends_with("/src/main.rs");
        if !file.text.starts_with("//! ") {
            let text = "a file begins with `//!`: what its one subject is";
            let is_test = file.path.contains("/tests/") || file.path.ends_with("/tests.rs");
            if !is_test {
                findings.push(Finding::new(&file.path, 1, text));
            }
        }
        let is_room = file.path.starts_with("crates/") && is_root;
        if is_room && !file.text.contains("//! # Architecture invariants") {
            let text = "a room states its `# Architecture invariants`";
            findings.push(Finding::new(&file.path, 1, text));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    #[test]
    fn a_crate_that_does_not_say_what_it_is_for_is_found() {
        let tree = planted(&[
            ("crates/a/src/lib.rs", "mod b;\n"),
            ("crates/a/src/b.rs", "//! The b.\n"),
            ("crates/a/src/c/mod.rs", "//! The c.\n"),
        ]);
        assert_eq!(check(&tree).len(), 3);
    }
}
