//! The three ways to the server: direct, PgBouncer, the door.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use holdfast_testing::ports::ReservedPort;
use holdfast_testing::postgres::Server;

use crate::child::DOOR_READY;
use crate::ground::Ground;
use crate::limits;
use crate::meter::{self, Measured};

/// The way without anything in between.
pub const DIRECT: &str = "direct";
/// The peer.
pub const POOLER: &str = "PgBouncer";
/// Ours.
pub const DOOR: &str = "door";

/// One way to the server.
pub struct Target {
    /// What it is called in tables.
    pub name: &'static str,
    /// The connection string of its client.
    pub url: String,
    /// Others, where one of them opens few sessions only.
    pub more: Vec<String>,
    process: Option<Measured>,
    _port: Option<ReservedPort>,
}

impl Target {
    /// Processor time of the process in between, in seconds.
    pub fn cpu_s(&self) -> f64 {
        let pid = self.process.as_ref().map(Measured::pid);
        pid.map_or(0.0, |pid| meter::cpu_s(pid).unwrap_or(0.0))
    }

    /// Resident memory of the process in between, in bytes.
    pub fn memory(&self) -> u64 {
        let pid = self.process.as_ref().map(Measured::pid);
        pid.map_or(0, |pid| meter::memory(pid, "VmRSS:"))
    }

    /// Ends the process in between.
    pub fn stop(self) -> Result<()> {
        match self.process {
            Some(process) => process.stop(),
            None => Ok(()),
        }
    }
}

/// Starts what is in between.
pub fn start(ground: &Ground, server: &Server) -> Result<Vec<Target>> {
    let direct = Target {
        name: DIRECT,
        url: server.url(),
        more: Vec::new(),
        process: None,
        _port: None,
    };
    Ok(vec![direct, pooler(ground, server)?, door(ground, server)?])
}

/// What the peer calls itself.
pub fn version() -> Result<String> {
    let said = Command::new(PROGRAM)
        .arg("--version")
        .output()
        .context("install the Debian package pgbouncer; it is the peer")?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// PgBouncer with session pooling, which is what a door's sessions are.
fn pooler(ground: &Ground, server: &Server) -> Result<Target> {
    let home = ground.folder("pgbouncer")?;
    let reserved = ReservedPort::take()?;
    let port = reserved.number();
    let write = |name: &str, text: String| {
        fs::write(home.join(name), text).with_context(|| format!("write PgBouncer's {name}"))
    };
    write("users", format!("\"postgres\" \"{}\"\n", server.password()))?;
    let sessions = 1200;
    write(
        "ini",
        format!(
            "[databases]\npostgres = host=127.0.0.1 port={} dbname=postgres\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\npool_mode = session\n\
             max_client_conn = {sessions}\ndefault_pool_size = {sessions}\n\
             ignore_startup_parameters = extra_float_digits,options\nlog_connections = 0\n\
             log_disconnections = 0\n",
            server.port(),
            home.join("users").display()
        ),
    )?;
    let mut command = ground.command(Path::new("/bin/sh"));
    // Files are sockets here: the usual limit of 1024 is too low for the sessions of the part `idle`.
    command.args(["-c", "ulimit -n 8192; exec \"$0\" \"$1\"", PROGRAM]);
    command.arg(home.join("ini"));
    let process = Measured::start(command, &ground.path("pgbouncer.log"), None)?;
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(
            begun.elapsed() < limits::ANSWER,
            "PgBouncer does not listen: {}",
            process.log()
        );
        std::thread::sleep(limits::POLL);
    }
    Ok(Target {
        name: POOLER,
        url: format!(
            "postgresql://postgres:{}@127.0.0.1:{port}/postgres",
            server.password()
        ),
        more: Vec::new(),
        process: Some(process),
        _port: Some(reserved),
    })
}

fn door(ground: &Ground, server: &Server) -> Result<Target> {
    let home = ground.folder("door")?;
    let mut command = ground.child("door");
    command.arg(&home).arg(LEASES.to_string());
    command.env("SOURCE_URL", server.url());
    let mut process = Measured::start(command, &ground.path("door.log"), None)?;
    process.line(DOOR_READY)?;
    let log = process.log();
    let mut urls = log.lines().filter(|line| line.starts_with("postgresql://"));
    Ok(Target {
        name: DOOR,
        url: urls.next().context("the door told no URL")?.to_owned(),
        more: urls.map(str::to_owned).collect(),
        process: Some(process),
        _port: None,
    })
}

/// A lease opens 64 sessions at most; pgbench takes the first one's, and 1000 idle sessions the rest.
const LEASES: u32 = 40;
const PROGRAM: &str = "/usr/sbin/pgbouncer";
