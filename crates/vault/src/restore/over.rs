//! A restore point that is mounted instead of written: only the log and the settings are brought, over it.
//!
//! How long that takes depends on the log since the point, and not on the size of the point.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use holdfast_core::{ByteCount, Lsn};
use holdfast_wire::pg::wal::{Fork, Reads, Record, Relation};

use super::ground::Ground;
use super::held::{Blocks, Held};
use super::log::{self, Brought, LogSink};
use super::plan::{Plan, Stop};
use super::programs::{self, Programs};
use super::promote::FOLLOWS;
use super::run::{Watch, choose_programs, ends_before, home, serve, settled_stop};
use super::settings::{self, Wanted};
use super::{
    LocalServer, Place, ProgressFn, RestoreError, RestorePhase, RestoreRequest, Restored,
    ServerAddress, ServerLife, Start, files, outside, server,
};
use crate::config::system_clock;
use crate::limits;
use crate::mount::{self, FilesOwner, Mount, MountError, MountRequest, Near};
use crate::repository::WalPlace;

/// The first version that does not open every file at its start.
///
/// SOURCE: PostgreSQL 14, release notes: `recovery_init_sync_method`
const SYNCFS_SINCE: u32 = 14;
/// The default tablespace, and that of what databases share.
///
/// SOURCE: PostgreSQL 18, `catalog/pg_tablespace.dat`
const DEFAULT_SPACE: u32 = 1663;
const SHARED_SPACE: u32 = 1664;
/// Blocks of one file of a relation; the next file continues the count.
///
/// SOURCE: PostgreSQL 18, `RELSEG_SIZE`: 1 GiB of blocks of 8 KiB
const FILE_BLOCKS: u32 = 131_072;

/// What is to be opened, decided: which point and which log lead there, and what runs it.
pub(crate) struct Aimed<'a> {
    request: &'a RestoreRequest,
    plan: Plan,
    programs: Programs,
    /// Where it is remembered what servers touch when they start, where the vault's state is.
    hot: Option<PathBuf>,
    began: Instant,
}

/// A mounted point that a server can be started on.
pub(crate) struct LaidOver {
    /// What was brought; its bytes are those of the log alone.
    pub(crate) restored: Restored,
    /// The mount; it must outlive the server.
    pub(crate) held: Held,
    /// What runs it.
    pub(crate) programs: Programs,
    /// The major version.
    pub(crate) major: u32,
    port: u16,
    /// The folder of its socket in its settings; empty when it is portable.
    sockets: PathBuf,
    began: Instant,
}

impl LaidOver {
    /// Starts a server on it as a restore does, not kept in, and waits until it takes writes.
    ///
    /// # Errors
    /// When it does not come into service; the mount ends after it.
    pub(crate) fn serve(
        mut self,
        life: ServerLife,
        progress: &ProgressFn,
    ) -> Result<(Restored, LocalServer, Held), RestoreError> {
        let directory = &self.restored.directory;
        let clock = Watch::start(progress, None);
        let starting = server::start(directory, &self.programs, (self.major, life))?;
        let local = serve(starting, (&self.sockets, self.port), &clock)?;
        self.held.serves();
        self.restored.promoted_s = Some(self.began.elapsed().as_secs_f64());
        self.restored.server = Some(ServerAddress {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            pid: local.pid,
            log: local.log.clone(),
        });
        Ok((self.restored, local, self.held))
    }
}

impl<'a> Aimed<'a> {
    /// Decides which point and which log lead to a target; nothing is written.
    ///
    /// # Errors
    /// As a restore.
    pub(crate) fn at(place: &Place, request: &'a RestoreRequest) -> Result<Self, RestoreError> {
        let began = Instant::now();
        outside::check(&request.into, place)?;
        let plan = Plan::make(place, request, system_clock()(), request.point.as_ref())?;
        let programs = choose_programs(place, request, plan.base.major)?;
        Ok(Self {
            request,
            plan,
            programs,
            hot: place.state.is_dir().then(|| place.state.join("hot")),
            began,
        })
    }

    /// Tells why this cannot be mounted, if it cannot.
    pub(crate) fn unfit(&self) -> Option<String> {
        if let Err(why) = mount::possible() {
            return Some(why.to_string());
        }
        let major = self.plan.base.major;
        (major < SYNCFS_SINCE)
            .then(|| format!("PostgreSQL {major} opens every file when it is started"))
    }

    /// Returns what of the log will be written.
    pub(crate) fn log_bytes(&self) -> ByteCount {
        ByteCount(self.plan.log_bytes())
    }

    /// Mounts the point where the request says, with its overlay in a folder that is absent or empty,
    /// and lays the log and the settings over it.
    ///
    /// # Errors
    /// What cannot be mounted, and as a restore. Nothing is mounted then; the overlay stays.
    pub(crate) fn lay<E: From<RestoreError> + From<MountError>>(
        self,
        overlay: &Path,
        progress: &ProgressFn,
    ) -> Result<LaidOver, E> {
        let clock = Watch::start(progress, self.request.pace.clone());
        let owner = programs::owner(self.programs.account.as_ref());
        let wanted = MountRequest {
            point: self.plan.point.clone(),
            overlay: overlay.to_owned(),
            mountpoint: self.request.into.clone(),
            owner: files_owner(&self.programs),
        };
        let near = Near {
            cache: None,
            hot: self.hot.clone(),
        };
        let mount = Mount::open_near(wanted, near)?;
        let ground = Ground::new(&self.request.into, owner, &self.request.ways);
        Ok(self.lay_on(mount, &ground, &clock)?)
    }

    fn lay_on(
        self,
        mount: Mount,
        ground: &Ground<'_>,
        clock: &Watch,
    ) -> Result<LaidOver, RestoreError> {
        let (plan, request) = (&self.plan, self.request);
        let mut over = Over {
            ground,
            reads: Reads::up_to(limits::PREFETCH_BLOCKS),
        };
        clock.expect(plan.log_bytes());
        let brought = log::bring(plan, &mut over, &ground.counts, &|bytes| {
            clock.tell(RestorePhase::Wal, bytes);
        })?;
        let stop = settled_stop(plan, &brought, request)?;
        let port = match request.start {
            Start::Yes { port } => server::choose_port(port, &request.into)?,
            Start::No => 5432,
        };
        // A socket cannot lie in a mount.
        let sockets = match (request.is_portable, request.into.parent()) {
            (false, Some(beside)) => server::socket_folder(beside, &self.programs)?,
            _ => PathBuf::new(),
        };
        let libraries = self.programs.libraries();
        let end = brought.cut.as_ref().map_or(brought.end, |(_, cut)| *cut);
        if let Some((at, cut)) = &brought.cut {
            cut_off(ground, at, *cut)?;
        }
        // Where the log is cut off there is no target besides its end.
        let follows = brought.cut.is_some() || stop == Stop::End;
        let wanted = Wanted {
            home: home(request, port, &sockets),
            major: plan.base.major,
            minor: self.programs.minor,
            timeline: plan.timeline(),
            stop: if follows { Stop::End } else { stop },
            libraries: &libraries,
        };
        settings::write(ground, &wanted)?;
        if follows {
            let (recovers, follows) = ("recovery.signal", FOLLOWS);
            let recovers = ground.directory.join(recovers);
            fs::rename(&recovers, ground.directory.join(follows))
                .map_err(|source| files::failed("rename", &recovers, source))?;
        }
        let mut notes = plan.notes.clone();
        notes.extend(ends_before(plan, stop, &brought));
        let restored = restored((plan, request), &brought, (end, notes), clock.seconds());
        Ok(LaidOver {
            restored,
            held: Held::new(mount, by_file(&over.reads)),
            major: plan.base.major,
            port,
            programs: self.programs,
            sockets,
            began: self.began,
        })
    }
}

/// Returns the account that a mount's files belong to.
pub(crate) fn files_owner(programs: &Programs) -> FilesOwner {
    programs::owner(programs.account.as_ref()).0
}

fn restored(
    (plan, request): (&Plan, &RestoreRequest),
    brought: &Brought,
    (end, notes): (Lsn, Vec<String>),
    files_s: f64,
) -> Restored {
    Restored {
        source: request.source.clone(),
        point: plan.base.point.clone(),
        at: request.at.to_string(),
        timeline: plan.timeline(),
        found: plan.found,
        notes,
        directory: request.into.clone(),
        wal_end: end,
        newest_commit: brought.newest_commit,
        bytes: ByteCount(brought.bytes),
        came: super::Came {
            fetched: ByteCount(brought.bytes),
            ..super::Came::default()
        },
        verified: None,
        files_s,
        promoted_s: None,
        server: None,
    }
}

/// Lets the log end at a position: what follows reads as zeros, and files behind it go.
fn cut_off(ground: &Ground<'_>, at: &WalPlace, cut: Lsn) -> Result<(), RestoreError> {
    let folder = ground.directory.join("pg_wal");
    let segment = u64::from(at.segment_bytes);
    let start = at.segment_start(cut);
    let path = folder.join(at.segment_name(start));
    let failed = |source| files::failed("cut off", &path, source);
    match files::open_to_write(&path) {
        Ok(file) => {
            file.set_len(cut.since(start).0)
                .and_then(|()| file.set_len(segment))
                .map_err(failed)?;
        }
        // The log may end exactly where a file of it does.
        Err(_) if cut == start && fs::symlink_metadata(&path).is_err() => {}
        Err(error) => return Err(error),
    }
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let begins = name.to_str().and_then(|name| at.read_segment_name(name));
        if begins.is_some_and(|begins| begins > start) {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

/// Puts the log over the mount, and notes what its replay reads.
struct Over<'a> {
    ground: &'a Ground<'a>,
    reads: Reads,
}

impl LogSink for Over<'_> {
    fn kept(&self, _name: &str, _bytes: u32) -> Option<Vec<u8>> {
        None
    }

    fn put(&mut self, name: &str, content: &[u8], length: u64) -> Result<(), RestoreError> {
        log::put_file(self.ground, name, (content, length))
    }

    fn replayed(&mut self, record: &Record<'_>) {
        // Whoever replays it says what is wrong with it.
        let _ = self.reads.apply(record);
    }
}

/// Returns the same blocks by file; those of other tablespaces come when they are asked for.
fn by_file(reads: &Reads) -> Blocks {
    let mut files = Blocks::new();
    for (relation, fork, ranges) in reads.forks() {
        let Some(path) = path_of(relation, fork) else {
            continue;
        };
        for range in ranges {
            let mut at = range.start;
            while at < range.end {
                let number = at / FILE_BLOCKS;
                let first = number.saturating_mul(FILE_BLOCKS);
                let end = range.end.min(first.saturating_add(FILE_BLOCKS));
                let name = match number {
                    0 => path.clone(),
                    number => format!("{path}.{number}"),
                };
                let within =
                    u64::from(at.saturating_sub(first))..u64::from(end.saturating_sub(first));
                files.entry(name).or_default().push(within);
                at = end;
            }
        }
    }
    files
}

/// SOURCE: PostgreSQL 18, `common/relpath.c`, `GetRelationPath`
fn path_of(relation: Relation, fork: Fork) -> Option<String> {
    let (database, file) = (relation.database, relation.file);
    let path = match relation.tablespace {
        DEFAULT_SPACE => format!("base/{database}/{file}"),
        SHARED_SPACE => format!("global/{file}"),
        _ => return None,
    };
    Some(match fork {
        Fork::Main => path,
        Fork::FreeSpace => format!("{path}_fsm"),
        Fork::Visibility => format!("{path}_vm"),
        Fork::Init => format!("{path}_init"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::Ways;
    use crate::restore::files::Owner;

    #[test]
    fn blocks_are_told_by_file() {
        let relation = |tablespace| Relation {
            tablespace,
            database: 5,
            file: 77,
        };
        assert_eq!(path_of(relation(1663), Fork::Main).unwrap(), "base/5/77");
        let shared = path_of(relation(1664), Fork::Visibility).unwrap();
        assert_eq!(shared, "global/77_vm");
        assert_eq!(path_of(relation(20_000), Fork::Main), None);
    }

    #[test]
    fn a_log_that_is_cut_off_ends_there_and_nothing_follows() {
        let folder = tempfile::tempdir().unwrap();
        let ways = Ways::default();
        let ground = Ground::new(folder.path(), Owner(None), &ways);
        let wal = folder.path().join("pg_wal");
        fs::create_dir(&wal).unwrap();
        let at = WalPlace {
            source: "prod".parse().unwrap(),
            system_identifier: 7,
            timeline: 3,
            segment_bytes: 1 << 20,
        };
        let name = |number: u64| at.segment_name(Lsn(number << 20));
        for number in 1..5 {
            fs::write(wal.join(name(number)), vec![1; 1 << 20]).unwrap();
        }
        fs::write(wal.join("00000003.history"), "x").unwrap();
        cut_off(&ground, &at, Lsn((2 << 20) + 24)).unwrap();
        let cut = fs::read(wal.join(name(2))).unwrap();
        assert_eq!(cut.len(), 1 << 20);
        assert!(cut[..24].iter().all(|byte| *byte == 1));
        assert!(cut[24..].iter().all(|byte| *byte == 0));
        assert_eq!(fs::read(wal.join(name(1))).unwrap(), vec![1; 1 << 20]);
        assert!(!wal.join(name(3)).exists() && !wal.join(name(4)).exists());
        assert!(wal.join("00000003.history").exists());
        cut_off(&ground, &at, Lsn(3 << 20)).unwrap();
        assert!(cut_off(&ground, &at, Lsn((3 << 20) + 8)).is_err());
    }
}
