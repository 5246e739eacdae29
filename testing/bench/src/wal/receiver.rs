//! Who receives the log: nobody, PostgreSQL's own receiver, or the vault.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use holdfast_testing::postgres::Server;
use holdfast_testing::signals;
use serde_json::Value;

use super::load::Kept;
use crate::child::DRILLED;
use crate::cluster;
use crate::ground::Ground;
use crate::limits;
use crate::meter::{self, Measured};

/// One way of receiving the log.
pub struct Receiver {
    /// Its name in tables.
    pub name: &'static str,
    program: Program,
    /// Whether commits wait for it.
    waits: Waits,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Program {
    None,
    PgReceivewal,
    /// The vault, which acknowledges what is kept there.
    Vault(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    No,
    Yes,
}

/// The row that others are compared with.
pub const NONE: &str = "none";

const fn receiver(name: &'static str, program: Program, waits: Waits) -> Receiver {
    Receiver {
        name,
        program,
        waits,
    }
}

/// All that are measured.
pub const RECEIVERS: &[Receiver] = &[
    receiver(NONE, Program::None, Waits::No),
    receiver("pg_receivewal", Program::PgReceivewal, Waits::No),
    receiver("holdfast", Program::Vault("spool"), Waits::No),
    receiver(
        "pg_receivewal --synchronous",
        Program::PgReceivewal,
        Waits::Yes,
    ),
    receiver(
        "holdfast synchronous, ack = spool",
        Program::Vault("spool"),
        Waits::Yes,
    ),
    receiver(
        "holdfast synchronous, ack = repository",
        Program::Vault("repository"),
        Waits::Yes,
    ),
];

/// A receiver that runs.
pub struct Receiving {
    process: Option<Measured>,
    program: Program,
}

impl Receiver {
    /// Starts it and waits until it streams, and until commits wait for it if they shall.
    pub fn start(&self, ground: &Ground, server: &Server) -> Result<Receiving> {
        ground.folder(HOME)?;
        let process = match self.program {
            Program::None => None,
            Program::PgReceivewal => Some(self.pg_receivewal(ground, server)?),
            Program::Vault(ack) => Some(self.vault(ground, server, ack)?),
        };
        if self.program != Program::None {
            wait_for(
                server,
                "SELECT count(*) > 0 FROM pg_stat_replication WHERE state = 'streaming'",
            )?;
        }
        if self.waits == Waits::Yes {
            cluster::ask(
                &server.url(),
                "ALTER SYSTEM SET synchronous_standby_names = '*'",
            )?;
            cluster::ask(&server.url(), "SELECT pg_reload_conf()")?;
            wait_for(
                server,
                "SELECT count(*) > 0 FROM pg_stat_replication WHERE sync_state = 'sync'",
            )?;
        }
        Ok(Receiving {
            process,
            program: self.program,
        })
    }

    fn pg_receivewal(&self, ground: &Ground, server: &Server) -> Result<Measured> {
        let slot = "SELECT pg_create_physical_replication_slot('bench', true)";
        cluster::ask(&server.url(), slot)?;
        let base = client(
            ground,
            server,
            "pg_basebackup",
            &["-c", "fast", "-X", "none"],
            BASE,
        );
        meter::run(base, &ground.path("wal-base.log"), None)?;
        ground.folder(LOG)?;
        let arguments: &[&str] = match self.waits {
            Waits::No => &["--slot=bench"],
            Waits::Yes => &["--slot=bench", "--synchronous"],
        };
        let command = client(ground, server, "pg_receivewal", arguments, LOG);
        Measured::start(command, &ground.path("receiver.log"), None)
    }

    fn vault(&self, ground: &Ground, server: &Server, ack: &str) -> Result<Measured> {
        let mode = match self.waits {
            Waits::No => "asynchronous",
            Waits::Yes => "synchronous",
        };
        let mut command = ground.child("capture");
        command
            .args([ground.path(STATE), ground.path(REPOSITORY)])
            .env("SOURCE_URL", server.url())
            .env("SOURCE_MODE", mode)
            .env("SOURCE_ACK", ack);
        let mut vault = Measured::start(command, &ground.path("receiver.log"), None)?;
        // A drill is a restore of its own, and not what is measured here.
        vault.line(DRILLED)?;
        Ok(vault)
    }
}

impl Receiving {
    /// Processor time of the receiver until now.
    pub fn cpu_s(&self) -> f64 {
        let pid = self.process.as_ref().map(Measured::pid);
        pid.map_or(0.0, |pid| meter::tree_cpu_s(pid).unwrap_or(0.0))
    }

    /// Brings back what it has, on a new server, and counts the commits of every client.
    pub fn recover(
        mut self,
        ground: &Ground,
        lost: &Server,
        password: &str,
    ) -> Result<Option<Kept>> {
        match (self.process.take(), self.program) {
            (None, _) | (_, Program::None) => Ok(None),
            (Some(process), Program::PgReceivewal) => {
                // It ends by itself when its server is gone, or now.
                process.stop()?;
                replay(ground, lost, password).map(Some)
            }
            (Some(process), Program::Vault(ack)) => {
                process.stop()?;
                if ack == "repository" {
                    // The machine of the vault is gone as well: the repository alone must do.
                    ground.clear(&format!("{STATE}/spool"))?;
                }
                restore(ground, password).map(Some)
            }
        }
    }
}

/// A client program of PostgreSQL that writes into a folder.
fn client(ground: &Ground, server: &Server, name: &str, arguments: &[&str], into: &str) -> Command {
    let mut command = ground.command(&ground.postgres.program(name));
    command
        .args(arguments)
        .args([
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-p",
            &server.port().to_string(),
            "-D",
        ])
        .arg(ground.path(into))
        .env("PGPASSWORD", server.password());
    command
}

/// Replays the log that PostgreSQL's receiver has on the base that was taken before.
fn replay(ground: &Ground, lost: &Server, password: &str) -> Result<Kept> {
    let log = ground.path(LOG);
    let base = ground.path(BASE);
    std::fs::write(base.join("recovery.signal"), "").context("ask for recovery")?;
    let fetch = format!(
        "cp {log}/%f %p 2>/dev/null || cp {log}/%f.partial %p",
        log = log.display()
    );
    let server = Server::builder(lost.installation())
        .existing(&base, password)
        .setting("restore_command", &fetch)
        .setting("hot_standby", "off")
        .setting("synchronous_standby_names", "")
        .log_file(&ground.path("replayed.log"))
        .start()?;
    wait_for(&server, "SELECT NOT pg_is_in_recovery()")?;
    count(&server.url())
}

/// Restores what the vault has.
fn restore(ground: &Ground, password: &str) -> Result<Kept> {
    let mut command = ground.child("restore");
    command
        .args([
            ground.path(STATE),
            ground.path(REPOSITORY),
            ground.path("restored"),
        ])
        .arg(&ground.postgres.bin_dir);
    let log = ground.path("wal-restore.log");
    meter::run(command, &log, None)?;
    let told = std::fs::read_to_string(&log).context("read what was restored")?;
    let restored: Value = serde_json::from_str(told.lines().last().unwrap_or_default())
        .with_context(|| format!("read what was restored: {told}"))?;
    let number = |name: &str| {
        let value = restored.pointer(name).and_then(Value::as_u64);
        value.with_context(|| format!("the restore told no {name}"))
    };
    let (port, pid) = (
        number("/server/port")?,
        u32::try_from(number("/server/pid")?)?,
    );
    let counted = count(&format!(
        "postgres://postgres:{password}@127.0.0.1:{port}/postgres"
    ));
    signals::kill_tree(pid)?;
    counted
}

fn count(url: &str) -> Result<Kept> {
    let text = cluster::ask(
        url,
        "SELECT string_agg(client || ' ' || many, ',') FROM
         (SELECT client, count(*) AS many FROM acknowledged GROUP BY client) AS counted",
    )?;
    let mut kept = Kept::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (client, many) = pair.split_once(' ').context("read a count")?;
        kept.insert(client.parse()?, many.parse()?);
    }
    Ok(kept)
}

fn wait_for(server: &Server, question: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let answer = cluster::ask(&server.url(), question);
        if matches!(answer.as_deref(), Ok("t")) {
            return Ok(());
        }
        if began.elapsed() > limits::ANSWER {
            bail!(
                "it does not come true: {question}: {answer:?}\n{}",
                server.log_tail()
            );
        }
        ensure!(
            !server.log_tail().contains("FATAL:  could not locate"),
            "{}",
            server.log_tail()
        );
        std::thread::sleep(limits::POLL);
    }
}

/// Where receivers write.
pub const HOME: &str = "receiver";
const BASE: &str = "receiver/base";
const LOG: &str = "receiver/log";
const STATE: &str = "receiver/state";
const REPOSITORY: &str = "receiver/repository";
