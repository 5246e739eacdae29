//! The server of a drill: its owner comes in over the private socket that the restore made, and it
//! is stopped whatever happens.

use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::limits;
use crate::restore::{LocalServer, Programs};
use crate::source::{Connection, SourceError};

/// The server that runs on the drill's data directory, if one does.
///
/// Dropping it stops the server at once: what is in that directory is thrown away.
#[derive(Debug)]
pub(super) struct Server {
    data: PathBuf,
    local: Option<LocalServer>,
    programs: Option<Programs>,
}

impl Server {
    /// Takes charge of whatever a restore starts on `data`, before it is started.
    pub(super) fn on(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            local: None,
            programs: None,
        }
    }

    /// Takes the way in, and the programs that it runs by.
    pub(super) fn opened(&mut self, local: LocalServer, programs: Option<Programs>) {
        self.local = Some(local);
        self.programs = programs;
    }

    /// Returns the way in with the programs of the same PostgreSQL.
    pub(super) fn programs(&self) -> Option<(&LocalServer, &Programs)> {
        Some((self.local.as_ref()?, self.programs.as_ref()?))
    }

    /// Connects to `database` as the cluster's first superuser, whose eyes nothing is hidden from.
    pub(super) fn connect(&self, database: &str) -> Result<Connection, SourceError> {
        match &self.local {
            Some(local) => local.connect(database),
            None => Err(SourceError::nonsense(
                "log in",
                "the server was not started",
            )),
        }
    }

    /// Connects to a database that every cluster has, unless somebody dropped it.
    pub(super) fn connect_anywhere(&self) -> Result<Connection, SourceError> {
        self.connect("postgres").or_else(|error| match error {
            SourceError::Refused { .. } => self.connect("template1"),
            error => Err(error),
        })
    }

    /// Stops the server in order, so that all its pages are on disk.
    pub(super) fn stop(&mut self) -> Result<(), String> {
        let Some(pid) = self.pid() else {
            return Err("it has ended by itself".to_owned());
        };
        self.end(pid, Signal::INT)?;
        match self.data.join(PID_FILE).exists() {
            true => Err("it ended without putting its files in order".to_owned()),
            false => Ok(()),
        }
    }

    /// Ends every process that works in the data directory or was told to serve it, whether or not it
    /// has said so there yet.
    pub(super) fn end_strays(&self) {
        // Where its mount's process was killed, the folder itself does not answer.
        let (Some(above), Some(name)) = (self.data.parent(), self.data.file_name()) else {
            return;
        };
        let Ok(data) = std::fs::canonicalize(above).map(|above| above.join(name)) else {
            return;
        };
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let strays = processes.filter_map(|entry| {
            let number: i32 = entry.file_name().to_str()?.parse().ok()?;
            let path = entry.path();
            let works_there = std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd == data);
            let arguments = std::fs::read(path.join("cmdline")).unwrap_or_default();
            let arguments: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
            let data = self.data.as_os_str().as_encoded_bytes();
            let serves_it = arguments.windows(2).any(|pair| pair == [&b"-D"[..], data]);
            Pid::from_raw(number).filter(|_| works_there || serves_it)
        });
        // What it has to lose is thrown away: its parts end when it is gone.
        for pid in strays {
            if kill_process(pid, Signal::KILL).is_ok() {
                tracing::info!(
                    pid = pid.as_raw_nonzero(),
                    "ended a server that a drill had left"
                );
            }
        }
    }

    fn end(&self, pid: Pid, signal: Signal) -> Result<(), String> {
        let deadline = Instant::now() + limits::DRILL_STOP;
        // It may end by itself meanwhile: the wait tells.
        let _ = kill_process(pid, signal);
        while self.runs(pid) {
            if Instant::now() >= deadline {
                return Err(format!("it runs on as process {}", pid.as_raw_nonzero()));
            }
            std::thread::sleep(limits::DRILL_POLL);
        }
        Ok(())
    }

    /// Returns the process that holds the data directory, if one does.
    ///
    /// SOURCE: PostgreSQL 18, `utils/pidfile.h`: line 1 is the process.
    fn pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.data.join(PID_FILE)).ok()?;
        let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok()?)?;
        self.runs(pid).then_some(pid)
    }

    /// A number may belong to somebody else by now: a server works in its data directory.
    fn runs(&self, pid: Pid) -> bool {
        if test_kill_process(pid).is_err() {
            return false;
        }
        let place = PathBuf::from(format!("/proc/{}/cwd", pid.as_raw_nonzero()));
        match (
            std::fs::canonicalize(&place),
            std::fs::canonicalize(&self.data),
        ) {
            (Ok(place), Ok(data)) => place == data,
            // Without `/proc` the number in the directory's own file must do; a process that is
            // ending has no place any more.
            _ => !Path::new("/proc/self/cwd").exists(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for signal in [Signal::QUIT, Signal::KILL] {
            let Some(pid) = self.pid() else {
                return;
            };
            if let Err(why) = self.end(pid, signal) {
                tracing::warn!(%why, "the drill's server does not stop");
            }
        }
    }
}

const PID_FILE: &str = "postmaster.pid";
