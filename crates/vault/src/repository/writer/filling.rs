//! Filling frames with the bytes of files, and telling where each run of bytes has come to lie.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::super::bundle::FramesSize;
use super::super::format::length;
use super::super::pack::{Cut, Packer, Target};
use super::super::types::{Extent, FramePlace};
use crate::limits;
use crate::repository::RepositoryError;

/// The frame that is being filled, and the runs whose bundle is not known yet.
pub(super) struct Filling {
    packer: Packer,
    /// The serial number of this point's first bundle.
    first_serial: u32,
    bundles: u32,
    frame: Vec<u8>,
    /// Runs in the frame that is being filled.
    placed: Vec<Run>,
    /// Runs in frames that are on their way.
    waiting: VecDeque<Run>,
}

/// A run of a file's bytes in consecutive frames, all but the last of them full.
struct Run {
    path: Arc<str>,
    offset: u64,
    length: u64,
    /// The first frame, among all frames of the point.
    frame: u64,
    within: u64,
}

impl Filling {
    pub(super) fn start(target: Target, first_serial: u32) -> Result<Self, RepositoryError> {
        Ok(Self {
            packer: Packer::start(target)?,
            first_serial,
            bundles: 0,
            frame: Vec::with_capacity(limits::FRAME_BYTES),
            placed: Vec::new(),
            waiting: VecDeque::new(),
        })
    }

    /// Prepares for a file of this size.
    ///
    /// One that does not fit into what is left of a frame begins a frame of its own, so that the
    /// pages of a table never straddle two frames.
    pub(super) fn align(&mut self, size: u64) -> Result<(), RepositoryError> {
        let room = limits::FRAME_BYTES.saturating_sub(self.frame.len());
        if usize::try_from(size).map_or(true, |size| size > room) {
            self.flush()?;
        }
        Ok(())
    }

    /// Prepares for a part of a file: a part that begins with a page begins where a page can.
    pub(super) fn align_part(&mut self, offset: u64) -> Result<(), RepositoryError> {
        let is_page = offset.is_multiple_of(limits::PAGE_BYTES);
        if is_page && !length(&self.frame).is_multiple_of(limits::PAGE_BYTES) {
            self.flush()?;
        }
        Ok(())
    }

    /// Takes bytes of a file.
    pub(super) fn append(
        &mut self,
        path: &Arc<str>,
        mut offset: u64,
        bytes: &[u8],
    ) -> Result<(), RepositoryError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = limits::FRAME_BYTES.saturating_sub(self.frame.len());
            let (now, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            self.place(path, offset, length(now));
            self.frame.extend_from_slice(now);
            offset = offset.saturating_add(length(now));
            rest = later;
            if self.frame.len() >= limits::FRAME_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn place(&mut self, path: &Arc<str>, offset: u64, bytes: u64) {
        match self.placed.last_mut() {
            Some(last) if last.is_followed_by(path, offset) => {
                last.length = last.length.saturating_add(bytes);
            }
            _ => self.placed.push(Run {
                path: Arc::clone(path),
                offset,
                length: bytes,
                frame: 0,
                within: length(&self.frame),
            }),
        }
    }

    /// Sends the frame on its way; one of zeros alone is left out, for what is nowhere reads as zeros.
    fn flush(&mut self) -> Result<(), RepositoryError> {
        if self.frame.iter().all(|byte| *byte == 0) {
            self.frame.clear();
            self.placed.clear();
            return Ok(());
        }
        let frame = std::mem::replace(&mut self.frame, Vec::with_capacity(limits::FRAME_BYTES));
        let number = self.packer.frame(frame)?;
        for run in self.placed.drain(..) {
            let run = Run {
                frame: number,
                ..run
            };
            let continues = self.waiting.back().is_some_and(|last| {
                last.is_followed_by(&run.path, run.offset)
                    && run.within == 0
                    && last.end_frame() == Some(number)
            });
            match self.waiting.back_mut().filter(|_| continues) {
                Some(last) => last.length = last.length.saturating_add(run.length),
                None => self.waiting.push_back(run),
            }
        }
        Ok(())
    }

    /// Returns the extents whose bundles are settled since the last call.
    pub(super) fn settled(&mut self) -> Vec<(Arc<str>, Extent)> {
        let mut settled = Vec::new();
        for cut in self.packer.cuts() {
            self.bundles = self.bundles.max(cut.number);
            let bundle = self.serial(cut.number);
            let end = cut.first.saturating_add(u64::from(cut.frames));
            while let Some(run) = self.waiting.front_mut().filter(|run| run.frame < end) {
                settled.push((Arc::clone(&run.path), run.take(&cut, bundle)));
                if run.length == 0 {
                    self.waiting.pop_front();
                }
            }
        }
        settled
    }

    /// Completes all bundles and returns how large each is, by number.
    pub(super) fn finish(&mut self) -> Result<BTreeMap<u32, FramesSize>, RepositoryError> {
        self.flush()?;
        self.packer.finish()
    }

    /// Returns the serial number of this point's bundle with this number.
    pub(super) fn serial(&self, number: u32) -> u32 {
        self.first_serial.saturating_add(number).saturating_sub(1)
    }

    /// Returns the serial number that the next bundle of the line will have.
    pub(super) fn next_serial(&self) -> u32 {
        self.first_serial.saturating_add(self.bundles)
    }
}

impl Run {
    fn is_followed_by(&self, path: &Arc<str>, offset: u64) -> bool {
        Arc::ptr_eq(&self.path, path) && self.offset.saturating_add(self.length) == offset
    }

    /// Returns the frame after it when it fills its last one.
    fn end_frame(&self) -> Option<u64> {
        let covered = self.within.saturating_add(self.length);
        covered
            .is_multiple_of(FULL)
            .then(|| self.frame.saturating_add(covered / FULL))
    }

    /// Takes what lies in one bundle off the front.
    fn take(&mut self, cut: &Cut, bundle: u32) -> Extent {
        let end = cut.first.saturating_add(u64::from(cut.frames));
        let room = end
            .saturating_sub(self.frame)
            .saturating_mul(FULL)
            .saturating_sub(self.within);
        let length = self.length.min(room);
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let extent = Extent {
            offset: self.offset,
            length,
            place: FramePlace {
                bundle,
                frame: small(self.frame.saturating_sub(cut.first)),
                within: small(self.within),
            },
        };
        self.offset = self.offset.saturating_add(length);
        self.length = self.length.saturating_sub(length);
        self.frame = end;
        self.within = 0;
        extent
    }
}

/// What a full frame holds.
const FULL: u64 = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_has_one_size() {
        assert_eq!(u64::try_from(limits::FRAME_BYTES).unwrap(), FULL);
        assert_eq!(u64::from(limits::FRAME_BYTES_U32), FULL);
    }
}
