//! Going through everything that a restore point has.

use std::sync::Arc;

use super::{FileRecord, Has, Point};
use crate::limits;
use crate::repository::RepositoryError;
use crate::repository::map::key::MapKey;
use crate::repository::map::{Entry, Scan, key};
use crate::repository::types::Extent;

/// A file with a part of its extents: all of them, when they are not too many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) path: Arc<str>,
    pub(crate) record: Arc<FileRecord>,
    /// In order, at most [`limits::EXTENTS_AT_ONCE`].
    pub(crate) extents: Vec<Extent>,
    /// Another part of the same file came before.
    pub(crate) is_more: bool,
}

type Parts = Box<dyn Iterator<Item = Result<Part, RepositoryError>> + Send>;
type Named = Result<(String, FileRecord), RepositoryError>;

/// Returns every path with its record.
pub(super) fn files(point: &Point) -> impl Iterator<Item = Named> + Send + use<> {
    let files: Box<dyn Iterator<Item = Named> + Send> = match point.has.as_ref() {
        Has::V1(contents) => {
            let named = contents.files.iter();
            let all: Vec<_> = named
                .map(|(path, (record, _))| Ok((path.clone(), record.clone())))
                .collect();
            Box::new(all.into_iter())
        }
        Has::V2(map, _) => Box::new(Files {
            point: point.clone(),
            scan: map.scan(&key::first_file()),
            skipped: 0,
        }),
    };
    files
}

/// Returns every path with its record and its extents.
pub(super) fn walk(point: &Point) -> Parts {
    match point.has.as_ref() {
        Has::V1(contents) => {
            let parts = contents.files.iter().map(|(path, (record, extents))| {
                Ok(Part {
                    path: Arc::from(path.as_str()),
                    record: Arc::new(record.clone()),
                    extents: extents.clone(),
                    is_more: false,
                })
            });
            Box::new(parts.collect::<Vec<_>>().into_iter())
        }
        Has::V2(map, _) => Box::new(Walk {
            point: point.clone(),
            scan: map.scan(&key::first_file()),
            read: None,
            file: None,
        }),
    }
}

/// Paths and records, extents left out.
struct Files {
    point: Point,
    scan: Scan,
    /// Extents of one file that were passed over one by one.
    skipped: usize,
}

impl Files {
    fn step(&mut self) -> Result<Option<(String, FileRecord)>, RepositoryError> {
        while let Some((key, value)) = self.scan.next().transpose()? {
            match MapKey::parse(&key) {
                Some(MapKey::File(path)) => {
                    self.skipped = 0;
                    self.point.check_path(&path)?;
                    return Ok(Some((path, self.point.read_record(&value)?)));
                }
                Some(MapKey::Extent(path, _)) => {
                    self.skipped = self.skipped.saturating_add(1);
                    if self.skipped >= limits::NODES_SKIPPED {
                        self.skipped = 0;
                        self.scan.seek(&key::after_file(&path));
                    }
                }
                _ => return Err(self.point.unreadable("a key")),
            }
        }
        Ok(None)
    }
}

impl Iterator for Files {
    type Item = Named;

    fn next(&mut self) -> Option<Named> {
        self.step().transpose()
    }
}

/// Parts of files.
struct Walk {
    point: Point,
    scan: Scan,
    /// An entry that was read and belongs to the next part.
    read: Option<Entry>,
    /// The file whose extents come: its key, its path, its record.
    file: Option<(Vec<u8>, Arc<str>, Arc<FileRecord>)>,
}

impl Walk {
    fn step(&mut self) -> Result<Option<Part>, RepositoryError> {
        let entry = match self.read.take() {
            Some(entry) => Some(entry),
            None => self.scan.next().transpose()?,
        };
        let Some((key, value)) = entry else {
            return Ok(None);
        };
        let is_more = match MapKey::parse(&key) {
            Some(MapKey::File(path)) => {
                self.point.check_path(&path)?;
                let record = Arc::new(self.point.read_record(&value)?);
                self.file = Some((key, Arc::from(path), record));
                false
            }
            Some(MapKey::Extent(..)) => {
                self.read = Some((key, value));
                true
            }
            _ => return Err(self.point.unreadable("a key")),
        };
        let Some((file, path, record)) = self.file.clone() else {
            return Err(self.point.unreadable("a file"));
        };
        let mut part = Part {
            path,
            record,
            extents: Vec::new(),
            is_more,
        };
        while part.extents.len() < limits::EXTENTS_AT_ONCE {
            let entry = match self.read.take() {
                Some(entry) => Some(entry),
                None => self.scan.next().transpose()?,
            };
            let Some((key, value)) = entry else { break };
            let Some(offset) = key::offset_in(&file, &key) else {
                self.read = Some((key, value));
                break;
            };
            let extent = key::read_extent(offset, &value)
                .filter(|extent| offset.saturating_add(extent.length) <= part.record.size);
            part.extents
                .push(extent.ok_or_else(|| self.point.unreadable("an extent"))?);
        }
        // An extent without its file would be read for ever.
        if part.is_more && part.extents.is_empty() {
            return Err(self.point.unreadable("a file"));
        }
        Ok(Some(part))
    }
}

impl Iterator for Walk {
    type Item = Result<Part, RepositoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
