//! Taking a restore point in: file by file or part by part, in bounded memory.

mod changes;
mod cut;
mod filling;
mod server;

use std::sync::Arc;

use holdfast_core::{Digest, PointId, Timestamp};
use holdfast_wire::pg::basebackup::relative_path;

use super::format::length;
use super::manifest::{EngineName, Manifest, Postgres, Totals};
use super::map::Map;
use super::point::{BundleRecord, Point};
use super::types::{FileRecord, RecordKind};
use super::{
    EngineStart, FileEntry, FileKind, PatchTo, PointEnd, PointStart, RepositoryError, Writing,
    layout,
};
use crate::limits;
use changes::Changes;
use cut::Cutter;
use filling::Filling;
use server::Sums;

/// The file that PostgreSQL's own manifest becomes, so that `pg_verifybackup` can check a restore.
const SERVER_MANIFEST: &str = "backup_manifest";

/// Takes one restore point in, with bounded memory and at the cost of what is written.
///
/// With a parent, every path that is not mentioned stays as it is there. Each path may be mentioned
/// once. Dropped before [`PointWriter::finish`] it leaves objects that nothing names, and no point.
pub struct PointWriter {
    writing: Arc<Writing>,
    start: PointStart,
    point: PointId,
    began: Timestamp,
    folder: String,
    filling: Filling,
    changes: Changes,
    sums: Sums,
    open: Option<Open>,
}

/// The entry that is being written.
enum Open {
    /// A folder that was there before.
    Again,
    /// Parts of a file.
    Patch {
        path: Arc<str>,
        record: FileRecord,
        cutter: Box<Cutter>,
        /// The position after the last byte written.
        end: u64,
    },
    /// A small file, kept until it is known whether it has changed.
    Small {
        path: Arc<str>,
        record: FileRecord,
        content: Vec<u8>,
    },
    /// Something without bytes.
    Still { path: Arc<str>, record: FileRecord },
    /// A large file.
    Whole {
        path: Arc<str>,
        record: FileRecord,
        written: u64,
        crc32c: u32,
    },
}

impl PointWriter {
    pub(super) fn begin(
        writing: Arc<Writing>,
        start: PointStart,
        parent: Option<Point>,
        empty: Map,
    ) -> Result<Self, RepositoryError> {
        let mut random = [0; PointId::RANDOM_BYTES];
        getrandom::fill(&mut random).map_err(|error| RepositoryError::System {
            step: "draw random bytes",
            what: error.to_string(),
        })?;
        let point = PointId::from_random(random);
        let began = (writing.clock)();
        let folder = layout::folder(began, &point);
        let target = super::pack::Target {
            store: Arc::clone(&writing.store),
            source: start.source.clone(),
            folder: folder.clone(),
        };
        let before = parent.as_ref().and_then(Point::tree);
        let next_bundle = before.map_or(1, |(_, manifest)| manifest.totals.next_bundle);
        Ok(Self {
            filling: Filling::start(target, next_bundle)?,
            changes: Changes::begin(parent, empty, &folder)?,
            sums: Sums::default(),
            writing,
            start,
            point,
            began,
            folder,
            open: None,
        })
    }

    /// Returns the id that the restore point will have.
    pub fn point(&self) -> &PointId {
        &self.point
    }

    /// Begins an entry whose whole content comes anew; the one before must have ended.
    ///
    /// Only a file takes bytes. Paths are checked: none may leave the source.
    ///
    /// # Errors
    /// [`RepositoryError::Misuse`], and what the store says of bundles written meanwhile.
    pub fn begin_file(&mut self, entry: FileEntry) -> Result<(), RepositoryError> {
        let path = self.begin_entry(&entry.path)?;
        if self.changes.has_seen(&path)? {
            // The folder of a tablespace comes as a link in one archive and as a folder in another.
            if entry.kind == FileKind::Directory {
                self.open = Some(Open::Again);
                return Ok(());
            }
            return Err(misuse(&format!("the entry `{path}` comes twice")));
        }
        self.begin_anew(path, entry)
    }

    fn begin_anew(&mut self, path: Arc<str>, entry: FileEntry) -> Result<(), RepositoryError> {
        let (kind, size, target) = match entry.kind {
            FileKind::Directory => (RecordKind::Directory, 0, None),
            FileKind::File { size } => (RecordKind::File, size, None),
            FileKind::Hardlink { target } => (RecordKind::Hardlink, 0, Some(target)),
            FileKind::Symlink { target } => (RecordKind::Symlink, 0, Some(target)),
        };
        let record = FileRecord {
            kind,
            mode: entry.mode,
            size,
            sha256: None,
            target,
            meta: entry.meta,
        };
        self.open = Some(match usize::try_from(size) {
            _ if kind != RecordKind::File => Open::Still { path, record },
            Ok(size) if size <= limits::SMALL_FILE_BYTES => Open::Small {
                path,
                record,
                content: Vec::with_capacity(size),
            },
            _ => {
                self.changes.drop_content(&path)?;
                self.filling.align(size)?;
                Open::Whole {
                    path,
                    record,
                    written: 0,
                    crc32c: 0,
                }
            }
        });
        Ok(())
    }

    /// Begins a file of which only parts come; the rest stays as the parent has it.
    ///
    /// # Errors
    /// [`RepositoryError::Misuse`] when the parent has no such file.
    pub fn begin_patch(&mut self, path: &str, to: PatchTo) -> Result<(), RepositoryError> {
        let path = self.begin_entry(path)?;
        let before = self.changes.before(&path)?;
        let is_file = before.is_some_and(|record| record.kind == RecordKind::File);
        if !is_file || self.changes.has_seen(&path)? {
            return Err(misuse(&format!(
                "parts of `{path}` come, which the parent does not have or came before"
            )));
        }
        let record = FileRecord {
            kind: RecordKind::File,
            mode: to.mode,
            size: to.size,
            sha256: None,
            target: None,
            meta: to.meta,
        };
        let cutter = Box::new(Cutter::new(Arc::clone(&path)));
        self.open = Some(Open::Patch {
            path,
            record,
            cutter,
            end: 0,
        });
        Ok(())
    }

    fn begin_entry(&mut self, path: &str) -> Result<Arc<str>, RepositoryError> {
        if self.open.is_some() {
            return Err(misuse("an entry begins before the one before has ended"));
        }
        let path = relative_path(path.as_bytes()).map_err(|error| misuse(&error.to_string()))?;
        if path.is_empty() || path == SERVER_MANIFEST {
            return Err(misuse("an entry has a name that it may not have"));
        }
        Ok(Arc::from(path))
    }

    /// Takes the next bytes of a file whose whole content comes.
    ///
    /// # Errors
    /// [`RepositoryError::Misuse`] when there are more than its size.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), RepositoryError> {
        match &mut self.open {
            Some(Open::Small {
                path,
                record,
                content,
            }) => {
                content.extend_from_slice(bytes);
                is_within(path, length(content), record.size)
            }
            Some(Open::Whole {
                path,
                record,
                written,
                crc32c,
            }) => {
                let offset = *written;
                *written = written.saturating_add(length(bytes));
                is_within(path, *written, record.size)?;
                *crc32c = crc32c::crc32c_append(*crc32c, bytes);
                self.filling.append(path, offset, bytes)?;
                self.settle()
            }
            _ => Err(misuse("bytes come without a file")),
        }
    }

    /// Leaves out bytes of a large file whose whole content comes: a hole, which reads as zeros.
    ///
    /// # Errors
    /// [`RepositoryError::Misuse`] when the file is small or ends before.
    pub fn skip(&mut self, bytes: u64) -> Result<(), RepositoryError> {
        let Some(Open::Whole {
            path,
            record,
            written,
            ..
        }) = &mut self.open
        else {
            return Err(misuse("a hole comes without a large file"));
        };
        *written = written.saturating_add(bytes);
        is_within(path, *written, record.size)?;
        // What follows begins where a page can.
        self.filling.align_part(*written)
    }

    /// Takes bytes of a file of which parts come. Positions ascend; what lies between stays.
    ///
    /// # Errors
    /// [`RepositoryError::Misuse`] when they lie before what came last, or behind the file's size.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), RepositoryError> {
        let Some(Open::Patch {
            path,
            record,
            cutter,
            end,
        }) = &mut self.open
        else {
            return Err(misuse("a part comes without a file"));
        };
        if offset < *end {
            return Err(misuse(&format!("parts of `{path}` come out of order")));
        }
        let after = offset.saturating_add(length(bytes));
        is_within(path, after, record.size)?;
        *end = after;
        cutter.cut(&mut self.changes, offset..after)?;
        self.filling.align_part(offset)?;
        self.filling.append(path, offset, bytes)?;
        self.settle()
    }

    /// Ends the entry.
    ///
    /// # Errors
    /// [`RepositoryError::Misuse`] when bytes are missing.
    pub fn end_file(&mut self) -> Result<(), RepositoryError> {
        match self.open.take() {
            None => return Err(misuse("an entry ends that never began")),
            Some(Open::Again) => {}
            Some(Open::Patch {
                path,
                record,
                cutter,
                ..
            }) => {
                cutter.finish(&mut self.changes, record.size)?;
                self.changes.put_record(&path, &record)?;
            }
            Some(Open::Small {
                path,
                record,
                content,
            }) => {
                is_whole(&path, length(&content), record.size)?;
                self.put_small(&path, record, &content)?;
            }
            Some(Open::Still { path, record }) => {
                self.changes.drop_content(&path)?;
                self.changes.put_record(&path, &record)?;
            }
            Some(Open::Whole {
                path,
                record,
                written,
                crc32c,
            }) => {
                is_whole(&path, written, record.size)?;
                self.note_sum(&path, (written, crc32c, None));
                self.changes.put_record(&path, &record)?;
            }
        }
        self.settle()
    }

    /// Stores a small file, unless the parent has it with the same content.
    fn put_small(
        &mut self,
        path: &Arc<str>,
        mut record: FileRecord,
        content: &[u8],
    ) -> Result<(), RepositoryError> {
        let sha256 = Digest::of(content);
        record.sha256 = Some(sha256);
        self.note_sum(path, (record.size, crc32c::crc32c(content), Some(sha256)));
        let before = self.changes.before(path)?;
        let is_kept = before.is_some_and(|before| {
            before.kind == RecordKind::File
                && (before.size, before.sha256) == (record.size, record.sha256)
        });
        if !is_kept {
            self.changes.drop_content(path)?;
            self.filling.align(record.size)?;
            self.filling.append(path, 0, content)?;
        }
        self.changes.put_record(path, &record)
    }

    fn note_sum(&mut self, path: &Arc<str>, sum: (u64, u32, Option<Digest>)) {
        if matches!(self.start.engine, EngineStart::Postgres(_)) {
            self.sums.note(path, sum);
        }
    }

    /// Leaves a path out that the parent has; what lies below a folder is removed path by path.
    ///
    /// # Errors
    /// [`RepositoryError::Misuse`] when the path was written in this point.
    pub fn remove(&mut self, path: &str) -> Result<(), RepositoryError> {
        let path = self.begin_entry(path)?;
        if self.changes.has_seen(&path)? {
            return Err(misuse(&format!("the entry `{path}` comes and goes")));
        }
        self.changes.drop_content(&path)?;
        self.changes.drop_record(&path)?;
        self.settle()
    }

    /// Notes where frames have come to lie, and keeps the memory in use bounded.
    fn settle(&mut self) -> Result<(), RepositoryError> {
        for (path, extent) in self.filling.settled() {
            self.changes.put_extent(&path, &extent);
        }
        self.changes.relieve()
    }

    /// Completes the point and writes its signed manifest: from then on it exists.
    ///
    /// Of a PostgreSQL cluster, every file that was written whole is checked against PostgreSQL's
    /// manifest first.
    ///
    /// # Errors
    /// [`RepositoryError::BaseMismatch`] names the file; there is then no restore point.
    pub fn finish(mut self, end: PointEnd) -> Result<PointId, RepositoryError> {
        if self.open.is_some() {
            return Err(misuse("the restore point ends within a file"));
        }
        let postgres = self.check_end(&end)?;
        let sizes = self.filling.finish()?;
        self.settle()?;
        let mut stored = 0_u64;
        for (number, size) in sizes {
            stored = stored.saturating_add(size.bytes);
            let record = BundleRecord {
                folder: self.folder.clone(),
                number,
                bytes: size.bytes,
                frames: size.frames,
                raw_bytes: size.raw_bytes,
                frame_bytes: limits::FRAME_BYTES_U32,
                index_sha256: size.index_sha256,
                live: 0,
            };
            self.changes.put_bundle(self.filling.serial(number), record);
        }
        let next_bundle = self.filling.next_serial();
        let changed = self.changes.finish()?;
        let manifest = Manifest {
            format: 2,
            point: self.point.clone(),
            parent: self.start.parent,
            source: self.start.source,
            engine: match &self.start.engine {
                EngineStart::Directory => EngineName::Directory,
                EngineStart::Postgres(_) => EngineName::Postgres,
            },
            postgres,
            began: self.began,
            ended: (self.writing.clock)(),
            root: changed.map.root().map(Into::into),
            maps: changed.map.maps().values().cloned().collect(),
            totals: Totals {
                files: changed.files,
                bytes: changed.bytes,
                stored: stored.saturating_add(changed.stored),
                next_bundle,
                next_map: changed.next_map,
            },
        };
        self.writing.put_manifest(&manifest, &self.folder)?;
        Ok(self.point)
    }

    /// Checks what was written against what PostgreSQL says of it, and keeps its manifest.
    fn check_end(&mut self, end: &PointEnd) -> Result<Option<Postgres>, RepositoryError> {
        let (start, stop_lsn, server) = match (&self.start.engine, end) {
            (EngineStart::Directory, PointEnd::Directory) => return Ok(None),
            (
                EngineStart::Postgres(start),
                PointEnd::Postgres {
                    stop_lsn,
                    backup_manifest,
                },
            ) => (start.clone(), *stop_lsn, backup_manifest),
            _ => {
                return Err(misuse(
                    "the restore point ends as another kind than it began",
                ));
            }
        };
        match server {
            Some(server) => {
                self.sums.check(server, &start, stop_lsn, &self.changes)?;
                let path: Arc<str> = Arc::from(SERVER_MANIFEST);
                let entry = FileEntry {
                    path: SERVER_MANIFEST.to_owned(),
                    kind: FileKind::File {
                        size: length(server),
                    },
                    mode: 0o600,
                    meta: super::FileMeta::default(),
                };
                self.begin_anew(path, entry)?;
                self.write(server)?;
                self.end_file()?;
            }
            None if self.start.parent.is_none() => {
                return Err(RepositoryError::BaseMismatch {
                    what: "PostgreSQL's manifest is missing".to_owned(),
                });
            }
            // The parent's says nothing of what was changed since.
            None => {
                self.changes.drop_content(SERVER_MANIFEST)?;
                self.changes.drop_record(SERVER_MANIFEST)?;
            }
        }
        Ok(Some(Postgres {
            system_identifier: start.system_identifier,
            major: start.major,
            timeline: start.timeline,
            segment_bytes: start.segment_bytes,
            start_lsn: start.start_lsn,
            stop_lsn,
            tablespaces: start.tablespaces,
        }))
    }
}

fn is_within(path: &str, end: u64, size: u64) -> Result<(), RepositoryError> {
    if end <= size {
        Ok(())
    } else {
        Err(misuse(&format!("`{path}` has more bytes than announced")))
    }
}

fn is_whole(path: &str, written: u64, size: u64) -> Result<(), RepositoryError> {
    if written == size {
        Ok(())
    } else {
        Err(misuse(&format!("`{path}` has fewer bytes than announced")))
    }
}

fn misuse(what: &str) -> RepositoryError {
    RepositoryError::Misuse {
        what: what.to_owned(),
    }
}
