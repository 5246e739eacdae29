//! Reading frames and writing what is in them to files, from several threads, each frame checked.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::RestoreError;
use super::files::{failed, thread_gone};
use crate::limits;
use crate::repository::bundle::{FrameOpener, Frames};
use crate::repository::point::Part;
use crate::repository::{Extent, Point, RepositoryError};

/// Extents that are written together, so that each frame is read once.
#[derive(Default)]
pub(super) struct Batch {
    paths: Vec<PathBuf>,
    extents: Vec<(usize, Extent)>,
    bytes: u64,
}

impl Batch {
    /// Adds what a part of a file is made of; the file is there already.
    pub(super) fn add(&mut self, path: PathBuf, part: &Part) {
        let file = self.paths.len();
        self.paths.push(path);
        for extent in &part.extents {
            self.bytes = self.bytes.saturating_add(extent.length);
            self.extents.push((file, *extent));
        }
    }

    /// Says whether it is time to write it.
    pub(super) fn is_full(&self) -> bool {
        self.extents.len() >= limits::EXTENTS_PER_BATCH
            || self.paths.len() >= limits::EXTENTS_PER_BATCH
            || self.bytes >= limits::BATCH_BYTES
    }
}

/// Bytes of one frame that belong to one file.
struct Placement {
    /// The frame's number in its bundle.
    frame: u32,
    /// Position in the decompressed frame.
    within: u32,
    length: u32,
    /// Which of the batch's files.
    file: usize,
    /// Position in the file.
    offset: u64,
}

/// Frames of one bundle that are read at once, and where their bytes go.
struct Group {
    frames: Arc<Frames>,
    /// In order of frames.
    placements: Vec<Placement>,
}

/// Writes everything of a batch.
pub(super) fn write_batch(
    point: &Point,
    batch: Batch,
    each: &(dyn Fn(u64) + Sync),
) -> Result<(), RestoreError> {
    let groups = Mutex::new(groups(point, &batch)?);
    let stopped = AtomicBool::new(false);
    let work = || -> Result<(), RestoreError> {
        let mut writer = Writer {
            point,
            paths: &batch.paths,
            opener: FrameOpener::new()?,
            open: None,
        };
        while !stopped.load(Ordering::Relaxed) {
            let group = groups.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(group) = group else { break };
            match writer.write(&group) {
                Ok(written) => each(written),
                Err(error) => {
                    stopped.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..limits::RESTORE_THREADS)
            .map(|_| scope.spawn(work))
            .collect();
        let mut ended = work();
        for thread in threads {
            let other = thread.join().map_err(|_| thread_gone())?;
            ended = ended.and(other);
        }
        ended
    })
}

/// Returns what is to be read, the last first, so that popping takes it in order.
fn groups(point: &Point, batch: &Batch) -> Result<Vec<Group>, RestoreError> {
    let mut bundles: BTreeMap<u32, Vec<&(usize, Extent)>> = BTreeMap::new();
    for placed in &batch.extents {
        bundles
            .entry(placed.1.place.bundle)
            .or_default()
            .push(placed);
    }
    let mut groups = Vec::new();
    for (bundle, extents) in bundles {
        let frames = point.frames(bundle)?;
        let mut placements = Vec::with_capacity(extents.len());
        for (file, extent) in extents {
            place(&frames, *file, extent, &mut placements)?;
        }
        placements.sort_by_key(|placement| (placement.frame, placement.within));
        let mut first = 0;
        let mut open: Vec<Placement> = Vec::new();
        for placement in placements {
            let last = open.last().map_or(placement.frame, |last| last.frame);
            if open.is_empty() {
                first = placement.frame;
            }
            let is_far = placement.frame.saturating_sub(last) > limits::FRAMES_SKIPPED
                || placement.frame.saturating_sub(first) >= limits::FRAMES_PER_READ;
            if is_far && !open.is_empty() {
                groups.push(group(&frames, std::mem::take(&mut open)));
                first = placement.frame;
            }
            open.push(placement);
        }
        if !open.is_empty() {
            groups.push(group(&frames, open));
        }
    }
    groups.reverse();
    Ok(groups)
}

fn group(frames: &Arc<Frames>, placements: Vec<Placement>) -> Group {
    Group {
        frames: Arc::clone(frames),
        placements,
    }
}

/// Cuts an extent at the ends of frames.
fn place(
    frames: &Frames,
    file: usize,
    extent: &Extent,
    out: &mut Vec<Placement>,
) -> Result<(), RepositoryError> {
    let mut frame = extent.place.frame;
    let mut within = extent.place.within;
    let mut offset = extent.offset;
    let mut rest = extent.length;
    while rest > 0 {
        let raw = frames.record(frame)?.raw_bytes;
        let here = u64::from(raw.saturating_sub(within)).min(rest);
        let Some(length) = u32::try_from(here).ok().filter(|length| *length > 0) else {
            return Err(frames.too_short());
        };
        out.push(Placement {
            frame,
            within,
            length,
            file,
            offset,
        });
        offset = offset.saturating_add(here);
        rest = rest.saturating_sub(here);
        if rest > 0 && raw != frames.frame_bytes {
            return Err(frames.too_short());
        }
        frame = frame.saturating_add(1);
        within = 0;
    }
    Ok(())
}

/// One thread's tools.
struct Writer<'a> {
    point: &'a Point,
    paths: &'a [PathBuf],
    opener: FrameOpener,
    /// The file that was written last and stays open, by its place in the list.
    open: Option<(usize, File)>,
}

impl Writer<'_> {
    fn write(&mut self, group: &Group) -> Result<u64, RestoreError> {
        let (Some(first), Some(last)) = (group.placements.first(), group.placements.last()) else {
            return Ok(0);
        };
        let frames = &group.frames;
        let stored = self.point.stored(frames, (first.frame, last.frame))?;
        let begin = frames.record(first.frame)?.offset;
        let mut written = 0_u64;
        let mut rest = group.placements.as_slice();
        while let Some(next) = rest.first() {
            let count = rest.partition_point(|placement| placement.frame == next.frame);
            let (here, later) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            rest = later;
            let record = frames.record(next.frame)?;
            let at = |position: u64| {
                usize::try_from(position.saturating_sub(begin)).unwrap_or(usize::MAX)
            };
            let end = record.offset.saturating_add(u64::from(record.stored_bytes));
            let bytes = stored.get(at(record.offset)..at(end)).unwrap_or_default();
            let raw = self.opener.open(&frames.key, record, bytes)?;
            for placement in here {
                put(self.paths, &mut self.open, placement, raw)?;
                written = written.saturating_add(u64::from(placement.length));
            }
        }
        Ok(written)
    }
}

/// Writes what one frame holds of one file.
fn put(
    paths: &[PathBuf],
    open: &mut Option<(usize, File)>,
    placement: &Placement,
    raw: &[u8],
) -> Result<(), RestoreError> {
    let Some(path) = paths.get(placement.file) else {
        return Ok(());
    };
    if open
        .as_ref()
        .is_none_or(|(file, _)| *file != placement.file)
    {
        let opened = OpenOptions::new().write(true).open(path);
        let opened = opened.map_err(|source| failed("open", path, source))?;
        *open = Some((placement.file, opened));
    }
    let from = usize::try_from(placement.within).unwrap_or(usize::MAX);
    let to = from.saturating_add(usize::try_from(placement.length).unwrap_or(usize::MAX));
    if let (Some((_, file)), Some(bytes)) = (open.as_ref(), raw.get(from..to)) {
        file.write_all_at(bytes, placement.offset)
            .map_err(|source| failed("write", path, source))?;
    }
    Ok(())
}
