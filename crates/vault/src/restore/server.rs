//! Starting a server on restored files and waiting until it takes writes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Instant;

use data_encoding::HEXLOWER;
use rustix::process::{Pid, Signal, kill_process};
use tokio_util::sync::CancellationToken;

use super::files::{create, failed, own};
use super::programs::{Programs, command, owner};
use super::promote::{self, Promotion};
use super::{RestoreError, ServerLife, superuser};
use crate::limits;
use crate::source::{Connection, ConnectionUrl, SslMode};

/// The server's log, below the data directory.
pub(super) const LOG: &str = "holdfast.log";
/// How much of the end of a log goes into an error, in bytes.
const LOG_TAIL_BYTES: u64 = 4096;
/// The longest path of a local socket that every system takes, in bytes.
const SOCKET_PATH_BYTES: usize = 100;

/// A restored server that runs, and how its owner gets in without a password.
#[derive(Clone, Debug)]
pub(crate) struct LocalServer {
    /// The private folder with the local socket.
    pub(crate) sockets: PathBuf,
    /// The role that `initdb` made.
    pub(crate) superuser: String,
    pub(crate) port: u16,
    pub(crate) pid: u32,
    pub(crate) log: PathBuf,
}

impl LocalServer {
    /// Connects as the superuser over the private socket.
    pub(crate) fn connect(&self, database: &str) -> Result<Connection, crate::source::SourceError> {
        let url = ConnectionUrl {
            host: "localhost".to_owned(),
            port: self.port,
            user: self.superuser.clone(),
            password: None,
            database: database.to_owned(),
            ssl: SslMode::Disable,
            root_certificate: None,
            binding: holdfast_wire::pg::url::ChannelBinding::Disable,
        };
        Connection::open_local(&self.sockets, &url, &CancellationToken::new())
    }
}

/// Chooses a port: the one asked for, or one that is free now.
pub(super) fn choose_port(wanted: Option<u16>, into: &Path) -> Result<u16, RestoreError> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted.unwrap_or(0)));
    bound
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| RestoreError::Directory {
            path: into.to_owned(),
            why: match wanted {
                Some(port) => format!("its server cannot listen on port {port}: {error}"),
                None => format!("its server finds no free port: {error}"),
            },
        })
}

/// Returns the private folder for the local socket, in the data directory when its path is short.
pub(super) fn socket_folder(
    directory: &Path,
    programs: &Programs,
) -> Result<PathBuf, RestoreError> {
    let near = directory.join(".sockets");
    let length = near.as_os_str().len();
    let folder = if length + ".s.PGSQL.65535".len() < SOCKET_PATH_BYTES {
        near
    } else {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| failed("name", &near, io::Error::other(error.to_string())))?;
        std::env::temp_dir().join(format!("holdfast-{}", HEXLOWER.encode(&random)))
    };
    // A source that was itself restored may have one, and a restore that goes on has.
    let is_there = fs::symlink_metadata(&folder).is_ok_and(|found| found.is_dir());
    if !is_there {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(|source| failed("make", &folder, source))?;
    }
    own(&folder, owner(programs.account.as_ref()))?;
    Ok(folder)
}

/// A server that has been started.
pub(super) struct Starting {
    child: Child,
    pid: u32,
    log: PathBuf,
    directory: PathBuf,
}

/// Starts the server in a session of its own, so that it outlives us unless it shall not.
pub(super) fn start(
    directory: &Path,
    programs: &Programs,
    (major, life): (u32, ServerLife),
) -> Result<Starting, RestoreError> {
    let log = directory.join(LOG);
    let out = create(&log, owner(programs.account.as_ref()))?;
    let err = out
        .try_clone()
        .map_err(|source| failed("share", &log, source))?;
    let postgres = programs.bin.join("postgres");
    let account = programs.account.as_ref();
    let setsid = ["/usr/bin/setsid", "/bin/setsid"]
        .into_iter()
        .find(|path| Path::new(path).is_file());
    let tied = ["/usr/bin/setpriv", "/bin/setpriv"]
        .into_iter()
        .find(|path| life == ServerLife::EndsWithUs && Path::new(path).is_file());
    let mut starting = match setsid {
        Some(setsid) => {
            let mut starting = command(OsStr::new(setsid), account);
            if let Some(setpriv) = tied {
                // Set after the change of user, which would take it away, and kept by what it runs.
                starting.args([setpriv, "--pdeathsig", "QUIT"]);
            }
            starting.arg(&postgres);
            starting
        }
        None => {
            let mut starting = command(postgres.as_os_str(), account);
            std::os::unix::process::CommandExt::process_group(&mut starting, 0);
            starting
        }
    };
    starting.arg("-D").arg(directory);
    // Nobody reads from it before it is promoted, and its settings may be those of a larger machine.
    starting.args(["-c", "hot_standby=off"]);
    if cfg!(target_os = "linux") && major >= 14 {
        // One call instead of one for each file: a second for every thousand files.
        starting.args(["-c", "recovery_init_sync_method=syncfs"]);
    }
    for (name, value) in promote::settings(directory) {
        starting.arg("-c").arg(format!("{name}={value}"));
    }
    let child = starting
        .stdout(Stdio::from(out))
        .stderr(Stdio::from(err))
        .spawn()
        .map_err(|source| failed("start", &postgres, source))?;
    Ok(Starting {
        pid: child.id(),
        child,
        log,
        directory: directory.to_owned(),
    })
}

impl Starting {
    /// Waits until the server is promoted and accepts connections; `each` is called meanwhile.
    pub(super) fn wait(mut self, each: &dyn Fn()) -> Result<Promoted, RestoreError> {
        let began = Instant::now();
        let mut promotion = Promotion::of(&self.directory);
        loop {
            if self.is_ready() {
                break;
            }
            match promotion.is_due() {
                Ok(true) => self.ask_to_promote(),
                Ok(false) => {}
                Err(error) => return Err(self.trouble(&error.to_string())),
            }
            match self.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => return Err(self.trouble(&format!("it ended ({status})"))),
                Err(error) => return Err(self.trouble(&error.to_string())),
            }
            if began.elapsed() > limits::PROMOTION_WAIT {
                return Err(self.trouble("it is still recovering"));
            }
            each();
            thread::sleep(limits::PROMOTION_POLL);
        }
        let promoted = Promoted {
            pid: self.pid,
            log: self.log.clone(),
            directory: self.directory.clone(),
        };
        // Whoever started it must reap it, or its number stays taken while we live.
        let _ = thread::Builder::new()
            .name("holdfast-reap".to_owned())
            .spawn(move || self.child.wait());
        Ok(promoted)
    }

    /// A server that has ended meanwhile is noticed by whoever waits.
    fn ask_to_promote(&self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let _ = pid.map(|pid| kill_process(pid, Signal::USR1));
    }

    /// SOURCE: PostgreSQL 18, `utils/pidfile.h`: line 1 is the process, line 8 its state. Without hot
    /// standby `ready` is written only when recovery has ended.
    fn is_ready(&self) -> bool {
        let text = fs::read_to_string(self.directory.join("postmaster.pid")).unwrap_or_default();
        let mut lines = text.lines().map(str::trim);
        lines.next() == Some(self.pid.to_string().as_str()) && lines.nth(6) == Some("ready")
    }

    fn trouble(&self, why: &str) -> RestoreError {
        let log = tail(&self.log);
        let why = log
            .lines()
            .rev()
            .find_map(|line| line.split_once("FATAL:"))
            .map_or_else(|| why.to_owned(), |(_, said)| said.trim().to_owned());
        RestoreError::Server {
            why,
            log,
            directory: self.directory.clone(),
        }
    }
}

/// A server that has been promoted.
pub(super) struct Promoted {
    pid: u32,
    log: PathBuf,
    directory: PathBuf,
}

impl Promoted {
    /// Commits a first transaction and returns how to get in.
    pub(super) fn first_write(
        self,
        sockets: &Path,
        port: u16,
    ) -> Result<LocalServer, RestoreError> {
        let mut last = "no role was found in it".to_owned();
        for superuser in superuser::names(&self.directory) {
            let server = LocalServer {
                sockets: sockets.to_owned(),
                superuser,
                port,
                pid: self.pid,
                log: self.log.clone(),
            };
            for database in ["postgres", "template1"] {
                let committed = server.connect(database).and_then(|mut connection| {
                    // Asking for a transaction's number makes its end a record in the log.
                    connection.query(
                        "SELECT pg_current_xact_id()",
                        "write to the restored server",
                    )
                });
                match committed {
                    Ok(_) => return Ok(server),
                    Err(error) => last = holdfast_core::ErrorChain(&error).to_string(),
                }
            }
        }
        Err(RestoreError::Server {
            why: last,
            log: tail(&self.log),
            directory: self.directory,
        })
    }
}

/// Returns the last lines of a file.
pub(crate) fn tail(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}
