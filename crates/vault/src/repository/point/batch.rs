//! Reading many frames of a bundle at once, and putting them where they belong.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use super::Point;
use crate::repository::bundle::{FrameOpener, Frames};
use crate::repository::{Extent, RepositoryError};

/// Where a run of a file's bytes is: in frames of one bundle, or nowhere when they are zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    /// The bundle and the frames of it.
    pub(crate) frames: Option<(u32, RangeInclusive<u32>)>,
    extents: Vec<Extent>,
}

/// Frames that were read at once.
pub(crate) struct Loaded {
    frames: Arc<Frames>,
    raw: BTreeMap<u32, Vec<u8>>,
}

impl Point {
    /// Tells where a range of a file is; `None` when it is in several bundles.
    ///
    /// # Errors
    /// When the block map cannot be read or is damaged.
    pub(crate) fn locate(
        &self,
        path: &str,
        range: &Range<u64>,
    ) -> Result<Option<Located>, RepositoryError> {
        let extents = self.extents(path, range.clone())?;
        let mut found: Option<(u32, RangeInclusive<u32>)> = None;
        for extent in &extents {
            let bundle = extent.place.bundle;
            let full = u64::from(self.frames(bundle)?.frame_bytes.max(1));
            let end = extent.offset.saturating_add(extent.length).min(range.end);
            let skip = range.start.saturating_sub(extent.offset);
            let last = end.saturating_sub(extent.offset).saturating_sub(1);
            let frame = |skip: u64| {
                let within = u64::from(extent.place.within).saturating_add(skip);
                let number = u64::from(extent.place.frame).saturating_add(within / full);
                u32::try_from(number).unwrap_or(u32::MAX)
            };
            let (mut first, mut last) = (frame(skip), frame(last));
            if let Some((other, frames)) = &found {
                if *other != bundle {
                    return Ok(None);
                }
                first = first.min(*frames.start());
                last = last.max(*frames.end());
            }
            found = Some((bundle, first..=last));
        }
        Ok(Some(Located {
            frames: found,
            extents,
        }))
    }

    /// Reads the frames of a bundle from the first to the last with one request, and opens those that
    /// are wanted.
    ///
    /// # Errors
    /// When the bundle cannot be read or is damaged.
    pub(crate) fn load(
        &self,
        bundle: u32,
        wanted: &BTreeSet<u32>,
    ) -> Result<Loaded, RepositoryError> {
        let frames = self.frames(bundle)?;
        let mut raw = BTreeMap::new();
        if let (Some(first), Some(last)) = (wanted.first(), wanted.last()) {
            let stored = self.stored(&frames, (*first, *last))?;
            let begin = frames.record(*first)?.offset;
            let mut opener = FrameOpener::new()?;
            for number in wanted {
                let record = frames.record(*number)?;
                let at = |position: u64| {
                    usize::try_from(position.saturating_sub(begin)).unwrap_or(usize::MAX)
                };
                let end = record.offset.saturating_add(u64::from(record.stored_bytes));
                let bytes = stored.get(at(record.offset)..at(end)).unwrap_or_default();
                raw.insert(*number, opener.open(&frames.key, record, bytes)?.to_vec());
            }
        }
        Ok(Loaded { frames, raw })
    }

    /// Fills `out` with the bytes of a file from `offset` on, which were located and loaded; what no
    /// extent covers is zeros.
    ///
    /// # Errors
    /// When a frame is shorter than the block map says, or was not loaded.
    pub(crate) fn fill_from(
        &self,
        loaded: Option<&Loaded>,
        located: &Located,
        (offset, out): (u64, &mut [u8]),
    ) -> Result<(), RepositoryError> {
        out.fill(0);
        let end = offset.saturating_add(u64::try_from(out.len()).unwrap_or(u64::MAX));
        for extent in &located.extents {
            let loaded = loaded.ok_or_else(|| self.unreadable("an extent"))?;
            let from = extent.offset.max(offset);
            let to = extent.offset.saturating_add(extent.length).min(end);
            let within = |at: u64| usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX);
            let into = out
                .get_mut(within(from)..within(to))
                .ok_or_else(|| self.unreadable("an extent"))?;
            loaded.copy(extent, from.saturating_sub(extent.offset), into)?;
        }
        Ok(())
    }
}

impl Loaded {
    /// Fills `out` from the extent's byte `skip` on.
    fn copy(&self, extent: &Extent, skip: u64, out: &mut [u8]) -> Result<(), RepositoryError> {
        let full = u64::from(self.frames.frame_bytes.max(1));
        let mut at = u64::from(extent.place.within).saturating_add(skip);
        let mut rest = out;
        while !rest.is_empty() {
            let number = u64::from(extent.place.frame).saturating_add(at / full);
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let begin = usize::try_from(at % full).unwrap_or(usize::MAX);
            let raw = self.raw.get(&number).and_then(|raw| raw.get(begin..));
            let here = raw.unwrap_or_default();
            let count = here.len().min(rest.len());
            if count == 0 {
                return Err(self.frames.too_short());
            }
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(here.get(..count).unwrap_or_default());
            at = at.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            rest = later;
        }
        Ok(())
    }
}
