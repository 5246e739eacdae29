//! The bytes of a restore point's files in their order, for what is written from front to end.

use std::io::{self, Write};
use std::sync::Arc;

use super::RestoreError;
use crate::limits;
use crate::repository::bundle::{FrameOpener, Frames};
use crate::repository::point::Part;
use crate::repository::{Extent, Point};

/// Copies files of a restore point, one after the other.
pub(super) struct Content<'a> {
    point: &'a Point,
    opener: FrameOpener,
    /// The size of the open file, and up to where it is copied.
    open: Option<(u64, u64)>,
}

/// Where bytes go; says on what it failed.
pub(super) struct Out<'a> {
    writer: &'a mut dyn Write,
    failed: &'a dyn Fn(io::Error) -> RestoreError,
    /// Is told of what was written.
    each: &'a dyn Fn(u64),
    pub(super) written: u64,
}

impl<'a> Out<'a> {
    pub(super) fn new(
        writer: &'a mut dyn Write,
        failed: &'a dyn Fn(io::Error) -> RestoreError,
        each: &'a dyn Fn(u64),
    ) -> Self {
        Self {
            writer,
            failed,
            each,
            written: 0,
        }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let written = self.writer.write_all(bytes);
        written.map_err(self.failed)?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.written = self.written.saturating_add(length);
        (self.each)(length);
        Ok(())
    }

    pub(super) fn zeros(&mut self, mut count: u64) -> Result<(), RestoreError> {
        while count > 0 {
            let length = usize::try_from(count).unwrap_or(usize::MAX);
            let zeros = ZEROS.get(..length.min(ZEROS.len())).unwrap_or(&ZEROS);
            self.put(zeros)?;
            count = count.saturating_sub(u64::try_from(zeros.len()).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    pub(super) fn end(&mut self) -> Result<(), RestoreError> {
        self.writer.flush().map_err(self.failed)
    }
}

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

impl<'a> Content<'a> {
    pub(super) fn new(point: &'a Point) -> Result<Self, RestoreError> {
        Ok(Self {
            point,
            opener: FrameOpener::new()?,
            open: None,
        })
    }

    /// Begins a file; the one before must have ended.
    pub(super) fn begin(&mut self, size: u64) {
        self.open = Some((size, 0));
    }

    /// Copies what a part of the open file has.
    pub(super) fn part(&mut self, part: &Part, out: &mut Out<'_>) -> Result<(), RestoreError> {
        for extent in &part.extents {
            let Some((size, at)) = self.open else {
                return Ok(());
            };
            out.zeros(extent.offset.saturating_sub(at))?;
            self.extent(extent, out)?;
            self.open = Some((size, extent.offset.saturating_add(extent.length)));
        }
        Ok(())
    }

    /// Ends the open file, and returns its size.
    pub(super) fn end(&mut self, out: &mut Out<'_>) -> Result<Option<u64>, RestoreError> {
        let Some((size, at)) = self.open.take() else {
            return Ok(None);
        };
        out.zeros(size.saturating_sub(at))?;
        Ok(Some(size))
    }

    fn extent(&mut self, extent: &Extent, out: &mut Out<'_>) -> Result<(), RestoreError> {
        let frames = self.point.frames(extent.place.bundle)?;
        let mut within = extent.place.within;
        let mut first = extent.place.frame;
        let mut rest = extent.length;
        while rest > 0 {
            let mut last = first;
            let mut covered = u64::from(frames.record(first)?.raw_bytes.saturating_sub(within));
            let most = first.saturating_add(limits::FRAMES_PER_READ.saturating_sub(1));
            while covered < rest && last < most {
                last = last.saturating_add(1);
                covered = covered.saturating_add(u64::from(frames.record(last)?.raw_bytes));
            }
            let wanted = rest.min(covered);
            if wanted == 0 {
                return Err(frames.too_short().into());
            }
            self.run((&frames, first, last), (within, wanted), out)?;
            rest = rest.saturating_sub(wanted);
            first = last.saturating_add(1);
            within = 0;
        }
        Ok(())
    }

    /// Copies `length` bytes from the position `within` of the first frame on.
    fn run(
        &mut self,
        (frames, first, last): (&Arc<Frames>, u32, u32),
        (within, length): (u32, u64),
        out: &mut Out<'_>,
    ) -> Result<(), RestoreError> {
        let size = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let mut skip = size(u64::from(within));
        let mut rest = length;
        let mut copy = |raw: &[u8]| -> Result<(), RestoreError> {
            let here = raw.get(skip..).unwrap_or_default();
            let here = here.get(..size(rest).min(here.len())).unwrap_or_default();
            skip = 0;
            rest = rest.saturating_sub(u64::try_from(here.len()).unwrap_or(u64::MAX));
            out.put(here)
        };
        if last.saturating_sub(first) < FRAMES_REMEMBERED {
            // Small files, and pages that lie apart, share frames.
            for number in first..=last {
                copy(&self.point.frame(frames, number)?)?;
            }
            return Ok(());
        }
        let stored = self.point.stored(frames, (first, last))?;
        let begin = frames.record(first)?.offset;
        for number in first..=last {
            let record = frames.record(number)?;
            let from = size(record.offset.saturating_sub(begin));
            let to = from.saturating_add(size(u64::from(record.stored_bytes)));
            let bytes = stored.get(from..to).unwrap_or_default();
            copy(self.opener.open(&frames.key, record, bytes)?)?;
        }
        Ok(())
    }
}

/// Runs of less frames are read one by one and remembered.
const FRAMES_REMEMBERED: u32 = 3;
