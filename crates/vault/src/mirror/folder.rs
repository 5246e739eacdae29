//! The mirror's folder: one owner, one data directory at a time, and a note of what it is.
//!
//! A data directory that was handed over belongs to whoever recovered: nothing here looks at it again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use holdfast_core::{ByteCount, Lsn, SourceName};
use serde::{Deserialize, Serialize};

use super::{MirrorError, server};
use crate::moved::replace;
use crate::repository::BaseSummary;

const NOTE: &str = "mirror.json";
const OWNER: &str = ".owner";
/// Every data directory that is made here begins with this.
const PREFIX: &str = "data-";

/// What a data directory is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Note {
    /// Its name in the folder.
    pub(super) name: String,
    pub(super) system_identifier: u64,
    pub(super) major: u32,
    /// Of the restore point that it was laid from.
    pub(super) timeline: u32,
    pub(super) start: Lsn,
    pub(super) stop: Lsn,
}

/// The folder of one source's mirror, which nobody else uses.
pub(super) struct Folder {
    path: PathBuf,
    _owner: File,
}

impl Folder {
    /// Opens it, making it if need be.
    ///
    /// # Errors
    /// When somebody else has it, or the system refuses.
    pub(super) fn open(root: &Path, source: &SourceName) -> Result<Self, MirrorError> {
        let path = root.join(source.as_str());
        let failed = |step| {
            let path = path.clone();
            move |source| MirrorError::Folder { step, path, source }
        };
        fs::create_dir_all(&path).map_err(failed("make"))?;
        let owner = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(OWNER))
            .map_err(failed("open"))?;
        owner.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => MirrorError::Taken { path: path.clone() },
            fs::TryLockError::Error(error) => failed("lock")(error),
        })?;
        Ok(Self {
            path,
            _owner: owner,
        })
    }

    /// Returns the data directory that is to be gone on with, if it is whole and of this cluster.
    pub(super) fn current(&self, system_identifier: u64) -> Option<(Note, PathBuf)> {
        let text = fs::read(self.path.join(NOTE)).ok()?;
        let note: Note = serde_json::from_slice(&text).ok()?;
        let is_name = note.name.starts_with(PREFIX) && !note.name.contains('/');
        let data = self.path.join(&note.name);
        let is_it = is_name
            && note.system_identifier == system_identifier
            && data.join("PG_VERSION").is_file();
        is_it.then_some((note, data))
    }

    /// Names a data directory that is not there yet, after throwing away what was begun before.
    pub(super) fn fresh(&self) -> Result<PathBuf, MirrorError> {
        let mut random = [0_u8; 6];
        getrandom::fill(&mut random)
            .map_err(|error| self.failed("name", io::Error::other(error)))?;
        let name = format!("{PREFIX}{}", HEXLOWER.encode(&random));
        // Noted as begun first, so that a crash leaves nothing that nobody knows of.
        replace(&self.path.join(BEGUN), name.as_bytes())
            .map_err(|source| self.failed("write to", source))?;
        Ok(self.path.join(name))
    }

    /// Notes that a data directory is whole.
    pub(super) fn keep(&self, data: &Path, base: &BaseSummary) -> Result<Note, MirrorError> {
        let name = data.file_name().and_then(|name| name.to_str());
        let note = Note {
            name: name.unwrap_or_default().to_owned(),
            system_identifier: base.system_identifier,
            major: base.major,
            timeline: base.timeline,
            start: base.start_lsn,
            stop: base.stop_lsn,
        };
        let text = serde_json::to_vec_pretty(&note)
            .map_err(|error| self.failed("write to", io::Error::other(error)))?;
        replace(&self.path.join(NOTE), &text).map_err(|source| self.failed("write to", source))?;
        self.forget(BEGUN)?;
        Ok(note)
    }

    /// Forgets the data directory: it was handed over, and stays.
    pub(super) fn hand_over(&self) -> Result<(), MirrorError> {
        self.forget(NOTE)
    }

    /// Stops the server and throws its data directory away, and what was begun and never became whole.
    pub(super) fn discard(&self) -> Result<(), MirrorError> {
        let noted = fs::read(self.path.join(NOTE)).ok();
        let noted = noted.and_then(|text| serde_json::from_slice::<Note>(&text).ok());
        let begun = fs::read_to_string(self.path.join(BEGUN)).ok();
        for name in noted.map(|note| note.name).into_iter().chain(begun) {
            if !name.starts_with(PREFIX) || name.contains('/') {
                continue;
            }
            let data = self.path.join(name);
            server::stop(&data);
            match fs::remove_dir_all(&data) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(|source| self.failed("throw away", source))?,
            }
        }
        self.forget(NOTE)?;
        self.forget(BEGUN)
    }

    /// Refuses when its disk has less than `needed` bytes free, as far as that can be known.
    pub(super) fn has_room(&self, needed: ByteCount) -> Result<(), MirrorError> {
        match self.free().is_some_and(|free| free < needed) {
            true => Err(self.full(needed)),
            false => Ok(()),
        }
    }

    /// Says that its disk is full, of which `needed` are to stay free.
    pub(super) fn full(&self, needed: ByteCount) -> MirrorError {
        MirrorError::Full {
            path: self.path.clone(),
            free: self.free().unwrap_or_default(),
            needed,
        }
    }

    fn free(&self) -> Option<ByteCount> {
        let disk = rustix::fs::statvfs(&self.path).ok()?;
        Some(ByteCount(disk.f_bavail.saturating_mul(disk.f_frsize)))
    }

    fn forget(&self, name: &str) -> Result<(), MirrorError> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|source| self.failed("take a note from", source)),
        }
    }

    fn failed(&self, step: &'static str, source: io::Error) -> MirrorError {
        MirrorError::Folder {
            step,
            path: self.path.clone(),
            source,
        }
    }
}

const BEGUN: &str = "begun";

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::{PointId, Timestamp};

    fn base() -> BaseSummary {
        BaseSummary {
            point: PointId::from_random([0; PointId::RANDOM_BYTES]),
            system_identifier: 7,
            major: 18,
            timeline: 1,
            segment_bytes: 16 << 20,
            start_lsn: Lsn(1),
            stop_lsn: Lsn(2),
            at: Timestamp(0),
            bytes: ByteCount(0),
            stored: ByteCount(0),
        }
    }

    #[test]
    fn what_was_handed_over_is_never_thrown_away_and_what_was_begun_is() {
        let root = tempfile::tempdir().unwrap();
        let source: SourceName = "prod".parse().unwrap();
        let folder = Folder::open(root.path(), &source).unwrap();
        assert!(Folder::open(root.path(), &source).is_err(), "one owner");
        let begun = folder.fresh().unwrap();
        fs::create_dir(&begun).unwrap();
        folder.discard().unwrap();
        assert!(!begun.exists());
        let data = folder.fresh().unwrap();
        fs::create_dir(&data).unwrap();
        fs::write(data.join("PG_VERSION"), "18\n").unwrap();
        assert_eq!(
            folder.current(7),
            None,
            "it is not whole before it is noted"
        );
        let note = folder.keep(&data, &base()).unwrap();
        assert_eq!(folder.current(7), Some((note, data.clone())));
        assert_eq!(folder.current(8), None, "another cluster");
        folder.hand_over().unwrap();
        folder.discard().unwrap();
        assert!(data.exists());
    }
}
