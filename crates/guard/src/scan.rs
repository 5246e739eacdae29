//! Finds credentials where agents can read them, and says what each of them could destroy.
//!
//! Only what a pack knows is looked for, and connection strings with passwords. A scan reads; it never
//! writes, and it asks no provider unless [`ask_reach`] is called.

mod ask;
mod text;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use holdfast_core::{Code, Coded, Secret};
use holdfast_judge::packs::Packs;
use serde::Serialize;

use crate::limits::{SCAN_DEPTH_MAX, SCAN_FILE_BYTES_MAX, SCAN_FILES_MAX};

pub use ask::{Reach, ask_reach};

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// A connection string of a database, with a password.
    DatabaseUrl,
    /// A credential of a provider.
    ProviderToken,
}

/// A credential that lies where agents can read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: u64,
    /// What it is.
    pub kind: FindingKind,
    /// The provider, by its pack's name; for databases the scheme of the connection string.
    pub provider: String,
    /// The beginning of it and its length; never all of it.
    pub shown: String,
    /// Why it is taken for one.
    pub because: String,
    /// Where the credential may go; empty for databases.
    pub hosts: Vec<String>,
    /// What somebody who has it can do.
    pub can_destroy: Vec<String>,
    /// The credential itself, for custody.
    #[serde(skip)]
    pub secret: Secret,
}

/// Something that was not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

/// What a scan did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ScanReport {
    /// What was found, by file and line.
    pub findings: Vec<Finding>,
    /// Files that were looked at.
    pub files: usize,
    /// What was not looked at, but for folders of other people's programs.
    pub skipped: Vec<Skipped>,
    /// More than the limit was there, and not all was looked at.
    pub cut: bool,
}

/// Why nothing was scanned.
#[derive(Debug, thiserror::Error)]
#[error("cannot scan `{}`", path.display())]
pub struct ScanError {
    /// What was to be scanned.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}

impl Coded for ScanError {
    fn code(&self) -> Code {
        Code::ZU508
    }

    fn hint(&self) -> Option<String> {
        Some("name a folder or file that exists and that you may read".to_owned())
    }
}

/// Folders in which nobody keeps credentials by hand, by the end of their path.
const PASSED_OVER: [&str; 5] = [
    ".git/objects",
    "node_modules",
    "target",
    "__pycache__",
    ".venv",
];

/// Places below a home folder in which credentials are kept or left behind.
const HOME_PLACES: [&str; 16] = [
    ".railway",
    ".bash_history",
    ".zsh_history",
    ".local/share/fish/fish_history",
    ".psql_history",
    ".pgpass",
    ".netrc",
    ".npmrc",
    ".env",
    ".bashrc",
    ".zshrc",
    ".profile",
    ".cursor/mcp.json",
    ".claude.json",
    ".codex/config.toml",
    ".gemini/settings.json",
];

/// Returns the places below a home folder that exist and are worth a scan.
pub fn home_places(home: &Path) -> Vec<PathBuf> {
    let places = HOME_PLACES.iter().map(|place| home.join(place));
    places.filter(|place| place.exists()).collect()
}

/// Looks for credentials in files and folders.
///
/// Links to folders are not followed and a file that has several names is read once. Binary files,
/// files beyond the size limit and what cannot be read are listed in the report.
///
/// # Errors
/// [`ScanError`] when a path that was named does not exist or cannot be read.
pub fn scan(paths: &[PathBuf], packs: &Packs) -> Result<ScanReport, ScanError> {
    let mut scan = Scan {
        report: ScanReport::default(),
        seen: BTreeSet::new(),
        finder: text::Finder::new(packs),
    };
    for path in paths {
        let failed = |source| ScanError {
            path: path.clone(),
            source,
        };
        let found = fs::metadata(path).map_err(failed)?;
        if found.is_dir() {
            fs::read_dir(path).map_err(failed)?;
            scan.folder(path);
        } else {
            scan.file(path);
        }
    }
    let report = &mut scan.report;
    report
        .findings
        .sort_by(|a, b| (&a.file, a.line, &a.shown).cmp(&(&b.file, b.line, &b.shown)));
    report.skipped.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(scan.report)
}

struct Scan {
    report: ScanReport,
    /// Device and inode of what was looked at.
    seen: BTreeSet<(u64, u64)>,
    finder: text::Finder,
}

impl Scan {
    /// Walks without recursion, so that no depth of folders can exhaust the stack.
    fn folder(&mut self, root: &Path) {
        let mut waiting = vec![(root.to_owned(), 0_usize)];
        while let Some((folder, depth)) = waiting.pop() {
            if depth > SCAN_DEPTH_MAX {
                self.skip(&folder, "it is too deep");
                continue;
            }
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) => {
                    self.skip(&folder, &error.to_string());
                    continue;
                }
            };
            for entry in entries.flatten() {
                let path = entry.path();
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if !is_folder {
                    self.file(&path);
                } else if !PASSED_OVER.iter().any(|end| path.ends_with(end)) {
                    waiting.push((path, depth.saturating_add(1)));
                }
            }
        }
    }

    fn file(&mut self, path: &Path) {
        if self.report.files >= SCAN_FILES_MAX {
            self.report.cut = true;
            return;
        }
        // Through a link, if it is one; pipes and devices are never opened.
        let found = match fs::metadata(path) {
            Ok(found) => found,
            Err(error) => return self.skip(path, &error.to_string()),
        };
        if !found.is_file() || !self.seen.insert((found.dev(), found.ino())) {
            return;
        }
        if found.len() > SCAN_FILE_BYTES_MAX {
            return self.skip(path, "it is too large");
        }
        let mut bytes = Vec::new();
        let read = fs::File::open(path)
            .and_then(|file| file.take(SCAN_FILE_BYTES_MAX).read_to_end(&mut bytes));
        if let Err(error) = read {
            return self.skip(path, &error.to_string());
        }
        self.report.files = self.report.files.saturating_add(1);
        if bytes.contains(&0) {
            return self.skip(path, "it is no text");
        }
        let text = String::from_utf8_lossy(&bytes);
        self.report.findings.extend(self.finder.find(path, &text));
    }

    fn skip(&mut self, path: &Path, why: &str) {
        self.report.skipped.push(Skipped {
            path: path.to_owned(),
            why: why.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests;
