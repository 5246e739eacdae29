//! Objects: named runs of bytes that are written once and never changed.
//!
//! The interface has no delete and no overwrite; that is invariant I3, kept by the types.

mod cache;
mod directory;
pub mod expire;
pub mod fence;
mod immutable;
mod key;
mod location;
mod marker;
pub mod probe;
pub mod s3;
mod sealed;
mod shared;

use std::io;
use std::sync::Arc;

use holdfast_core::{ByteCount, Code, Coded, Timestamp, Untrusted};
use serde::{Deserialize, Serialize};

use crate::envelope::EnvelopeError;

pub use cache::{BlockCache, CacheCounts, NearBlocks};
pub use directory::{DirectoryStore, WriterLock};
pub use key::{KeyError, ObjectKey};
pub use location::{Backend, Location};
pub use marker::{MARKER, Marker};
use s3::S3Error;
pub use sealed::{Keys, Sealed};

/// Where the vault's objects rest. What capture and restore are given: create, read, list, lock; no more.
pub trait ObjectStore: Send + Sync {
    /// Stores `body` under `key`; when this returns, it is durable and complete.
    ///
    /// # Errors
    /// [`ObjectError::Exists`] when the key is taken; what is there stays as it is.
    fn create_new(&self, key: &ObjectKey, body: &[u8]) -> Result<(), ObjectError>;

    /// Returns the whole object.
    ///
    /// # Errors
    /// [`ObjectError::Missing`], [`ObjectError::TooLarge`] when it has more than `limit` bytes.
    fn get(&self, key: &ObjectKey, limit: ByteCount) -> Result<Vec<u8>, ObjectError>;

    /// Returns exactly `length` bytes from `offset`.
    ///
    /// # Errors
    /// [`ObjectError::Missing`], [`ObjectError::Short`] when the object ends before.
    fn get_range(&self, key: &ObjectKey, range: Range) -> Result<Vec<u8>, ObjectError>;

    /// Returns the object's size and lock, or `None` when there is no such object.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn head(&self, key: &ObjectKey) -> Result<Option<Head>, ObjectError>;

    /// Returns the object's size alone, or `None` when there is no such object; a store that knows it from
    /// a list need not ask again.
    ///
    /// # Errors
    /// As [`ObjectStore::head`].
    fn size(&self, key: &ObjectKey) -> Result<Option<ByteCount>, ObjectError> {
        Ok(self.head(key)?.map(|head| head.bytes))
    }

    /// Returns all keys below `prefix` (whole segments, such as `prod/wal`) with their sizes, in order.
    ///
    /// # Errors
    /// When the store cannot be read. A prefix without objects is an empty list.
    fn list(&self, prefix: &str) -> Result<Vec<(ObjectKey, ByteCount)>, ObjectError>;

    /// Locks the object until then; a lock only ever grows, an earlier time changes nothing.
    ///
    /// What a lock is worth says [`ObjectStore::promise`].
    ///
    /// # Errors
    /// [`ObjectError::Missing`], and when the store refuses.
    fn lock_until(&self, key: &ObjectKey, until: Timestamp) -> Result<(), ObjectError>;

    /// Returns the time by the clock of the storage, which need not be the clock of this machine.
    ///
    /// # Errors
    /// When the store cannot be asked.
    fn now(&self) -> Result<Timestamp, ObjectError>;

    /// Returns what may be said of locked objects.
    fn promise(&self) -> Promise;

    /// Tells whether every request goes over a network.
    fn is_remote(&self) -> bool {
        false
    }

    /// Opens the cache that is named for what is read from here, if one is.
    ///
    /// # Errors
    /// When its folder cannot be used; everything can be read without it.
    fn open_near(&self) -> io::Result<Option<BlockCache>> {
        Ok(None)
    }

    /// Keeps parts of what is read from now on in a cache on this machine's disk, as the storage has
    /// them. Where the storage is this disk, or its objects are not sealed, nothing is kept.
    fn keep_near(&self, cache: &Arc<BlockCache>) {
        let _ = cache;
    }
}

/// What is known of an object without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its size.
    pub bytes: ByteCount,
    /// Until when it is locked, by the storage's clock; `None` when it is not.
    pub locked_until: Option<Timestamp>,
}

/// What may be said of locked objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "promise", rename_all = "lowercase")]
pub enum Promise {
    /// They can be kept or lost by the rules of this machine only: whoever rules it can remove them.
    Advisory {
        /// Why no more can be said.
        why: String,
    },
    /// Nobody can remove or change them before the lock ends: the storage was seen to refuse it.
    Compliance,
}

/// A run of bytes inside an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: usize,
}

/// Why an object or its store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The object cannot be sealed or opened.
    #[error("cannot use the envelope `{key}`")]
    Envelope {
        /// Which object.
        key: ObjectKey,
        /// Why not.
        source: EnvelopeError,
    },
    /// The key is taken.
    #[error("`{0}` exists and is never overwritten")]
    Exists(ObjectKey),
    /// Another writer has claimed the repository since.
    #[error("another vault has taken over the repository: epoch {by} exists, this is {epoch}")]
    Fenced {
        /// Our epoch.
        epoch: u64,
        /// The newer one.
        by: u64,
    },
    /// The disk is full.
    #[error("no space left to store `{key}`")]
    Full {
        /// What was to be stored.
        key: ObjectKey,
        /// What the system said.
        source: io::Error,
    },
    /// Another vault writes to this repository.
    #[error("the repository `{place}` is in use by {holder}")]
    InUse {
        /// The repository.
        place: String,
        /// Who holds it: process, host, since when.
        holder: String,
    },
    /// Any other trouble of the system.
    #[error("cannot {step} `{what}`")]
    Io {
        /// What was attempted.
        step: &'static str,
        /// On what.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such object.
    #[error("`{0}` is not in the repository")]
    Missing(ObjectKey),
    /// The place is not empty and not a repository.
    #[error(
        "`{place}` holds something else than a repository (`{}`)",
        Untrusted(found)
    )]
    NotARepository {
        /// The place.
        place: String,
        /// One thing that lies there.
        found: String,
    },
    /// The file system's immutable flag cannot be had.
    #[error("files in `{place}` cannot be made immutable: {}", Untrusted(why))]
    NotImmutable {
        /// The directory.
        place: String,
        /// Why not.
        why: String,
    },
    /// Made by a newer version.
    #[error("the repository `{place}` has format {found}, newer than {known}")]
    NewerFormat {
        /// The repository.
        place: String,
        /// Its format.
        found: u32,
        /// The newest format this version knows.
        known: u32,
    },
    /// Another repository than expected.
    #[error("the repository `{place}` is `{}`, not `{expected}`", Untrusted(found))]
    OtherRepository {
        /// The repository.
        place: String,
        /// Its id.
        found: String,
        /// The id expected.
        expected: String,
    },
    /// An object storage does not do what was asked.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// The object ends before the range asked for.
    #[error("`{0}` is shorter than its map says")]
    Short(ObjectKey),
    /// The object is larger than what is read at once.
    #[error("`{key}` has {found}, more than the {limit} it may have")]
    TooLarge {
        /// Which object.
        key: ObjectKey,
        /// Its size.
        found: ByteCount,
        /// What it may have.
        limit: ByteCount,
    },
    /// The marker file cannot be read as one.
    #[error("the marker of the repository `{place}` is not readable")]
    Unreadable {
        /// The repository.
        place: String,
    },
}

impl Coded for ObjectError {
    fn code(&self) -> Code {
        match self {
            Self::Fenced { .. } => Code::ZI352,
            Self::S3(error) => error.code(),
            Self::Envelope { source, .. } => source.code(),
            Self::Full { .. } => Code::ZS252,
            Self::Io { .. } => Code::ZS251,
            Self::InUse { .. } => Code::ZU254,
            Self::NotARepository { .. } | Self::OtherRepository { .. } => Code::ZU251,
            Self::NewerFormat { .. } => Code::ZU252,
            Self::NotImmutable { .. } => Code::ZU355,
            Self::Exists(_) => Code::ZI252,
            Self::Missing(_) | Self::Short(_) | Self::TooLarge { .. } | Self::Unreadable { .. } => {
                Code::ZI251
            }
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Fenced { .. } => {
                "this vault writes nothing more; if it shall write again, stop the other and run `holdfast vault takeover`"
            }
            Self::S3(error) => return error.hint(),
            Self::Envelope { source, .. } => return source.hint(),
            Self::Full { .. } => {
                "nothing was acknowledged that is not stored; free space or enlarge the disk, the vault goes on by itself"
            }
            Self::Io { .. } => {
                "nothing was changed; check the disk and the rights of the directory"
            }
            Self::InUse { .. } => {
                "one vault writes to a repository; stop the other, or name another directory"
            }
            Self::NotARepository { .. } | Self::OtherRepository { .. } => {
                "nothing was written; name an empty directory, or the one that this vault made"
            }
            Self::NewerFormat { .. } => "nothing was written; update holdfast",
            Self::NotImmutable { .. } => {
                "nothing was written; run the vault with CAP_LINUX_IMMUTABLE on ext4, XFS or btrfs, or set `immutable = false`"
            }
            Self::Exists(_) => {
                "nothing was overwritten; two vaults or two histories wrote under one name: look at the ledger"
            }
            Self::Missing(_) | Self::Short(_) | Self::TooLarge { .. } | Self::Unreadable { .. } => {
                "keep the repository as it is; restore another point, or copy the object back from a replica"
            }
        };
        Some(text.to_owned())
    }
}
