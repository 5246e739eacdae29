//! Taking a base backup in: file by file, in bounded memory, checked against PostgreSQL's manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_core::{Digest, PointId, Timestamp};
use holdfast_wire::pg::basebackup::{BackupManifest, Sum, relative_path};
use sha2::{Digest as _, Sha256};

use super::bundle::Packer;
use super::format::length;
use super::manifest::{Entry, Manifest, What};
use super::{BaseEnd, BaseStart, FileEntry, FileKind, RepositoryError, Writing, layout};
use crate::limits;

/// The file that PostgreSQL's own manifest becomes, so that `pg_verifybackup` can check a restore.
pub(crate) const SERVER_MANIFEST: &str = "backup_manifest";

/// Takes one base backup in, file by file, with bounded memory.
///
/// Dropped before [`BaseWriter::finish`] it leaves bundles that no manifest names, and no restore point.
pub struct BaseWriter {
    writing: Arc<Writing>,
    start: BaseStart,
    point: PointId,
    began: Timestamp,
    folder: String,
    packer: Packer,
    entries: Vec<Entry>,
    /// Files by path: size and both checksums that PostgreSQL's manifest may have.
    sums: BTreeMap<String, (u64, Digest, u32)>,
    seen: BTreeSet<String>,
    open: Option<Open>,
    /// The frame that is being filled, and where it begins in the stream.
    frame: Vec<u8>,
    frame_start: u64,
}

/// The file that is being written.
struct Open {
    entry: FileEntry,
    /// A folder that was there before; it is kept once.
    again: bool,
    size: u64,
    written: u64,
    start: u64,
    sha256: Sha256,
    crc32c: u32,
}

impl BaseWriter {
    pub(super) fn begin(writing: Arc<Writing>, start: BaseStart) -> Result<Self, RepositoryError> {
        let mut random = [0; PointId::RANDOM_BYTES];
        getrandom::fill(&mut random).map_err(|error| RepositoryError::System {
            step: "draw random bytes",
            what: error.to_string(),
        })?;
        let point = PointId::from_random(random);
        let began = (writing.clock)();
        let folder = layout::base_folder(&start.source, began, &point);
        let packer = Packer::start(Arc::clone(&writing.store), folder.clone(), point.clone())?;
        Ok(Self {
            writing,
            start,
            point,
            began,
            folder,
            packer,
            entries: Vec::new(),
            sums: BTreeMap::new(),
            seen: BTreeSet::new(),
            open: None,
            frame: Vec::with_capacity(limits::FRAME_BYTES),
            frame_start: 0,
        })
    }

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
    pub fn begin_file(&mut self, entry: FileEntry) -> Result<(), RepositoryError> {
        if self.open.is_some() {
            return Err(misuse("an entry begins before the one before has ended"));
        }
        let path =
            relative_path(entry.path.as_bytes()).map_err(|error| misuse(&error.to_string()))?;
        // The folder of a tablespace comes as a link in one archive and as a folder in another.
        let again = !self.seen.insert(path.clone());
        let is_refused = again && entry.kind != FileKind::Directory;
        if path.is_empty() || path == SERVER_MANIFEST || is_refused {
            return Err(misuse(&format!(
                "the entry `{path}` comes twice or has no name"
            )));
        }
        let size = match entry.kind {
            FileKind::File { size } => size,
            FileKind::Directory | FileKind::Symlink { .. } => 0,
        };
        // A file that does not fit into what is left of a frame begins a frame of its own, so that
        // the pages of a table never straddle two frames.
        let room = limits::FRAME_BYTES.saturating_sub(self.frame.len());
        if usize::try_from(size).map_or(true, |size| size > room) {
            self.flush()?;
        }
        self.open = Some(Open {
            entry: FileEntry { path, ..entry },
            again,
            size,
            written: 0,
            start: self.position(),
            sha256: Sha256::new(),
            crc32c: 0,
        });
        Ok(())
    }

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// [`RepositoryError::Misuse`] when there are more than its size.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), RepositoryError> {
        let open = self
            .open
            .as_mut()
            .ok_or_else(|| misuse("bytes come without a file"))?;
        open.written = open.written.saturating_add(length(bytes));
        if open.written > open.size {
            return Err(misuse(&format!(
                "`{}` has more bytes than announced",
                open.entry.path
            )));
        }
        open.sha256.update(bytes);
        open.crc32c = crc32c::crc32c_append(open.crc32c, bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = limits::FRAME_BYTES.saturating_sub(self.frame.len());
            let (now, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            self.frame.extend_from_slice(now);
            rest = later;
            if self.frame.len() >= limits::FRAME_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Ends the entry.
    ///
    /// # Errors
    /// [`RepositoryError::Misuse`] when bytes are missing.
    pub fn end_file(&mut self) -> Result<(), RepositoryError> {
        let open = self
            .open
            .take()
            .ok_or_else(|| misuse("an entry ends that never began"))?;
        let FileEntry { path, kind, mode } = open.entry;
        if open.written != open.size {
            return Err(misuse(&format!("`{path}` has fewer bytes than announced")));
        }
        if open.again {
            return Ok(());
        }
        let what = match kind {
            FileKind::Directory => What::Directory,
            FileKind::Symlink { target } => What::Symlink { target },
            FileKind::File { size } => {
                let sha256 = Digest(open.sha256.finalize().into());
                self.sums.insert(path.clone(), (size, sha256, open.crc32c));
                What::File {
                    size,
                    start: open.start,
                    sha256,
                }
            }
        };
        self.entries.push(Entry { path, mode, what });
        Ok(())
    }

    /// Checks every file against PostgreSQL's manifest, then writes the signed manifest: the base exists.
    ///
    /// # Errors
    /// [`RepositoryError::BaseMismatch`] names the file; there is then no base.
    pub fn finish(mut self, end: BaseEnd) -> Result<PointId, RepositoryError> {
        if self.open.is_some() {
            return Err(misuse("the base ends within a file"));
        }
        let server = BackupManifest::parse(&end.backup_manifest)?;
        self.check(&server, &end)?;
        self.add_server_manifest(&end.backup_manifest)?;
        self.flush()?;
        let bundles = self.packer.finish()?;
        let manifest = Manifest {
            format: 1,
            point: self.point.clone(),
            source: self.start.source,
            system_identifier: self.start.system_identifier,
            major: self.start.major,
            timeline: self.start.timeline,
            segment_bytes: self.start.segment_bytes,
            start_lsn: self.start.start_lsn,
            stop_lsn: end.stop_lsn,
            began: self.began,
            ended: (self.writing.clock)(),
            tablespaces: self.start.tablespaces,
            bundles,
            entries: self.entries,
        };
        let key = layout::manifest(&self.folder)?;
        let object = manifest.seal(&self.writing.key)?;
        // What we sign must be what we would accept.
        Manifest::unseal(&key, &object, &self.writing.key.verifying_key())?;
        self.writing.store.create_new(&key, &object)?;
        Ok(self.point)
    }

    fn check(&self, server: &BackupManifest, end: &BaseEnd) -> Result<(), RepositoryError> {
        let mismatch = |what: String| Err(RepositoryError::BaseMismatch { what });
        if server
            .system_identifier
            .is_some_and(|id| id != self.start.system_identifier)
        {
            return mismatch("it is of another cluster".to_owned());
        }
        let first = server.wal.iter().map(|range| range.start).min();
        let last = server.wal.iter().map(|range| range.end).max();
        if first != Some(self.start.start_lsn) || last != Some(end.stop_lsn) {
            return mismatch("it needs another part of the log than was announced".to_owned());
        }
        for (path, stated) in &server.files {
            let Some((size, sha256, crc32c)) = self.sums.get(path) else {
                return mismatch(format!("the file `{path}` is missing"));
            };
            if stated.size.0 != *size {
                return mismatch(format!(
                    "the file `{path}` has {size} bytes instead of {}",
                    stated.size.0
                ));
            }
            let is_right = match stated.sum {
                Sum::Crc32c(stated) => stated == *crc32c,
                Sum::None => true,
                Sum::Sha256(stated) => stated == sha256.0,
            };
            if !is_right {
                return mismatch(format!("the file `{path}` has another checksum"));
            }
        }
        let unknown = self
            .sums
            .keys()
            .find(|path| !server.files.contains_key(*path) && !path.starts_with("pg_wal/"));
        match unknown {
            Some(path) => mismatch(format!("the file `{path}` is not in the manifest")),
            None => Ok(()),
        }
    }

    fn add_server_manifest(&mut self, bytes: &[u8]) -> Result<(), RepositoryError> {
        let start = self.position();
        for part in bytes.chunks(limits::FRAME_BYTES) {
            self.flush()?;
            self.frame.extend_from_slice(part);
        }
        self.entries.push(Entry {
            path: SERVER_MANIFEST.to_owned(),
            mode: 0o600,
            what: What::File {
                size: length(bytes),
                start,
                sha256: Digest::of(bytes),
            },
        });
        Ok(())
    }

    /// Returns where the next byte will be in the stream of all bundles.
    fn position(&self) -> u64 {
        self.frame_start.saturating_add(length(&self.frame))
    }

    fn flush(&mut self) -> Result<(), RepositoryError> {
        if self.frame.is_empty() {
            return Ok(());
        }
        self.frame_start = self.position();
        let frame = std::mem::replace(&mut self.frame, Vec::with_capacity(limits::FRAME_BYTES));
        self.packer.frame(frame)
    }
}

fn misuse(what: &str) -> RepositoryError {
    RepositoryError::Misuse {
        what: what.to_owned(),
    }
}
