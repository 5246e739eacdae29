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
        SWEEP.call_once(sweep);
        let dir = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{subject}-"))
            .tempdir()
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
fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && is_abandoned(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
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
