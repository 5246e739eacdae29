//! Writing the files of a base, from several threads, each frame checked.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, chown, fchown};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_store::object::{ObjectKey, Range};

use super::RestoreError;
use super::plan::Plan;
use crate::limits;
use crate::repository::bundle::{FrameRecord, open_frame};
use crate::repository::manifest::{Entry, What};
use crate::repository::{Reader, RepositoryError};

/// Files that belong to the server that was, not to the one that will be.
const LEFT_OUT: [&str; 6] = [
    "postmaster.opts",
    "postmaster.pid",
    "recovery.signal",
    "standby.signal",
    // It would link tablespaces to where they lie on the source.
    "tablespace_map",
    "current_logfiles",
];

/// Who owns what is written: user and group, or whoever we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner(pub(super) Option<(u32, u32)>);

/// Makes the directory of a restore: absent before, or empty.
pub(super) fn make_directory(path: &Path, owner: Owner) -> Result<(), RestoreError> {
    let refused = |why: String| RestoreError::Directory {
        path: path.to_owned(),
        why,
    };
    if !path.is_absolute() {
        return Err(refused("it is not an absolute path".to_owned()));
    }
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let mut entries = fs::read_dir(path).map_err(|error| refused(error.to_string()))?;
            if entries.next().is_some() {
                return Err(refused("it is not empty".to_owned()));
            }
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            fs::set_permissions(path, private).map_err(|error| refused(error.to_string()))?;
        }
        Ok(_) => return Err(refused("it exists and is not a directory".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Parents are made as the system makes them, the directory itself is nobody else's.
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(|error| refused(error.to_string()))?;
            }
            DirBuilder::new()
                .mode(0o700)
                .create(path)
                .map_err(|error| refused(error.to_string()))?;
        }
        Err(error) => return Err(refused(error.to_string())),
    }
    own(path, owner)
}

/// Makes a new private folder.
pub(super) fn make_folder(path: &Path, owner: Owner) -> Result<(), RestoreError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                make_folder(parent, owner)?;
            }
            let made = DirBuilder::new().mode(0o700).create(path);
            made.map_err(|source| failed("make", path, source))?;
            own(path, owner)
        }
        Err(source) => Err(failed("make", path, source)),
        Ok(()) => own(path, owner),
    }
}

/// Opens a private file for writing, making it when it is not there.
pub(super) fn create(path: &Path, owner: Owner) -> Result<File, RestoreError> {
    let fresh = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path);
    let opened = match fresh {
        // Another thread has made it, for another part of it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return OpenOptions::new()
                .write(true)
                .open(path)
                .map_err(|source| failed("open", path, source));
        }
        opened => opened,
    };
    let file = opened.map_err(|source| failed("make", path, source))?;
    if let Some((user, group)) = owner.0 {
        fchown(&file, Some(user), Some(group))
            .map_err(|source| failed("give away", path, source))?;
    }
    Ok(file)
}

/// Gives a path to the owner.
pub(super) fn own(path: &Path, owner: Owner) -> Result<(), RestoreError> {
    match owner.0 {
        Some((user, group)) => {
            chown(path, Some(user), Some(group)).map_err(|source| failed("give away", path, source))
        }
        None => Ok(()),
    }
}

/// Returns an error that says on what the system failed.
pub(super) fn failed(step: &'static str, path: &Path, source: io::Error) -> RestoreError {
    RestoreError::Io {
        step,
        path: path.to_owned(),
        source,
    }
}

/// A file with bytes, by its place in the stream of all bundles.
struct Placed {
    start: u64,
    end: u64,
    path: PathBuf,
}

/// Frames of one bundle that follow each other, read at once.
struct Group {
    key: ObjectKey,
    /// Where the first byte of the first frame is in the stream.
    start: u64,
    frames: Vec<FrameRecord>,
}

/// Writes all files of the plan's base below `directory`; `each` is told of every few megabytes.
pub(super) fn write_all(
    plan: &Plan,
    directory: &Path,
    owner: Owner,
    each: &(dyn Fn(u64) + Sync),
) -> Result<u64, RestoreError> {
    let files = prepare(plan, directory, owner)?;
    let groups = Mutex::new(groups(plan)?);
    let stopped = AtomicBool::new(false);
    let work = || -> Result<u64, RestoreError> {
        let mut bytes = 0_u64;
        let mut writer = Writer::new(&plan.reader, &files, owner)?;
        while !stopped.load(Ordering::Relaxed) {
            let group = groups.lock().ok().and_then(|mut groups| groups.pop());
            let Some(group) = group else { break };
            match writer.write(&group) {
                Ok(written) => {
                    each(written);
                    bytes = bytes.saturating_add(written);
                }
                Err(error) => {
                    stopped.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(bytes)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..limits::PACK_THREADS)
            .map(|_| scope.spawn(work))
            .collect();
        let mut total = work()?;
        for thread in threads {
            let ended = thread.join().map_err(|_| thread_gone())?;
            total = total.saturating_add(ended?);
        }
        Ok(total)
    })
}

pub(super) fn thread_gone() -> RepositoryError {
    RepositoryError::System {
        step: "write files",
        what: "a thread of the restore has ended".to_owned(),
    }
}

/// Makes all folders and empty files, and returns the files with bytes in order of the stream.
fn prepare(plan: &Plan, directory: &Path, owner: Owner) -> Result<Vec<Placed>, RestoreError> {
    let mut files = Vec::new();
    for Entry { path, what, .. } in &plan.base.manifest.entries {
        let full = directory.join(path);
        let is_left_out = LEFT_OUT.contains(&path.as_str());
        match what {
            What::Directory => make_folder(&full, owner)?,
            // A link of the source must not be followed; what a tablespace holds comes as files.
            What::Symlink { .. } => {}
            What::File { .. } if is_left_out || path.starts_with("pg_wal/") => {}
            What::File { size, start, .. } => {
                if let Some(parent) = full.parent().filter(|parent| !parent.is_dir()) {
                    make_folder(parent, owner)?;
                }
                if *size == 0 {
                    create(&full, owner)?;
                } else {
                    files.push(Placed {
                        start: *start,
                        end: start.saturating_add(*size),
                        path: full,
                    });
                }
            }
        }
    }
    for folder in NEEDED_FOLDERS {
        make_folder(&directory.join(folder), owner)?;
    }
    files.sort_by_key(|file| file.start);
    Ok(files)
}

/// Folders that PostgreSQL will not make itself.
const NEEDED_FOLDERS: [&str; 4] = [
    "pg_wal",
    "pg_wal/archive_status",
    "pg_tblspc",
    "pg_replslot",
];

/// Returns all frames in groups, the last first, so that popping takes them in order.
fn groups(plan: &Plan) -> Result<Vec<Group>, RestoreError> {
    let mut groups = Vec::new();
    let mut start = 0_u64;
    for record in &plan.base.manifest.bundles {
        let (key, frames) = plan.reader.frames(&plan.base, record)?;
        for frames in frames.chunks(limits::FRAMES_PER_READ) {
            let raw: u64 = frames.iter().map(|frame| u64::from(frame.raw_bytes)).sum();
            groups.push(Group {
                key: key.clone(),
                start,
                frames: frames.to_vec(),
            });
            start = start.saturating_add(raw);
        }
    }
    groups.reverse();
    Ok(groups)
}

/// One thread's tools.
struct Writer<'a> {
    reader: &'a Reader,
    files: &'a [Placed],
    owner: Owner,
    decompressor: zstd::bulk::Decompressor<'static>,
    /// The file that was written last and stays open, by its place in the list.
    open: Option<(usize, File)>,
}

impl<'a> Writer<'a> {
    fn new(reader: &'a Reader, files: &'a [Placed], owner: Owner) -> Result<Self, RestoreError> {
        let decompressor =
            zstd::bulk::Decompressor::new().map_err(|error| RepositoryError::System {
                step: "decompress",
                what: error.to_string(),
            })?;
        Ok(Self {
            reader,
            files,
            owner,
            decompressor,
            open: None,
        })
    }

    fn write(&mut self, group: &Group) -> Result<u64, RestoreError> {
        let (Some(first), Some(last)) = (group.frames.first(), group.frames.last()) else {
            return Ok(0);
        };
        let end = last.offset.saturating_add(u64::from(last.stored_bytes));
        let range = Range {
            offset: first.offset,
            length: usize::try_from(end.saturating_sub(first.offset)).unwrap_or(usize::MAX),
        };
        let stored = self.reader.stored(&group.key, range)?;
        let mut rest = stored.as_slice();
        let mut at = group.start;
        let mut written = 0_u64;
        for frame in &group.frames {
            let length = usize::try_from(frame.stored_bytes).unwrap_or(usize::MAX);
            let (bytes, later) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = later;
            let raw = open_frame(&mut self.decompressor, &group.key, frame, bytes)?;
            written = written.saturating_add(self.place(at, &raw)?);
            at = at.saturating_add(u64::from(frame.raw_bytes));
        }
        Ok(written)
    }

    /// Writes what the stream holds from `at` on into the files that it belongs to.
    fn place(&mut self, at: u64, raw: &[u8]) -> Result<u64, RestoreError> {
        let end = at.saturating_add(u64::try_from(raw.len()).unwrap_or(u64::MAX));
        let mut written = 0_u64;
        let from = self.files.partition_point(|file| file.end <= at);
        for (index, file) in self.files.iter().enumerate().skip(from) {
            if file.start >= end {
                break;
            }
            let (first, last) = (file.start.max(at), file.end.min(end));
            let within =
                |position: u64| usize::try_from(position.saturating_sub(at)).unwrap_or(usize::MAX);
            let bytes = raw.get(within(first)..within(last)).unwrap_or_default();
            if self.open.as_ref().is_none_or(|(open, _)| *open != index) {
                self.open = Some((index, create(&file.path, self.owner)?));
            }
            if let Some((_, open)) = &self.open {
                open.write_all_at(bytes, first.saturating_sub(file.start))
                    .map_err(|source| failed("write", &file.path, source))?;
            }
            written = written.saturating_add(last.saturating_sub(first));
        }
        Ok(written)
    }
}
