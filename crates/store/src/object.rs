//! Objects: named runs of bytes that are written once and never changed.
//!
//! The interface has no delete and no overwrite; that is invariant I3, kept by the types.

mod directory;
mod key;

use std::io;
use std::path::PathBuf;

use holdfast_core::{ByteCount, Code, Coded, Untrusted};

pub use directory::{DirectoryStore, Marker, WriterLock};
pub use key::{KeyError, ObjectKey};

/// Where the vault's objects rest. What capture and restore are given: create, read, list; no more.
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

    /// Returns the object's size, or `None` when there is none.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn head(&self, key: &ObjectKey) -> Result<Option<ByteCount>, ObjectError>;

    /// Returns all keys below `prefix` (whole segments, such as `prod/wal`) with their sizes, in order.
    ///
    /// # Errors
    /// When the store cannot be read. A prefix without objects is an empty list.
    fn list(&self, prefix: &str) -> Result<Vec<(ObjectKey, ByteCount)>, ObjectError>;
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
    /// The key is taken.
    #[error("`{0}` exists and is never overwritten")]
    Exists(ObjectKey),
    /// The disk is full.
    #[error("no space left to store `{key}`")]
    Full {
        /// What was to be stored.
        key: ObjectKey,
        /// What the system said.
        source: io::Error,
    },
    /// Another vault writes to this repository.
    #[error("the repository `{}` is in use by {holder}", path.display())]
    InUse {
        /// The repository.
        path: PathBuf,
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
    /// The directory is not empty and not a repository.
    #[error("`{}` holds something else than a repository (`{}`)", path.display(), Untrusted(found))]
    NotARepository {
        /// The directory.
        path: PathBuf,
        /// One thing that lies there.
        found: String,
    },
    /// Made by a newer version.
    #[error("the repository `{}` has format {found}, newer than {known}", path.display())]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format this version knows.
        known: u32,
    },
    /// Another repository than expected.
    #[error("the repository `{}` is `{}`, not `{expected}`", path.display(), Untrusted(found))]
    OtherRepository {
        /// The directory.
        path: PathBuf,
        /// Its id.
        found: String,
        /// The id expected.
        expected: String,
    },
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
    #[error("the marker of the repository `{}` is not readable", path.display())]
    Unreadable {
        /// The marker file.
        path: PathBuf,
    },
}

impl Coded for ObjectError {
    fn code(&self) -> Code {
        match self {
            Self::Full { .. } => Code::ZS252,
            Self::Io { .. } => Code::ZS251,
            Self::InUse { .. } => Code::ZU254,
            Self::NotARepository { .. } | Self::OtherRepository { .. } => Code::ZU251,
            Self::NewerFormat { .. } => Code::ZU252,
            Self::Exists(_) => Code::ZI252,
            Self::Missing(_) | Self::Short(_) | Self::TooLarge { .. } | Self::Unreadable { .. } => {
                Code::ZI251
            }
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
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
