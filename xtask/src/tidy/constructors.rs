//! A proof, a permit, a judgement and an approval are each made in one place.
//!
//! The types have private fields, so these calls are the only ways to make them. Tests are free to
//! make them; `core` itself defines them.

use super::Finding;
use crate::tree::{Tree, has_word};

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, rust) in tree.rust("crates/") {
        if file.path.starts_with("crates/core/") {
            continue;
        }
        for line in rust.product() {
            for (call, places) in PLACES {
                let listed = places.iter().any(|place| file.path.starts_with(place));
                if has_word(line.code, call) && !listed {
                    let text = format!("`{call}` is called in {} only", places.join(", "));
                    findings.push(Finding::new(&file.path, line.number, text));
                }
            }
        }
    }
    findings
}

const PLACES: &[(&str, &[&str])] = &[
    // I1: a proof is made where a drill has really restored a restore point and checked it.
    ("Proof::attest", &["crates/vault/src/drill"]),
    // I1, I7: leave to act is given where the action has been judged and written down.
    ("Permit::new", &["crates/guard/src/decide"]),
    // I6: a person signs at a terminal, in the command that asked for the passphrase.
    ("Approval::sign", &["crates/holdfast/src/cmd/hold"]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    #[test]
    fn a_permit_made_elsewhere_is_found() {
        let call = "fn f() { Permit::new(judged, (), leave, now); }\n";
        let tree = planted(&[
            ("crates/guard/src/door/pg.rs", call),
            ("crates/guard/src/decide.rs", call),
            ("crates/guard/tests/it/main.rs", call),
        ]);
        let findings = check(&tree);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].path, "crates/guard/src/door/pg.rs");
    }

    #[test]
    fn a_proof_made_outside_the_drill_is_found() {
        let call = "let p = Proof::attest(report, &key);";
        let tree = planted(&[
            ("crates/vault/src/restore.rs", call),
            ("crates/vault/src/drill.rs", call),
        ]);
        assert_eq!(check(&tree).len(), 1);
    }
}
