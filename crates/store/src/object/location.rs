//! Where a repository is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::s3::{S3Location, S3Store};
use super::{DirectoryStore, Marker, ObjectError, ObjectStore, WriterLock};

/// Where a repository is, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A bucket of an object storage.
    S3(Box<S3Location>),
}

/// A place of objects that is a repository: it has a marker, and one writer at a time.
pub trait Backend: ObjectStore {
    /// Returns what the marker states.
    fn marker(&self) -> &Marker;

    /// From now on every new or locked object also gets the file system's immutable flag.
    ///
    /// # Errors
    /// [`ObjectError::NotImmutable`] says why that cannot be had here; nothing was changed.
    fn make_immutable(&self) -> Result<(), ObjectError>;

    /// Makes this process the one writer; `holder` is what a second one is told.
    ///
    /// # Errors
    /// [`ObjectError::InUse`] names who holds it.
    fn lock(&self, holder: &str) -> Result<WriterLock, ObjectError>;
}

impl Location {
    /// Opens the repository that is there.
    ///
    /// # Errors
    /// [`ObjectError::NotARepository`], [`ObjectError::NewerFormat`], [`ObjectError::Unreadable`].
    pub fn open(&self) -> Result<Arc<dyn Backend>, ObjectError> {
        match self {
            Self::Directory(path) => Ok(Arc::new(DirectoryStore::open(path)?)),
            Self::S3(location) => Ok(Arc::new(S3Store::open(location)?)),
        }
    }

    /// Opens the repository that is there, or makes one where nothing is.
    ///
    /// # Errors
    /// As [`Location::open`]; nothing is written when something else lies there.
    pub fn create_or_open(&self, fresh: &Marker) -> Result<Arc<dyn Backend>, ObjectError> {
        match self {
            Self::Directory(path) => Ok(Arc::new(DirectoryStore::create_or_open(path, fresh)?)),
            Self::S3(location) => Ok(Arc::new(S3Store::create_or_open(location, fresh)?)),
        }
    }

    /// Returns what tells this place from every other, for people too.
    pub fn place(&self) -> String {
        match self {
            Self::Directory(path) => path.display().to_string(),
            Self::S3(location) => location.place(),
        }
    }

    /// Returns the directory, when it is one of this machine.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(path) => Some(path),
            Self::S3(_) => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::S3(location) => location.bucket.fmt(f),
        }
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Self::Directory(path)
    }
}
