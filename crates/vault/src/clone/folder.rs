//! A clone's own folder: made for one clone, locked by whoever serves it, and the only thing that is
//! ever removed with it.
//!
//! Whether somebody serves a clone is told by the lock alone. The kernel gives it back when that
//! process ends, however it ends, so that neither a number that somebody else has by now nor a restart
//! of the machine deceives anybody.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use holdfast_core::ByteCount;

use super::record::{self, CloneRecord};
use super::{CloneError, CloneId, Form, processes};
use crate::{limits, mount};

/// The file that is locked.
const LOCK: &str = "lock";
/// Where the data directory is.
const DATA: &str = "data";
/// What a mounted clone has of its own.
const OVERLAY: &str = "overlay";

/// A clone's folder, locked.
#[derive(Debug)]
pub(super) struct CloneFolder {
    path: PathBuf,
    device: u64,
    inode: u64,
    _lock: File,
}

/// Returns an error that says on what the system failed.
pub(super) fn failed(step: &'static str, path: &Path, source: io::Error) -> CloneError {
    CloneError::Folder {
        step,
        path: path.to_owned(),
        source,
    }
}

impl CloneFolder {
    /// Makes the folder of a new clone below `root`, and locks it.
    pub(super) fn make(root: &Path, id: &CloneId) -> Result<Self, CloneError> {
        // Others pass through to their own parts, and list nothing.
        holdfast_store::durable::make_folder_with(root, 0o711)
            .map_err(|error| failed("make", root, error))?;
        let path = root.join(id.as_str());
        DirBuilder::new()
            .mode(0o711)
            .create(&path)
            .map_err(|error| failed("make", &path, error))?;
        // Whatever the umask says: the server's account must get through.
        fs::set_permissions(&path, PermissionsExt::from_mode(0o711))
            .map_err(|error| failed("open up", &path, error))?;
        let lock = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path.join(LOCK));
        let lock = lock.and_then(|lock| lock.try_lock().map(|()| lock).map_err(io::Error::from));
        let lock = lock.map_err(|error| failed("lock", &path, error))?;
        Self::locked(path, lock)
    }

    /// Takes over the folder of a clone that nobody serves; `None` when somebody does.
    pub(super) fn take(root: &Path, id: &CloneId) -> Result<Option<Self>, CloneError> {
        let path = root.join(id.as_str());
        let facts = match fs::symlink_metadata(path.join(LOCK)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CloneError::Unknown(id.to_string()));
            }
            facts => facts.map_err(|error| failed("look at", &path, error))?,
        };
        let is_ours = facts.is_file() && facts.uid() == rustix::process::geteuid().as_raw();
        if !is_ours {
            let error = io::Error::other("it belongs to somebody else");
            return Err(failed("lock", &path, error));
        }
        let lock = File::open(path.join(LOCK)).map_err(|error| failed("lock", &path, error))?;
        match lock.try_lock() {
            Ok(()) => Self::locked(path, lock).map(Some),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(failed("lock", &path, error)),
        }
    }

    fn locked(path: PathBuf, lock: File) -> Result<Self, CloneError> {
        let facts = fs::symlink_metadata(&path).map_err(|error| failed("look at", &path, error))?;
        Ok(Self {
            device: facts.dev(),
            inode: facts.ino(),
            path,
            _lock: lock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }

    pub(super) fn overlay(&self) -> PathBuf {
        self.path.join(OVERLAY)
    }

    /// Takes a mount away whose process has ended; one that is served is an error.
    pub(super) fn sweep(&self) -> Result<(), CloneError> {
        let data = self.data();
        let deadline = Instant::now() + limits::CLONE_STOP;
        loop {
            mount::sweep(&self.path).map_err(|error| failed("detach", &data, error))?;
            match fs::symlink_metadata(&data) {
                // The lock of a process that was killed may be free before its mount is.
                Ok(facts) if facts.dev() != self.device => {}
                Err(error) if error.kind() != io::ErrorKind::NotFound => {}
                _ => return Ok(()),
            }
            if Instant::now() >= deadline {
                let error = io::Error::other("something is mounted there");
                return Err(failed("detach", &data, error));
            }
            std::thread::sleep(limits::CLONE_POLL);
        }
    }

    /// Writes the record anew beside the old one and gives it the old one's name, durably.
    pub(super) fn write(&self, record: &CloneRecord) -> Result<(), CloneError> {
        let path = self.path.join(record::FILE);
        let fresh = self.path.join(format!("{}.new", record::FILE));
        let bytes = record::write(record)
            .map_err(|error| failed("write", &path, io::Error::other(error)))?;
        gone(&fresh)?;
        let written = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&fresh, &path))
            .and_then(|()| holdfast_store::durable::sync_folder(&self.path));
        written.map_err(|error| failed("write", &path, error))
    }

    /// Removes the data of a clone that was not open yet.
    pub(super) fn clear(&self) -> Result<(), CloneError> {
        self.sweep()?;
        for path in [self.data(), self.overlay()] {
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &path, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends whatever still works in it and removes it, if it is still the folder that was locked.
    pub(super) fn remove(self) -> Result<(), CloneError> {
        processes::end(&self.data());
        let facts = fs::symlink_metadata(&self.path)
            .map_err(|error| failed("look at", &self.path, error))?;
        if !facts.is_dir() || (facts.dev(), facts.ino()) != (self.device, self.inode) {
            let error = io::Error::other("it is no longer the folder that was made");
            return Err(failed("remove", &self.path, error));
        }
        self.sweep()?;
        // The record goes last: what is left of a removal that was cut short is still a clone's.
        let entries = fs::read_dir(&self.path).map_err(|e| failed("read", &self.path, e))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name == LOCK || name == record::FILE {
                continue;
            }
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = match is_folder {
                true => fs::remove_dir_all(entry.path()),
                false => fs::remove_file(entry.path()),
            };
            removed.map_err(|error| failed("remove", &entry.path(), error))?;
        }
        fs::remove_dir_all(&self.path).map_err(|error| failed("remove", &self.path, error))
    }
}

/// Removes a file of a clone's own, if it is there.
pub(super) fn gone(path: &Path) -> Result<(), CloneError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

/// Removes a folder for sockets that had no place in the clone's own.
pub(super) fn remove_sockets(record: &CloneRecord, folder: &Path) {
    let sockets = &record.sockets;
    let name = sockets.file_name().unwrap_or_default().to_string_lossy();
    let is_ours = sockets.parent() == Some(std::env::temp_dir().as_path())
        && name.starts_with("holdfast-")
        && !sockets.starts_with(folder);
    if is_ours {
        let _ = fs::remove_dir_all(sockets);
    }
}

/// Reads the record of a clone; whoever serves it may be writing the next one.
pub(super) fn read(root: &Path, id: &CloneId) -> Result<CloneRecord, CloneError> {
    let path = root.join(id.as_str()).join(record::FILE);
    let limit = u64::try_from(limits::CLONE_RECORD_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let opened = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(CloneError::Unknown(id.to_string()));
        }
        opened => opened,
    };
    opened
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(|error| failed("read", &path, error))?;
    let record = record::read(&bytes, &path)?;
    match record.id == *id {
        true => Ok(record),
        false => Err(CloneError::Record {
            path,
            why: format!("it is of `{}`", record.id),
        }),
    }
}

/// Returns the clones that have a folder, in the order of their names.
pub(super) fn ids(root: &Path) -> Vec<CloneId> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut ids: Vec<CloneId> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    ids.sort();
    ids
}

/// Returns what a clone's folder takes of the disk for its data.
pub(super) fn disk(folder: &Path, form: Form) -> ByteCount {
    ByteCount(occupied(&folder.join(match form {
        Form::Mounted => OVERLAY,
        Form::Restored => DATA,
    })))
}

/// Returns how many files lie below a folder.
pub(super) fn files(folder: &Path) -> u64 {
    let mut folders = vec![folder.to_owned()];
    let mut files = 0_u64;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => folders.push(entry.path()),
                false => files = files.saturating_add(1),
            }
        }
    }
    files
}

/// Returns what a folder occupies; what cannot be read counts as nothing.
fn occupied(folder: &Path) -> u64 {
    let mut folders = vec![folder.to_owned()];
    let mut bytes = 0_u64;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(facts) = entry.metadata() else {
                continue;
            };
            if facts.is_dir() {
                folders.push(entry.path());
            }
            // SOURCE: stat(2), blocks are of 512 bytes whatever the file system has.
            bytes = bytes.saturating_add(facts.blocks().saturating_mul(512));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> CloneId {
        CloneId::new(&"prod".parse().unwrap(), [0, 0, number])
    }

    #[test]
    fn a_folder_is_served_by_one_and_removed_only_while_it_is_the_one_that_was_made() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let folder = CloneFolder::make(root, &id(1)).unwrap();
        assert!(CloneFolder::take(root, &id(1)).unwrap().is_none());
        assert!(CloneFolder::make(root, &id(1)).is_err());
        drop(folder);
        let folder = CloneFolder::take(root, &id(1)).unwrap().unwrap();
        assert_eq!(ids(root), [id(1)]);
        folder.remove().unwrap();
        assert!(ids(root).is_empty());
        let unknown = CloneFolder::take(root, &id(1)).unwrap_err();
        assert!(matches!(unknown, CloneError::Unknown(_)), "{unknown}");

        let folder = CloneFolder::make(root, &id(2)).unwrap();
        let path = folder.path().to_owned();
        fs::rename(&path, root.join("moved")).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("precious"), "x").unwrap();
        folder.remove().unwrap_err();
        assert!(path.join("precious").exists() && root.join("moved").exists());
    }
}
