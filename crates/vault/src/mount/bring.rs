//! Bringing many blocks with few requests: they are located, put together by bundle, and read at once.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_core::ErrorChain;

use super::content::Content;
use super::hot::Blocks;
use super::layers::Layers;
use super::pool::Rank;
use super::presence::BLOCK_BYTES;
use super::serve::Shared;
use super::tree::NodeKind;
use crate::limits;
use crate::repository::point::Located;

/// A file that stays open until all that is to come has come.
pub(super) struct Opened {
    shared: Arc<Shared>,
    pub(super) content: Arc<Content>,
}

impl Opened {
    /// Opens a file of the restore point once more.
    pub(super) fn new(
        shared: &Arc<Shared>,
        content: Arc<Content>,
        path: &str,
    ) -> io::Result<Arc<Self>> {
        shared.layers.open(&content, path)?;
        Ok(Arc::new(Self {
            shared: Arc::clone(shared),
            content,
        }))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.shared.layers.close(&self.content);
    }
}

/// A part of a file that is to come.
pub(super) struct Wanted {
    pub(super) file: Arc<Opened>,
    pub(super) range: Range<u64>,
}

/// Blocks of a file that are read together, and where they are.
pub(super) struct Piece {
    file: Arc<Opened>,
    range: Range<u64>,
    place: Located,
}

impl Piece {
    /// Bundle, first and last frame.
    fn frames(&self) -> Option<(u32, u32, u32)> {
        let (bundle, frames) = self.place.frames.as_ref()?;
        Some((*bundle, *frames.start(), *frames.end()))
    }
}

/// What was located.
#[derive(Default)]
pub(super) struct Found {
    pieces: Vec<Piece>,
    /// What lies in several bundles at once.
    apart: Vec<Wanted>,
}

impl Found {
    /// Finds where everything is that is wanted and absent.
    pub(super) fn locate(&mut self, layers: &Layers, wanted: &Wanted) -> io::Result<()> {
        let content = &wanted.file.content;
        let Some(origin) = content.origin() else {
            return Ok(());
        };
        let mut at = wanted.range.start;
        loop {
            let next = {
                let body = content.look();
                let absent = body.presence.first_absent(&(at..wanted.range.end));
                absent.map(|block| (block, body.presence.visible()))
            };
            let Some((block, visible)) = next else {
                return Ok(());
            };
            let mut range = layers.lower.window(&origin.path, block, visible)?;
            let mut place = layers.lower.locate(&origin.path, &range)?;
            let all = range.start..wanted.range.end.next_multiple_of(BLOCK_BYTES).min(visible);
            if place.as_ref().is_some_and(|place| place.frames.is_none()) && all.end > range.end {
                // Zeros, perhaps to the end.
                let rest = layers.lower.locate(&origin.path, &all)?;
                if let Some(rest) = rest.filter(|rest| rest.frames.is_none()) {
                    (range, place) = (all, Some(rest));
                }
            }
            let block_end = block.saturating_add(1).saturating_mul(BLOCK_BYTES);
            at = range.end.max(block_end);
            let file = Arc::clone(&wanted.file);
            match place {
                Some(place) => self.pieces.push(Piece { file, range, place }),
                None => self.apart.push(Wanted { file, range }),
            }
        }
    }

    /// Puts what lies close to each other into one request of at most so many frames.
    pub(super) fn loads(mut self, frames_max: u32) -> Vec<Load> {
        self.pieces.sort_by_key(Piece::frames);
        let mut loads: Vec<Load> = Vec::new();
        let (mut first, mut last) = (0, 0);
        for piece in self.pieces {
            let frames = piece.frames();
            let bundle = frames.map(|(bundle, ..)| bundle);
            let (from, to) = frames.map_or((0, 0), |(_, from, to)| (from, to));
            let is_near = from.saturating_sub(last) <= limits::FRAMES_SKIPPED
                && to.saturating_sub(first) < frames_max;
            match loads.last_mut() {
                Some(Load::Together(other, pieces)) if *other == bundle && is_near => {
                    pieces.push(piece);
                }
                _ => {
                    first = from;
                    loads.push(Load::Together(bundle, vec![piece]));
                }
            }
            last = to;
        }
        loads.extend(self.apart.into_iter().map(Load::Apart));
        loads
    }
}

/// What is brought at once.
pub(super) enum Load {
    /// What no single request brings.
    Apart(Wanted),
    /// Parts of one bundle that are near each other; without a bundle they are zeros.
    Together(Option<u32>, Vec<Piece>),
}

impl Load {
    /// Brings it, and returns how many blocks came. What somebody else is bringing is left to him.
    pub(super) fn bring(self, layers: &Layers) -> io::Result<u64> {
        let (bundle, pieces) = match self {
            Self::Apart(wanted) => {
                layers.fetch(&wanted.file.content, &wanted.range)?;
                let first = wanted.range.start / BLOCK_BYTES;
                let end = wanted.range.end.div_ceil(BLOCK_BYTES);
                return Ok(end.saturating_sub(first));
            }
            Self::Together(bundle, pieces) => (bundle, pieces),
        };
        let mut turns = Vec::new();
        for piece in &pieces {
            let content = &piece.file.content;
            let path = content.origin().map(|origin| &origin.path);
            let turn = path.and_then(|path| layers.try_flight(path, piece.range.start));
            if let Some(turn) = turn.filter(|_| layers.is_absent(content, &piece.range)) {
                turns.push((piece, turn));
            }
        }
        let frames = turns.iter().filter_map(|(piece, _)| piece.frames());
        let wanted: BTreeSet<u32> = frames.flat_map(|(_, first, last)| first..=last).collect();
        let loaded = match bundle.filter(|_| !wanted.is_empty()) {
            Some(bundle) => Some(layers.lower.load(bundle, &wanted)?),
            None => None,
        };
        let mut brought = 0_u64;
        for (piece, turn) in turns {
            let window = layers
                .lower
                .fill(loaded.as_ref(), &piece.place, &piece.range)?;
            brought = brought.saturating_add(layers.keep(&piece.file.content, &window)?);
            drop(turn);
        }
        Ok(brought)
    }
}

/// Brings all of this in its turn, as many requests at once as there may be.
pub(super) fn all(
    shared: &Arc<Shared>,
    wanted: &[Wanted],
    (rank, frames_max): (Rank, u32),
) -> io::Result<u64> {
    let mut found = Found::default();
    for wanted in wanted {
        found.locate(&shared.layers, wanted)?;
    }
    let brought = shared.pool.all(rank, jobs(shared, found, frames_max))?;
    // What somebody else was bringing is waited for.
    for wanted in wanted {
        shared.layers.fetch(&wanted.file.content, &wanted.range)?;
    }
    Ok(brought)
}

fn jobs(
    shared: &Arc<Shared>,
    found: Found,
    frames_max: u32,
) -> Vec<impl FnOnce() -> io::Result<u64> + Send + use<>> {
    let loads = found.loads(frames_max).into_iter();
    let job = |load: Load| {
        let shared = Arc::clone(shared);
        move || load.bring(&shared.layers)
    };
    loads.map(job).collect()
}

/// Brings blocks of files, many at once, and returns how many came when they are there.
pub(super) fn prefetch(shared: &Arc<Shared>, named: &Blocks) -> io::Result<u64> {
    let mut runs = Vec::new();
    for (path, blocks) in named {
        let path: Arc<str> = Arc::from(path.as_str());
        runs.extend(blocks.iter().map(|run| (Arc::clone(&path), run.clone())));
    }
    let all = Arc::new(Mutex::new((Found::default(), Vec::new())));
    // Looking up costs round trips as well, one after the other within a job.
    let each = runs.len().div_ceil(limits::MOUNT_FETCHES);
    let each = each.clamp(1, limits::MOUNT_LOCATES);
    let locating = runs.chunks(each).map(|runs| {
        let (shared, all, runs) = (Arc::clone(shared), Arc::clone(&all), runs.to_vec());
        move || {
            let mut here = Found::default();
            let wanted = look_up(&shared, &runs)?;
            for wanted in &wanted {
                here.locate(&shared.layers, wanted)?;
            }
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.0.pieces.append(&mut here.pieces);
            all.0.apart.append(&mut here.apart);
            all.1.extend(wanted);
            Ok(0)
        }
    });
    shared.pool.all(Rank::Ahead, locating.collect())?;
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    let (found, wanted) = std::mem::take(&mut *all);
    let jobs = jobs(shared, found, limits::MOUNT_PREFETCH_FRAMES);
    let brought = shared.pool.all(Rank::Ahead, jobs)?;
    for wanted in wanted {
        shared.layers.fetch(&wanted.file.content, &wanted.range)?;
    }
    Ok(brought)
}

/// Opens the files of runs of blocks; those that are not there, or are whole, are passed over.
fn look_up(shared: &Arc<Shared>, runs: &[(Arc<str>, Range<u64>)]) -> io::Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    for of_file in runs.chunk_by(|one, next| one.0 == next.0) {
        let Some((path, _)) = of_file.first() else {
            continue;
        };
        let Some(NodeKind::File(content)) = shared.layers.find(path)? else {
            continue;
        };
        if content.is_whole() {
            continue;
        }
        let file = Opened::new(shared, content, path)?;
        wanted.extend(of_file.iter().map(|(_, run)| Wanted {
            file: Arc::clone(&file),
            range: run.start.saturating_mul(BLOCK_BYTES)..run.end.saturating_mul(BLOCK_BYTES),
        }));
    }
    Ok(wanted)
}

/// Brings a part of a file that will probably be read next, without waiting for it.
pub(super) fn ahead(shared: &Arc<Shared>, content: &Arc<Content>, range: Range<u64>) {
    if shared.pool.waiting(Rank::Ahead) >= limits::MOUNT_AHEAD_WAITING {
        return;
    }
    let (all, content) = (Arc::clone(shared), Arc::clone(content));
    shared.pool.push(Rank::Ahead, move || {
        if let Err(error) = begin_ahead(&all, content, range) {
            // Whoever wants it will ask for it, and be told then.
            tracing::debug!(error = %ErrorChain(&error), "what may be read next does not come");
        }
    });
}

fn begin_ahead(shared: &Arc<Shared>, content: Arc<Content>, range: Range<u64>) -> io::Result<()> {
    let path = content.origin().map(|origin| Arc::clone(&origin.path));
    let Some(path) = path else { return Ok(()) };
    let mut found = Found::default();
    let file = Opened::new(shared, content, &path)?;
    found.locate(&shared.layers, &Wanted { file, range })?;
    let mut loads = found.loads(limits::MOUNT_AHEAD_FRAMES).into_iter();
    let first = loads.next();
    for load in loads {
        let shared_too = Arc::clone(shared);
        shared.pool.push(Rank::Ahead, move || {
            if let Err(error) = load.bring(&shared_too.layers) {
                tracing::debug!(error = %ErrorChain(&error), "what may be read next does not come");
            }
        });
    }
    first.map_or(Ok(0), |load| load.bring(&shared.layers))?;
    Ok(())
}
