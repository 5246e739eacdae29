//! Making the files of a restore point: folders first, then what is in them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::frames::{Batch, Task, work_batch};
use super::ground::Ground;
use super::local::{Gap, Gaps};
use super::{RestoreError, journal};
use crate::repository::point::Part;
use crate::repository::{Point, RecordKind, RepositoryError};

/// Files that belong to the server that was, not to the one that will be.
const LEFT_OUT: [&str; 10] = [
    // A source that was itself restored may have these.
    "holdfast.log",
    journal::FRESH,
    journal::LOG,
    journal::NOTE,
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
pub(crate) struct Owner(pub(crate) Option<(u32, u32)>);

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
            // A restore that was killed at its very beginning leaves a note without its name.
            let is_other = |entry: io::Result<fs::DirEntry>| {
                entry.map_or(true, |entry| entry.file_name() != journal::FRESH)
            };
            if entries.any(is_other) {
                let is_restored = fs::symlink_metadata(path.join("holdfast_hba.conf")).is_ok();
                return Err(refused(match is_restored {
                    true => "it is not empty: a restore in it is complete, and pg_ctl starts a server on it".to_owned(),
                    false => "it is not empty".to_owned(),
                }));
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

/// Makes a private file for writing; nothing of this name may be there.
pub(super) fn create(path: &Path, owner: Owner) -> Result<File, RestoreError> {
    make(path, owner, OpenOptions::new().create_new(true))
}

/// Makes a private file for writing that is empty; links are not followed.
pub(super) fn create_or_empty(path: &Path, owner: Owner) -> Result<File, RestoreError> {
    let file = make(path, owner, OpenOptions::new().create(true))?;
    fit(&file, path, 0)?;
    Ok(file)
}

/// As [`create`], and where a restore goes on, as [`create_or_empty`].
pub(super) fn create_in(ground: &Ground<'_>, path: &Path) -> Result<File, RestoreError> {
    match ground.is_resumed {
        true => create_or_empty(path, ground.owner),
        false => create(path, ground.owner),
    }
}

fn make(path: &Path, owner: Owner, options: &mut OpenOptions) -> Result<File, RestoreError> {
    let opened = options
        .write(true)
        .mode(0o600)
        .custom_flags(no_follow())
        .open(path);
    let file = opened.map_err(|source| failed("make", path, source))?;
    if let Some((user, group)) = owner.0 {
        fchown(&file, Some(user), Some(group))
            .map_err(|source| failed("give away", path, source))?;
    }
    Ok(file)
}

/// Opens a file that was made here for writing; links are not followed.
pub(super) fn open_to_write(path: &Path) -> Result<File, RestoreError> {
    let opened = OpenOptions::new()
        .write(true)
        .custom_flags(no_follow())
        .open(path);
    opened.map_err(|source| failed("open", path, source))
}

fn no_follow() -> i32 {
    i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0)
}

/// Makes a file as long as it shall be; what it gains reads as zeros.
pub(super) fn fit(file: &File, path: &Path, size: u64) -> Result<(), RestoreError> {
    match file.metadata().map(|metadata| metadata.len()) {
        Ok(length) if length == size => Ok(()),
        _ => file
            .set_len(size)
            .map_err(|source| failed("make", path, source)),
    }
}

/// Takes the notes of a restore away, when everything that they are for is there.
pub(super) fn forget_notes(directory: &Path) -> Result<(), RestoreError> {
    // The one that says whose the directory is goes last.
    for name in [journal::FRESH, journal::LOG, journal::NOTE] {
        let path = directory.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(|source| failed("take away", &path, source))?,
        }
    }
    Ok(())
}

/// Gives a path to the owner.
pub(crate) fn own(path: &Path, owner: Owner) -> Result<(), RestoreError> {
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

/// Writes all files of a restore point; `each` is told of every few megabytes.
///
/// The point's block map is gone through in order, and what it names is read in batches: the memory
/// in use does not grow with the point.
pub(super) fn write_all(
    point: &Point,
    ground: &Ground<'_>,
    each: &(dyn Fn(u64) + Sync),
) -> Result<u64, RestoreError> {
    let mut batch = Batch::default();
    let mut gaps = Gaps::new(ground.directory, Gap::Clear);
    let mut bytes = 0_u64;
    for part in point.walk() {
        let part = part?;
        if let Some(size) = prepare(&part, ground)? {
            bytes = bytes.saturating_add(size);
            let path = PathBuf::from(part.path.as_ref());
            if ground.is_resumed {
                gaps.add(&path, &part)?;
            }
            batch.add(path, &part);
        }
        if batch.is_full() {
            let full = std::mem::take(&mut batch);
            work_batch(point, full, (ground, Task::Write), each)?;
        }
    }
    gaps.finish()?;
    work_batch(point, batch, (ground, Task::Write), each)?;
    for folder in NEEDED_FOLDERS {
        make_folder(&ground.directory.join(folder), ground.owner)?;
    }
    Ok(bytes)
}

/// Tells whether a file of a cluster is not brought back.
pub(crate) fn is_left_out(path: &str) -> bool {
    LEFT_OUT.contains(&path) || path.starts_with("pg_wal/")
}

pub(super) fn thread_gone() -> RepositoryError {
    RepositoryError::System {
        step: "write files",
        what: "a thread of the restore has ended".to_owned(),
    }
}

/// Makes a folder, or a file that is as long as it will be; returns the bytes of a file that is wanted.
fn prepare(part: &Part, ground: &Ground<'_>) -> Result<Option<u64>, RestoreError> {
    let path = part.path.as_ref();
    let full = ground.directory.join(path);
    match part.record.kind {
        RecordKind::Directory => make_folder(&full, ground.owner).map(|()| None),
        // A link of the source must not be followed; what a tablespace holds comes as files.
        RecordKind::Hardlink | RecordKind::Symlink => Ok(None),
        RecordKind::File if is_left_out(path) => Ok(None),
        RecordKind::File if part.is_more => Ok(Some(0)),
        RecordKind::File => {
            let size = part.record.size;
            create_sized(&full, size, ground)?;
            Ok(Some(size))
        }
    }
}

/// Makes a file of this size, and its folder if need be: what is not written of it is a hole.
pub(super) fn create_sized(
    path: &Path,
    size: u64,
    ground: &Ground<'_>,
) -> Result<(), RestoreError> {
    let open = || match ground.is_resumed {
        true => make(path, ground.owner, OpenOptions::new().create(true)),
        false => create(path, ground.owner),
    };
    let file = match open() {
        Err(RestoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                make_folder(parent, ground.owner)?;
            }
            open()?
        }
        opened => opened?,
    };
    fit(&file, path, size)
}

/// Folders that PostgreSQL will not make itself.
pub(crate) const NEEDED_FOLDERS: [&str; 4] = [
    "pg_wal",
    "pg_wal/archive_status",
    "pg_tblspc",
    "pg_replslot",
];
