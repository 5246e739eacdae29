//! No path of a developer's machine in a committed file.

use super::Finding;
use crate::tree::Tree;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        if file.path == OWN {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            let found = PLACES.iter().find(|place| names_a_place(line, place));
            if let Some(place) = found {
                let text = format!("`{place}...` is a path of one machine");
                findings.push(Finding::new(&file.path, number + 1, text));
            }
        }
    }
    findings
}

/// Whether the line has a path that begins with this place: not `.../home/`, not a web address.
fn names_a_place(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + place.len()..).unwrap_or_default();
        let is_start = before.is_none_or(|c| !c.is_alphanumeric() && !"./~_-*}".contains(c));
        let is_known = KNOWN.iter().any(|known| after.starts_with(known));
        is_start && !is_known && after.starts_with(|c: char| c.is_alphanumeric())
    })
}

const OWN: &str = "xtask/src/tidy/paths.rs";
const PLACES: &[&str] = &["/home/", "/Users/", "/work/"];
/// Homebrew's fixed place on Linux.
const KNOWN: &[&str] = &["linuxbrew/"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    #[test]
    fn a_path_of_one_machine_is_found() {
        let rows = [
            ("see /home/ada/src", 1),
            ("\"/Users/ada\"", 1),
            ("cp x /work/main", 1),
            ("/home/linuxbrew/.linuxbrew/opt", 0),
            ("https://example.com/work/x", 0),
            ("the folder /home/ of a user", 0),
        ];
        for (text, expected) in rows {
            let tree = planted(&[("docs/a.md", text)]);
            assert_eq!(check(&tree).len(), expected, "{text}");
        }
    }
}
