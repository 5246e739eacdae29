//! The whole way: plan, files, log, settings, server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_core::ByteCount;

use super::ground::Ground;
use super::journal::{self, Note};
use super::log::{self, Brought};
use super::plan::{Plan, Stop};
use super::programs::{self, Programs};
use super::server::{self, LocalServer};
use super::settings::{self, Home, Wanted};
use super::verify::{self, Verified};
use super::{
    Place, Progress, ProgressFn, ReadBack, RestoreError, RestorePhase, RestoreRequest, Restored,
    ServerAddress, Start, files, old, outside, room, tablespace,
};
use crate::config::system_clock;
use crate::drill::Pace;

/// Brings a moment back into a new directory, and starts a server on it when asked to.
///
/// Blocks until everything is on disk, or the server is promoted. `progress` is told from several
/// threads. The server outlives this process.
///
/// # Errors
/// [`RestoreError`]. What was written stays for a look; nothing else was touched.
pub fn restore(
    place: &Place,
    request: &RestoreRequest,
    progress: &ProgressFn,
) -> Result<Restored, RestoreError> {
    outside::check(&request.into, place)?;
    restore_locally(place, request, progress).map(|(restored, _)| restored)
}

/// As [`restore`], and returns how to get into the server without a password.
pub(crate) fn restore_to_recover(
    place: &Place,
    request: &RestoreRequest,
    progress: &ProgressFn,
) -> Result<(Restored, Option<LocalServer>), RestoreError> {
    outside::check(&request.into, place)?;
    restore_locally(place, request, progress)
}

/// As [`restore`], without a look at where it goes, and returns how to get into the server without a password.
pub(crate) fn restore_locally(
    place: &Place,
    request: &RestoreRequest,
    progress: &ProgressFn,
) -> Result<(Restored, Option<LocalServer>), RestoreError> {
    let clock = Watch::start(progress, request.pace.clone());
    let admit = |_| Ok::<(), RestoreError>(());
    let laid = lay(place, request, &clock, admit)?;
    let Laid {
        mut restored,
        programs,
        major,
        port,
        sockets,
    } = laid;
    if request.start == Start::No {
        sync(&request.into)?;
        files::forget_notes(&request.into)?;
        return Ok((restored, None));
    }
    // From here on the directory is the server's, and no restore writes into it again.
    files::forget_notes(&request.into)?;
    let starting = server::start(&request.into, &programs, (major, request.life))?;
    let local = serve(starting, (&sockets, port), &clock)?;
    restored.promoted_s = Some(clock.seconds());
    restored.server = Some(ServerAddress {
        host: "127.0.0.1".to_owned(),
        port,
        pid: local.pid,
        log: local.log.clone(),
    });
    Ok((restored, Some(local)))
}

/// Files, log and settings that a server can be started on.
struct Laid {
    restored: Restored,
    programs: Programs,
    major: u32,
    port: u16,
    sockets: PathBuf,
}

/// Brings everything that a server recovers with to the target, and starts none.
///
/// `admit` is told what it will take before a byte is written.
pub(crate) fn lay_down<E: From<RestoreError>>(
    place: &Place,
    request: &RestoreRequest,
    progress: &ProgressFn,
    admit: impl Fn(ByteCount) -> Result<(), E>,
) -> Result<(Restored, Programs, u32), E> {
    outside::check(&request.into, place)?;
    let laid = lay(
        place,
        request,
        &Watch::start(progress, request.pace.clone()),
        admit,
    )?;
    files::forget_notes(&request.into)?;
    Ok((laid.restored, laid.programs, laid.major))
}

fn lay<E: From<RestoreError>>(
    place: &Place,
    request: &RestoreRequest,
    clock: &Watch,
    admit: impl Fn(ByteCount) -> Result<(), E>,
) -> Result<Laid, E> {
    let (plan, begun) = plan(place, request)?;
    admit(ByteCount(
        plan.base.bytes.0.saturating_add(plan.log_bytes()),
    ))?;
    let major = plan.base.major;
    let programs = choose_programs(place, request, major)?;
    let port = match request.start {
        Start::Yes { port } => server::choose_port(port, &request.into)?,
        Start::No => 5432,
    };
    let owner = programs::owner(programs.account.as_ref());
    let mut ground = Ground::new(&request.into, owner, &request.ways);
    ground.is_resumed = begun;
    let (bytes, brought) = write(&plan, request, &ground, clock)?;
    let verified = read_back(&plan, request, &ground, clock)?;
    let sockets = match request.is_portable {
        true => PathBuf::new(),
        false => server::socket_folder(&request.into, &programs)?,
    };
    let stop = settled_stop(&plan, &brought, request)?;
    let home = home(request, port, &sockets);
    let wanted = Wanted {
        home,
        major,
        minor: programs.minor,
        timeline: plan.timeline(),
        stop,
        libraries: &programs.libraries(),
    };
    settings::write(&ground, &wanted)?;
    let files_s = clock.seconds();
    let mut notes = plan.notes.clone();
    notes.extend(ends_before(&plan, stop, &brought));
    let restored = Restored {
        source: request.source.clone(),
        point: plan.base.point.clone(),
        at: request.at.to_string(),
        timeline: plan.timeline(),
        found: plan.found,
        notes,
        directory: request.into.clone(),
        wal_end: brought.end,
        newest_commit: brought.newest_commit,
        bytes: ByteCount(bytes.saturating_add(brought.bytes)),
        came: ground.counts.came(),
        verified,
        files_s,
        promoted_s: None,
        server: None,
    };
    Ok(Laid {
        restored,
        programs,
        major,
        port,
        sockets,
    })
}

/// Returns where the server of a restore will run.
pub(super) fn home<'a>(request: &'a RestoreRequest, port: u16, sockets: &'a Path) -> Home<'a> {
    match request.is_portable {
        true => Home::Anywhere,
        false => Home::Here {
            directory: &request.into,
            port,
            sockets,
        },
    }
}

/// Waits until a server that was started takes writes.
pub(super) fn serve(
    starting: server::Starting,
    (sockets, port): (&Path, u16),
    clock: &Watch,
) -> Result<LocalServer, RestoreError> {
    let promoted = starting.wait(&|| clock.tell(RestorePhase::Replay, 0))?;
    promoted.first_write(sockets, port)
}

/// Decides what will be done, and refuses what cannot be before a byte is written; also tells whether
/// an interrupted restore goes on.
fn plan(place: &Place, request: &RestoreRequest) -> Result<(Plan, bool), RestoreError> {
    let into = request.into.as_path();
    let note = |point| {
        let at = request.at.to_string();
        Note::new(&request.source, at, request.timeline, point)
    };
    let begun = journal::find(into)?;
    if let Some(begun) = &begun {
        journal::same(begun, &note(&begun.point), into)?;
    }
    let point = begun.as_ref().map(|begun| &begun.point);
    let point = point.or(request.point.as_ref());
    let plan = Plan::make(place, request, system_clock()(), point)?;
    if let Some(old) = &request.ways.delta_from {
        old::check(old, into, Some(plan.base.system_identifier))?;
    }
    room::check(into, plan.base.bytes.0.saturating_add(plan.log_bytes()))?;
    Ok((plan, begun.is_some()))
}

/// Reads everything back when that was asked for.
fn read_back(
    plan: &Plan,
    request: &RestoreRequest,
    ground: &Ground<'_>,
    clock: &Watch,
) -> Result<Option<Verified>, RestoreError> {
    if request.ways.check == ReadBack::No {
        return Ok(None);
    }
    // What is only in memory cannot be read from the disk.
    sync(ground.directory)?;
    clock.total.fetch_add(plan.base.bytes.0, Ordering::Relaxed);
    let each = |bytes: u64| clock.tell(RestorePhase::Verify, bytes);
    verify::cluster(&plan.point, ground, (plan.base.start_lsn, &each)).map(Some)
}

/// Finds what runs the restored files and who owns them.
pub(super) fn choose_programs(
    place: &Place,
    request: &RestoreRequest,
    major: u32,
) -> Result<Programs, RestoreError> {
    let account = programs::account(&place.postgres, &request.into);
    match request.start {
        Start::Yes { .. } => {
            let account = account?;
            if let Some(account) = &account {
                programs::check_reach(account, &request.into)?;
            }
            programs::find(&place.postgres, major, account)
        }
        // Without a server the account is a courtesy: root may restore where there is none.
        Start::No => {
            let account = account.ok().flatten();
            let found = programs::find(&place.postgres, major, account.clone());
            Ok(found.unwrap_or(Programs {
                bin: PathBuf::new(),
                account,
                minor: u32::MAX,
            }))
        }
    }
}

/// Writes files and log at the same time.
fn write(
    plan: &Plan,
    request: &RestoreRequest,
    ground: &Ground<'_>,
    clock: &Watch,
) -> Result<(u64, Brought), RestoreError> {
    let (into, owner) = (ground.directory, ground.owner);
    if !ground.is_resumed {
        files::make_directory(into, owner)?;
        let at = request.at.to_string();
        let note = Note::new(&request.source, at, request.timeline, &plan.base.point);
        note.write(into, owner)?;
    }
    files::make_folder(&into.join("pg_wal"), owner)?;
    let total = plan.base.bytes.0.saturating_add(plan.log_bytes());
    clock.total.store(total, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let bringing = scope.spawn(|| {
            let mut disk = log::Disk::open(ground)?;
            log::bring(plan, &mut disk, &ground.counts, &|bytes| {
                clock.tell(RestorePhase::Wal, bytes);
            })
        });
        let written = files::write_all(&plan.point, ground, &|bytes| {
            clock.tell(RestorePhase::Files, bytes);
        });
        let brought = bringing.join().map_err(|_| files::thread_gone())?;
        Ok((written?, brought?))
    })
}

/// Decides where recovery stops now that the log has been read.
///
/// PostgreSQL refuses a target that no record confirms: the whole log is then what was asked for.
pub(super) fn settled_stop(
    plan: &Plan,
    brought: &Brought,
    request: &RestoreRequest,
) -> Result<Stop, RestoreError> {
    let is_reached = match (plan.stop, brought.is_reached) {
        (_, Some(is_reached)) => is_reached,
        (Stop::Before(lsn) | Stop::Lsn(lsn), None) => lsn < brought.end,
        (Stop::Time(time), None) => brought.newest_commit.is_some_and(|newest| newest > time),
        (Stop::End, None) => false,
    };
    match tablespace::endangered(&brought.tablespaces, plan.base.major) {
        None if is_reached => Ok(plan.stop),
        None => Ok(Stop::End),
        Some(made) => Err(RestoreError::Tablespace {
            target: request.at.to_string(),
            location: made.location.clone(),
            nearest: made.record,
        }),
    }
}

/// Says when the log ends before the time that was asked for.
pub(super) fn ends_before(plan: &Plan, stop: Stop, brought: &Brought) -> Option<String> {
    match (plan.stop, stop, brought.newest_commit) {
        (Stop::Time(_), Stop::End, Some(newest)) => Some(format!(
            "no transaction ended after that time in the log that is kept; the newest commit is of {newest}"
        )),
        _ => None,
    }
}

/// Makes everything below a directory durable.
pub(super) fn sync(directory: &Path) -> Result<(), RestoreError> {
    let opened = std::fs::File::open(directory);
    let synced = opened.and_then(|folder| {
        #[cfg(target_os = "linux")]
        rustix::fs::syncfs(&folder)?;
        #[cfg(not(target_os = "linux"))]
        {
            drop(folder);
            rustix::fs::sync();
        }
        Ok(())
    });
    synced.map_err(|source| files::failed("make durable", directory, source))
}

/// Measures and tells.
pub(super) struct Watch {
    began: Instant,
    total: AtomicU64,
    done: AtomicU64,
    progress: ProgressFn,
    told: Mutex<Option<Instant>>,
    pace: Option<Arc<Pace>>,
}

/// How often progress is told at most.
const TELL_EVERY: Duration = Duration::from_millis(50);

impl Watch {
    pub(super) fn start(progress: &ProgressFn, pace: Option<Arc<Pace>>) -> Self {
        Self {
            began: Instant::now(),
            total: AtomicU64::new(0),
            done: AtomicU64::new(0),
            progress: Arc::clone(progress),
            told: Mutex::new(None),
            pace,
        }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Says how many bytes there will be.
    pub(super) fn expect(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn tell(&self, phase: RestorePhase, bytes: u64) {
        if let (Some(pace), 1..) = (&self.pace, bytes) {
            pace.take(bytes);
        }
        let done = self
            .done
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes);
        let Ok(mut told) = self.told.lock() else {
            return;
        };
        if told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return;
        }
        *told = Some(Instant::now());
        drop(told);
        (self.progress)(Progress {
            phase,
            done: ByteCount(done),
            total: ByteCount(self.total.load(Ordering::Relaxed)),
            elapsed: self.began.elapsed(),
        });
    }
}
