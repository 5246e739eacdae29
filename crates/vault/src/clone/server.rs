//! The server of a clone: started by a thread of its own, which takes itself away from the machine
//! first, and which the kernel ends the server with.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use holdfast_core::Secret;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio_util::sync::CancellationToken;

use super::confine::{self, Room};
use super::folder::{failed, gone};
use super::record::Role;
use super::settings::SOCKET_PORT;
use super::{CloneError, CloneId, Confinement, Kept, processes};
use crate::limits;
use crate::restore::promote::{self, Promotion};
use crate::restore::{Programs, command, owner, tail};
use crate::source::{Connection, ConnectionUrl, SourceError, SslMode};

/// The server's log in a clone's folder.
pub(super) const LOG: &str = "server.log";
/// The empty folder over which a server's own files are laid.
const ROOT: &str = "root";

/// What is started, and where.
pub(super) struct Launch<'a> {
    pub(super) id: &'a CloneId,
    pub(super) folder: &'a Path,
    pub(super) data: &'a Path,
    pub(super) sockets: &'a Path,
    pub(super) programs: &'a Programs,
    pub(super) settings: Vec<(&'static str, String)>,
    pub(super) memory_max: u64,
}

/// A server that was started.
pub(super) struct Server {
    id: CloneId,
    data: PathBuf,
    sockets: PathBuf,
    log: PathBuf,
    handle: OwnedFd,
    ended: Arc<Mutex<Option<ExitStatus>>>,
    /// By what it is kept in.
    pub(super) confinement: Confinement,
}

/// What the thread that starts a server needs.
struct Start {
    command: Vec<OsString>,
    account: Option<(u32, u32)>,
    /// The libraries that lie beside the programs.
    libraries: PathBuf,
    log: PathBuf,
    room: Option<Room>,
}

/// A started server's handle, and by what it is kept in.
type Started = Result<(OwnedFd, Vec<String>), String>;

impl Server {
    /// Starts a server, kept in where that is possible.
    pub(super) fn start(launch: &Launch<'_>) -> Result<Self, CloneError> {
        processes::end(launch.data);
        gone(&launch.data.join(PID_FILE))?;
        let ended = Arc::new(Mutex::new(None));
        let (handle, confinement) = match launch_in(start_of(launch, Kept::Enforced)?, &ended) {
            Ok((handle, by)) => {
                let kept = Kept::Enforced;
                (
                    handle,
                    Confinement {
                        kept,
                        by,
                        why: None,
                    },
                )
            }
            Err(why) => {
                let start = start_of(launch, Kept::Advisory)?;
                let (handle, by) = launch_in(start, &ended)
                    .map_err(|why| trouble(launch.id, launch.folder, why))?;
                let kept = Kept::Advisory;
                let why = Some(why);
                (handle, Confinement { kept, by, why })
            }
        };
        Ok(Self {
            id: launch.id.clone(),
            data: launch.data.to_owned(),
            sockets: launch.sockets.to_owned(),
            log: launch.folder.join(LOG),
            handle,
            ended,
            confinement,
        })
    }

    /// Waits until it takes connections; `each` is called meanwhile.
    pub(super) fn wait(&self, each: &dyn Fn()) -> Result<(), CloneError> {
        let began = Instant::now();
        let mut promotion = Promotion::of(&self.data);
        loop {
            if self.is_ready() {
                return Ok(());
            }
            match promotion.is_due() {
                // One that has ended is noticed below.
                Ok(true) => drop(pidfd_send_signal(&self.handle, Signal::USR1)),
                Ok(false) => {}
                Err(error) => return Err(self.trouble(error.to_string())),
            }
            if let Some(status) = self.ended() {
                return Err(self.trouble(format!("it ended ({status})")));
            }
            if began.elapsed() > limits::PROMOTION_WAIT {
                return Err(self.trouble("it is still recovering".to_owned()));
            }
            each();
            thread::sleep(limits::PROMOTION_POLL);
        }
    }

    /// SOURCE: PostgreSQL 18, `utils/pidfile.h`: line 8 is the state. Without hot standby `ready` is
    /// written only when recovery has ended; the file of an earlier server was removed.
    fn is_ready(&self) -> bool {
        let text = fs::read_to_string(self.data.join(PID_FILE)).unwrap_or_default();
        text.lines().nth(7).map(str::trim) == Some("ready")
    }

    /// Returns how it ended, if it has.
    pub(super) fn ended(&self) -> Option<ExitStatus> {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects as a role over the private socket.
    pub(super) fn connect(&self, role: &Role, database: &str) -> Result<Connection, SourceError> {
        self.connect_as(&role.name, Some(&role.password), database)
    }

    pub(super) fn connect_as(
        &self,
        user: &str,
        password: Option<&str>,
        database: &str,
    ) -> Result<Connection, SourceError> {
        let url = ConnectionUrl {
            host: "localhost".to_owned(),
            port: SOCKET_PORT,
            user: user.to_owned(),
            password: password.map(Secret::new),
            database: database.to_owned(),
            ssl: SslMode::Disable,
            root_certificate: None,
            binding: holdfast_wire::pg::url::ChannelBinding::Disable,
        };
        Connection::open_local(&self.sockets, &url, &CancellationToken::new())
    }

    /// Stops it in order, and at once when that takes too long.
    pub(super) fn stop(&self) -> Result<(), CloneError> {
        for signal in [Signal::INT, Signal::QUIT, Signal::KILL] {
            // It may end by itself meanwhile: the wait tells.
            let _ = pidfd_send_signal(&self.handle, signal);
            let deadline = Instant::now() + limits::CLONE_STOP;
            while Instant::now() < deadline {
                if self.ended().is_some() {
                    processes::end(&self.data);
                    return Ok(());
                }
                thread::sleep(limits::CLONE_POLL);
            }
        }
        Err(self.trouble("it does not end".to_owned()))
    }

    /// Ends it at once.
    pub(super) fn kill(&self) {
        let _ = pidfd_send_signal(&self.handle, Signal::QUIT);
        let deadline = Instant::now() + limits::CLONE_QUIT;
        while self.ended().is_none() && Instant::now() < deadline {
            thread::sleep(limits::CLONE_POLL);
        }
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
        processes::end(&self.data);
    }

    pub(super) fn trouble(&self, why: String) -> CloneError {
        let log = tail(&self.log);
        let said = log.lines().rev().find_map(|line| line.split_once("FATAL:"));
        let why = said.map_or(why, |(_, said)| said.trim().to_owned());
        CloneError::Server {
            id: self.id.clone(),
            why,
            log,
        }
    }
}

fn trouble(id: &CloneId, folder: &Path, why: String) -> CloneError {
    CloneError::Server {
        id: id.clone(),
        why,
        log: tail(&folder.join(LOG)),
    }
}

const PID_FILE: &str = "postmaster.pid";

/// Returns the command line, and the room that the server gets.
fn start_of(launch: &Launch<'_>, kept: Kept) -> Result<Start, CloneError> {
    let postgres = launch.programs.bin.join("postgres");
    let account = owner(launch.programs.account.as_ref()).0;
    let mut command: Vec<OsString> = Vec::new();
    let setpriv = ["/usr/bin/setpriv", "/bin/setpriv"].map(Path::new);
    let setpriv = setpriv.into_iter().find(|path| path.is_file());
    if let Some(setpriv) = setpriv.filter(|_| cfg!(target_os = "linux")) {
        // The server ends when the thread that started it does, which lives as long as we do.
        command.extend([setpriv.into(), "--pdeathsig".into(), "KILL".into()]);
        if let Some((user, group)) = account {
            command.push(format!("--reuid={user}").into());
            command.push(format!("--regid={group}").into());
            command.push("--clear-groups".into());
        }
        command.push("--".into());
    }
    let account = account.filter(|_| setpriv.is_none());
    command.extend([postgres.into(), "-D".into(), launch.data.into()]);
    let settings = launch.settings.iter();
    let settings = settings.map(|(name, value)| (*name, value.as_str()));
    for (name, value) in settings.chain(promote::settings(launch.data).iter().copied()) {
        command.push("-c".into());
        command.push(format!("{name}={value}").into());
    }
    let room = match kept {
        Kept::Enforced => Some(room(launch)?),
        Kept::Advisory => None,
    };
    let home = launch.programs.bin.parent();
    Ok(Start {
        command,
        account,
        libraries: home.unwrap_or(Path::new("/")).join("lib"),
        log: launch.folder.join(LOG),
        room,
    })
}

fn room(launch: &Launch<'_>) -> Result<Room, CloneError> {
    let root = launch.folder.join(ROOT);
    match fs::create_dir(&root) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(failed("make", &root, error));
        }
        _ => {}
    }
    let bin = &launch.programs.bin;
    let mut readable = vec![launch.folder.join(super::settings::CONF)];
    if !bin.starts_with("/usr") {
        // Its libraries lie beside its programs; links lead to where they really are.
        let home = bin.parent().unwrap_or(bin);
        readable.push(home.to_owned());
        readable.extend(fs::canonicalize(home).ok().filter(|real| real != home));
    }
    Ok(Room {
        root,
        writable: vec![launch.data.to_owned(), launch.sockets.to_owned()],
        readable,
        memory_max: launch.memory_max,
    })
}

/// Starts a server from a thread of its own, which then waits for its end.
fn launch_in(start: Start, ended: &Arc<Mutex<Option<ExitStatus>>>) -> Started {
    let (tell, told) = mpsc::channel();
    let ended = Arc::clone(ended);
    thread::Builder::new()
        .name("holdfast-clone".to_owned())
        .spawn(move || {
            let (mut child, by) = match begin(&start) {
                Ok(begun) => begun,
                Err(why) => {
                    let _ = tell.send(Err(why));
                    return;
                }
            };
            let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
            let handle = handle.map_err(|error| error.to_string());
            let is_lost = handle.is_err();
            let _ = tell.send(handle.map(|handle| (handle, by)));
            if is_lost {
                let _ = child.kill();
            }
            if let Ok(status) = child.wait() {
                *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
            }
        })
        .map_err(|error| error.to_string())?;
    told.recv().map_err(|_| "its thread has ended".to_owned())?
}

fn begin(start: &Start) -> Result<(Child, Vec<String>), String> {
    let text = |error: std::io::Error| error.to_string();
    // Opened before the thread leaves: it lies outside of what the server sees.
    let out = File::options()
        .create(true)
        .append(true)
        .open(&start.log)
        .map_err(text)?;
    let err = out.try_clone().map_err(text)?;
    let by = match &start.room {
        Some(room) => confine::enter(room)?,
        None => Vec::new(),
    };
    let program = start
        .command
        .first()
        .map_or(OsStr::new(""), OsString::as_os_str);
    let mut command: Command = command(program, None);
    if let Some((user, group)) = start.account {
        use std::os::unix::process::CommandExt;
        command.uid(user).gid(group);
    }
    if start.room.is_some() {
        // Programs that name their libraries by where they are themselves find that in `/proc`, which
        // is not there.
        command.env("LD_LIBRARY_PATH", &start.libraries);
    }
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let child = command
        .args(start.command.iter().skip(1))
        .stdout(Stdio::from(out))
        .stderr(Stdio::from(err))
        .spawn()
        .map_err(|error| format!("cannot start `{}`: {error}", program.display()))?;
    Ok((child, by))
}
