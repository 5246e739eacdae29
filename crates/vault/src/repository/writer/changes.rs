//! What a restore point changes in the block map of its parent.

use std::collections::BTreeMap;

use super::super::map::{Edits, Map, MapWriter, key};
use super::super::point::{BundleRecord, Point};
use super::super::types::{Extent, FileRecord, RecordKind};
use super::misuse;
use crate::limits;
use crate::repository::RepositoryError;

/// Edits of the map, and what they add up to.
pub(super) struct Changes {
    parent: Option<Point>,
    writer: MapWriter,
    edits: Edits,
    edit_bytes: usize,
    /// Some edits are in the map already.
    has_relieved: bool,
    /// The map has as many objects as it may: it is written anew before the first change.
    is_crowded: bool,
    /// By how much the bytes in use of each bundle change.
    live: BTreeMap<u32, i128>,
    fresh: BTreeMap<u32, BundleRecord>,
    /// What full frames of the parent's bundles hold.
    frame_bytes: BTreeMap<u32, u32>,
    files: u64,
    bytes: u64,
}

/// The map after all changes.
pub(super) struct Changed {
    pub(super) map: Map,
    pub(super) next_map: u32,
    /// Bytes of the map objects that were written.
    pub(super) stored: u64,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Changes {
    pub(super) fn begin(
        parent: Option<Point>,
        empty: Map,
        folder: &str,
    ) -> Result<Self, RepositoryError> {
        let (map, next, files, bytes) = match parent.as_ref().map(Point::tree) {
            None => (empty, 1, 0, 0),
            Some(Some((map, manifest))) => {
                let totals = &manifest.totals;
                (map.clone(), totals.next_map, totals.files, totals.bytes)
            }
            Some(None) => return Err(misuse("a base of format 1 cannot be built on")),
        };
        Ok(Self {
            is_crowded: map.maps().len() >= limits::MAPS_PER_POINT,
            writer: MapWriter::new(map, folder.to_owned(), next)?,
            parent,
            edits: Edits::new(),
            edit_bytes: 0,
            has_relieved: false,
            live: BTreeMap::new(),
            fresh: BTreeMap::new(),
            frame_bytes: BTreeMap::new(),
            files,
            bytes,
        })
    }

    /// Returns what the parent says of a path.
    pub(super) fn before(&self, path: &str) -> Result<Option<FileRecord>, RepositoryError> {
        match &self.parent {
            Some(parent) => parent.file(path),
            None => Ok(None),
        }
    }

    /// Says whether the path was changed already.
    pub(super) fn has_seen(&self, path: &str) -> Result<bool, RepositoryError> {
        let key = key::file(path);
        if self.edits.contains_key(&key) {
            return Ok(true);
        }
        if !self.has_relieved {
            return Ok(false);
        }
        let now = self.writer.map().get(&key)?;
        let before = self.parent.as_ref().and_then(Point::tree);
        let before = before.map(|(map, _)| map.get(&key)).transpose()?.flatten();
        Ok(now != before)
    }

    /// Sets what the point says of a path.
    pub(super) fn put_record(
        &mut self,
        path: &str,
        record: &FileRecord,
    ) -> Result<(), RepositoryError> {
        let before = self.before(path)?;
        if before.as_ref() == Some(record) {
            return Ok(());
        }
        self.count(before.as_ref(), Some(record));
        let value = serde_json::to_vec(record).map_err(|error| misuse(&error.to_string()))?;
        if value.len() > limits::VALUE_BYTES {
            return Err(misuse(&format!("what is known of `{path}` is too long")));
        }
        self.edit(key::file(path), Some(value));
        Ok(())
    }

    /// Forgets a path.
    pub(super) fn drop_record(&mut self, path: &str) -> Result<(), RepositoryError> {
        let before = self.before(path)?;
        if before.is_some() {
            self.count(before.as_ref(), None);
            self.edit(key::file(path), None);
        }
        Ok(())
    }

    fn count(&mut self, before: Option<&FileRecord>, now: Option<&FileRecord>) {
        let is_file = |record: &&FileRecord| record.kind == RecordKind::File;
        if let Some(before) = before.filter(is_file) {
            self.files = self.files.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(before.size);
        }
        if let Some(now) = now.filter(is_file) {
            self.files = self.files.saturating_add(1);
            self.bytes = self.bytes.saturating_add(now.size);
        }
    }

    /// Forgets the bytes that the parent has of a path.
    pub(super) fn drop_content(&mut self, path: &str) -> Result<(), RepositoryError> {
        for extent in self.extents_before(path, 0..u64::MAX)? {
            self.drop_extent(path, &extent);
            self.release(extent.place.bundle, extent.length);
        }
        Ok(())
    }

    /// Returns the parent's extents of a file that have a byte in `range`.
    pub(super) fn extents_before(
        &self,
        path: &str,
        range: std::ops::Range<u64>,
    ) -> Result<Vec<Extent>, RepositoryError> {
        match &self.parent {
            Some(parent) => parent.extents(path, range),
            None => Ok(Vec::new()),
        }
    }

    /// Returns what a full frame of a bundle of the parent's holds.
    pub(super) fn frame_bytes(&mut self, bundle: u32) -> Result<u32, RepositoryError> {
        if let Some(bytes) = self.frame_bytes.get(&bundle) {
            return Ok(*bytes);
        }
        let record = match &self.parent {
            Some(parent) => parent.bundle(bundle)?,
            None => None,
        };
        let record = record.ok_or_else(|| misuse("the parent's map names no such bundle"))?;
        self.frame_bytes.insert(bundle, record.frame_bytes);
        Ok(record.frame_bytes)
    }

    /// Adds a run of bytes that was written.
    pub(super) fn put_extent(&mut self, path: &str, extent: &Extent) {
        let live = self.live.entry(extent.place.bundle).or_default();
        *live = live.saturating_add(i128::from(extent.length));
        self.keep_extent(path, extent);
    }

    /// Keeps a part of a run that the parent has.
    pub(super) fn keep_extent(&mut self, path: &str, extent: &Extent) {
        let key = key::extent(path, extent.offset);
        self.edit(key, Some(key::put_extent(extent)));
    }

    /// Forgets a run of the parent's.
    pub(super) fn drop_extent(&mut self, path: &str, extent: &Extent) {
        self.edit(key::extent(path, extent.offset), None);
    }

    /// Notes that bytes of a bundle are no longer used.
    pub(super) fn release(&mut self, bundle: u32, bytes: u64) {
        let live = self.live.entry(bundle).or_default();
        *live = live.saturating_sub(i128::from(bytes));
    }

    /// Adds a bundle that was written.
    pub(super) fn put_bundle(&mut self, serial: u32, record: BundleRecord) {
        self.fresh.insert(serial, record);
    }

    fn edit(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let bytes = key.len().saturating_add(value.as_ref().map_or(0, Vec::len));
        self.edit_bytes = self
            .edit_bytes
            .saturating_add(bytes)
            .saturating_add(EDIT_OVERHEAD);
        self.edits.insert(key, value);
    }

    /// Makes the edits when they have become many, so that memory stays bounded.
    pub(super) fn relieve(&mut self) -> Result<(), RepositoryError> {
        if self.edit_bytes >= limits::EDITS_BYTES {
            self.apply()?;
        }
        Ok(())
    }

    fn apply(&mut self) -> Result<(), RepositoryError> {
        if std::mem::take(&mut self.is_crowded) {
            self.writer.rewrite()?;
        }
        self.writer.update(std::mem::take(&mut self.edits))?;
        self.writer.close()?;
        self.edit_bytes = 0;
        self.has_relieved = true;
        Ok(())
    }

    /// Makes all edits, those of bundles last.
    pub(super) fn finish(mut self) -> Result<Changed, RepositoryError> {
        for (serial, change) in std::mem::take(&mut self.live) {
            let fresh = self.fresh.get(&serial).cloned();
            let known = match (&self.parent, fresh) {
                (_, Some(record)) => Some(record),
                (Some(parent), None) => parent.bundle(serial)?,
                (None, None) => None,
            };
            let record = known.ok_or_else(|| misuse("a run lies in a bundle that is not known"))?;
            let live = i128::from(record.live).saturating_add(change);
            let live = u64::try_from(live)
                .map_err(|_| misuse("less than nothing of a bundle would be in use"))?;
            // Of a bundle that nothing uses any more, nothing is known any more.
            let value = serde_json::to_vec(&BundleRecord { live, ..record })
                .map_err(|error| misuse(&error.to_string()))?;
            self.edit(key::bundle(serial), (live > 0).then_some(value));
        }
        self.apply()?;
        let (map, next_map, stored) = self.writer.finish()?;
        Ok(Changed {
            map,
            next_map,
            stored,
            files: self.files,
            bytes: self.bytes,
        })
    }

    /// Returns the size that a path has in the point as it is now.
    pub(super) fn size_now(&self, path: &str) -> Result<Option<u64>, RepositoryError> {
        if let Some(edit) = self.edits.get(&key::file(path)) {
            let record = edit.as_ref().map(|value| serde_json::from_slice(value));
            let record: Option<FileRecord> = record
                .transpose()
                .map_err(|_| misuse("a record of a file is not readable"))?;
            return Ok(record.map(|record| record.size));
        }
        let value = self.writer.map().get(&key::file(path))?;
        let record = value.map(|value| serde_json::from_slice::<FileRecord>(&value));
        let record = record
            .transpose()
            .map_err(|_| misuse("a record of a file is not readable"))?;
        Ok(record.map(|record| record.size))
    }
}

/// About what an edit occupies besides its bytes.
const EDIT_OVERHEAD: usize = 96;
