//! Bringing blocks before they are asked for: those that are named, or all of them.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdfast_core::{ByteCount, ErrorChain};

use super::layers::Layers;
use super::lower::LowerKind;
use super::presence::BLOCK_BYTES;
use super::serve::Shared;
use super::tree::NodeKind;
use crate::limits;

/// How far a mount is on its way to an ordinary data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hydration {
    /// Bytes of files that are whole; those that were removed count as well.
    pub done: ByteCount,
    /// Bytes of all files of the restore point.
    pub total: ByteCount,
    /// Everything is there: the overlay's `data` folder needs the repository no more.
    pub is_complete: bool,
    /// Why it does not go on; the mount itself goes on.
    pub failed: Option<String>,
}

/// Hydration that goes on beside the mount.
#[derive(Default)]
pub(super) struct Hydrating {
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    done: AtomicU64,
    running: AtomicUsize,
    is_begun: AtomicBool,
    is_stopped: AtomicBool,
    failed: Mutex<Option<String>>,
    pace: Mutex<Option<Pace>>,
}

struct Pace {
    bytes_per_second: u64,
    next: Instant,
}

impl State {
    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    fn fail(&self, error: &io::Error) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get_or_insert_with(|| ErrorChain(error).to_string());
        self.is_stopped.store(true, Ordering::Release);
    }

    /// Waits until so many more bytes are allowed.
    fn wait(&self, bytes: u64) {
        let pause = {
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(pace) = pace.as_mut() else { return };
            let now = Instant::now();
            let start = pace.next.max(now);
            let nanos =
                u128::from(bytes) * 1_000_000_000 / u128::from(pace.bytes_per_second.max(1));
            let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            pace.next = start.checked_add(takes).unwrap_or(start);
            start.saturating_duration_since(now)
        };
        let until = Instant::now().checked_add(pause);
        while !self.is_stopped() && until.is_some_and(|until| Instant::now() < until) {
            std::thread::park_timeout(pause.min(limits::MOUNT_PAUSE));
        }
    }
}

impl Hydrating {
    /// Begins, unless it was begun; `bytes_per_second` bounds it.
    pub(super) fn begin(
        &mut self,
        shared: &Arc<Shared>,
        bytes_per_second: Option<u64>,
    ) -> io::Result<()> {
        let state = Arc::clone(&self.state);
        *state.pace.lock().unwrap_or_else(PoisonError::into_inner) =
            bytes_per_second.map(|bytes_per_second| Pace {
                bytes_per_second,
                next: Instant::now(),
            });
        if state.is_begun.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let files: Box<dyn Iterator<Item = _> + Send> = Box::new(shared.layers.lower.all());
        let files = Arc::new(Mutex::new(files));
        for number in 0..limits::MOUNT_HYDRATES {
            let (shared, state, files) = (
                Arc::clone(shared),
                Arc::clone(&self.state),
                Arc::clone(&files),
            );
            let work = move || {
                while !state.is_stopped() {
                    let next = files.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let hydrated = match next {
                        None => break,
                        Some(Err(error)) => Err(error),
                        Some(Ok((path, kind))) => hydrate(&shared, &state, &path, kind),
                    };
                    if let Err(error) = hydrated {
                        state.fail(&error);
                    }
                }
                state.running.fetch_sub(1, Ordering::AcqRel);
            };
            self.state.running.fetch_add(1, Ordering::AcqRel);
            let named = std::thread::Builder::new().name(format!("mount-hydrate-{number}"));
            self.threads.push(named.spawn(work)?);
        }
        Ok(())
    }

    pub(super) fn how_far(&self, total: ByteCount) -> Hydration {
        let state = &self.state;
        let failed = state.failed.lock().unwrap_or_else(PoisonError::into_inner);
        Hydration {
            done: ByteCount(state.done.load(Ordering::Acquire)),
            total,
            is_complete: state.is_begun.load(Ordering::Acquire)
                && state.running.load(Ordering::Acquire) == 0
                && !state.is_stopped(),
            failed: failed.clone(),
        }
    }

    /// Ends; what has come stays.
    pub(super) fn stop(&mut self) {
        self.state.is_stopped.store(
            self.state.running.load(Ordering::Acquire) > 0 || self.state.is_stopped(),
            Ordering::Release,
        );
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// Brings one file or folder into the data directory.
fn hydrate(shared: &Shared, state: &State, path: &str, kind: LowerKind) -> io::Result<()> {
    let layers = &shared.layers;
    let size = match kind {
        LowerKind::Folder => return layers.make_seen(path),
        LowerKind::File { size } => size,
    };
    if !layers.overlay.is_gone(path)
        && let Some(NodeKind::File(content)) = layers.find(path)?
        && !content.is_whole()
    {
        layers.open(&content, path)?;
        let brought = (|| -> io::Result<()> {
            let mut at = 0;
            while at < size && !state.is_stopped() {
                let end = at.saturating_add(STEP_BYTES).min(size);
                shared.pool.wait_for_first(limits::MOUNT_PAUSE);
                if layers.is_absent(&content, &(at..end)) {
                    state.wait(end.saturating_sub(at));
                    layers.fetch(&content, &(at..end))?;
                }
                at = end;
            }
            Ok(())
        })();
        layers.close(&content);
        brought?;
        if state.is_stopped() {
            return Ok(());
        }
        layers.complete(&content, path)?;
    }
    state.done.fetch_add(size, Ordering::AcqRel);
    Ok(())
}

/// Brings blocks of files, several at once, and returns when they are there.
pub(super) fn prefetch(
    layers: &Layers,
    wanted: &BTreeMap<String, Vec<Range<u64>>>,
) -> io::Result<u64> {
    let jobs: Vec<(&str, Range<u64>)> = wanted
        .iter()
        .flat_map(|(path, blocks)| {
            blocks
                .iter()
                .map(move |range| (path.as_str(), range.clone()))
        })
        .collect();
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let work = || -> io::Result<()> {
        while let Some((path, blocks)) = jobs.get(next.fetch_add(1, Ordering::AcqRel)) {
            let range =
                blocks.start.saturating_mul(BLOCK_BYTES)..blocks.end.saturating_mul(BLOCK_BYTES);
            let Some(NodeKind::File(content)) = layers.find(path)? else {
                continue;
            };
            if content.is_whole() || !layers.is_absent(&content, &range) {
                continue;
            }
            layers.open(&content, path)?;
            let fetched = layers.fetch(&content, &range);
            layers.close(&content);
            fetched?;
            done.fetch_add(blocks.end.saturating_sub(blocks.start), Ordering::AcqRel);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..limits::MOUNT_FETCHES.min(jobs.len()))
            .map(|_| scope.spawn(work))
            .collect();
        for thread in threads {
            let ended = thread.join();
            ended.map_err(|_| io::Error::other("a thread that fetches has ended"))??;
        }
        Ok::<(), io::Error>(())
    })?;
    Ok(done.load(Ordering::Acquire))
}

/// How much of a file is brought before it is looked whether somebody waits.
const STEP_BYTES: u64 = 1 << 20;
