//! Removal of objects: another trait, another process, and where the storage knows credentials another
//! credential. What capture and restore are given can never become this.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use holdfast_core::Timestamp;

use super::directory::DirectoryStore;
use super::s3::{self, Client, Request, S3Store};
use super::{Location, ObjectError, ObjectKey, ObjectStore, immutable};

/// What retention alone is given, beside reading.
pub trait Expire: Send + Sync {
    /// Removes the object for good, in all its versions, unless the storage keeps it.
    ///
    /// # Errors
    /// When the store refuses, or `key` is not the name of something that may ever go, such as the
    /// repository's own marker.
    fn expire(&self, key: &ObjectKey) -> Result<Expired, ObjectError>;

    /// Takes away the folder if nothing is in it, where storage has folders at all.
    ///
    /// # Errors
    /// When the store refuses; a folder with something in it is left alone and no error.
    fn fold(&self, folder: &str) -> Result<(), ObjectError>;
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// It was not there.
    Absent,
    /// The storage keeps it until then; it is untouched.
    Locked(Timestamp),
    /// It is gone.
    Removed,
}

/// Opens the place for removal.
///
/// # Errors
/// As [`Location::open`].
pub fn open(location: &Location) -> Result<Box<dyn Expire>, ObjectError> {
    match location {
        Location::Directory(path) => Ok(Box::new(DirectoryExpire::open(path)?)),
        Location::S3(location) => {
            S3Store::open(location)?;
            let client = Client::new(location)?;
            Ok(Box::new(S3Expire { client }))
        }
    }
}

/// Removal from a bucket; the vault's own credential has no right to it.
struct S3Expire {
    client: Client,
}

impl Expire for S3Expire {
    /// Newer versions go first: what somebody else put over ours must not outlive it.
    fn expire(&self, key: &ObjectKey) -> Result<Expired, ObjectError> {
        if !key.as_str().contains('/') {
            let what = format!("remove `{key}`, which is no object of a source");
            return Err(trouble(
                "look at",
                &what,
                io::ErrorKind::InvalidInput.into(),
            ));
        }
        let name = self.client.location().bucket.full(key.as_str());
        let versions = s3::all_versions(&self.client, &name)?;
        let mut done = Expired::Absent;
        for version in versions {
            if let Some(until) = s3::locked(&self.client, &name, &version)?
                && until > self.client.time()?
            {
                return Ok(Expired::Locked(until));
            }
            let request =
                Request::new("remove an object", "DELETE", &name).query("versionId", &version.id);
            self.client.send(&request)?;
            done = Expired::Removed;
        }
        Ok(done)
    }

    /// A bucket has no folders.
    fn fold(&self, _folder: &str) -> Result<(), ObjectError> {
        Ok(())
    }
}

/// Removal from a directory.
struct DirectoryExpire {
    store: DirectoryStore,
    root: PathBuf,
}

impl DirectoryExpire {
    fn open(root: &Path) -> Result<Self, ObjectError> {
        let store = DirectoryStore::open(root)?;
        let root = store.root().to_owned();
        Ok(Self { store, root })
    }

    /// Returns the file's path; every folder on the way must be one, not a link to one elsewhere.
    fn path(&self, text: &str) -> Result<Option<PathBuf>, ObjectError> {
        let mut path = self.root.clone();
        let parts: Vec<&str> = text.split('/').collect();
        let folders = parts.len().saturating_sub(1);
        for (number, part) in parts.into_iter().enumerate() {
            path.push(part);
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(source) => return Err(trouble("look at", text, source)),
            };
            if metadata.is_symlink() || (number < folders && !metadata.is_dir()) {
                let source = io::Error::other("it is a link or a file where a folder belongs");
                return Err(trouble("follow", text, source));
            }
        }
        Ok(Some(path))
    }
}

impl Expire for DirectoryExpire {
    fn expire(&self, key: &ObjectKey) -> Result<Expired, ObjectError> {
        let text = key.as_str();
        if !text.contains('/') {
            let source = io::Error::other("it is no object");
            return Err(trouble("remove", text, source));
        }
        let Some(path) = self.path(text)? else {
            return Ok(Expired::Absent);
        };
        match self.store.head(key)? {
            None => return Ok(Expired::Absent),
            Some(head) => {
                if let Some(until) = head.locked_until {
                    return Ok(Expired::Locked(until));
                }
            }
        }
        let failed = |source| trouble("remove", text, source);
        let file = File::open(&path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::other("it is not a file")));
        }
        if immutable::is_set(&file) {
            immutable::clear(&file).map_err(failed)?;
        }
        drop(file);
        fs::remove_file(&path).map_err(failed)?;
        let folder = path.parent().unwrap_or(&self.root);
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)?;
        Ok(Expired::Removed)
    }

    fn fold(&self, folder: &str) -> Result<(), ObjectError> {
        let is_key = folder.parse::<ObjectKey>().is_ok() && folder.contains('/');
        let Some(path) = self.path(folder)?.filter(|_| is_key) else {
            return Ok(());
        };
        match fs::remove_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|source| trouble("remove", folder, source)),
        }
    }
}

fn trouble(step: &'static str, what: &str, source: io::Error) -> ObjectError {
    ObjectError::Io {
        step,
        what: what.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
