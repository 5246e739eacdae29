//! Habits that make tests lie: sleeping instead of waiting, being ignored, expecting panics.

use super::Finding;
use crate::tree::{RustText, Tree, has_word};

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, rust) in tree.rust("") {
        let in_kit = file.path.starts_with("testing/kit/src/");
        let lines: Vec<_> = match in_kit {
            true => rust.lines().collect(),
            false => rust.tests().collect(),
        };
        for line in lines {
            for (word, text) in WORDS {
                if has_word(line.code, word) {
                    findings.push(Finding::new(&file.path, line.number, *text));
                }
            }
            let sleeps = has_word(line.code, SLEEP) && !line.code.contains("POLL");
            if sleeps && !is_explained(rust, line.number) {
                findings.push(Finding::new(&file.path, line.number, SLEEPS));
            }
        }
    }
    findings
}

/// Whether this line or one of the two before it says `// WAIT:` and why.
fn is_explained(rust: &RustText, number: usize) -> bool {
    let from = number.saturating_sub(3);
    let near = rust.raw.iter().skip(from).take(number - from);
    near.into_iter().any(|line| {
        line.split_once("// WAIT: ")
            .is_some_and(|(_, why)| why.len() > 9)
    })
}

const SLEEP: &str = "sleep(";
const SLEEPS: &str = "a test waits for an event or a condition with a deadline; a poll sleeps for a constant \
                      named `POLL`, or says `// WAIT: reason` above its sleep";
const WORDS: &[(&str, &str)] = &[
    ("#[ignore", "a test runs or does not exist; none is ignored"),
    (
        "should_panic",
        "a test looks at the error; it does not expect a panic",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    fn count(path: &str, text: &str) -> usize {
        check(&planted(&[(path, text)])).len()
    }

    #[test]
    fn a_sleep_in_a_test_is_found_unless_it_says_what_it_polls() {
        let test = "fn t() { std::thread::sleep(D); }\n";
        assert_eq!(count("crates/x/tests/it/a.rs", test), 1);
        assert_eq!(count("crates/x/src/a.rs", test), 0);
        let module = format!("#[cfg(test)]\nmod tests {{\n{test}}}\n");
        assert_eq!(count("crates/x/src/a.rs", &module), 1);
        assert_eq!(
            count("crates/x/tests/it/a.rs", "fn t() { sleep(POLL); }\n"),
            0
        );
        let explained = format!("// WAIT: polls the port until the deadline\n{test}");
        assert_eq!(count("crates/x/tests/it/a.rs", &explained), 0);
    }

    #[test]
    fn ignored_tests_and_expected_panics_are_found() {
        assert_eq!(
            count("crates/x/tests/it/a.rs", "#[test]\n#[ignore]\nfn t() {}\n"),
            1
        );
        assert_eq!(
            count(
                "crates/x/tests/it/a.rs",
                "#[should_panic(expected = \"x\")]\n"
            ),
            1
        );
    }
}
