//! The repository: bases and the log, immutable, checked at every level, format v1.
//!
//! Everything in it is described byte by byte in `docs/formats/repository-v1.md`.
//! A base exists only when its signed manifest does, and that object is written last.

mod error;
mod types;

use std::path::Path;
use std::sync::Arc;

use ed25519_dalek::{SigningKey, VerifyingKey};
use holdfast_core::{Lsn, PointId, SignedProof, SourceName, Timestamp};
use holdfast_store::object::{DirectoryStore, WriterLock};

use crate::config::Clock;
use crate::restore::Place;
use crate::status::PointSpan;

pub use error::RepositoryError;
pub use types::{BaseEnd, BaseStart, BaseSummary, FileEntry, FileKind, Tablespace, WalPlace};

/// The repository as the one vault that writes to it has it; clones share it. All functions block.
#[derive(Clone)]
pub struct Repository {
    _inner: Arc<Writing>,
}

struct Writing {
    _store: DirectoryStore,
    _lock: WriterLock,
    _key: SigningKey,
    _clock: Clock,
}

/// The repository for reading: without the lock, without the writer's key, beside a running vault.
#[derive(Clone)]
pub struct Reader {
    _store: Arc<DirectoryStore>,
    _key: VerifyingKey,
}

/// Takes one base backup in, file by file, with bounded memory.
///
/// Dropped before [`BaseWriter::finish`] it leaves bundles that no manifest names, and no restore point.
pub struct BaseWriter {
    point: PointId,
}

impl Repository {
    /// Makes the repository in `directory` or opens it, and becomes its one writer.
    ///
    /// # Errors
    /// [`RepositoryError::OtherKey`] when its manifests are signed with another key, and what the
    /// store says: in use, something else than a repository, a newer format.
    pub fn open_writer(
        _directory: &Path,
        _key: SigningKey,
        _clock: Clock,
    ) -> Result<Self, RepositoryError> {
        Err(RepositoryError::OtherKey)
    }

    /// Returns the same repository for reading.
    pub fn reader(&self) -> Result<Reader, RepositoryError> {
        Err(RepositoryError::OtherKey)
    }

    /// Begins a base.
    ///
    /// # Errors
    /// When the system gives no random bytes or threads.
    pub fn begin_base(&self, _start: BaseStart) -> Result<BaseWriter, RepositoryError> {
        Err(RepositoryError::OtherKey)
    }

    /// Stores a whole closed segment of the log that begins at `start`; the same again is fine.
    ///
    /// # Errors
    /// [`RepositoryError::Misuse`] when it is not whole or not aligned; `Exists` (ZI252) when another
    /// one is there.
    pub fn put_segment(
        &self,
        _at: &WalPlace,
        _start: Lsn,
        _bytes: &[u8],
    ) -> Result<(), RepositoryError> {
        Err(RepositoryError::OtherKey)
    }

    /// Stores a part of the open segment, from `start`; the same again is fine.
    ///
    /// # Errors
    /// As [`Repository::put_segment`]; a tail must not cross into the next segment.
    pub fn put_tail(
        &self,
        _at: &WalPlace,
        _start: Lsn,
        _bytes: &[u8],
    ) -> Result<(), RepositoryError> {
        Err(RepositoryError::OtherKey)
    }

    /// Stores the history file of the timeline `at`; the same again is fine.
    ///
    /// # Errors
    /// When it is not readable as one, or another one is there.
    pub fn put_history(&self, _at: &WalPlace, _text: &[u8]) -> Result<(), RepositoryError> {
        Err(RepositoryError::OtherKey)
    }

    /// Returns the end of the log that is kept of this timeline, or `None` when nothing is.
    ///
    /// The log from the newest base of the timeline on is followed to its first hole; without a base,
    /// the end of the last run without holes is returned.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn log_end(&self, _at: &WalPlace) -> Result<Option<Lsn>, RepositoryError> {
        Err(RepositoryError::OtherKey)
    }

    /// Returns the newest base of a source.
    ///
    /// # Errors
    /// When the store cannot be read or its manifest does not verify.
    pub fn newest_base(
        &self,
        _source: &SourceName,
    ) -> Result<Option<BaseSummary>, RepositoryError> {
        Err(RepositoryError::OtherKey)
    }

    /// Keeps the signed proof of a drill.
    ///
    /// # Errors
    /// When it is not signed with this vault's key, or the store refuses.
    pub fn put_proof(
        &self,
        _source: &SourceName,
        _proof: &SignedProof,
    ) -> Result<(), RepositoryError> {
        Err(RepositoryError::OtherKey)
    }
}

impl Reader {
    /// Opens the repository in `directory`; `key` is what manifests must be signed with, `None` trusts
    /// the one in the repository's marker.
    ///
    /// # Errors
    /// When there is none, or it has a newer format.
    pub fn open(_directory: &Path, _key: Option<VerifyingKey>) -> Result<Self, RepositoryError> {
        Err(RepositoryError::OtherKey)
    }

    /// Returns the sources that something is kept of, in order of their names.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn sources(&self) -> Result<Vec<SourceName>, RepositoryError> {
        Err(RepositoryError::OtherKey)
    }

    /// Returns all bases of a source, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read or a manifest does not verify.
    pub fn bases(&self, _source: &SourceName) -> Result<Vec<BaseSummary>, RepositoryError> {
        Err(RepositoryError::OtherKey)
    }

    /// Returns the proofs that are kept of a source, oldest first; check each with `Proof::verify`.
    ///
    /// # Errors
    /// When the store cannot be read or an object is damaged.
    pub fn proofs(&self, _source: &SourceName) -> Result<Vec<SignedProof>, RepositoryError> {
        Err(RepositoryError::OtherKey)
    }
}

impl BaseWriter {
    /// Returns the id that the base will have.
    pub fn point(&self) -> &PointId {
        &self.point
    }

    /// Begins the next entry; the one before must have ended.
    ///
    /// Only a file takes bytes. Paths are checked: none may leave the data directory.
    ///
    /// # Errors
    /// [`RepositoryError::Misuse`], and what the store says of bundles written meanwhile.
    pub fn begin_file(&mut self, _entry: FileEntry) -> Result<(), RepositoryError> {
        Err(RepositoryError::OtherKey)
    }

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// [`RepositoryError::Misuse`] when there are more than its size.
    pub fn write(&mut self, _bytes: &[u8]) -> Result<(), RepositoryError> {
        Err(RepositoryError::OtherKey)
    }

    /// Ends the entry.
    ///
    /// # Errors
    /// [`RepositoryError::Misuse`] when bytes are missing.
    pub fn end_file(&mut self) -> Result<(), RepositoryError> {
        Err(RepositoryError::OtherKey)
    }

    /// Checks every file against PostgreSQL's manifest, then writes the signed manifest: the base exists.
    ///
    /// # Errors
    /// [`RepositoryError::BaseMismatch`] names the file; there is then no base.
    pub fn finish(self, _end: BaseEnd) -> Result<PointId, RepositoryError> {
        Err(RepositoryError::OtherKey)
    }
}

/// Tells what can be brought back: every continuous span of every source, in order of name and time.
///
/// # Errors
/// When the repository cannot be read or a manifest does not verify.
pub fn points(_place: &Place, _now: Timestamp) -> Result<Vec<PointSpan>, RepositoryError> {
    Err(RepositoryError::OtherKey)
}
