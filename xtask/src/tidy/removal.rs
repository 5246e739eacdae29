//! I3: vault and store remove, overwrite and truncate in the listed files only.

use super::Finding;
use crate::tree::{Tree, has_word};

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for folder in FOLDERS {
        for (file, rust) in tree.rust(folder) {
            if LISTED.iter().any(|(path, _)| *path == file.path) {
                continue;
            }
            for line in rust.product() {
                for word in WORDS.iter().filter(|word| has_word(line.code, word)) {
                    let text = format!(
                        "`{word}` outside the files that may remove (xtask/src/tidy/removal.rs)"
                    );
                    findings.push(Finding::new(&file.path, line.number, text));
                }
            }
        }
    }
    for (path, _) in LISTED {
        let is_needed = tree.rust(path).any(|(_, rust)| {
            rust.product()
                .any(|line| WORDS.iter().any(|word| has_word(line.code, word)))
        });
        if !is_needed && tree.file(OWN).is_some() {
            let text = format!("{path} removes nothing: take it off the list");
            findings.push(Finding::new(OWN, 0, text));
        }
    }
    findings
}

const OWN: &str = "xtask/src/tidy/removal.rs";
const FOLDERS: [&str; 2] = ["crates/store/src/", "crates/vault/src/"];

const WORDS: &[&str] = &[
    "Expire",
    "remove_dir",
    "remove_dir_all",
    "remove_file",
    "set_len",
    "truncate",
    "unlink",
    "unlinkat",
];

/// The files that may, and what they remove.
const LISTED: &[(&str, &str)] = &[
    (
        "crates/store/src/keyring.rs",
        "its own unfinished file beside a new key, never a key",
    ),
    (
        "crates/store/src/ledger.rs",
        "the half of a line that a crash left behind; it was never acknowledged",
    ),
    (
        "crates/store/src/ledger/state.rs",
        "entries that could not be made durable; whoever waited for them is told so",
    ),
    (
        "crates/store/src/object/cache.rs",
        "copies of parts of far objects on this disk, which can be fetched again",
    ),
    (
        "crates/store/src/object/directory.rs",
        "its own unfinished temporary files, never an object",
    ),
    (
        "crates/store/src/object/expire.rs",
        "objects: the trait that retention alone is given",
    ),
    (
        "crates/store/src/object/probe/directory.rs",
        "the folder that the probe has just made for itself, with the object that it tries",
    ),
    (
        "crates/vault/src/clone/folder.rs",
        "the one folder that was made for a clone, known by name, lock, device and inode",
    ),
    (
        "crates/vault/src/drill/folder.rs",
        "the one folder that the drill made, known by name, device and inode",
    ),
    (
        "crates/vault/src/drill/open.rs",
        "what an earlier mount has left below a drill's folder",
    ),
    (
        "crates/vault/src/mirror/folder.rs",
        "data directories that the mirror made and noted, never one that was handed over",
    ),
    (
        "crates/vault/src/mount/blocks.rs",
        "the length of files of a clone's own overlay, as the clone's server asks",
    ),
    (
        "crates/vault/src/mount/hot.rs",
        "its own unfinished file beside a list that can be made again",
    ),
    (
        "crates/vault/src/mount/layers.rs",
        "the length of files of a clone's own overlay",
    ),
    (
        "crates/vault/src/mount/names.rs",
        "empty folders of a clone's own overlay, as the clone's server asks",
    ),
    (
        "crates/vault/src/mount/overlay.rs",
        "files of a clone's own overlay, as its server asks, and unfinished ones of its own",
    ),
    (
        "crates/vault/src/mount/record.rs",
        "the length of a clone's own records that it makes",
    ),
    (
        "crates/vault/src/mount/serve.rs",
        "the kernel's question of that name, about a clone's own overlay",
    ),
    (
        "crates/vault/src/restore/over.rs",
        "log behind the target in a directory that was just laid over a mount",
    ),
    (
        "crates/vault/src/restore/files.rs",
        "its own notes of a restore that is complete; it gives files that it made their length",
    ),
    (
        "crates/vault/src/retention/expiry.rs",
        "what a recorded plan names, each object looked at again",
    ),
    (
        "crates/vault/src/spool/removal.rs",
        "segments of its own spool that the repository has whole, and room that no log came for",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    #[test]
    fn a_removal_outside_the_listed_files_is_found() {
        let text = "fn f() { fs::remove_dir_all(path); }\n";
        let tree = planted(&[
            ("crates/vault/src/capture.rs", text),
            ("crates/store/src/object/directory.rs", text),
            ("crates/guard/src/lease.rs", text),
        ]);
        let findings = check(&tree);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].path, "crates/vault/src/capture.rs");
    }

    #[test]
    fn a_listed_file_that_removes_nothing_is_found() {
        let tree = planted(&[(OWN, ""), ("crates/store/src/object/directory.rs", "")]);
        assert_eq!(check(&tree).len(), LISTED.len());
    }
}
