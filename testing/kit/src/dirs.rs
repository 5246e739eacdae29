//! Temporary folders that a failing test may keep.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::postgres::ServerUser;

/// A temporary folder, removed when it is dropped.
///
/// With `HOLDFAST_KEEP=1` the folder of a failing test stays, and its path is printed.
/// Folders whose process was killed are removed by the next process that makes one.
#[derive(Debug)]
pub struct TestDir {
    dir: Option<TempDir>,
    // Held for the life of the folder: whoever can lock it knows that the owner is gone.
    _owner: File,
}

impl TestDir {
    /// Makes an empty folder whose name contains `subject`.
    ///
    /// # Errors
    /// When the temporary folder of the system cannot be written.
    pub fn new(subject: &str) -> Result<Self> {
        static SWEEP: Once = Once::new();
        let base = std::env::temp_dir();
        SWEEP.call_once(|| sweep(&base));
        Self::make(&base, subject)
    }

    /// Makes a folder for servers below `base`, where abandoned ones are removed first.
    ///
    /// # Errors
    /// As [`TestDir::for_server`].
    pub fn for_server_in(base: &Path, subject: &str) -> Result<Self> {
        sweep(base);
        let made = Self::make(base, subject)?;
        ServerUser::current()?.own(made.path())?;
        Ok(made)
    }

    fn make(base: &Path, subject: &str) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{subject}-"))
            .tempdir_in(base)
            .context("make a temporary folder")?;
        let owner = File::create(dir.path().join(OWNER)).context("write the owner file")?;
        owner.lock().context("lock the owner file")?;
        Ok(Self {
            dir: Some(dir),
            _owner: owner,
        })
    }

    /// Makes a folder that belongs to the user that servers run as.
    ///
    /// # Errors
    /// As [`TestDir::new`], and when the folder cannot be given away.
    pub fn for_server(subject: &str) -> Result<Self> {
        let made = Self::new(subject)?;
        ServerUser::current()?.own(made.path())?;
        Ok(made)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir
            .as_ref()
            .map_or_else(|| Path::new(""), TempDir::path)
    }

    /// Leaves the folder where it is, for good.
    #[must_use]
    pub fn keep(mut self) -> PathBuf {
        let path = self.dir.take().map(TempDir::keep).unwrap_or_default();
        // The sweep removes folders with an owner file only.
        let _ = fs::remove_file(path.join(OWNER));
        path
    }
}

impl Drop for TestDir {
    #[expect(
        clippy::print_stderr,
        reason = "the person who asked to keep it must learn the path"
    )]
    fn drop(&mut self) {
        let wanted = std::env::var_os("HOLDFAST_KEEP").is_some_and(|value| value == "1");
        if wanted
            && std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            let path = dir.keep();
            let _ = fs::remove_file(path.join(OWNER));
            eprintln!("kept: {}", path.display());
        }
    }
}

/// Removes the folders of processes that are gone.
fn sweep(base: &Path) {
    for folder in abandoned(base) {
        let _ = fs::remove_dir_all(folder);
    }
}

/// The folders below `base` whose processes are gone.
#[must_use]
pub fn abandoned(base: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    ours.map(|entry| entry.path())
        .filter(|path| is_abandoned(path))
        .collect()
}

fn is_abandoned(dir: &Path) -> bool {
    let settled = |metadata: fs::Metadata| {
        let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
        age.is_some_and(|age| age > SETTLED)
    };
    // A folder that was made a moment ago may not have locked its owner file yet.
    fs::metadata(dir.join(OWNER)).is_ok_and(settled)
        && File::open(dir.join(OWNER)).is_ok_and(|owner| owner.try_lock().is_ok())
}

const PREFIX: &str = "holdfast-test-";
const OWNER: &str = ".owner";
const SETTLED: Duration = Duration::from_secs(60);
