//! The overlay's folder: what a mount has of its own, and how it is found again.
//!
//! # Shape
//! | name | what |
//! |---|---|
//! | `overlay.json` | of which restore point, and for whom |
//! | `data/` | whole files, as an ordinary data directory has them |
//! | `partial/` | sparse files of the same paths, of which some blocks come from the restore point |
//! | `notes/` | which blocks of those are here ([`super::record`]) |
//! | `gone` | lines: CRC-32C and path of what the restore point has and the mount has not |
//! | `lock` | held by the process that serves it |
//!
//! `data/` counts before `gone`, `gone` before `partial/`, `partial/` before the restore point. Each
//! change of names is ordered so that a process that is killed leaves the old state or the new one.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::error::MountError;
use super::record;
use crate::repository::PointSummary;

/// The version of what is described above.
const VERSION: u32 = 1;

/// Room that is kept for names of what is gone, in bytes.
const ROOM_BYTES: u64 = 64 << 10;

/// User and group that own the files of a mount; `None` leaves them to whoever serves it.
pub type FilesOwner = Option<(u32, u32)>;

/// What `overlay.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    overlay: u32,
    source: String,
    point: String,
    id: String,
}

/// An overlay that this process holds.
pub(super) struct Overlay {
    root: PathBuf,
    owner: FilesOwner,
    id: [u8; 16],
    gone: RwLock<BTreeSet<String>>,
    log: Mutex<File>,
    is_log_dirty: AtomicBool,
    fresh: AtomicU64,
    _lock: File,
}

impl Overlay {
    /// Opens the overlay of a restore point in `root`, or begins it.
    pub(super) fn open(
        root: &Path,
        point: &PointSummary,
        owner: FilesOwner,
    ) -> Result<Self, MountError> {
        let io = |step: &'static str| {
            move |source: io::Error| MountError::Overlay {
                step,
                path: root.to_owned(),
                source,
            }
        };
        make_folder(root, None).map_err(io("make"))?;
        let lock = File::create(root.join("lock")).map_err(io("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| MountError::InUse {
            path: root.to_owned(),
        })?;
        let id = identify(root, point)?;
        for folder in ["data", "partial", "notes", "work"] {
            make_folder(&root.join(folder), owner).map_err(io("make"))?;
        }
        for left in fs::read_dir(root.join("work")).map_err(io("clean"))? {
            let path = left.map_err(io("clean"))?.path();
            fs::remove_file(path).map_err(io("clean"))?;
        }
        let gone = read_gone(&root.join("gone"))?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(root.join("gone"))
            .map_err(io("open"))?;
        reserve(&log);
        Ok(Self {
            root: root.to_owned(),
            owner,
            id,
            gone: RwLock::new(gone),
            log: Mutex::new(log),
            is_log_dirty: AtomicBool::new(false),
            fresh: AtomicU64::new(0),
            _lock: lock,
        })
    }

    pub(super) fn owner(&self) -> FilesOwner {
        self.owner
    }

    pub(super) fn id(&self) -> &[u8; 16] {
        &self.id
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a whole file is.
    pub(super) fn data(&self, path: &str) -> PathBuf {
        self.root.join("data").join(path)
    }

    /// Where the blocks of a partial file are.
    pub(super) fn partial(&self, path: &str) -> PathBuf {
        self.root.join("partial").join(path)
    }

    /// Where it is recorded which those are.
    pub(super) fn note(&self, path: &str) -> PathBuf {
        self.root.join("notes").join(path)
    }

    /// A name that nothing has.
    pub(super) fn fresh(&self) -> PathBuf {
        let number = self.fresh.fetch_add(1, Ordering::Relaxed);
        self.root.join("work").join(number.to_string())
    }

    /// Tells whether the restore point's file or folder at `path` is no longer seen.
    pub(super) fn is_gone(&self, path: &str) -> bool {
        let gone = self.gone.read().unwrap_or_else(PoisonError::into_inner);
        if gone.is_empty() {
            return false;
        }
        let ends = path.match_indices('/').map(|(at, _)| at);
        ends.chain([path.len()])
            .any(|end| path.get(..end).is_some_and(|path| gone.contains(path)))
    }

    /// Records that what the restore point has at `path` is no longer seen; durable with
    /// [`Overlay::sync_names`].
    pub(super) fn hide(&self, path: &str) -> io::Result<()> {
        let line = format!("{:08x} {path}\n", crc32c::crc32c(path.as_bytes()));
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let before = log.metadata()?.len();
        if let Err(error) = log.write_all(line.as_bytes()) {
            // Half a line must not stand before the next one.
            log.set_len(before)?;
            return Err(error);
        }
        if before / ROOM_BYTES != log.metadata()?.len() / ROOM_BYTES {
            reserve(&log);
        }
        self.is_log_dirty.store(true, Ordering::Release);
        let mut gone = self.gone.write().unwrap_or_else(PoisonError::into_inner);
        gone.insert(path.to_owned());
        Ok(())
    }

    /// Makes durable what was hidden.
    pub(super) fn sync_names(&self) -> io::Result<()> {
        if self.is_log_dirty.swap(false, Ordering::AcqRel) {
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            let synced = log.sync_data();
            if synced.is_err() {
                self.is_log_dirty.store(true, Ordering::Release);
            }
            return synced;
        }
        Ok(())
    }

    /// Makes the folders in which `path` will lie.
    pub(super) fn make_parents(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if fs::symlink_metadata(parent).is_err() => {
                self.make_parents(parent)?;
                make_folder(parent, self.owner)
            }
            _ => Ok(()),
        }
    }

    /// Gives a path to the owner.
    pub(super) fn own(&self, path: &Path) -> io::Result<()> {
        own(path, self.owner)
    }

    /// Forgets the blocks of a partial file and their record.
    pub(super) fn forget_partial(&self, path: &str) -> io::Result<()> {
        // The record alone says nothing; blocks without a record count for nothing.
        remove(&self.partial(path))?;
        remove(&self.note(path))
    }

    /// Makes a partial file whole: it becomes a file of the data directory.
    pub(super) fn settle(&self, path: &str) -> io::Result<()> {
        let (from, to) = (self.partial(path), self.data(path));
        self.make_parents(&to)?;
        fs::rename(&from, &to)?;
        record::sync_parent(&to)?;
        remove(&self.note(path))
    }
}

/// Keeps room behind the end of a log, so that things can be removed also from a full disk.
fn reserve(log: &File) {
    let end = log.metadata().map_or(0, |facts| facts.len());
    let flags = rustix::fs::FallocateFlags::KEEP_SIZE;
    // Where that cannot be, removing fails on a full disk, and says so.
    let _ = rustix::fs::fallocate(log, flags, end, ROOM_BYTES.saturating_mul(2));
}

/// Opens a file of the overlay; links are not followed.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits();
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(i32::try_from(flags).unwrap_or(0))
        .open(path)
}

/// Removes a file; one that is not there is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn own(path: &Path, owner: FilesOwner) -> io::Result<()> {
    match owner {
        Some((user, group)) => chown(path, Some(user), Some(group)),
        None => Ok(()),
    }
}

fn make_folder(path: &Path, owner: FilesOwner) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => own(path, owner),
    }
}

/// Reads whose overlay this is, or says it.
fn identify(root: &Path, point: &PointSummary) -> Result<[u8; 16], MountError> {
    let path = root.join("overlay.json");
    let damaged = |what: &str| MountError::Damaged {
        path: path.clone(),
        what: what.to_owned(),
    };
    let failed = |source: io::Error| MountError::Overlay {
        step: "begin",
        path: path.clone(),
        source,
    };
    match fs::read(&path) {
        Ok(text) => {
            let found: Identity =
                serde_json::from_slice(&text).map_err(|_| damaged("it is not readable"))?;
            if found.overlay != VERSION {
                return Err(damaged("it has another version"));
            }
            if (found.source.as_str(), found.point.as_str())
                != (point.source.as_str(), point.point.as_str())
            {
                return Err(MountError::OtherPoint {
                    path: root.to_owned(),
                    found: found.point,
                    wanted: point.point.clone(),
                });
            }
            let id = data_encoding::HEXLOWER.decode(found.id.as_bytes()).ok();
            id.and_then(|id| id.try_into().ok())
                .ok_or_else(|| damaged("its id is not readable"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let used = fs::read_dir(root).map_err(failed)?;
            let is_other = |entry: io::Result<fs::DirEntry>| {
                entry.map_or(true, |entry| {
                    entry.file_name() != "lock" && entry.file_name() != "overlay.json.new"
                })
            };
            if used.into_iter().any(is_other) {
                return Err(damaged("it is missing, and the folder is not empty"));
            }
            let mut id = [0; 16];
            getrandom::fill(&mut id)
                .map_err(|error| failed(io::Error::other(error.to_string())))?;
            let identity = Identity {
                overlay: VERSION,
                source: point.source.to_string(),
                point: point.point.to_string(),
                id: data_encoding::HEXLOWER.encode(&id),
            };
            let text = serde_json::to_vec(&identity).map_err(|error| failed(error.into()))?;
            let fresh = root.join("overlay.json.new");
            let mut file = File::create(&fresh).map_err(failed)?;
            file.write_all(&text).map_err(failed)?;
            file.sync_all().map_err(failed)?;
            fs::rename(&fresh, &path).map_err(failed)?;
            record::sync_parent(&path).map_err(failed)?;
            Ok(id)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Reads what is gone; a last line that was torn is taken away.
fn read_gone(path: &Path) -> Result<BTreeSet<String>, MountError> {
    let failed = |source: io::Error| MountError::Overlay {
        step: "read",
        path: path.to_owned(),
        source,
    };
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        bytes => bytes.map_err(failed)?,
    };
    let mut gone = BTreeSet::new();
    let mut good = 0_usize;
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    for (number, line) in lines.iter().enumerate() {
        match read_line(line) {
            Some(name) => {
                gone.insert(name);
                good = good.saturating_add(line.len());
            }
            // Only the last line can have been cut off by a crash.
            None if number.saturating_add(1) == lines.len() => {
                let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
                let length = u64::try_from(good).unwrap_or(u64::MAX);
                file.set_len(length).map_err(failed)?;
            }
            None => {
                return Err(MountError::Damaged {
                    path: path.to_owned(),
                    what: format!("line {} is not readable", number.saturating_add(1)),
                });
            }
        }
    }
    Ok(gone)
}

fn read_line(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (sum, path) = line.split_once(' ')?;
    let stated = u32::from_str_radix(sum, 16).ok()?;
    (crc32c::crc32c(path.as_bytes()) == stated).then(|| path.to_owned())
}
