//! What comes inside the copy stream of a base backup, on its way into the repository.

use std::collections::BTreeSet;

use holdfast_core::Untrusted;
use holdfast_wire::pg::basebackup::{BaseMessage, TarEntry, TarEvent, TarKind, TarReader};

use crate::capture::CaptureError;
use crate::capture::incremental::Filter;
use crate::limits;
use crate::repository::{FileEntry, FileKind, FileMeta, PointWriter, RepositoryError};

/// What comes inside the copy stream, on its way into the repository.
#[derive(Default)]
pub(super) struct Content {
    pub(super) writer: Option<PointWriter>,
    /// Lets through what the parent does not have; without a parent everything is new.
    pub(super) filter: Option<Filter>,
    /// Bytes of files that came.
    pub(super) read: u64,
    archive: Option<Archive>,
    manifest: Option<Vec<u8>>,
    /// How many entries its archives had so far.
    pub(super) entries: usize,
}

struct Archive {
    name: String,
    /// What is put before every path: empty, or `pg_tblspc/<oid>`.
    prefix: String,
    reader: TarReader,
    /// Its links: nothing may lie below one.
    links: BTreeSet<String>,
}

impl Archive {
    /// Refuses what would come to lie below a link, and entries without end.
    fn admit(&mut self, entry: &TarEntry, entries: &mut usize) -> Result<(), CaptureError> {
        let refuse = |what: String| Err(CaptureError::Entry { what });
        *entries = entries.saturating_add(1);
        if *entries > limits::BASE_ENTRIES {
            return refuse(format!("it has more than {} entries", limits::BASE_ENTRIES));
        }
        let mut above = entry.path.as_str();
        while let Some((folder, _)) = above.rsplit_once('/') {
            if self.links.contains(folder) {
                return refuse(format!("`{}` lies below a link", Untrusted(&entry.path)));
            }
            above = folder;
        }
        if let TarKind::Symlink(_) = entry.kind {
            self.links.insert(entry.path.clone());
        }
        Ok(())
    }
}

/// What the repository does not take as an entry is the source's fault, not ours.
fn from_entry(error: RepositoryError) -> CaptureError {
    match error {
        RepositoryError::Misuse { what } => CaptureError::Entry { what },
        error => error.into(),
    }
}

impl Content {
    pub(super) fn take(&mut self, message: BaseMessage) -> Result<(), CaptureError> {
        match message {
            BaseMessage::Archive { name, .. } => {
                self.close_archive()?;
                let prefix = match name.strip_suffix(".tar") {
                    Some("base") => String::new(),
                    Some(oid) if oid.parse::<u32>().is_ok() => format!("pg_tblspc/{oid}"),
                    _ => {
                        return Err(CaptureError::Incomplete {
                            what: "an archive has an unknown name",
                        });
                    }
                };
                self.archive = Some(Archive {
                    name,
                    prefix,
                    reader: TarReader::default(),
                    links: BTreeSet::new(),
                });
                Ok(())
            }
            BaseMessage::Manifest => {
                self.close_archive()?;
                self.manifest = Some(Vec::new());
                Ok(())
            }
            BaseMessage::Data(bytes) => match (&mut self.manifest, &mut self.archive) {
                (Some(manifest), _)
                    if manifest.len().saturating_add(bytes.len())
                        <= limits::BASE_MANIFEST_BYTES =>
                {
                    manifest.extend_from_slice(&bytes);
                    Ok(())
                }
                (Some(_), _) => Err(CaptureError::Entry {
                    what: format!(
                        "its manifest has more than {} bytes",
                        limits::BASE_MANIFEST_BYTES
                    ),
                }),
                (None, Some(_)) => self.unpack(&bytes),
                (None, None) => Err(CaptureError::Incomplete {
                    what: "bytes came outside archive and manifest",
                }),
            },
            BaseMessage::Progress(_) => Ok(()),
        }
    }

    fn unpack(&mut self, mut bytes: &[u8]) -> Result<(), CaptureError> {
        let (Some(archive), Some(writer)) = (&mut self.archive, &mut self.writer) else {
            return Ok(());
        };
        let name = archive.name.clone();
        let refused = |source| CaptureError::Tar {
            archive: name.clone(),
            source,
        };
        while let Some(event) = archive.reader.next(&mut bytes).map_err(refused)? {
            match event {
                TarEvent::Bytes(bytes) => {
                    let count = u64::try_from(bytes.len()).unwrap_or(0);
                    self.read = self.read.saturating_add(count);
                    match &mut self.filter {
                        Some(filter) => filter.bytes(writer, bytes)?,
                        None => writer.write(bytes)?,
                    }
                }
                TarEvent::FileEnd => match &mut self.filter {
                    Some(filter) => filter.end(writer)?,
                    None => writer.end_file()?,
                },
                TarEvent::Entry(entry) => {
                    archive.admit(&entry, &mut self.entries)?;
                    let path = match (archive.prefix.is_empty(), entry.path.is_empty()) {
                        (true, true) => continue,
                        (true, false) => entry.path,
                        (false, true) => archive.prefix.clone(),
                        (false, false) => format!("{}/{}", archive.prefix, entry.path),
                    };
                    let kind = match entry.kind {
                        TarKind::Directory => FileKind::Directory,
                        TarKind::File(size) => FileKind::File { size: size.0 },
                        TarKind::Symlink(target) => FileKind::Symlink { target },
                    };
                    let is_file = matches!(kind, FileKind::File { .. });
                    let entry = FileEntry {
                        path,
                        kind,
                        mode: entry.mode,
                        meta: FileMeta::default(),
                    };
                    match &mut self.filter {
                        Some(filter) => filter.begin(writer, entry)?,
                        None => writer.begin_file(entry).map_err(from_entry)?,
                    }
                    if !is_file {
                        writer.end_file()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends a copy stream of versions 13 and 14, whose archives lack the two blocks of zeros.
    pub(super) fn end_copy(&mut self) -> Result<(), CaptureError> {
        if self.manifest.is_none() {
            self.unpack(&[0; 1024])?;
        }
        self.close_archive()
    }

    fn close_archive(&mut self) -> Result<(), CaptureError> {
        if let Some(archive) = self.archive.take() {
            archive
                .reader
                .finish()
                .map_err(|source| CaptureError::Tar {
                    archive: archive.name,
                    source,
                })?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<(PointWriter, Vec<u8>, u64), CaptureError> {
        match (self.writer, self.manifest) {
            (Some(mut writer), Some(manifest)) if !manifest.is_empty() => {
                if let Some(mut filter) = self.filter {
                    filter.finish(&mut writer)?;
                }
                Ok((writer, manifest, self.read))
            }
            _ => Err(CaptureError::Incomplete {
                what: "the manifest is missing",
            }),
        }
    }
}
