//! A cache on this machine's disk of sealed parts of objects that lie elsewhere, shared by processes.
//!
//! What it holds is what the storage holds: a part of an envelope, which nobody can read without the
//! keys, and which is checked again whenever it is opened. So a damaged or planted entry is a miss.
//! The cache never makes a reader fail and never makes it wait for another process; a disk that is
//! full, or a folder that is not ours, only means that nothing is kept.
//!
//! # Shape
//! Folders `00` to `ff`, in each files that are named by the SHA-256 of what they hold a part of. Which
//! of the folders are used depends on the size of the cache. Who adds an entry to a full folder removes
//! the entries of it that were not used for longest; `docs/formats/block-cache.md` has the bytes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use aws_lc_rs::{digest, rand};
use data_encoding::HEXLOWER;
use holdfast_core::ByteCount;

use super::ObjectKey;
use crate::limits;

const MAGIC: &[u8; 8] = b"HFBLOCK1";
/// Bytes before what an entry holds: the magic, its name, its length and its sum.
const HEADER_BYTES: usize = 48;
/// Where the sum is.
const SUM: std::ops::Range<usize> = 44..48;
/// How many folders there are at most.
const FOLDERS: u64 = 256;

/// A part of an object that is kept as one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// An encrypted run of the content, by its number.
    Chunk(u64),
    /// The size of the object and the header of its envelope.
    Head,
}

/// Whether an entry may take the place of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Push {
    /// Only where there is room: somebody reads everything once.
    No,
    /// Entries that were not used for longest go.
    Yes,
}

/// A cache on the disk. Its folder may be used by several processes at once.
#[derive(Debug)]
pub struct BlockCache {
    root: PathBuf,
    bytes_max: u64,
    /// What tells this repository from others whose objects have the same names.
    scope: String,
    /// What tells the files that this process begins from those of others.
    ours: String,
    fresh: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Where parts of what is read from far away are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearBlocks {
    /// The folder of the cache; all processes of a vault name the same.
    pub dir: PathBuf,
    /// What it may take of the disk.
    pub bytes_max: ByteCount,
}

/// How often something was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Parts that were here.
    pub hits: u64,
    /// Parts that were not, or were damaged.
    pub misses: u64,
}

impl BlockCache {
    /// Opens the cache in a folder, or makes it; `scope` names the repository whose objects it keeps.
    ///
    /// # Errors
    /// When the folder cannot be made, or others than this account may write to it.
    pub fn open(root: &Path, bytes_max: ByteCount, scope: &str) -> io::Result<Self> {
        if let Some(parent) = root.parent() {
            fs::create_dir_all(parent)?;
        }
        make_folder(root)?;
        let facts = fs::symlink_metadata(root)?;
        let is_ours = facts.is_dir()
            && facts.uid() == rustix::process::geteuid().as_raw()
            && facts.mode() & 0o077 == 0;
        if !is_ours {
            let text = "others than this account can reach the folder of the block cache";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let mut random = [0; 8];
        rand::fill(&mut random).map_err(|_| io::Error::other("there are no random bytes"))?;
        let cache = Self {
            root: root.to_owned(),
            bytes_max: bytes_max.0,
            scope: scope.to_owned(),
            ours: HEXLOWER.encode(&random),
            fresh: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        };
        cache.leave_unused();
        Ok(cache)
    }

    /// Returns how often something was found since it was opened.
    pub fn counts(&self) -> CacheCounts {
        CacheCounts {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }

    /// Returns what is kept of a part, and counts that it was used.
    pub(super) fn get(&self, key: &ObjectKey, part: Part) -> Option<Vec<u8>> {
        let name = self.name(key, part);
        let found = read(&self.path(&name), &name);
        let counter = if found.is_some() {
            &self.hits
        } else {
            &self.misses
        };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Keeps a part, if that can be.
    pub(super) fn put(&self, key: &ObjectKey, part: Part, bytes: &[u8], push: Push) {
        let name = self.name(key, part);
        let path = self.path(&name);
        // A cache that cannot be written is one that keeps nothing.
        if bytes.len() <= limits::CACHE_PART_BYTES
            && path
                .parent()
                .is_some_and(|folder| self.make_room(folder, push))
        {
            let _ = self.write(&path, &name, (bytes, push));
        }
    }

    /// Forgets a part; tells whether it was there.
    pub(super) fn remove(&self, key: &ObjectKey, part: Part) -> bool {
        fs::remove_file(self.path(&self.name(key, part))).is_ok()
    }

    fn name(&self, key: &ObjectKey, part: Part) -> [u8; 32] {
        let part = match part {
            Part::Chunk(number) => format!("chunk {number}"),
            Part::Head => "head".to_owned(),
        };
        let text = format!("{}\n{key}\n{part}", self.scope);
        let sum = digest::digest(&digest::SHA256, text.as_bytes());
        sum.as_ref().try_into().unwrap_or_default()
    }

    fn path(&self, name: &[u8; 32]) -> PathBuf {
        let [first, ..] = name;
        let folder = u64::from(*first) % self.folders();
        self.root
            .join(format!("{folder:02x}"))
            .join(HEXLOWER.encode(name))
    }

    /// A folder is large enough that what is in it is a fair sample of what was used lately.
    fn folders(&self) -> u64 {
        let wanted = self.bytes_max / limits::CACHE_FOLDER_BYTES;
        (1_u64 << wanted.max(1).ilog2()).min(FOLDERS)
    }

    /// Removes what a larger cache left in folders that are not used any more.
    fn leave_unused(&self) {
        for number in self.folders()..FOLDERS {
            let _ = fs::remove_dir_all(self.root.join(format!("{number:02x}")));
        }
    }

    /// Sees to it that one more entry fits into a folder.
    fn make_room(&self, folder: &Path, push: Push) -> bool {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(_) => return make_folder(folder).is_ok() && self.entries_max(0) > 0,
        };
        let entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        let max = self.entries_max(entries.len());
        if entries.len() < max {
            return true;
        }
        if push == Push::Yes || entries.len() > max {
            evict(entries, max);
        }
        push == Push::Yes && max > 0
    }

    /// How many entries a folder may have that has so many now.
    fn entries_max(&self, now: usize) -> usize {
        let entry = limits::CACHE_ENTRY_BYTES;
        let held = u64::try_from(now)
            .unwrap_or(u64::MAX)
            .saturating_mul(self.folders())
            .saturating_mul(entry);
        let free = rustix::fs::statvfs(&self.root)
            .map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        let share = free.saturating_add(held) / limits::CACHE_DISK_SHARE;
        let bytes = self.bytes_max.min(share) / self.folders();
        usize::try_from(bytes / entry).unwrap_or(usize::MAX)
    }

    /// Writes an entry beside its place and then gives it its name.
    fn write(&self, path: &Path, name: &[u8; 32], (bytes, push): (&[u8], Push)) -> io::Result<()> {
        let number = self.fresh.fetch_add(1, Ordering::Relaxed);
        let fresh = path.with_file_name(format!("new-{}-{number}", self.ours));
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&fresh)?;
            file.write_all(&encode(name, bytes))?;
            if push == Push::No {
                // It goes before everything that somebody asked for.
                file.set_modified(SystemTime::UNIX_EPOCH)?;
            }
            fs::rename(&fresh, path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        written
    }
}

/// Makes a folder that only this account can reach.
fn make_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Removes what was not used for longest, until there is room for some more.
fn evict(entries: Vec<PathBuf>, max: usize) {
    let used = |path: PathBuf| {
        let at = fs::symlink_metadata(&path).and_then(|facts| facts.modified());
        (at.unwrap_or(SystemTime::UNIX_EPOCH), path)
    };
    let mut entries: Vec<_> = entries.into_iter().map(used).collect();
    entries.sort();
    let keep = max.saturating_sub((max / 8).max(1));
    let gone = entries.len().saturating_sub(keep);
    for (_, path) in entries.into_iter().take(gone) {
        let _ = fs::remove_file(path);
    }
}

fn encode(name: &[u8; 32], bytes: &[u8]) -> Vec<u8> {
    let mut entry = Vec::with_capacity(HEADER_BYTES.saturating_add(bytes.len()));
    entry.extend_from_slice(MAGIC);
    entry.extend_from_slice(name);
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    entry.extend_from_slice(&length.to_le_bytes());
    entry.extend_from_slice(&[0; 4]);
    entry.extend_from_slice(bytes);
    let sum = crc32c::crc32c(&entry);
    if let Some(field) = entry.get_mut(SUM) {
        field.copy_from_slice(&sum.to_le_bytes());
    }
    entry
}

/// Reads an entry back; `None` when it is not there or not what was written.
fn read(path: &Path, name: &[u8; 32]) -> Option<Vec<u8>> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags).unwrap_or(0))
        .open(path)
        .ok()?;
    let most = HEADER_BYTES.saturating_add(limits::CACHE_PART_BYTES);
    let mut entry = Vec::with_capacity(most);
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    (&file).take(limit).read_to_end(&mut entry).ok()?;
    let found = decode(entry, name);
    if found.is_some() {
        touch(&file);
    } else {
        let _ = fs::remove_file(path);
    }
    found
}

fn decode(mut entry: Vec<u8>, name: &[u8; 32]) -> Option<Vec<u8>> {
    let stated = u32::from_le_bytes(entry.get(SUM)?.try_into().ok()?);
    entry.get_mut(SUM)?.fill(0);
    let length = u32::from_le_bytes(entry.get(40..44)?.try_into().ok()?);
    let is_whole = entry.starts_with(MAGIC)
        && entry.get(8..40)? == name
        && usize::try_from(length).ok() == entry.len().checked_sub(HEADER_BYTES)
        && crc32c::crc32c(&entry) == stated;
    is_whole.then(|| entry.split_off(HEADER_BYTES))
}

/// Notes that an entry was used.
fn touch(file: &File) {
    let now = SystemTime::now();
    let used = file.metadata().and_then(|facts| facts.modified());
    let age = used.ok().and_then(|used| now.duration_since(used).ok());
    if age.is_some_and(|age| age > limits::CACHE_USED_EVERY) {
        let _ = file.set_modified(now);
    }
}

#[cfg(test)]
mod tests;
