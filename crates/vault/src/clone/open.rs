//! Opening a clone: its folder, its data, its server, its roles, and nothing that leads outside.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use holdfast_core::ByteCount;

use super::data::{self, Ground};
use super::folder::{self, CloneFolder, failed};
use super::forward::Forward;
use super::record::{CloneRecord, CloneState, Role, Took};
use super::server::{Launch, Server};
use super::settings::{self, Wanted};
use super::{CloneError, CloneId, CloneRequest, CloneShown, Disabled, disarm, processes};
use crate::config::system_clock;
use crate::limits;
use crate::restore::{
    Held, Place, Progress, ProgressFn, RestorePhase, Restored, own, owner, superusers,
};
use crate::source::{Connection, SourceError};

/// The longest path of a folder for sockets; the system allows 107 bytes with the socket's name.
const SOCKET_FOLDER_BYTES: usize = 85;

/// A clone that runs, and ends with whoever holds it.
///
/// Dropping it ends its server and removes its folder, unless it was told to leave it.
pub struct ThinClone {
    pub(super) folder: Option<CloneFolder>,
    pub(super) record: CloneRecord,
    pub(super) server: Option<Server>,
    /// The mount beneath it, which ends after it.
    pub(super) held: Option<Held>,
    forward: Option<Forward>,
    restored: Option<Restored>,
    began: Instant,
    at_end: AtEnd,
}

/// What becomes of a clone's folder when the clone is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtEnd {
    /// It stays, and can be opened again.
    Leave,
    /// It goes.
    Remove,
}

/// Opens a clone: blocks until its server takes writes and what could reach outside is disabled.
///
/// It ends with this process, or when it is dropped or closed. `progress` is told from several threads.
///
/// # Errors
/// [`CloneError`]. What was written is removed; the source was not touched.
pub fn open(
    place: &Place,
    request: &CloneRequest,
    progress: &ProgressFn,
) -> Result<ThinClone, CloneError> {
    let began = Instant::now();
    let (folder, record) = admit(request)?;
    let mut clone = ThinClone::of(folder, record, began);
    // Dropped on any error, with its server and its folder.
    clone.fill(place, request, progress)?;
    Ok(clone)
}

/// Looks at the limits and makes the folder of a new clone.
pub(super) fn admit(request: &CloneRequest) -> Result<(CloneFolder, CloneRecord), CloneError> {
    let clones = &request.clones;
    let ttl = request.ttl.unwrap_or(clones.ttl);
    if ttl > clones.ttl_max {
        return Err(CloneError::Time {
            asked_s: ttl.as_secs(),
            max_s: clones.ttl_max.as_secs(),
        });
    }
    let id = CloneId::new(&request.source, random::<3>(&clones.dir)?);
    let folder = CloneFolder::make(&clones.dir, &id)?;
    // Counted with its own folder, so that of two that come at once both do not slip through.
    let count = folder::ids(&clones.dir).len().saturating_sub(1);
    if count >= clones.count_max {
        folder.remove()?;
        let max = clones.count_max;
        return Err(CloneError::Many { count, max });
    }
    let role = |kind: &str| -> Result<Role, CloneError> {
        Ok(Role {
            name: format!("{kind}_{}", id.digits()),
            password: HEXLOWER.encode(&random::<16>(&clones.dir)?),
        })
    };
    let roles = (role("clone")?, role("holdfast_keeper")?);
    let sockets = socket_folder(folder.path())?;
    let now = system_clock()();
    let record = CloneRecord::new((id, request), (now, ttl), roles, sockets);
    folder.write(&record)?;
    Ok((folder, record))
}

fn random<const N: usize>(near: &Path) -> Result<[u8; N], CloneError> {
    let mut random = [0; N];
    getrandom::fill(&mut random)
        .map_err(|error| failed("name a clone in", near, std::io::Error::other(error)))?;
    Ok(random)
}

/// Returns the private folder for a clone's socket: in its folder when the path is short enough.
fn socket_folder(folder: &Path) -> Result<PathBuf, CloneError> {
    let near = folder.join("s");
    if near.as_os_str().len() <= SOCKET_FOLDER_BYTES {
        return Ok(near);
    }
    let name = format!("holdfast-{}", HEXLOWER.encode(&random::<8>(folder)?));
    Ok(std::env::temp_dir().join(name))
}

impl ThinClone {
    /// Takes charge of a folder in which nothing runs yet.
    pub(super) fn of(folder: CloneFolder, record: CloneRecord, began: Instant) -> Self {
        Self {
            folder: Some(folder),
            record,
            server: None,
            held: None,
            forward: None,
            restored: None,
            began,
            at_end: AtEnd::Remove,
        }
    }

    /// From now on its folder stays when it is dropped, and it can be opened again.
    pub fn leave(&mut self) {
        self.at_end = AtEnd::Leave;
    }

    /// Returns what it is called.
    #[must_use]
    pub fn id(&self) -> &CloneId {
        &self.record.id
    }

    /// Returns how it is.
    #[must_use]
    pub fn shown(&self) -> CloneShown {
        let path = self.path();
        let memory = processes::memory(&self.data());
        let disk = folder::disk(path, self.record.form);
        let mut shown = self.record.shown(path, (disk, ByteCount(memory)));
        shown.hydration = self.hydrated().or(shown.hydration);
        shown
    }

    /// Returns what was brought, unless it was opened again.
    #[must_use]
    pub fn restored(&self) -> Option<&Restored> {
        self.restored.as_ref()
    }

    /// Returns its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Connects to one of its databases with all rights; it is our own way in.
    pub(crate) fn connect(&self, database: &str) -> Result<Connection, SourceError> {
        match &self.server {
            Some(server) => server.connect(&self.record.keeper, database),
            None => Err(SourceError::nonsense("log in", "the clone has no server")),
        }
    }

    /// Stops its server in order, so that all its pages are on disk; the clone stays.
    ///
    /// # Errors
    /// [`CloneError::Server`] when it does not stop.
    pub fn stop(&mut self) -> Result<(), CloneError> {
        self.forward = None;
        match self.server.take() {
            Some(server) => server.stop(),
            None => Ok(()),
        }
    }

    /// Ends it and removes everything of it.
    ///
    /// # Errors
    /// [`CloneError::Folder`] when something stays.
    pub fn close(mut self) -> Result<(), CloneError> {
        self.remove()
    }

    pub(super) fn path(&self) -> &Path {
        self.folder
            .as_ref()
            .map_or(Path::new(""), CloneFolder::path)
    }

    fn remove(&mut self) -> Result<(), CloneError> {
        self.forward = None;
        if let Some(server) = self.server.take() {
            server.kill();
        }
        self.unmount();
        let Some(folder) = self.folder.take() else {
            return Ok(());
        };
        folder::remove_sockets(&self.record, folder.path());
        folder.remove()
    }

    pub(super) fn write(&self) -> Result<(), CloneError> {
        match &self.folder {
            Some(folder) => folder.write(&self.record),
            None => Ok(()),
        }
    }

    pub(super) fn fill(
        &mut self,
        place: &Place,
        request: &CloneRequest,
        progress: &ProgressFn,
    ) -> Result<(), CloneError> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let laid = data::bring(place, request, folder, progress)?;
        self.held = laid.held;
        self.record.form = laid.form;
        self.record.point = Some(laid.restored.point.clone());
        self.record.wal_end = Some(laid.restored.wal_end);
        self.record.newest_commit = laid.restored.newest_commit;
        self.record.notes.clone_from(&laid.restored.notes);
        self.record.took.data_s = self.began.elapsed().as_secs_f64();
        self.restored = Some(laid.restored);
        self.record.state = CloneState::Recovering;
        self.record.boot = boot();
        self.write()?;
        self.launch(&laid.ground, progress)
    }

    /// Starts its server, makes its roles, disables what leads outside and opens its door.
    pub(super) fn launch(
        &mut self,
        ground: &Ground,
        progress: &ProgressFn,
    ) -> Result<(), CloneError> {
        self.start(ground)?;
        let (folder, data) = (self.path().to_owned(), self.data());
        let Some(server) = &self.server else {
            return Ok(());
        };
        let began = self.began;
        server.wait(&|| progress(replaying(began.elapsed())))?;
        let first = first_way_in(server, &data)?;
        let failed = |step, source| CloneError::Disarm {
            id: self.record.id.clone(),
            step,
            source,
        };
        let kept = server.confinement.kept;
        let roles = (&self.record.keeper, &self.record.role);
        let mut connection = server
            .connect_as(&first, None, "postgres")
            .or_else(|_| server.connect_as(&first, None, "template1"))
            .map_err(|source| failed("log in", source))?;
        disarm::make_roles(&mut connection, roles, kept)
            .map_err(|source| failed("make the roles", source))?;
        self.record.took.write_s = began.elapsed().as_secs_f64();
        settings::write_hba(&folder, &settings::admitted([roles.0, roles.1]))?;
        close_behind(server, &mut connection, &first)
            .map_err(|source| failed("admit nobody else", source))?;
        drop(connection);
        let (id, keeper) = (&self.record.id, &self.record.keeper);
        let found = disarm::all(server, id, (keeper, &self.record.role), &ground.libraries)?;
        self.note(found);
        self.record.database = self.find_database()?;
        self.open_door()?;
        self.record.state = CloneState::Open;
        self.record.took = Took {
            open_s: began.elapsed().as_secs_f64(),
            ..self.record.took
        };
        if let Some(held) = &self.held {
            held.serves();
        }
        self.hydrate_beside()?;
        self.write()
    }

    /// Starts its server, which whoever reaches the private socket may enter.
    fn start(&mut self, ground: &Ground) -> Result<(), CloneError> {
        let folder = self.path().to_owned();
        make_socket_folder(&self.record.sockets, ground)?;
        settings::write_hba(&folder, settings::NOBODY_YET)?;
        let wanted = Wanted {
            id: self.record.id.as_str(),
            folder: &folder,
            sockets: &self.record.sockets,
            major: ground.major,
            memory_max: self.record.memory_max,
            libraries: &ground.libraries,
        };
        let server = Server::start(&Launch {
            id: &self.record.id,
            folder: &folder,
            data: &self.data(),
            sockets: &self.record.sockets,
            programs: &ground.programs,
            settings: settings::settings(&wanted),
            memory_max: self.record.memory_max.0,
        })?;
        self.record.confinement = Some(server.confinement.clone());
        // Kept from now on, so that it ends with the clone whatever goes wrong.
        self.server = Some(server);
        Ok(())
    }

    /// Adds what was disabled; what was before it was opened again stays told.
    fn note(&mut self, found: Vec<Disabled>) {
        for one in found {
            if !self.record.disabled.contains(&one) {
                self.record.disabled.push(one);
            }
        }
    }

    /// Returns the database that was asked for, or one that there is.
    fn find_database(&self) -> Result<String, CloneError> {
        let step = "find its database";
        let connected = self
            .connect("postgres")
            .or_else(|_| self.connect("template1"));
        let reply = connected.and_then(|mut connection| {
            connection.query(
                "SELECT datname FROM pg_catalog.pg_database
                 WHERE datallowconn AND NOT datistemplate ORDER BY datname <> 'postgres', datname",
                step,
            )
        });
        let reply = reply.map_err(|source| CloneError::Disarm {
            id: self.record.id.clone(),
            step,
            source,
        })?;
        let names: Vec<&str> = reply.firsts().collect();
        let wished = names.iter().find(|name| **name == self.record.database);
        let found = wished.or(names.first()).copied().unwrap_or("template1");
        Ok(found.to_owned())
    }

    /// Opens its door on the port that it had, or on a free one when somebody else has that now.
    fn open_door(&mut self) -> Result<(), CloneError> {
        let sockets = &self.record.sockets;
        let opened = Forward::open(self.record.port, sockets);
        let door = match opened {
            Err(_) if self.record.reopened > 0 => Forward::open(0, sockets)?,
            opened => opened?,
        };
        self.record.port = door.port;
        self.forward = Some(door);
        Ok(())
    }
}

impl Drop for ThinClone {
    fn drop(&mut self) {
        if self.at_end == AtEnd::Leave {
            if let Some(server) = self.server.take() {
                server.kill();
            }
            self.unmount();
            return;
        }
        if let Err(error) = self.remove() {
            let what = holdfast_core::ErrorChain(&error).to_string();
            tracing::warn!(clone = %self.record.id, what, "something of a clone stays");
        }
    }
}

fn replaying(elapsed: Duration) -> Progress {
    Progress {
        phase: RestorePhase::Replay,
        done: ByteCount(0),
        total: ByteCount(0),
        elapsed,
    }
}

/// Returns when the machine was started, as it names it.
///
/// SOURCE: Linux, `random(4)`, `/proc/sys/kernel/random/boot_id`
pub(super) fn boot() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

fn make_socket_folder(sockets: &Path, ground: &Ground) -> Result<(), CloneError> {
    let is_there = fs::symlink_metadata(sockets).is_ok_and(|found| found.is_dir());
    if !is_there {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(sockets)
            .map_err(|error| failed("make", sockets, error))?;
    }
    own(sockets, owner(ground.programs.account.as_ref()))?;
    Ok(())
}

/// Returns the source's first role, with which a first transaction could be committed.
fn first_way_in(server: &Server, data: &Path) -> Result<String, CloneError> {
    let mut last = "no role was found in it".to_owned();
    for name in superusers(data) {
        for database in ["postgres", "template1"] {
            match server.connect_as(&name, None, database) {
                Ok(_) => return Ok(name),
                Err(error) => last = holdfast_core::ErrorChain(&error).to_string(),
            }
        }
    }
    Err(server.trouble(last))
}

/// Waits until whoever came in without a password is refused: from then on nobody but our two roles is
/// admitted.
fn close_behind(
    server: &Server,
    connection: &mut Connection,
    first: &str,
) -> Result<(), SourceError> {
    const STEP: &str = "admit nobody else";
    connection.query("SELECT pg_catalog.pg_reload_conf()", STEP)?;
    let deadline = Instant::now() + limits::CLONE_RELOAD;
    while server.connect_as(first, None, "postgres").is_ok() {
        if Instant::now() >= deadline {
            return Err(SourceError::nonsense(STEP, "everybody is still admitted"));
        }
        std::thread::sleep(limits::CLONE_POLL);
    }
    Ok(())
}
