//! Looking into one folder of a restore point, without going through what lies deeper.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{FileRecord, Has, Point};
use crate::repository::map::key::{self, MapKey};
use crate::repository::types::RecordKind;
use crate::repository::{Extent, RepositoryError};

impl Point {
    /// Returns what lies directly in a folder, by name; the empty path is the top.
    ///
    /// A folder that is only known from what lies in it has no record.
    ///
    /// # Errors
    /// When the block map cannot be read or is damaged.
    pub fn children(
        &self,
        folder: &str,
    ) -> Result<BTreeMap<String, Option<FileRecord>>, RepositoryError> {
        let prefix = match folder {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        let mut found = BTreeMap::new();
        match self.has.as_ref() {
            Has::V1(contents) => {
                for (path, (record, _)) in contents.files.range(prefix.clone()..) {
                    let Some(rest) = path.strip_prefix(&prefix) else {
                        break;
                    };
                    add(&mut found, rest, || Ok(record.clone()))?;
                }
            }
            Has::V2(map, _) => {
                let mut scan = map.scan(&key::below(&prefix));
                while let Some((key, value)) = scan.next().transpose()? {
                    let path = match MapKey::parse(&key) {
                        Some(MapKey::File(path)) => path,
                        Some(MapKey::Extent(path, _)) => {
                            scan.seek(&key::after_file(&path));
                            continue;
                        }
                        _ => return Err(self.unreadable("a key")),
                    };
                    let Some(rest) = path.strip_prefix(&prefix) else {
                        break;
                    };
                    self.check_path(&path)?;
                    add(&mut found, rest, || self.read_record(&value))?;
                    if let Some((first, _)) = rest.split_once('/') {
                        scan.seek(&key::after_folder(&format!("{prefix}{first}")));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Tells whether anything lies below a path.
    ///
    /// # Errors
    /// When the block map cannot be read or is damaged.
    pub fn has_below(&self, folder: &str) -> Result<bool, RepositoryError> {
        let prefix = format!("{folder}/");
        match self.has.as_ref() {
            Has::V1(contents) => {
                let next = contents.files.range(prefix.clone()..).next();
                Ok(next.is_some_and(|(path, _)| path.starts_with(&prefix)))
            }
            Has::V2(map, _) => {
                let below = key::below(&prefix);
                let next = map.near(&below).next().transpose()?;
                Ok(next.is_some_and(|(key, _)| key.starts_with(&below)))
            }
        }
    }

    /// Returns the part of a file around `range` that comes with the frame in which `range` is: what
    /// is cheapest to read along. It is `range` itself where that lies in several frames or in none.
    ///
    /// # Errors
    /// When the block map cannot be read or is damaged.
    pub(crate) fn neighbourhood(
        &self,
        path: &str,
        range: Range<u64>,
    ) -> Result<Range<u64>, RepositoryError> {
        let extents = self.extents(path, range.clone())?;
        let [extent] = extents.as_slice() else {
            return Ok(range);
        };
        let end = extent.offset.saturating_add(extent.length);
        if extent.offset > range.start || end < range.end {
            return Ok(range);
        }
        let full = u64::from(self.frames(extent.place.bundle)?.frame_bytes.max(1));
        let skip = range.start.saturating_sub(extent.offset);
        let within = u64::from(extent.place.within).saturating_add(skip) % full;
        let from = range.start.saturating_sub(within).max(extent.offset);
        let to = range.start.saturating_add(full.saturating_sub(within));
        Ok(from..to.min(end).max(range.end))
    }

    /// Fills `out` with the bytes of a file from `offset` on; what no extent covers is zeros.
    ///
    /// # Errors
    /// When an object cannot be read or is damaged.
    pub(crate) fn fill(
        &self,
        path: &str,
        offset: u64,
        out: &mut [u8],
    ) -> Result<Vec<Extent>, RepositoryError> {
        out.fill(0);
        let end = offset.saturating_add(u64::try_from(out.len()).unwrap_or(u64::MAX));
        let extents = self.extents(path, offset..end)?;
        for extent in &extents {
            let from = extent.offset.max(offset);
            let to = extent.offset.saturating_add(extent.length).min(end);
            let within = |at: u64| usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX);
            let into = out
                .get_mut(within(from)..within(to))
                .ok_or_else(|| self.unreadable("an extent"))?;
            self.copy(extent, from.saturating_sub(extent.offset), into)?;
        }
        Ok(extents)
    }
}

/// Puts what `rest` names below a folder to what was found.
fn add(
    found: &mut BTreeMap<String, Option<FileRecord>>,
    rest: &str,
    record: impl FnOnce() -> Result<FileRecord, RepositoryError>,
) -> Result<(), RepositoryError> {
    match rest.split_once('/') {
        Some((first, _)) => {
            found.entry(first.to_owned()).or_default();
        }
        None if rest.is_empty() => {}
        None => {
            found.insert(rest.to_owned(), Some(record()?));
        }
    }
    Ok(())
}

impl FileRecord {
    /// Tells whether it is a file with bytes.
    pub fn is_file(&self) -> bool {
        self.kind == RecordKind::File
    }
}
