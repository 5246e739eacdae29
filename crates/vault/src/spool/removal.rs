//! Removing segments from the spool that the repository has: planned first, then performed.

use std::fs::{self, File};
use std::io;

use holdfast_core::Lsn;

use super::{Segment, SegmentBytes, Spool, SpoolError, sync_folder};

/// Which segments of the spool may go. Nothing of the repository is ever among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    pub(crate) segments: Vec<Segment>,
}

/// Cuts off the zeros at a file's end that were made as room for log; nothing that was received.
pub(super) fn give_back_room(file: &File, received: u64) -> io::Result<()> {
    file.set_len(received)
}

impl Spool {
    /// Lists the segments of `timeline` that end at or before `shipped`, which the repository has
    /// confirmed as whole segments. The newest segment of the spool always stays.
    pub(crate) fn plan_removal(
        &self,
        timeline: u32,
        shipped: Lsn,
        size: SegmentBytes,
    ) -> Result<Removal, SpoolError> {
        let stored = self.stored(size)?;
        let newest = stored.last().map(|stored| stored.segment);
        let segments = stored
            .iter()
            .filter(|stored| stored.bytes == size.get())
            .map(|stored| stored.segment)
            .filter(|segment| segment.timeline == timeline)
            .filter(|segment| segment.end(size) <= shipped && Some(*segment) != newest)
            .collect();
        Ok(Removal { segments })
    }

    /// Gives back the room that a writer which was killed had made in a segment behind `end`.
    pub(crate) fn trim(
        &self,
        segment: Segment,
        size: SegmentBytes,
        end: Lsn,
    ) -> Result<(), SpoolError> {
        let path = self.path(segment, size);
        let trimmed = File::options()
            .write(true)
            .open(&path)
            .and_then(|file| give_back_room(&file, end.since(segment.start).0));
        trimmed.map_err(SpoolError::of("trim", &path))
    }

    /// Removes what the plan lists.
    pub(crate) fn perform_removal(
        &self,
        plan: &Removal,
        size: SegmentBytes,
    ) -> Result<(), SpoolError> {
        for segment in &plan.segments {
            let path = self.path(*segment, size);
            fs::remove_file(&path).map_err(SpoolError::of("remove", &path))?;
        }
        if !plan.segments.is_empty() {
            sync_folder(&self.folder)?;
        }
        Ok(())
    }
}
