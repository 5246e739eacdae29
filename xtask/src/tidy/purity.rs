//! Pure rooms have no files, sockets, clock, environment, threads, randomness or unordered maps.

use super::Finding;
use crate::tree::{Tree, has_word};

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for room in ROOMS {
        for (file, rust) in tree.rust(room) {
            for line in rust.product() {
                for (word, what) in WORDS {
                    if !has_word(line.code, word) || is_excepted(&file.path, word) {
                        continue;
                    }
                    let text =
                        format!("`{word}`: a pure room has no {what}; take it as an argument");
                    findings.push(Finding::new(&file.path, line.number, text));
                }
            }
        }
    }
    findings
}

fn is_excepted(path: &str, word: &str) -> bool {
    EXCEPTIONS
        .iter()
        .any(|(file, what, _)| *file == path && *what == word)
}

/// File, word and why it does no harm there.
const EXCEPTIONS: &[(&str, &str, &str)] = &[(
    "crates/judge/src/policy/request.rs",
    "HashSet",
    "Cedar's constructor takes one; nobody sees its order",
)];

const ROOMS: [&str; 3] = ["crates/core/src/", "crates/judge/src/", "crates/wire/src/"];

const WORDS: &[(&str, &str)] = &[
    ("fs::", "files"),
    ("File::", "files"),
    ("OpenOptions", "files"),
    ("TcpStream", "sockets"),
    ("TcpListener", "sockets"),
    ("UdpSocket", "sockets"),
    ("UnixStream", "sockets"),
    ("UnixListener", "sockets"),
    ("ToSocketAddrs", "name look-ups"),
    ("env::", "environment"),
    ("process::", "processes"),
    ("thread::", "threads"),
    ("thread_local!", "state of threads"),
    ("SystemTime::now", "clock"),
    ("Instant::now", "clock"),
    ("Timestamp::now", "clock"),
    ("Zoned::now", "clock"),
    ("tokio::", "runtime"),
    ("rand::", "randomness"),
    ("getrandom", "randomness"),
    ("RandomState", "randomness"),
    ("HashMap", "unordered map (use `BTreeMap`)"),
    ("HashSet", "unordered set (use `BTreeSet`)"),
    ("println!", "output"),
    ("eprintln!", "output"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    #[test]
    fn what_a_pure_room_may_not_touch_is_found() {
        let lines = [
            "let text = std::fs::read_to_string(path);",
            "use std::{fs::File, io};",
            "let now = SystemTime::now();",
            "use std::collections::HashMap;",
            "let home = env::var(\"HOME\");",
            "std::thread::sleep(d);",
            "let n: u64 = rand::random();",
        ];
        for line in lines {
            for room in ROOMS {
                let path = format!("{room}a.rs");
                assert_eq!(check(&planted(&[(&path, line)])).len(), 1, "{line}");
            }
            assert!(check(&planted(&[("crates/guard/src/a.rs", line)])).is_empty());
        }
    }

    #[test]
    fn tests_and_comments_of_a_pure_room_are_free() {
        let text = "// fs::read\nfn f() {}\n#[cfg(test)]\nmod tests {\nuse std::fs::read;\n}\n";
        assert!(check(&planted(&[("crates/core/src/a.rs", text)])).is_empty());
        assert!(
            check(&planted(&[(
                "crates/core/tests/it/main.rs",
                "use std::fs::read;"
            )]))
            .is_empty()
        );
    }
}
