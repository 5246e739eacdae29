//! The repository: restore points and the log, immutable, checked at every level.
//!
//! Format 2 is written, formats 1 and 2 are read; `docs/formats` describes both byte by byte.
//! A restore point exists only when its signed manifest does, and that object is written last.

pub(crate) mod bundle;
mod cache;
mod error;
mod format;
mod layout;
pub(crate) mod log;
mod manifest;
mod map;
mod pack;
pub(crate) mod point;
mod reader;
mod shelf;
#[cfg(test)]
mod tests;
mod types;
mod v1;
mod writer;

use std::sync::Arc;

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use holdfast_core::{ErrorChain, Lsn, Proof, SignedProof, SourceName};
use holdfast_store::object::fence::{Fence, FencedStore, WriterIdentity};
use holdfast_store::object::{
    Backend, Keys, Location, Marker, ObjectError, ObjectStore, Sealed, WriterLock,
};

use crate::config::{Clock, RetentionConfig};
use crate::limits;
use crate::retention::window;

pub use error::RepositoryError;
pub use point::Point;
pub use reader::Reader;
pub use types::{
    BaseSummary, EngineStart, Extent, FileEntry, FileKind, FileMeta, FileRecord, FramePlace,
    PatchTo, PointEnd, PointStart, PointSummary, PostgresPoint, PostgresStart, RecordKind,
    Tablespace, WalPlace,
};
pub use writer::PointWriter;

use format::Format;
use manifest::Manifest;
use map::Map;

/// The repository as the one vault that writes to it has it; clones share it. All functions block.
#[derive(Clone)]
pub struct Repository {
    writing: Arc<Writing>,
    reader: Reader,
}

pub(crate) struct Writing {
    store: Arc<dyn ObjectStore>,
    key: SigningKey,
    clock: Clock,
    fence: Option<Fence>,
    _lock: Option<WriterLock>,
}

impl Drop for Writing {
    /// Lets another writer follow at once; after a crash it must wait for the silence.
    fn drop(&mut self) {
        if let Some(fence) = &self.fence {
            let _ = fence.release();
        }
    }
}

/// As whom a repository is written, and how what is written is kept.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    /// The directory that is the writer: it may go on at once after a crash.
    pub(crate) state: std::path::PathBuf,
    pub(crate) retention: RetentionConfig,
}

impl Writing {
    /// Writes the manifest of a restore point: from then on the point exists.
    fn put_manifest(&self, manifest: &Manifest, folder: &str) -> Result<(), RepositoryError> {
        let key = layout::manifest(Format::V2, &manifest.source, folder)?;
        let object = manifest.seal(&self.key, &key)?;
        // What we sign must be what we would accept.
        Manifest::unseal(&key, &object, &self.key.verifying_key())?;
        self.store.create_new(&key, &object)?;
        Ok(())
    }
}

impl Repository {
    /// Makes the repository at `location` or opens it, and becomes its one writer; objects are sealed
    /// to the recipients of `keys`.
    ///
    /// # Errors
    /// [`RepositoryError::OtherKey`] when its manifests are signed with another key,
    /// [`RepositoryError::OldFormat`] when it has format 1, and what the store says: in use, something
    /// else than a repository, a newer format.
    pub fn open_writer(
        location: &Location,
        key: SigningKey,
        keys: &Keys,
        clock: Clock,
    ) -> Result<Self, RepositoryError> {
        Self::open_as(location, (key, keys), clock, None)
    }

    /// Opens it as [`Repository::open_writer`], as the vault of a state directory; without one the
    /// writer only passes by, and a crash of it must be followed by a takeover.
    pub(crate) fn open_as(
        location: &Location,
        (key, keys): (SigningKey, &Keys),
        clock: Clock,
        writer: Option<&Writer>,
    ) -> Result<Self, RepositoryError> {
        let recipients = keys.recipients();
        if recipients.is_empty() {
            return Err(RepositoryError::Misuse {
                what: "there is nobody to seal objects to".to_owned(),
            });
        }
        let random = random()?;
        let fresh = Marker {
            format: 2,
            id: HEXLOWER.encode(&random),
            created: clock(),
            vault_key: HEXLOWER.encode(key.verifying_key().as_bytes()),
            recipients,
        };
        let store = location.create_or_open(&fresh)?;
        let found = store.marker().format;
        if Format::of_marker(found) == Format::V1 {
            return Err(RepositoryError::OldFormat { found });
        }
        if manifest::marker_key(&store.marker().vault_key) != Some(key.verifying_key()) {
            return Err(RepositoryError::OtherKey);
        }
        let holder = format!("process {} since {}", std::process::id(), clock());
        let lock = store.lock(&holder)?;
        // The fence lies beside the sealed objects: who looks at it needs no key.
        let fence = fence(Arc::clone(&store), writer)?;
        let sealed = Arc::new(Sealed::new(store, keys.clone()));
        let fenced = FencedStore::new(sealed, fence.clone(), |key| {
            key.name().starts_with("manifest")
        });
        let held = (Some(lock), Some(fence));
        Ok(Self::assemble(Arc::new(fenced), key, clock, held))
    }

    /// Writes to any store, without a lock: for stores that tests make fail.
    #[must_use]
    pub fn over(store: Arc<dyn ObjectStore>, key: SigningKey, clock: Clock) -> Self {
        Self::assemble(store, key, clock, (None, None))
    }

    fn assemble(
        store: Arc<dyn ObjectStore>,
        key: SigningKey,
        clock: Clock,
        (lock, fence): (Option<WriterLock>, Option<Fence>),
    ) -> Self {
        let reader = Reader::over(Arc::clone(&store), key.verifying_key());
        let writing = Arc::new(Writing {
            store,
            key,
            clock,
            fence,
            _lock: lock,
        });
        Self { writing, reader }
    }

    /// Returns the right to write; a repository over a store of a test has none.
    pub(crate) fn fence(&self) -> Option<&Fence> {
        self.writing.fence.as_ref()
    }

    /// Returns the store that it writes to.
    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.writing.store
    }

    /// Returns the same repository for reading.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Begins a restore point.
    ///
    /// # Errors
    /// When the parent does not exist or is of another source or kind; when the system gives no random
    /// bytes or threads.
    pub fn begin_point(&self, start: PointStart) -> Result<PointWriter, RepositoryError> {
        let parent = match &start.parent {
            Some(parent) => Some(self.reader.point(&start.source, parent)?),
            None => None,
        };
        let is_postgres = matches!(start.engine, EngineStart::Postgres(_));
        let is_alike = |parent: &Point| parent.summary().postgres.is_some() == is_postgres;
        if !parent.as_ref().is_none_or(is_alike) {
            return Err(RepositoryError::Misuse {
                what: "the parent of a restore point is of another kind of source".to_owned(),
            });
        }
        let shelf = Arc::clone(self.reader.shelf());
        let empty = Map::new(shelf, start.source.clone(), [], None);
        PointWriter::begin(Arc::clone(&self.writing), start, parent, empty)
    }

    /// Stores a whole closed segment of the log that begins at `start`; the same again is fine.
    ///
    /// # Errors
    /// [`RepositoryError::Misuse`] when it is not whole or not aligned; `Exists` (ZI252) when another
    /// one is there.
    pub fn put_segment(
        &self,
        at: &WalPlace,
        start: Lsn,
        bytes: &[u8],
    ) -> Result<(), RepositoryError> {
        log::put_segment(&self.writing, at, start, bytes)
    }

    /// Stores a part of the open segment, from `start`; the same again is fine.
    ///
    /// # Errors
    /// As [`Repository::put_segment`]; a tail must not cross into the next segment.
    pub fn put_tail(&self, at: &WalPlace, start: Lsn, bytes: &[u8]) -> Result<(), RepositoryError> {
        log::put_tail(&self.writing, at, start, bytes)
    }

    /// Stores the history file of the timeline `at`; the same again is fine.
    ///
    /// # Errors
    /// When it is not readable as one, or another one is there.
    pub fn put_history(&self, at: &WalPlace, text: &[u8]) -> Result<(), RepositoryError> {
        log::put_history(&self.writing, at, text)
    }

    /// Returns the end of the log that is kept of this timeline, or `None` when nothing is.
    ///
    /// The log from the newest base of the timeline on is followed to its first hole; without a base,
    /// the end of the first run without holes is returned.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn log_end(&self, at: &WalPlace) -> Result<Option<Lsn>, RepositoryError> {
        let log = self.reader.log(at)?;
        let is_here = |base: &BaseSummary| {
            (base.system_identifier, base.timeline) == (at.system_identifier, at.timeline)
        };
        let base = self.reader.bases(&at.source)?.into_iter().rfind(is_here);
        let followed = base.and_then(|base| log.end_from(base.start_lsn));
        Ok(followed.or_else(|| log.runs().first().map(|run| run.1)))
    }

    /// Returns the newest base of a source.
    ///
    /// # Errors
    /// When the store cannot be read or its manifest does not verify.
    pub fn newest_base(&self, source: &SourceName) -> Result<Option<BaseSummary>, RepositoryError> {
        self.reader.newest_base(source)
    }

    /// Keeps the signed proof of a drill; the same again is fine.
    ///
    /// # Errors
    /// When it is not signed with this vault's key, or the store refuses.
    pub fn put_proof(
        &self,
        source: &SourceName,
        signed: &SignedProof,
    ) -> Result<(), RepositoryError> {
        let misuse = |what: String| RepositoryError::Misuse { what };
        let proof = Proof::verify(signed, &self.writing.key.verifying_key())
            .map_err(|error| misuse(ErrorChain(&error).to_string()))?;
        let report = proof.report();
        let key = layout::proof(Format::V2, source, report.drilled_at, &report.point)?;
        let text = serde_json::to_vec(signed).map_err(|error| misuse(error.to_string()))?;
        let kind = (format::Kind::Proof, [0; 24]);
        let object = format::seal(&self.writing.key, &key, kind, &text)?;
        match self.writing.store.create_new(&key, &object) {
            Err(ObjectError::Exists(_)) if self.reader.proof(&key)? == *signed => Ok(()),
            stored => Ok(stored?),
        }
    }
}

/// Claims the next epoch, and sees to it that the lock window does not shrink.
fn fence(store: Arc<dyn Backend>, writer: Option<&Writer>) -> Result<Fence, RepositoryError> {
    let identity = match writer {
        Some(writer) => WriterIdentity::open(&writer.state, random()?)?,
        None => WriterIdentity::passing(random()?),
    };
    let retention = writer.map(|writer| &writer.retention);
    if let Some(retention) = retention {
        window::check(store.as_ref(), retention.lock_for)?;
        if retention.immutable {
            store.make_immutable()?;
        }
    }
    let heartbeat = retention.map_or(limits::HEARTBEAT, |retention| retention.heartbeat);
    let records: Arc<dyn ObjectStore> = store;
    let fence = Fence::claim(Arc::clone(&records), identity, heartbeat)?;
    if let Some(retention) = retention {
        window::settle(records.as_ref(), retention.lock_for)?;
    }
    Ok(fence)
}

fn random() -> Result<[u8; 16], RepositoryError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| RepositoryError::System {
        step: "draw random bytes",
        what: error.to_string(),
    })?;
    Ok(random)
}
