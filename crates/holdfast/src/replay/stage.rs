//! What every part of a replay is given: programs, folders, progress, the stop; and how commands are run.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::process::{Enough, Process};
use super::programs::Programs;
use super::progress::Progress;
use super::stop::Stop;
use super::trouble::Trouble;

/// The folder of one act and what is needed to play in it.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Where the programs are.
    pub programs: Programs,
    /// The folder of the act.
    pub folder: PathBuf,
    /// What a person sees.
    pub progress: Progress,
    /// Ctrl-C.
    pub stop: Stop,
    /// Where random choices begin.
    pub seed: u64,
}

impl Stage {
    /// Makes a folder below the act's, for everybody to enter or for its owner alone.
    ///
    /// # Errors
    /// [`Trouble::System`].
    pub fn make_folder(&self, name: &str, mode: u32) -> Result<PathBuf, Trouble> {
        let path = self.folder.join(name);
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&path);
        made.map_err(Trouble::system(format!("make `{}`", path.display())))?;
        Ok(path)
    }

    /// Writes a file that its owner alone may read, in one step.
    ///
    /// # Errors
    /// [`Trouble::System`].
    pub fn write_file(&self, path: &Path, text: &str) -> Result<(), Trouble> {
        let beside = path.with_extension("new");
        let write = || {
            let mut file = fs::File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&beside)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&beside, path)
        };
        write().map_err(Trouble::system(format!("write `{}`", path.display())))
    }

    /// Returns the folder for logs.
    ///
    /// # Errors
    /// [`Trouble::System`].
    pub fn logs(&self) -> Result<PathBuf, Trouble> {
        self.make_folder("logs", 0o755)
    }

    /// Starts a program that keeps running.
    ///
    /// # Errors
    /// [`Trouble::System`].
    pub fn start(&self, name: &str, command: Command) -> Result<Process, Trouble> {
        Process::start(name, command, &self.logs()?)
    }

    /// Runs a command to its end and reads the JSON of its last line.
    ///
    /// # Errors
    /// [`Trouble::Part`] when it fails, with what it said.
    pub fn ask(&self, name: &str, command: Command, limit: Duration) -> Result<Value, Trouble> {
        let before = self.logs()?.join(format!("{name}.out"));
        // The file grows with each call of that name; only what is new is the answer.
        let skip = fs::metadata(&before).map_or(0, |found| found.len());
        let mut process = self.start(name, command)?;
        let status = process.wait_end(&self.stop, limit, || Ok(Enough::No))?;
        if let Some(status) = status.filter(|status| !status.success()) {
            return Err(process.trouble(&format!("it failed ({status})")));
        }
        let out = process.out();
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let answer = out.get(skip..).unwrap_or_default();
        let line = answer.lines().last().unwrap_or_default();
        serde_json::from_str(line).map_err(|error| {
            process.trouble(&format!("its answer is not the expected JSON: {error}"))
        })
    }
}

/// Returns the text at a pointer, or says what is missing.
///
/// # Errors
/// [`Trouble::Part`].
pub fn text_at<'a>(value: &'a Value, pointer: &str, part: &str) -> Result<&'a str, Trouble> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.ok_or_else(|| Trouble::part(part, format!("its answer has no text at {pointer}")))
}

/// Returns the number at a pointer, or says what is missing.
///
/// # Errors
/// [`Trouble::Part`].
pub fn number_at(value: &Value, pointer: &str, part: &str) -> Result<u64, Trouble> {
    let found = value.pointer(pointer).and_then(Value::as_u64);
    found.ok_or_else(|| Trouble::part(part, format!("its answer has no number at {pointer}")))
}
