//! The house rules that no compiler knows. One file per rule; each is shown to catch a violation.

mod configuration;
mod constructors;
mod decisions;
mod dependencies;
mod edges;
pub mod errors;
mod habits;
mod links;
mod lints;
mod packs;
mod paths;
mod promises;
mod purity;
mod removal;
mod roots;
mod sizes;
mod versions;
mod words;

use std::path::Path;

use anyhow::{Result, bail};

use crate::tree::Tree;

/// One breach of a rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, below the root.
    pub path: String,
    /// The line, from 1; 0 for the whole file.
    pub line: usize,
    /// What is wrong and what to do.
    pub text: String,
}

impl Finding {
    fn new(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            text: text.into(),
        }
    }
}

struct Rule {
    name: &'static str,
    about: &'static str,
    check: fn(&Tree) -> Vec<Finding>,
}

/// Checks the rules, prints what breaks them and returns whether nothing does.
///
/// # Errors
/// When a file cannot be read or a rule in `only` does not exist.
pub fn run(root: &Path, only: &[String]) -> Result<bool> {
    for name in only {
        if !RULES.iter().any(|rule| rule.name == name) {
            bail!("there is no rule `{name}`; `cargo xtask tidy --list` names them");
        }
    }
    let tree = Tree::read(root)?;
    let mut broken = 0;
    let wanted = |rule: &&Rule| only.is_empty() || only.iter().any(|name| name == rule.name);
    for rule in RULES.iter().filter(wanted) {
        for finding in (rule.check)(&tree) {
            broken += 1;
            let place = match finding.line {
                0 => finding.path,
                line => format!("{}:{line}", finding.path),
            };
            println!("{place}: {} [{}]", finding.text, rule.name);
        }
    }
    let notes = versions::repeated(&tree);
    if !notes.is_empty() {
        println!("note: more than one version of: {}", notes.join(", "));
    }
    println!(
        "{} files, {} rules, {broken} findings",
        tree.files.len(),
        RULES.iter().filter(wanted).count()
    );
    Ok(broken == 0)
}

/// Prints the rules.
pub fn list() {
    for rule in RULES {
        println!("{:<13} {}", rule.name, rule.about);
    }
}

const RULES: &[Rule] = &[
    Rule {
        name: "configuration",
        about: "each key of holdfast.toml is explained",
        check: configuration::check,
    },
    Rule {
        name: "constructors",
        about: "proofs, permits and approvals are made in their one place",
        check: constructors::check,
    },
    Rule {
        name: "decisions",
        about: "decisions are numbered once and have their four parts",
        check: decisions::check,
    },
    Rule {
        name: "dependencies",
        about: "what is declared as a dependency is used",
        check: dependencies::check,
    },
    Rule {
        name: "edges",
        about: "rooms depend downwards only; heavy dependencies have one owner",
        check: edges::check,
    },
    Rule {
        name: "errors",
        about: "each error code is well-formed, used, and has its page",
        check: errors::check,
    },
    Rule {
        name: "habits",
        about: "tests do not sleep, are not ignored and do not expect panics",
        check: habits::check,
    },
    Rule {
        name: "links",
        about: "links between documents lead to files",
        check: links::check,
    },
    Rule {
        name: "lints",
        about: "lints are the workspace's and are broken with a reason only",
        check: lints::check,
    },
    Rule {
        name: "packs",
        about: "packs are TOML and come with their cases",
        check: packs::check,
    },
    Rule {
        name: "paths",
        about: "no path of a developer's machine",
        check: paths::check,
    },
    Rule {
        name: "promises",
        about: "each promise names a test that exists; each invariant is promised",
        check: promises::check,
    },
    Rule {
        name: "purity",
        about: "pure rooms have no files, sockets, clock, environment or randomness",
        check: purity::check,
    },
    Rule {
        name: "removal",
        about: "vault and store remove things in the listed files only",
        check: removal::check,
    },
    Rule {
        name: "roots",
        about: "each crate begins with what it is for and its invariants",
        check: roots::check,
    },
    Rule {
        name: "sizes",
        about: "no file is too long to be read",
        check: sizes::check,
    },
    Rule {
        name: "words",
        about: "no marks of unfinished work",
        check: words::check,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_listed_once_and_in_order() {
        let names: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
    }

    #[test]
    fn a_rule_that_does_not_exist_is_refused() {
        assert!(run(Path::new("."), &["nothing".to_owned()]).is_err());
    }
}
