//! Child processes with a log file, deadlines and an end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::limits;
use crate::signals::{self, Signal};

/// A child process whose output goes to a log file and which dies with this value.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with stdout and stderr appended to the file `log`.
    ///
    /// # Errors
    /// When the log cannot be written or the program cannot be started.
    pub fn spawn(mut command: Command, log: &Path) -> Result<Self> {
        let program = Path::new(command.get_program());
        let name = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("write the log {}", log.display()))?;
        let err = out.try_clone().context("share the log")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("start `{name}`"))?;
        Ok(Self {
            name,
            child,
            log: log.to_owned(),
        })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything the process has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    /// The last lines the process has written.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until a file exists.
    ///
    /// # Errors
    /// When the process ends first or the deadline passes; the message carries the log's tail.
    pub fn wait_for_file(&mut self, path: &Path, limit: Duration) -> Result<()> {
        let what = format!("the file {}", path.display());
        self.wait_for(&what, limit, |_| path.exists())
    }

    /// Waits until a line with `text` is in the log.
    ///
    /// # Errors
    /// When the process ends first or the deadline passes; the message carries the log's tail.
    pub fn wait_for_line(&mut self, text: &str, limit: Duration) -> Result<()> {
        self.wait_for(&format!("the line `{text}`"), limit, |process| {
            process.log().contains(text)
        })
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When the deadline passes; the process then still runs.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().context("wait for a child")? {
                return Ok(status);
            }
            if started.elapsed() > limit {
                bail!(
                    "`{}` still runs after {limit:?}\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            std::thread::sleep(limits::POLL);
        }
    }

    /// Asks it to end with SIGTERM and waits until it has.
    ///
    /// # Errors
    /// When the deadline passes; the process then still runs.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        if self.is_running() {
            signals::send(self.pid(), Signal::TERM)?;
        }
        self.wait(limit)
    }

    /// Kills it with SIGKILL and reaps it; its own children live on.
    ///
    /// # Errors
    /// When the signal is refused.
    pub fn kill_9(&mut self) -> Result<()> {
        self.child
            .kill()
            .with_context(|| format!("kill `{}`", self.name))?;
        self.child
            .wait()
            .with_context(|| format!("reap `{}`", self.name))?;
        Ok(())
    }

    fn wait_for(
        &mut self,
        what: &str,
        limit: Duration,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> Result<()> {
        let started = Instant::now();
        loop {
            // The order matters: a process may fulfil the condition and end at once.
            let ended = self.child.try_wait().context("wait for a child")?;
            if holds(self) {
                return Ok(());
            }
            if let Some(status) = ended {
                bail!(
                    "`{}` ended ({status}) before {what}\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            if started.elapsed() > limit {
                bail!(
                    "`{}`: no {what} after {limit:?}\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            std::thread::sleep(limits::POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a file, for error messages.
#[must_use]
pub fn tail(path: &Path) -> String {
    let Ok(bytes) = fs::read(path) else {
        return format!("(no log at {})", path.display());
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(limits::LOG_TAIL_LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}
