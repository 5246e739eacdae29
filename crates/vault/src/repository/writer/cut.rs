//! Cutting what is overwritten out of the parent's extents of one file.

use std::ops::Range;
use std::sync::Arc;

use super::super::map::key;
use super::super::types::Extent;
use super::changes::Changes;
use super::misuse;
use crate::repository::RepositoryError;

/// Goes once over a file, from front to back.
pub(super) struct Cutter {
    path: Arc<str>,
    /// What is left of the extent that was cut last: another cut may take more of it.
    rest: Option<Extent>,
    /// The parent's extents that begin before this are dealt with.
    done: u64,
}

impl Cutter {
    pub(super) fn new(path: Arc<str>) -> Self {
        Self {
            path,
            rest: None,
            done: 0,
        }
    }

    /// Cuts a range out; ranges ascend.
    pub(super) fn cut(
        &mut self,
        changes: &mut Changes,
        range: Range<u64>,
    ) -> Result<(), RepositoryError> {
        if range.is_empty() {
            return Ok(());
        }
        if let Some(rest) = self.rest.take() {
            if rest.offset >= range.end {
                self.rest = Some(rest);
                return Ok(());
            }
            if end(&rest) <= range.start {
                changes.keep_extent(&self.path, &rest);
            } else {
                self.split(changes, &rest, &range)?;
            }
        }
        let from = range.start;
        for extent in changes.extents_before(&self.path, from..range.end)? {
            if extent.offset >= self.done {
                changes.drop_extent(&self.path, &extent);
                self.split(changes, &extent, &range)?;
                self.done = extent.offset.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Drops what lies behind the file's new size and keeps what is left.
    pub(super) fn finish(
        mut self,
        changes: &mut Changes,
        size: u64,
    ) -> Result<(), RepositoryError> {
        self.cut(changes, size..u64::MAX)?;
        if let Some(rest) = self.rest.take() {
            changes.keep_extent(&self.path, &rest);
        }
        Ok(())
    }

    /// Keeps what an extent has before the range, drops what lies in it, remembers what comes after.
    fn split(
        &mut self,
        changes: &mut Changes,
        extent: &Extent,
        range: &Range<u64>,
    ) -> Result<(), RepositoryError> {
        let frame_bytes = changes.frame_bytes(extent.place.bundle)?;
        let part = |from: u64, to: u64| {
            key::part(extent, &(from..to), frame_bytes)
                .ok_or_else(|| misuse("an extent of the parent's cannot be cut"))
        };
        if extent.offset < range.start {
            let before = part(extent.offset, range.start)?;
            changes.keep_extent(&self.path, &before);
        }
        let (from, to) = (extent.offset.max(range.start), end(extent).min(range.end));
        changes.release(extent.place.bundle, to.saturating_sub(from));
        if end(extent) > range.end {
            self.rest = Some(part(range.end, end(extent))?);
        }
        Ok(())
    }
}

fn end(extent: &Extent) -> u64 {
    extent.offset.saturating_add(extent.length)
}
