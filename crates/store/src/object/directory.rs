//! A directory as object store: immutable files, made durable before they have a name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use holdfast_core::{ByteCount, Timestamp};
use rustix::fs::FlockOperation;

use crate::durable;

use super::marker::{LIMIT_MARKER_BYTES, MARKER};
use super::{
    Backend, Head, Marker, ObjectError, ObjectKey, ObjectStore, Promise, Range, immutable,
};

/// The file whose lock the writer holds.
const LOCK: &str = "holdfast-repository.lock";
/// Where objects are written before they have their name. A dot keeps it out of the key space.
const STAGING: &str = ".staging";
/// What the name of a probe's folder begins with.
pub(super) const PROBE: &str = ".probe-";

/// A repository in a directory.
#[derive(Debug)]
pub struct DirectoryStore {
    root: PathBuf,
    marker: Marker,
    /// New objects get the file system's immutable flag.
    immutable: AtomicBool,
}

/// Held by the one vault that writes; the system releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct WriterLock {
    _file: Option<File>,
}

impl WriterLock {
    /// For places that have no lock of this kind.
    pub(super) fn none() -> Self {
        Self { _file: None }
    }
}

impl DirectoryStore {
    /// Makes a repository in `root`, which must be empty or absent, or opens the one that is there.
    ///
    /// # Errors
    /// [`ObjectError::NotARepository`] when something else lies there; nothing is then written.
    pub fn create_or_open(root: &Path, fresh: &Marker) -> Result<Self, ObjectError> {
        durable::make_folder(root).map_err(|source| trouble("make", root, source))?;
        if root.join(MARKER).exists() {
            return Self::open(root);
        }
        for entry in fs::read_dir(root).map_err(|source| trouble("read", root, source))? {
            let name = entry
                .map_err(|source| trouble("read", root, source))?
                .file_name()
                .to_string_lossy()
                .into_owned();
            let is_ours = name == STAGING || name == LOCK || name.starts_with(PROBE);
            if !is_ours && name != "lost+found" {
                return Err(ObjectError::NotARepository {
                    place: root.display().to_string(),
                    found: name,
                });
            }
        }
        let store = Self::at(root, fresh.clone());
        let text = fresh.text(&root.display().to_string())?;
        match store.place(&text, &root.join(MARKER)) {
            Ok(()) => Ok(store),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::open(root),
            Err(source) => Err(trouble("write the marker of", root, source)),
        }
    }

    /// Opens an existing repository for reading; writing also needs [`DirectoryStore::lock`].
    ///
    /// # Errors
    /// [`ObjectError::NotARepository`], [`ObjectError::NewerFormat`], [`ObjectError::Unreadable`].
    pub fn open(root: &Path) -> Result<Self, ObjectError> {
        let path = root.join(MARKER);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ObjectError::NotARepository {
                    place: root.display().to_string(),
                    found: format!("no {MARKER}"),
                });
            }
            Err(source) => return Err(trouble("read", &path, source)),
        };
        let mut text = Vec::new();
        file.take(LIMIT_MARKER_BYTES)
            .read_to_end(&mut text)
            .map_err(|source| trouble("read", &path, source))?;
        let marker = Marker::read(&text, &root.display().to_string())?;
        Ok(Self::at(root, marker))
    }

    /// Returns the directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes a directory for a repository, whatever is there.
    pub(super) fn at(root: &Path, marker: Marker) -> Self {
        Self {
            root: root.to_owned(),
            marker,
            immutable: AtomicBool::new(false),
        }
    }

    fn clear_staging(&self) -> io::Result<()> {
        let staging = self.root.join(STAGING);
        let entries = match fs::read_dir(&staging) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    /// Writes a file under a name nobody looks at, makes it durable, then gives it its name.
    fn place(&self, body: &[u8], path: &Path) -> io::Result<()> {
        let staging = self.root.join(STAGING);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&staging)?;
        let temporary = staging.join(fresh_name());
        let placed = write_durably(&temporary, body).and_then(|()| {
            // A hard link never replaces what is there, unlike a rename.
            fs::hard_link(&temporary, path)?;
            sync_parent(path)
        });
        let removed = fs::remove_file(&temporary);
        placed?;
        removed
    }

    fn is_immutable(&self) -> bool {
        self.immutable.load(Ordering::Relaxed)
    }

    /// Sets the flag on an object that has its name already; a crash before is healed by its next lock.
    fn fix(&self, path: &Path) -> io::Result<()> {
        match self.is_immutable() {
            true => immutable::set(&File::open(path)?),
            false => Ok(()),
        }
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn make_parents(&self, path: &Path) -> io::Result<()> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        if parent.is_dir() {
            return Ok(());
        }
        self.make_parents(parent)?;
        match fs::DirBuilder::new().mode(0o700).create(parent) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => sync_parent(parent),
        }
    }

    fn open_object(&self, key: &ObjectKey) -> Result<File, ObjectError> {
        File::open(self.path(key)).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ObjectError::Missing(key.clone()),
            _ => trouble("open", Path::new(key.as_str()), source),
        })
    }
}

impl Backend for DirectoryStore {
    fn marker(&self) -> &Marker {
        &self.marker
    }

    fn make_immutable(&self) -> Result<(), ObjectError> {
        if let Some(why) = immutable::obstacle(&self.root) {
            let place = self.root.display().to_string();
            return Err(ObjectError::NotImmutable { place, why });
        }
        self.immutable.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Objects that were being written when an earlier writer died are removed: they never had a name.
    fn lock(&self, holder: &str) -> Result<WriterLock, ObjectError> {
        let path = self.root.join(LOCK);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| trouble("open", &path, source))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let _ = file.take(1024).read_to_string(&mut text);
                let holder = if text.is_empty() {
                    "another process".to_owned()
                } else {
                    text
                };
                return Err(ObjectError::InUse {
                    place: self.root.display().to_string(),
                    holder,
                });
            }
            Err(errno) => return Err(trouble("lock", &path, errno.into())),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.write_all(holder.as_bytes()))
            .and_then(|()| self.clear_staging());
        written.map_err(|source| trouble("write", &path, source))?;
        Ok(WriterLock { _file: Some(file) })
    }
}

impl ObjectStore for DirectoryStore {
    fn create_new(&self, key: &ObjectKey, body: &[u8]) -> Result<(), ObjectError> {
        let path = self.path(key);
        let stored = self
            .make_parents(&path)
            .and_then(|()| self.place(body, &path))
            .and_then(|()| self.fix(&path));
        stored.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => ObjectError::Exists(key.clone()),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ObjectError::Full {
                key: key.clone(),
                source,
            },
            _ => trouble("store", Path::new(key.as_str()), source),
        })
    }

    fn get(&self, key: &ObjectKey, limit: ByteCount) -> Result<Vec<u8>, ObjectError> {
        let file = self.open_object(key)?;
        let name = Path::new(key.as_str());
        let found = file
            .metadata()
            .map_err(|source| trouble("read", name, source))?
            .len();
        if found > limit.0 {
            return Err(ObjectError::TooLarge {
                key: key.clone(),
                found: ByteCount(found),
                limit,
            });
        }
        let mut body = Vec::with_capacity(usize::try_from(found).unwrap_or(0));
        file.take(limit.0)
            .read_to_end(&mut body)
            .map_err(|source| trouble("read", name, source))?;
        Ok(body)
    }

    fn get_range(&self, key: &ObjectKey, range: Range) -> Result<Vec<u8>, ObjectError> {
        let file = self.open_object(key)?;
        let metadata = file.metadata();
        let found = metadata
            .map_err(|source| trouble("read", Path::new(key.as_str()), source))?
            .len();
        let length = u64::try_from(range.length).unwrap_or(u64::MAX);
        // Before memory is taken for it: the length may come from a damaged map.
        if range.offset.saturating_add(length) > found {
            return Err(ObjectError::Short(key.clone()));
        }
        let mut body = vec![0; range.length];
        file.read_exact_at(&mut body, range.offset)
            .map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => ObjectError::Short(key.clone()),
                _ => trouble("read", Path::new(key.as_str()), source),
            })?;
        Ok(body)
    }

    fn head(&self, key: &ObjectKey) -> Result<Option<Head>, ObjectError> {
        let name = Path::new(key.as_str());
        let metadata = match fs::metadata(self.path(key)) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(trouble("read", name, source)),
        };
        let modified = metadata
            .modified()
            .map_err(|source| trouble("read", name, source))?;
        Ok(Some(Head {
            bytes: ByteCount(metadata.len()),
            locked_until: (modified > SystemTime::now()).then(|| Timestamp::from(modified)),
        }))
    }

    fn list(&self, prefix: &str) -> Result<Vec<(ObjectKey, ByteCount)>, ObjectError> {
        let mut found = Vec::new();
        let mut folders = vec![prefix.trim_matches('/').to_owned()];
        while let Some(folder) = folders.pop() {
            let path = self.root.join(&folder);
            let entries = match fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(trouble("list", &path, source)),
            };
            for entry in entries {
                let entry = entry.map_err(|source| trouble("list", &path, source))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let text = if folder.is_empty() {
                    name
                } else {
                    format!("{folder}/{name}")
                };
                let Ok(key) = text.parse::<ObjectKey>() else {
                    continue;
                };
                let metadata = entry
                    .metadata()
                    .map_err(|source| trouble("list", &path, source))?;
                if metadata.is_dir() {
                    folders.push(text);
                } else if !folder.is_empty() {
                    found.push((key, ByteCount(metadata.len())));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// The lock is the file's time of modification, for everybody to see: no file system enforces it.
    fn lock_until(&self, key: &ObjectKey, until: Timestamp) -> Result<(), ObjectError> {
        let file = self.open_object(key)?;
        let name = Path::new(key.as_str());
        let micros = u64::try_from(until.0).unwrap_or(0);
        let until = SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_micros(micros))
            .ok_or_else(|| trouble("lock", name, io::ErrorKind::InvalidInput.into()))?;
        let modified = file.metadata().and_then(|metadata| metadata.modified());
        let modified = modified.map_err(|source| trouble("read", name, source))?;
        let was_fixed = immutable::is_set(&file);
        let locked = || {
            if modified < until {
                if was_fixed {
                    immutable::clear(&file)?;
                }
                file.set_modified(until)?;
                file.sync_all()?;
            }
            // The next lock heals what a crash left without the flag.
            match was_fixed || self.is_immutable() {
                true => immutable::set(&file),
                false => Ok(()),
            }
        };
        locked().map_err(|source| trouble("lock", name, source))
    }

    fn now(&self) -> Result<Timestamp, ObjectError> {
        Ok(SystemTime::now().into())
    }

    fn promise(&self) -> Promise {
        let why = match self.is_immutable() {
            true => "files are immutable to the vault's account, but root can take that flag away",
            false => "a directory can be emptied by whoever rules this machine",
        };
        Promise::Advisory {
            why: why.to_owned(),
        }
    }
}

/// Returns a name that no other store has in use, of this process or of another machine's.
fn fresh_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let moment = now.map_or(0, |since| since.as_nanos());
    format!("{}-{moment:x}-{number}", std::process::id())
}

fn write_durably(path: &Path, body: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o400)
        .open(path)?;
    file.write_all(body)?;
    file.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn trouble(step: &'static str, what: &Path, source: io::Error) -> ObjectError {
    ObjectError::Io {
        step,
        what: what.display().to_string(),
        source,
    }
}

#[cfg(test)]
mod tests;
