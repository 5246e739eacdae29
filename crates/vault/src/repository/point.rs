//! A restore point for reading: its files, where their bytes are, and the bytes themselves.

mod batch;
mod children;
mod needs;
mod walk;

use std::ops::Range;
use std::sync::Arc;

use holdfast_core::Digest;
use holdfast_store::object::{BlockCache, ObjectKey};
use holdfast_wire::pg::basebackup::relative_path;
use serde::{Deserialize, Serialize};

use super::bundle::{FrameOpener, Frames, FramesSize, Stated};
use super::format::{Format, Kind, damaged};
use super::manifest::Manifest;
use super::map::{Map, key};
use super::reader::AnyManifest;
use super::shelf::Shelf;
use super::types::{Extent, FileRecord, RecordKind};
use super::v1::Contents;
use super::{PointSummary, RepositoryError, layout};
use crate::limits;

pub(crate) use batch::{Loaded, Located};
pub(crate) use walk::Part;

/// A restore point whose manifest was read and verified; everything below is verified as it is read.
///
/// Cheap to clone, and usable from several threads.
#[derive(Clone)]
pub struct Point {
    shelf: Arc<Shelf>,
    summary: Arc<PointSummary>,
    manifest: ObjectKey,
    has: Arc<Has>,
}

enum Has {
    V1(Contents),
    V2(Map, Box<Manifest>),
}

/// What a block map says of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BundleRecord {
    /// The last part of the folder of the point that wrote it.
    pub(crate) folder: String,
    /// From 1, in that folder.
    pub(crate) number: u32,
    pub(crate) bytes: u64,
    pub(crate) frames: u32,
    pub(crate) raw_bytes: u64,
    /// What a full frame of it holds.
    pub(crate) frame_bytes: u32,
    pub(crate) index_sha256: Digest,
    /// Bytes of files that the restore point has in it.
    pub(crate) live: u64,
}

impl Point {
    pub(super) fn open(
        shelf: Arc<Shelf>,
        manifest: ObjectKey,
        read: AnyManifest,
    ) -> Result<Self, RepositoryError> {
        let (summary, has) = match read {
            AnyManifest::V1(read) => (read.summary(), Has::V1(read.contents(&shelf)?)),
            AnyManifest::V2(read) => {
                let maps = read.maps.clone();
                let root = read.root.map(Into::into);
                let map = Map::new(Arc::clone(&shelf), read.source.clone(), maps, root);
                (read.summary(), Has::V2(map, read))
            }
        };
        Ok(Self {
            shelf,
            summary: Arc::new(summary),
            manifest,
            has: Arc::new(has),
        })
    }

    /// Returns the restore point in few words.
    pub fn summary(&self) -> &PointSummary {
        &self.summary
    }

    /// Returns the map and the manifest; a base of format 1 has none.
    pub(crate) fn tree(&self) -> Option<(&Map, &Manifest)> {
        match self.has.as_ref() {
            Has::V1(_) => None,
            Has::V2(map, manifest) => Some((map, manifest)),
        }
    }

    /// Returns what is said of a path, or `None` when the point does not have it.
    ///
    /// # Errors
    /// When the block map cannot be read or is damaged.
    pub fn file(&self, path: &str) -> Result<Option<FileRecord>, RepositoryError> {
        match self.has.as_ref() {
            Has::V1(contents) => Ok(contents.files.get(path).map(|(record, _)| record.clone())),
            Has::V2(map, _) => match map.get(&key::file(path))? {
                Some(value) => self.read_record(&value).map(Some),
                None => Ok(None),
            },
        }
    }

    /// Returns everything that the point has, in order of the paths' bytes.
    pub fn files(
        &self,
    ) -> impl Iterator<Item = Result<(String, FileRecord), RepositoryError>> + Send + use<> {
        walk::files(self)
    }

    /// Returns everything that the point has with where its bytes are, in order of the paths' bytes.
    pub(crate) fn walk(&self) -> Box<dyn Iterator<Item = Result<Part, RepositoryError>> + Send> {
        walk::walk(self)
    }

    /// Returns the extents of a file that have a byte in `range`, in order.
    ///
    /// # Errors
    /// When the block map cannot be read or is damaged.
    pub fn extents(&self, path: &str, range: Range<u64>) -> Result<Vec<Extent>, RepositoryError> {
        match self.has.as_ref() {
            Has::V1(contents) => {
                let all = contents.files.get(path).map(|(_, extents)| extents);
                let all = all.map(Vec::as_slice).unwrap_or_default();
                let meets = |extent: &&Extent| {
                    extent.offset < range.end
                        && range.start < extent.offset.saturating_add(extent.length)
                };
                Ok(all.iter().filter(meets).copied().collect())
            }
            Has::V2(map, _) => {
                extents(map, path, &range)?.ok_or_else(|| self.unreadable("an extent"))
            }
        }
    }

    /// Returns `length` bytes of a file from `offset` on; fewer when the file ends before.
    ///
    /// # Errors
    /// [`RepositoryError::NoFile`]; when an object cannot be read or is damaged.
    pub fn read_at(
        &self,
        path: &str,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, RepositoryError> {
        let record = self
            .file(path)?
            .filter(|record| record.kind == RecordKind::File)
            .ok_or_else(|| RepositoryError::NoFile {
                point: self.summary.point.clone(),
                path: path.to_owned(),
            })?;
        let end = offset
            .saturating_add(u64::try_from(length).unwrap_or(u64::MAX))
            .min(record.size);
        let bytes = usize::try_from(end.saturating_sub(offset)).unwrap_or(0);
        let mut out = vec![0; bytes];
        for extent in self.extents(path, offset..end)? {
            let from = extent.offset.max(offset);
            let to = extent.offset.saturating_add(extent.length).min(end);
            let within = |at: u64| usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX);
            let into = out
                .get_mut(within(from)..within(to))
                .ok_or_else(|| self.unreadable("an extent"))?;
            self.copy(&extent, from.saturating_sub(extent.offset), into)?;
        }
        Ok(out)
    }

    /// Fills `out` from the extent's byte `skip` on.
    fn copy(&self, extent: &Extent, skip: u64, out: &mut [u8]) -> Result<(), RepositoryError> {
        let frames = self.frames(extent.place.bundle)?;
        let full = u64::from(frames.frame_bytes.max(1));
        let mut at = u64::from(extent.place.within).saturating_add(skip);
        let mut rest = out;
        while !rest.is_empty() {
            let number = u64::from(extent.place.frame).saturating_add(at / full);
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let raw = self.frame(&frames, number)?;
            let begin = usize::try_from(at % full).unwrap_or(usize::MAX);
            let here = raw.get(begin..).unwrap_or_default();
            let count = here.len().min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            if now.is_empty() {
                return Err(frames.too_short());
            }
            now.copy_from_slice(here.get(..count).unwrap_or_default());
            at = at.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            rest = later;
        }
        Ok(())
    }

    /// Returns one decompressed frame.
    pub(crate) fn frame(
        &self,
        frames: &Frames,
        number: u32,
    ) -> Result<Arc<Vec<u8>>, RepositoryError> {
        let key = (frames.key.clone(), number);
        if let Some(raw) = self.shelf.raw.get(&key) {
            return Ok(raw);
        }
        let stored = self.shelf.stored(frames, (number, number))?;
        let mut opener = FrameOpener::new()?;
        let raw = opener.open(&frames.key, frames.record(number)?, &stored)?;
        let raw = Arc::new(raw.to_vec());
        self.shelf.raw.insert(key, Arc::clone(&raw), raw.len());
        Ok(raw)
    }

    /// Opens a bundle by its serial number.
    pub(crate) fn frames(&self, bundle: u32) -> Result<Arc<Frames>, RepositoryError> {
        let stated = match self.has.as_ref() {
            Has::V1(contents) => contents.bundles.get(&bundle).cloned(),
            Has::V2(..) => self
                .bundle(bundle)?
                .map(|record| self.stated(&record))
                .transpose()?,
        };
        let stated = stated.ok_or_else(|| self.unreadable("a bundle"))?;
        self.shelf.frames(&stated)
    }

    /// Opens the cache that is named for what is read from this repository, if one is and it can be used.
    pub(crate) fn open_near(&self) -> Option<Arc<BlockCache>> {
        let opened = self.shelf.store.open_near();
        let opened = opened.inspect_err(|error| {
            tracing::info!(%error, "the block cache cannot be used");
        });
        opened.ok().flatten().map(Arc::new)
    }

    /// Keeps sealed parts of what is read in a cache on this machine's disk, where the repository is
    /// not on it itself.
    pub(crate) fn keep_near(&self, cache: &Arc<BlockCache>) {
        self.shelf.store.keep_near(cache);
    }

    /// Returns the stored bytes of the frames from the first to the last of a bundle.
    pub(crate) fn stored(
        &self,
        frames: &Frames,
        range: (u32, u32),
    ) -> Result<Vec<u8>, RepositoryError> {
        self.shelf.stored(frames, range)
    }

    /// Returns what the block map says of a bundle; nothing in format 1.
    pub(crate) fn bundle(&self, serial: u32) -> Result<Option<BundleRecord>, RepositoryError> {
        let Has::V2(map, _) = self.has.as_ref() else {
            return Ok(None);
        };
        let Some(value) = map.get(&key::bundle(serial))? else {
            return Ok(None);
        };
        self.read_bundle(&value).map(Some)
    }

    fn read_bundle(&self, value: &[u8]) -> Result<BundleRecord, RepositoryError> {
        serde_json::from_slice(value).map_err(|_| self.unreadable("a bundle"))
    }

    fn stated(&self, record: &BundleRecord) -> Result<Stated, RepositoryError> {
        let (source, folder) = (&self.summary.source, &record.folder);
        Ok(Stated {
            key: layout::bundle(Format::V2, source, folder, record.number)?,
            format: Format::V2,
            kind: Kind::Bundle,
            letters: layout::letters(folder).to_owned(),
            number: record.number,
            size: FramesSize {
                bytes: record.bytes,
                frames: record.frames,
                raw_bytes: record.raw_bytes,
                index_sha256: record.index_sha256,
            },
            frame_bytes: record.frame_bytes.min(limits::FRAME_BYTES_MAX),
        })
    }

    /// Reads a file's record.
    fn read_record(&self, value: &[u8]) -> Result<FileRecord, RepositoryError> {
        serde_json::from_slice(value).map_err(|_| self.unreadable("a file"))
    }

    /// Checks that a path stays inside.
    fn check_path(&self, path: &str) -> Result<(), RepositoryError> {
        let clean = relative_path(path.as_bytes());
        if clean.as_deref() == Ok(path) && !path.is_empty() {
            Ok(())
        } else {
            Err(damaged(
                &self.manifest,
                "its block map names a path that is refused",
            ))
        }
    }

    fn unreadable(&self, what: &str) -> RepositoryError {
        let text = format!("what its block map says of {what} is not readable");
        damaged(&self.manifest, &text)
    }
}

/// Returns the extents of a file in a map that meet `range`; `None` when one is not readable.
pub(crate) fn extents(
    map: &Map,
    path: &str,
    range: &Range<u64>,
) -> Result<Option<Vec<Extent>>, RepositoryError> {
    let file = key::file(path);
    let mut found = Vec::new();
    if range.is_empty() {
        return Ok(Some(found));
    }
    let begin = key::extent(path, range.start);
    let mut first = map.floor(&begin)?;
    let mut scan = map.near(&begin);
    loop {
        let entry = match first.take() {
            // The one at the very beginning comes again with the scan.
            Some((key, _)) if key == begin => continue,
            Some(entry) => Some(entry),
            None => scan.next().transpose()?,
        };
        let Some((key, value)) = entry else { break };
        let Some(offset) = key::offset_in(&file, &key) else {
            // What comes before is of another file, what comes later as well.
            if key < begin {
                continue;
            }
            break;
        };
        if offset >= range.end {
            break;
        }
        let Some(extent) = key::read_extent(offset, &value) else {
            return Ok(None);
        };
        if extent.offset.saturating_add(extent.length) > range.start {
            found.push(extent);
        }
    }
    Ok(Some(found))
}
