//! The lower layer: a restore point, looked into as it is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use holdfast_core::{ByteCount, ErrorChain};

use super::presence::BLOCK_BYTES;
use crate::repository::point::{Loaded, Located};
use crate::repository::{FileRecord, Point, RecordKind, RepositoryError};
use crate::restore::is_left_out;

/// A restore point of a cluster as a clone sees it.
pub(super) struct Lower {
    point: Point,
    made: SystemTime,
}

/// What the restore point has under a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LowerKind {
    Folder,
    File { size: u64 },
}

/// A run of whole blocks of a file, as the restore point has them.
pub(super) struct Window {
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
}

impl Lower {
    pub(super) fn new(point: Point) -> Self {
        let micros = u64::try_from(point.summary().at.0).unwrap_or(0);
        let made = SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(micros));
        Self {
            point,
            made: made.unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    /// Bytes of all its files.
    pub(super) fn bytes(&self) -> ByteCount {
        self.point.summary().bytes
    }

    /// When everything that was never touched counts as changed.
    pub(super) fn made(&self) -> SystemTime {
        self.made
    }

    /// Returns everything that is shown, in order of the paths' bytes.
    pub(super) fn all(
        &self,
    ) -> impl Iterator<Item = io::Result<(String, LowerKind)>> + Send + use<> {
        self.point.files().filter_map(|found| match found {
            Err(error) => Some(Err(unreadable(error))),
            Ok((path, record)) => {
                let kind = kind_of(&record).filter(|_| !is_left_out(&path))?;
                Some(Ok((path, kind)))
            }
        })
    }

    /// Looks a path up. Links of the source are not followed, and not shown.
    pub(super) fn entry(&self, path: &str) -> io::Result<Option<LowerKind>> {
        if is_left_out(path) {
            return Ok(None);
        }
        match self.point.file(path).map_err(unreadable)? {
            Some(record) => self.shown(path, &record),
            None => self.folder(path),
        }
    }

    /// Returns as what a record is shown: the link of a tablespace is the folder of what it holds.
    fn shown(&self, path: &str, record: &FileRecord) -> io::Result<Option<LowerKind>> {
        match kind_of(record) {
            None => self.folder(path),
            kind => Ok(kind),
        }
    }

    fn folder(&self, path: &str) -> io::Result<Option<LowerKind>> {
        let below = self.point.has_below(path).map_err(unreadable)?;
        Ok(below.then_some(LowerKind::Folder))
    }

    /// Returns what lies in a folder.
    pub(super) fn children(&self, folder: &str) -> io::Result<BTreeMap<String, LowerKind>> {
        let found = self.point.children(folder).map_err(unreadable)?;
        let mut shown = BTreeMap::new();
        for (name, record) in found {
            let path = join(folder, &name);
            let kind = match &record {
                _ if is_left_out(&path) => None,
                Some(record) => self.shown(&path, record)?,
                None => Some(LowerKind::Folder),
            };
            shown.extend(kind.map(|kind| (name, kind)));
        }
        Ok(shown)
    }

    /// Returns the whole blocks that are cheapest to read together with `block`, of a file that shows
    /// `visible` bytes of the restore point.
    pub(super) fn window(&self, path: &str, block: u64, visible: u64) -> io::Result<Range<u64>> {
        let start = block.saturating_mul(BLOCK_BYTES);
        let wanted = start..start.saturating_add(BLOCK_BYTES).min(visible);
        let near = self
            .point
            .neighbourhood(path, wanted.clone())
            .map_err(unreadable)?;
        let from = near.start.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
        let to = match near.end >= visible {
            true => visible,
            false => near.end / BLOCK_BYTES * BLOCK_BYTES,
        };
        Ok(match from <= wanted.start && wanted.end <= to {
            true => from..to,
            false => wanted,
        })
    }

    /// Reads a window.
    pub(super) fn read(&self, path: &str, range: &Range<u64>) -> io::Result<Window> {
        let length = range.end.saturating_sub(range.start);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.point
            .fill(path, range.start, &mut bytes)
            .map_err(unreadable)?;
        Ok(Window {
            start: range.start,
            bytes,
        })
    }
}

/// Many windows at once.
impl Lower {
    /// Tells where a window is; `None` when it is in several bundles.
    pub(super) fn locate(&self, path: &str, range: &Range<u64>) -> io::Result<Option<Located>> {
        self.point.locate(path, range).map_err(unreadable)
    }

    /// Reads frames of a bundle with one request.
    pub(super) fn load(&self, bundle: u32, frames: &BTreeSet<u32>) -> io::Result<Loaded> {
        self.point.load(bundle, frames).map_err(unreadable)
    }

    /// Takes a window out of what was read.
    pub(super) fn fill(
        &self,
        loaded: Option<&Loaded>,
        place: &Located,
        range: &Range<u64>,
    ) -> io::Result<Window> {
        let length = range.end.saturating_sub(range.start);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.point
            .fill_from(loaded, place, (range.start, &mut bytes))
            .map_err(unreadable)?;
        Ok(Window {
            start: range.start,
            bytes,
        })
    }
}

fn kind_of(record: &FileRecord) -> Option<LowerKind> {
    match record.kind {
        RecordKind::Directory => Some(LowerKind::Folder),
        RecordKind::File => Some(LowerKind::File { size: record.size }),
        RecordKind::Hardlink | RecordKind::Symlink => None,
    }
}

/// Puts a name below a folder; the empty path is the top.
pub(super) fn join(folder: &str, name: &str) -> String {
    match folder {
        "" => name.to_owned(),
        folder => format!("{folder}/{name}"),
    }
}

/// What cannot be read is an error, never zeros.
fn unreadable(error: RepositoryError) -> io::Error {
    tracing::error!(error = %ErrorChain(&error), "a mounted restore point cannot be read");
    io::Error::other(error)
}
