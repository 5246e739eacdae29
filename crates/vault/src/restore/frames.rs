//! Reading frames and writing what is in them to files, from several threads, each frame checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::RestoreError;
use super::files::{failed, open_to_write, thread_gone};
use super::ground::Ground;
use super::local::{Local, open_below};
use crate::limits;
use crate::repository::bundle::{FrameOpener, FrameRecord, Frames};
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
    /// Adds what a part of a file is made of; the file is there already. `path` is relative.
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
pub(super) struct Placement {
    /// The frame's number in its bundle.
    frame: u32,
    /// Position in the decompressed frame.
    pub(super) within: u32,
    pub(super) length: u32,
    /// Which of the batch's files.
    file: usize,
    /// Position in the file.
    pub(super) offset: u64,
}

/// What is done with the frames of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// What the disk has is compared with them.
    Compare,
    /// They are written.
    Write,
}

/// Frames of one bundle that are read at once, and where their bytes go.
struct Group {
    frames: Arc<Frames>,
    /// In order of frames.
    placements: Vec<Placement>,
}

/// Writes everything of a batch, or compares it with what the disk has.
pub(super) fn work_batch(
    point: &Point,
    batch: Batch,
    (ground, task): (&Ground<'_>, Task),
    each: &(dyn Fn(u64) + Sync),
) -> Result<(), RestoreError> {
    let groups = Mutex::new(groups(point, &batch)?);
    let stopped = AtomicBool::new(false);
    let work = || -> Result<(), RestoreError> {
        let mut worker = Worker {
            point,
            target: Target {
                ground,
                paths: &batch.paths,
            },
            task,
            opener: FrameOpener::new()?,
            local: Local::default(),
            older: Local::default(),
            open: None,
        };
        while !stopped.load(Ordering::Relaxed) {
            let group = groups.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(group) = group else { break };
            match worker.group(&group) {
                Ok(done) => each(done),
                Err(error) => {
                    stopped.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..ground.jobs).map(|_| scope.spawn(work)).collect();
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

/// Where frames go.
#[derive(Clone, Copy)]
struct Target<'a> {
    ground: &'a Ground<'a>,
    paths: &'a [PathBuf],
}

impl<'a> Target<'a> {
    fn path(&self, placement: &Placement) -> Option<&'a Path> {
        self.paths.get(placement.file).map(PathBuf::as_path)
    }
}

/// One thread's tools.
struct Worker<'a> {
    point: &'a Point,
    target: Target<'a>,
    task: Task,
    opener: FrameOpener,
    local: Local,
    older: Local,
    /// The file that was used last and stays open, by its place in the list.
    open: Option<(usize, File)>,
}

impl Worker<'_> {
    /// Does what is to be done with a group; frames that are here already are not fetched.
    fn group(&mut self, group: &Group) -> Result<u64, RestoreError> {
        let frames = &group.frames;
        let mut done = 0_u64;
        let mut missing: Vec<&[Placement]> = Vec::new();
        let placements = group.placements.as_slice();
        for here in placements.chunk_by(|one, next| one.frame == next.frame) {
            let Some(first) = here.first() else { continue };
            if self.is_here(frames.record(first.frame)?, here)? {
                done = done.saturating_add(bytes_of(here));
            } else {
                missing.push(here);
            }
        }
        let number = |here: &[Placement]| here.first().map_or(0, |first| first.frame);
        let is_near = |one: &&[Placement], next: &&[Placement]| {
            number(next).saturating_sub(number(one)) <= limits::FRAMES_SKIPPED
        };
        for near in missing.chunk_by(is_near) {
            done = done.saturating_add(self.fetch(frames, near)?);
        }
        Ok(done)
    }

    /// Tells whether a frame need not be fetched: the disk has it, or it came from the older copy.
    fn is_here(&mut self, record: &FrameRecord, here: &[Placement]) -> Result<bool, RestoreError> {
        let (target, ground) = (self.target, self.target.ground);
        if ground.is_resumed || self.task == Task::Compare {
            let found = self
                .local
                .frame(record, here, ground.directory, |place| target.path(place));
            if found.is_some() {
                if self.task == Task::Write {
                    ground.counts.resumed(bytes_of(here));
                }
                return Ok(true);
            }
        }
        let Some(old) = ground.old.filter(|_| self.task == Task::Write) else {
            return Ok(false);
        };
        let found = self
            .older
            .frame(record, here, old, |place| target.path(place));
        let Some(raw) = found else { return Ok(false) };
        for place in here {
            put(target, &mut self.open, place, raw)?;
        }
        ground.counts.copied(bytes_of(here));
        Ok(true)
    }

    /// Reads frames that lie close to each other from the repository.
    fn fetch(&mut self, frames: &Frames, near: &[&[Placement]]) -> Result<u64, RestoreError> {
        let first = near.first().and_then(|here| here.first());
        let last = near.last().and_then(|here| here.first());
        let (Some(first), Some(last)) = (first, last) else {
            return Ok(0);
        };
        let stored = self.point.stored(frames, (first.frame, last.frame))?;
        let counts = &self.target.ground.counts;
        counts.fetched(u64::try_from(stored.len()).unwrap_or(u64::MAX));
        let begin = frames.record(first.frame)?.offset;
        let mut done = 0_u64;
        for here in near {
            let Some(next) = here.first() else { continue };
            let record = frames.record(next.frame)?;
            let at = |position: u64| {
                usize::try_from(position.saturating_sub(begin)).unwrap_or(usize::MAX)
            };
            let end = record.offset.saturating_add(u64::from(record.stored_bytes));
            let bytes = stored.get(at(record.offset)..at(end)).unwrap_or_default();
            let raw = self.opener.open(&frames.key, record, bytes)?;
            for placement in *here {
                match self.task {
                    Task::Compare => compare(self.target, placement, raw)?,
                    Task::Write => put(self.target, &mut self.open, placement, raw)?,
                }
            }
            done = done.saturating_add(bytes_of(here));
        }
        Ok(done)
    }
}

fn bytes_of(here: &[Placement]) -> u64 {
    here.iter().map(|place| u64::from(place.length)).sum()
}

/// Returns the part of a frame that belongs to a placement.
fn part<'a>(placement: &Placement, raw: &'a [u8]) -> &'a [u8] {
    let from = usize::try_from(placement.within).unwrap_or(usize::MAX);
    let to = from.saturating_add(usize::try_from(placement.length).unwrap_or(usize::MAX));
    raw.get(from..to).unwrap_or_default()
}

/// Writes what one frame holds of one file.
fn put(
    target: Target<'_>,
    open: &mut Option<(usize, File)>,
    placement: &Placement,
    raw: &[u8],
) -> Result<(), RestoreError> {
    let Some(path) = target.path(placement) else {
        return Ok(());
    };
    let path = target.ground.directory.join(path);
    if open
        .as_ref()
        .is_none_or(|(file, _)| *file != placement.file)
    {
        *open = Some((placement.file, open_to_write(&path)?));
    }
    match open.as_ref() {
        Some((_, file)) => file
            .write_all_at(part(placement, raw), placement.offset)
            .map_err(|source| failed("write", &path, source)),
        None => Ok(()),
    }
}

/// Compares what one frame holds of one file with what the disk has.
fn compare(target: Target<'_>, placement: &Placement, raw: &[u8]) -> Result<(), RestoreError> {
    let Some(relative) = target.path(placement) else {
        return Ok(());
    };
    let path = target.ground.directory.join(relative);
    let wanted = part(placement, raw);
    let mut there = vec![0; wanted.len()];
    let read = open_below(target.ground.directory, relative)
        .and_then(|file| file.read_exact_at(&mut there, placement.offset));
    let mut pairs = wanted.iter().zip(&there);
    let first = match read {
        Ok(()) => pairs.position(|(one, other)| one != other),
        Err(_) => Some(0),
    };
    match first {
        None => Ok(()),
        Some(first) => Err(RestoreError::NotAsWritten {
            path,
            offset: placement
                .offset
                .saturating_add(u64::try_from(first).unwrap_or(0)),
        }),
    }
}
