//! The index of error codes, from the table in `core`.

use std::fmt::Write as _;

use anyhow::Result;

use super::Output;
use crate::tidy::errors::{PAGES, TABLE, entries};
use crate::tree::Tree;

/// Makes `docs/errors/index.md`.
pub fn index(tree: &Tree) -> Result<Option<Output>> {
    let Some(table) = tree.file(TABLE) else {
        return Ok(None);
    };
    let mut codes = entries(&table.text);
    codes.sort_by(|a, b| a.code.cmp(&b.code));
    let mut text = String::from(HEAD);
    for class in CLASSES {
        let of_class = |code: &&_| starts_class(code, class.letter);
        let rows: Vec<_> = codes.iter().filter(of_class).collect();
        if rows.is_empty() {
            continue;
        }
        writeln!(text, "\n## {}\n\n{}\n", class.title, class.about)?;
        writeln!(text, "| code | what it means |\n|---|---|")?;
        for row in rows {
            let is_written = tree.file(&format!("{PAGES}{}.md", row.code)).is_some();
            match is_written {
                true => writeln!(text, "| [{0}]({0}.md) | {1} |", row.code, row.title)?,
                false => writeln!(text, "| {} | {} |", row.code, row.title)?,
            }
        }
    }
    Ok(Some(Output {
        path: "docs/errors/index.md",
        text,
    }))
}

fn starts_class(entry: &crate::tidy::errors::Entry, letter: char) -> bool {
    entry.code.chars().nth(1) == Some(letter)
}

struct Class {
    letter: char,
    title: &'static str,
    about: &'static str,
}

const HEAD: &str = "# Error codes\n\n\
    <!-- Made by `cargo xtask gen` from crates/core/src/code.rs. -->\n\n\
    A code has five characters and is a valid private SQLSTATE, so it is the same in PostgreSQL, HTTP, the command line and the ledger.\n\
    A code is never used for something else later.\n\
    Each page says what happened, what did not happen, and what to do.\n";

const CLASSES: &[Class] = &[
    Class {
        letter: 'H',
        title: "Refused: `ZH`",
        about: "A verdict; the agent or the approver acts.",
    },
    Class {
        letter: 'U',
        title: "Usage: `ZU`",
        about: "The input or the configuration is not right; whoever wrote it acts.",
    },
    Class {
        letter: 'L',
        title: "Access: `ZL`",
        about: "An identity or a lease is not right; the operator acts.",
    },
    Class {
        letter: 'S',
        title: "Upstream: `ZS`",
        about: "A database, a provider or a store failed; often nobody needs to act at first.",
    },
    Class {
        letter: 'I',
        title: "Integrity: `ZI`",
        about: "A checksum, the ledger or a proof is wrong; a human acts, now.",
    },
    Class {
        letter: 'B',
        title: "Bug: `ZB`",
        about: "An invariant of ours is broken; tell us.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    #[test]
    fn the_index_lists_codes_by_class_and_links_their_pages() {
        let tree = planted(&[
            (TABLE, "ZU101 \"b\",\nZH002 \"d\",\nZH001 \"c\",\n"),
            ("docs/errors/ZH001.md", ""),
        ]);
        let text = index(&tree).unwrap().unwrap().text;
        let at = |part: &str| text.find(part).unwrap();
        assert!(at("| [ZH001](ZH001.md) | c |") < at("| ZH002 | d |"));
        assert!(at("| ZH002 | d |") < at("| ZU101 | b |"));
        assert!(!text.contains("Integrity"));
    }
}
