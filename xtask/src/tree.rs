//! The files of the workspace, read once for all rules.

mod rust;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use walkdir::{DirEntry, WalkDir};

pub use self::rust::{Line, RustText, has_word};

/// Every text file of the workspace that a rule may look at.
#[derive(Debug, Default)]
pub struct Tree {
    /// The files, ordered by path.
    pub files: Vec<File>,
}

/// One text file.
#[derive(Debug)]
pub struct File {
    /// The path below the root, with forward slashes.
    pub path: String,
    /// What is in it.
    pub text: String,
    /// The same as Rust, for `.rs` files.
    pub rust: Option<RustText>,
}

impl Tree {
    /// Reads the workspace.
    ///
    /// # Errors
    /// When a file cannot be read. Files that are not UTF-8 are left out.
    pub fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        let entries = WalkDir::new(root)
            .sort_by_file_name()
            .into_iter()
            .filter_entry(is_ours);
        for entry in entries {
            let entry = entry.context("list the workspace")?;
            if !entry.file_type().is_file() {
                continue;
            }
            let bytes = fs::read(entry.path())
                .with_context(|| format!("read {}", entry.path().display()))?;
            let Ok(text) = String::from_utf8(bytes) else {
                continue;
            };
            let below = entry.path().strip_prefix(root).unwrap_or(entry.path());
            let path = below.to_string_lossy().replace('\\', "/");
            files.push(File::new(path, text));
        }
        Ok(Self { files })
    }

    /// The files whose path begins with `prefix` and ends with `suffix`.
    pub fn matching(&self, prefix: &str, suffix: &str) -> impl Iterator<Item = &File> {
        self.files
            .iter()
            .filter(move |file| file.path.starts_with(prefix) && file.path.ends_with(suffix))
    }

    /// The file at exactly this path.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The Rust files whose path begins with `prefix`.
    pub fn rust(&self, prefix: &str) -> impl Iterator<Item = (&File, &RustText)> {
        self.matching(prefix, ".rs")
            .filter_map(|file| Some((file, file.rust.as_ref()?)))
    }
}

impl File {
    fn new(path: String, text: String) -> Self {
        let rust = path
            .ends_with(".rs")
            .then(|| RustText::new(&text, is_test_file(&path)));
        Self { path, text, rust }
    }
}

/// A tree for a test of a rule.
#[cfg(test)]
pub fn planted(files: &[(&str, &str)]) -> Tree {
    let files = files
        .iter()
        .map(|(path, text)| File::new((*path).to_owned(), (*text).to_owned()))
        .collect();
    Tree { files }
}

fn is_ours(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    entry.depth() == 0
        || !matches!(
            name.as_ref(),
            ".drivers" | ".git" | ".postgres" | "target" | "node_modules"
        )
}

/// Whether a Rust file is test code from its first line.
fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/benches/")
}
