//! The mirror's server: started or found running, asked, promoted, stopped.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_core::Lsn;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::MirrorError;
use crate::limits;
use crate::restore::{LocalServer, Standby, tail};
use crate::source::{Connection, SourceError};

const PID_FILE: &str = "postmaster.pid";
const ASK: &str = "ask the mirror";

/// A server that follows the log.
pub(super) struct Server {
    pub(super) standby: Standby,
    pub(super) local: LocalServer,
    connection: Option<Connection>,
}

/// What `postmaster.pid` says.
struct Lock {
    pid: Pid,
    port: u16,
    sockets: PathBuf,
    state: String,
}

impl Server {
    /// Takes over the server that runs on the mirror's directory, or starts one, and waits until it
    /// lets us in; `meanwhile` is called again and again.
    pub(super) fn up(
        standby: &Standby,
        meanwhile: &mut dyn FnMut() -> Result<(), MirrorError>,
    ) -> Result<Self, MirrorError> {
        let log = standby.data.join("holdfast.log");
        if running(&standby.data).is_none() {
            let mut child = standby.start()?;
            // Whoever started it must reap it, or its number stays taken while we live.
            let _ = std::thread::Builder::new()
                .name("holdfast-reap".to_owned())
                .spawn(move || child.wait());
        }
        let deadline = Instant::now() + limits::MIRROR_START;
        let began = Instant::now();
        loop {
            meanwhile()?;
            match lock(&standby.data) {
                Some(lock) if matches!(lock.state.as_str(), "standby" | "ready") => {
                    return Self::enter(standby, &lock, log);
                }
                Some(_) => {}
                None if began.elapsed() > GRACE => return Err(ended(standby, &log)),
                None => {}
            }
            if Instant::now() >= deadline {
                return Err(ended(standby, &log));
            }
            std::thread::sleep(limits::PROMOTION_POLL);
        }
    }

    fn enter(standby: &Standby, lock: &Lock, log: PathBuf) -> Result<Self, MirrorError> {
        let mut last = None;
        for superuser in standby.superusers() {
            let local = LocalServer {
                sockets: lock.sockets.clone(),
                superuser,
                port: lock.port,
                pid: lock.pid.as_raw_nonzero().get().unsigned_abs(),
                log: log.clone(),
            };
            match anywhere(&local) {
                Ok(connection) => {
                    return Ok(Self {
                        standby: standby.clone(),
                        local,
                        connection: Some(connection),
                    });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(match last {
            Some(error) => MirrorError::Ask(error),
            None => MirrorError::Ask(SourceError::nonsense(ASK, "no role was found in it")),
        })
    }

    /// Tells whether the server still runs.
    pub(super) fn runs(&self) -> bool {
        running(&self.standby.data).is_some()
    }

    /// Says why it ended.
    pub(super) fn ended(&self) -> MirrorError {
        ended(&self.standby, &self.local.log)
    }

    /// Asks how far it has replayed.
    pub(super) fn replayed(&mut self) -> Result<Lsn, MirrorError> {
        let text = self.ask("SELECT coalesce(pg_last_wal_replay_lsn(), '0/0')::text")?;
        text.parse()
            .map_err(|_| MirrorError::Ask(SourceError::nonsense(ASK, "no position")))
    }

    /// Tells whether it waits for settings as large as the source's.
    pub(super) fn is_paused(&mut self) -> Result<bool, MirrorError> {
        Ok(self.ask("SELECT pg_is_wal_replay_paused()::text")? == "true")
    }

    /// Returns the last lines of its log.
    pub(super) fn said(&self) -> String {
        tail(&self.local.log)
    }

    fn ask(&mut self, sql: &str) -> Result<String, MirrorError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => anywhere(&self.local).map_err(MirrorError::Ask)?,
        };
        let reply = connection.query(sql, ASK).map_err(MirrorError::Ask)?;
        self.connection = Some(connection);
        Ok(reply.single().unwrap_or_default().to_owned())
    }

    /// Ends recovery, and returns when the server takes writes: with a slot that keeps its log, and the
    /// source's roles let in.
    pub(super) fn promote(&mut self, slot: &str) -> Result<(), MirrorError> {
        // Replay may not wait for what somebody reads of it.
        self.ask("SELECT pg_promote(false)::text")?;
        let deadline = Instant::now() + limits::MIRROR_PROMOTE;
        while self.ask("SELECT pg_is_in_recovery()::text")? != "false" {
            if !self.runs() || Instant::now() >= deadline {
                return Err(MirrorError::Promote {
                    why: "it did not come into service".to_owned(),
                    said: self.said(),
                });
            }
            std::thread::sleep(limits::PROMOTION_POLL);
        }
        let literal = holdfast_wire::pg::replication::quote_literal(slot);
        let made = format!(
            "SELECT pg_create_physical_replication_slot({literal}, true)::text \
             WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {literal})"
        );
        self.ask(&made)?;
        self.standby
            .hand_over(self.local.port, &self.local.sockets)?;
        self.ask("SELECT pg_reload_conf()::text")?;
        // Asking for a transaction's number makes its end a record in the log.
        let written = self.ask("SELECT pg_current_xact_id()::text");
        written.map(drop).map_err(|error| MirrorError::Promote {
            why: holdfast_core::ErrorChain(&error).to_string(),
            said: self.said(),
        })
    }

    /// Returns the timeline that a promoted server writes.
    pub(super) fn timeline(&mut self) -> Result<u32, MirrorError> {
        let name = self.ask("SELECT pg_walfile_name(pg_current_wal_lsn())")?;
        let timeline = name
            .get(..8)
            .and_then(|hex| u32::from_str_radix(hex, 16).ok());
        timeline.ok_or_else(|| MirrorError::Ask(SourceError::nonsense(ASK, "no timeline")))
    }
}

/// Stops whatever runs on a data directory of ours, in order if it can be.
pub(super) fn stop(data: &Path) {
    for (signal, wait) in [
        (Signal::INT, limits::MIRROR_STOP),
        (Signal::QUIT, Duration::from_secs(5)),
        (Signal::KILL, Duration::from_secs(5)),
    ] {
        let Some(lock) = lock(data) else {
            return;
        };
        let _ = kill_process(lock.pid, signal);
        let deadline = Instant::now() + wait;
        while running(data).is_some() {
            if Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(limits::DRILL_POLL);
        }
    }
}

/// Returns the process that holds a data directory, if one does.
fn running(data: &Path) -> Option<Pid> {
    lock(data).map(|lock| lock.pid)
}

/// SOURCE: PostgreSQL 18, `utils/pidfile.h`: process, directory, start, port, socket folder, address,
/// shared memory, state.
fn lock(data: &Path) -> Option<Lock> {
    let text = std::fs::read_to_string(data.join(PID_FILE)).ok()?;
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let pid = Pid::from_raw(lines.first()?.parse().ok()?)?;
    // A number may belong to somebody else by now: a server works in its data directory.
    test_kill_process(pid).ok()?;
    let place = PathBuf::from(format!("/proc/{}/cwd", pid.as_raw_nonzero()));
    if let (Ok(place), Ok(data)) = (place.canonicalize(), data.canonicalize())
        && place != data
    {
        return None;
    }
    Some(Lock {
        pid,
        port: lines.get(3).and_then(|port| port.parse().ok()).unwrap_or(0),
        sockets: PathBuf::from(lines.get(4).copied().unwrap_or_default()),
        state: lines.get(7).copied().unwrap_or_default().to_owned(),
    })
}

fn anywhere(local: &LocalServer) -> Result<Connection, SourceError> {
    local.connect("postgres").or_else(|error| match error {
        SourceError::Refused { .. } => local.connect("template1"),
        error => Err(error),
    })
}

/// Says what a server that does not run wrote last; what it could not replay is a matter for people.
fn ended(standby: &Standby, log: &Path) -> MirrorError {
    let said = tail(log);
    let last = |word: &str| {
        let mut lines = said.lines().rev();
        lines.find_map(|line| Some(line.split_once(word)?.1.trim().to_owned()))
    };
    let directory = standby.data.clone();
    match (last("PANIC:"), last("FATAL:")) {
        (Some(why), _) => MirrorError::Replay { why, said },
        (None, why) => MirrorError::Server {
            directory,
            why: why.unwrap_or_else(|| "it ended".to_owned()),
        },
    }
}

/// How long a server may take to write its first file.
const GRACE: Duration = Duration::from_secs(10);
