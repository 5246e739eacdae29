//! Making the files of a restore point: folders first, then what is in them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown, fchown};
use std::path::Path;

use super::RestoreError;
use super::frames::{Batch, write_batch};
use crate::repository::point::Part;
use crate::repository::{Point, RecordKind, RepositoryError};

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

/// Makes a private file for writing; nothing of this name may be there.
pub(super) fn create(path: &Path, owner: Owner) -> Result<File, RestoreError> {
    let fresh = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path);
    let file = fresh.map_err(|source| failed("make", path, source))?;
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

/// Writes all files of a restore point below `directory`; `each` is told of every few megabytes.
///
/// The point's block map is gone through in order, and what it names is read in batches: the memory
/// in use does not grow with the point.
pub(super) fn write_all(
    point: &Point,
    directory: &Path,
    owner: Owner,
    each: &(dyn Fn(u64) + Sync),
) -> Result<u64, RestoreError> {
    let mut batch = Batch::default();
    let mut bytes = 0_u64;
    for part in point.walk() {
        let part = part?;
        if let Some(size) = prepare(&part, directory, owner)? {
            bytes = bytes.saturating_add(size);
            batch.add(directory.join(part.path.as_ref()), &part);
        }
        if batch.is_full() {
            write_batch(point, std::mem::take(&mut batch), each)?;
        }
    }
    write_batch(point, batch, each)?;
    for folder in NEEDED_FOLDERS {
        make_folder(&directory.join(folder), owner)?;
    }
    Ok(bytes)
}

pub(super) fn thread_gone() -> RepositoryError {
    RepositoryError::System {
        step: "write files",
        what: "a thread of the restore has ended".to_owned(),
    }
}

/// Makes a folder, or a file that is as long as it will be; returns the bytes of a file that is wanted.
fn prepare(part: &Part, directory: &Path, owner: Owner) -> Result<Option<u64>, RestoreError> {
    let path = part.path.as_ref();
    let full = directory.join(path);
    match part.record.kind {
        RecordKind::Directory => make_folder(&full, owner).map(|()| None),
        // A link of the source must not be followed; what a tablespace holds comes as files.
        RecordKind::Hardlink | RecordKind::Symlink => Ok(None),
        RecordKind::File if LEFT_OUT.contains(&path) || path.starts_with("pg_wal/") => Ok(None),
        RecordKind::File if part.is_more => Ok(Some(0)),
        RecordKind::File => {
            let size = part.record.size;
            create_sized(&full, size, owner)?;
            Ok(Some(size))
        }
    }
}

/// Makes a file of this size, and its folder if need be: what is not written of it is a hole.
pub(super) fn create_sized(path: &Path, size: u64, owner: Owner) -> Result<(), RestoreError> {
    let file = match create(path, owner) {
        Err(RestoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                make_folder(parent, owner)?;
            }
            create(path, owner)?
        }
        created => created?,
    };
    if size > 0 {
        file.set_len(size)
            .map_err(|source| failed("make", path, source))?;
    }
    Ok(())
}

/// Folders that PostgreSQL will not make itself.
const NEEDED_FOLDERS: [&str; 4] = [
    "pg_wal",
    "pg_wal/archive_status",
    "pg_tblspc",
    "pg_replslot",
];
