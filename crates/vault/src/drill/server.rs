//! The server of a drill: it can be reached through a socket in the drill's own folder and in no
//! other way, and asks nobody for a password there.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use tokio_util::sync::CancellationToken;

use super::folder::Account;
use crate::limits;
use crate::source::{Connection, ConnectionUrl, SourceError};

/// The number in the socket's name; nothing listens on a TCP port.
const PORT: u16 = 5432;
/// Lines of the server's log that an error carries.
const LOG_LINES: usize = 12;

/// What is overridden on the command line, so that a restored server touches nothing outside.
///
/// It neither archives nor replicates nor waits for standbys, loads no libraries and runs no jobs.
const OVERRIDES: [&str; 15] = [
    "listen_addresses=",
    "port=5432",
    "unix_socket_permissions=0700",
    "hot_standby=off",
    "archive_mode=off",
    "primary_conninfo=",
    "primary_slot_name=",
    "synchronous_standby_names=",
    "shared_preload_libraries=",
    "session_preload_libraries=",
    "local_preload_libraries=",
    "logging_collector=off",
    "log_destination=stderr",
    "autovacuum=off",
    "ssl=off",
];

/// A running server; dropping it stops it.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    sockets: PathBuf,
    log: PathBuf,
    url: ConnectionUrl,
}

/// Where the parts of a server lie.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// The program.
    pub(super) postgres: &'a Path,
    /// The data directory.
    pub(super) data: &'a Path,
    /// A folder for socket, rules and log; it belongs to `account`.
    pub(super) folder: &'a Path,
    /// Who runs it.
    pub(super) account: Option<Account>,
}

impl Server {
    /// Starts the server and waits until it has replayed the log and takes writes.
    ///
    /// `url` names the role and database to begin with; both are those of the source.
    pub(super) fn start(parts: &Parts<'_>, url: &ConnectionUrl) -> Result<Self, String> {
        let log = parts.folder.join("server.log");
        let rules = parts.folder.join("pg_hba.conf");
        let names = parts.folder.join("pg_ident.conf");
        let prepared = std::fs::write(&rules, "local all all trust\n")
            .and_then(|()| std::fs::write(&names, ""))
            .and_then(|()| File::create(&log));
        let output = prepared.map_err(|error| format!("its files cannot be written: {error}"))?;
        if let Some(account) = parts.account {
            for path in [&log, &rules, &names] {
                std::os::unix::fs::chown(path, Some(account.user), Some(account.group))
                    .map_err(|error| format!("its files cannot be given away: {error}"))?;
            }
        }
        let child = command(parts, &rules, &names, output)
            .and_then(|mut command| command.spawn())
            .map_err(|error| format!("`{}` cannot be run: {error}", parts.postgres.display()))?;
        let mut url = url.clone();
        url.port = PORT;
        let mut server = Self {
            child,
            sockets: parts.folder.to_owned(),
            log,
            url,
        };
        server.wait_promoted()?;
        server.find_superuser()?;
        Ok(server)
    }

    /// Connects to `database` as the cluster's first superuser.
    pub(super) fn connect(&self, database: &str) -> Result<Connection, SourceError> {
        let mut url = self.url.clone();
        database.clone_into(&mut url.database);
        Connection::open_local(&self.sockets, &url, &CancellationToken::new())
    }

    /// Returns the database that the source's connection names.
    pub(super) fn database(&self) -> &str {
        &self.url.database
    }

    /// Stops the server in order, so that all its pages are on disk.
    pub(super) fn stop(&mut self) -> Result<(), String> {
        self.signal(Signal::INT);
        let deadline = Instant::now() + limits::DRILL_STOP;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("it ended with {status}\n{}", self.tail())),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(limits::DRILL_POLL),
                Ok(None) => return Err(format!("it does not stop\n{}", self.tail())),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn wait_promoted(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + limits::DRILL_REPLAY;
        loop {
            match self.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => return Err(format!("it ended with {status}\n{}", self.tail())),
                Err(error) => return Err(error.to_string()),
            }
            let answer = self.connect(&self.url.database).and_then(|mut connection| {
                connection
                    .query("SELECT pg_catalog.pg_is_in_recovery()", "ask for its state")
                    .map(|reply| reply.single() == Some("f"))
            });
            match answer {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if is_early(&error) => {}
                Err(error) => {
                    let chain = holdfast_core::ErrorChain(&error).to_string();
                    return Err(format!("{chain}\n{}", self.tail()));
                }
            }
            if Instant::now() >= deadline {
                return Err(format!("it does not come into service\n{}", self.tail()));
            }
            std::thread::sleep(limits::DRILL_POLL);
        }
    }

    /// The source's own role may see little; the role that made the cluster sees all.
    fn find_superuser(&mut self) -> Result<(), String> {
        let name = self.connect(&self.url.database).and_then(|mut connection| {
            connection.query(
                "SELECT rolname FROM pg_catalog.pg_roles WHERE oid = 10",
                "ask for the first superuser",
            )
        });
        match name {
            Ok(reply) => match reply.single() {
                Some(name) => {
                    name.clone_into(&mut self.url.user);
                    Ok(())
                }
                None => Err("it has no first superuser".to_owned()),
            },
            Err(error) => Err(holdfast_core::ErrorChain(&error).to_string()),
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself: the wait tells.
            let _ = kill_process(pid, signal);
        }
    }

    fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // What is in this directory is thrown away: nothing needs to be written first.
        self.signal(Signal::QUIT);
        let deadline = Instant::now() + limits::DRILL_STOP;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(limits::DRILL_POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(parts: &Parts<'_>, rules: &Path, names: &Path, output: File) -> io::Result<Command> {
    let mut command = Command::new(parts.postgres);
    command.arg("-D").arg(parts.data);
    for setting in OVERRIDES {
        command.args(["-c", setting]);
    }
    for (name, path) in [
        ("hba_file", rules),
        ("ident_file", names),
        ("unix_socket_directories", parts.folder),
    ] {
        command.arg("-c").arg(format!("{name}={}", path.display()));
    }
    command
        .env_clear()
        .env("LC_ALL", "C")
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    if let Some(account) = parts.account {
        command.uid(account.user).gid(account.group);
    }
    Ok(command)
}

/// Whether a server that replays or starts would answer so.
fn is_early(error: &SourceError) -> bool {
    match error {
        SourceError::Unreachable { .. } | SourceError::Broken { .. } => true,
        // 57P03: the database system is starting up.
        other => other.sqlstate() == Some("57P03"),
    }
}

/// Finds the account that servers run as: `None` when we are not root and may run them ourselves.
pub(super) fn account(wished: Option<&str>) -> Result<Option<Account>, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let name = wished.unwrap_or("postgres");
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let account = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(name);
        let user = fields.nth(1)?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        is_it.then_some(Account { user, group })
    });
    match account {
        Some(account) => Ok(Some(account)),
        None => Err(format!("there is no account `{name}` to run a server as")),
    }
}

/// Finds the program of the major version.
pub(super) fn postgres(dirs: &[PathBuf], major: u32) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for dir in dirs {
        folders.push(dir.clone());
        folders.push(dir.join("bin"));
        folders.push(dir.join(major.to_string()).join("bin"));
    }
    folders.push(PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")));
    folders.push(PathBuf::from(format!("/usr/pgsql-{major}/bin")));
    folders.push(PathBuf::from(format!(
        "/opt/homebrew/opt/postgresql@{major}/bin"
    )));
    folders
        .into_iter()
        .map(|folder| folder.join("postgres"))
        .find(|program| major_of(program) == Some(major))
}

fn major_of(program: &Path) -> Option<u32> {
    let output = Command::new(program)
        .arg("--version")
        .env_clear()
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, version) = text.split_once("(PostgreSQL) ")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
