//! Bringing everything, behind what is asked for.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdfast_core::{ByteCount, ErrorChain};

use super::bring::{self, Opened, Wanted};
use super::lower::LowerKind;
use super::pool::Rank;
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

    /// How much is brought at once: with a bound, less than a second of it.
    fn step(&self) -> u64 {
        let pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let bound = pace
            .as_ref()
            .map_or(u64::MAX, |pace| pace.bytes_per_second / 4);
        bound.clamp(limits::MOUNT_HYDRATE_LEAST, limits::MOUNT_HYDRATE_BYTES)
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
        let files: Files = Mutex::new(Box::new(shared.layers.lower.all()));
        let files = Arc::new(files);
        for number in 0..limits::MOUNT_HYDRATES {
            let (shared, state, files) = (
                Arc::clone(shared),
                Arc::clone(&self.state),
                Arc::clone(&files),
            );
            let work = move || {
                let mut batch = Batch::new(&shared, &state);
                if let Err(error) = batch.take_all(&files)
                    && !state.is_stopped()
                {
                    state.fail(&error);
                }
                drop(batch);
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

/// Takes files that follow each other: they lie beside each other in the repository as well.
fn gather(files: &Files) -> io::Result<Vec<(String, LowerKind)>> {
    let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
    let mut next = Vec::new();
    let mut bytes = 0_u64;
    while bytes < limits::MOUNT_HYDRATE_BYTES && next.len() < limits::MOUNT_HYDRATE_FILES {
        let Some(one) = files.next() else { break };
        let (path, kind) = one?;
        if let LowerKind::File { size } = kind {
            bytes = bytes.saturating_add(size);
        }
        next.push((path, kind));
    }
    Ok(next)
}

type Files = Mutex<Box<dyn Iterator<Item = io::Result<(String, LowerKind)>> + Send>>;

/// Files that are brought together, so that small ones do not cost a request each.
struct Batch<'a> {
    shared: &'a Arc<Shared>,
    state: &'a State,
    wanted: Vec<Wanted>,
    bytes: u64,
    /// Files that are whole when what is wanted has come.
    files: Vec<(String, u64, Arc<Opened>)>,
}

impl<'a> Batch<'a> {
    fn new(shared: &'a Arc<Shared>, state: &'a State) -> Self {
        Self {
            shared,
            state,
            wanted: Vec::new(),
            bytes: 0,
            files: Vec::new(),
        }
    }

    /// Brings files until there are no more.
    fn take_all(&mut self, files: &Files) -> io::Result<()> {
        while !self.state.is_stopped() {
            let next = gather(files)?;
            if next.is_empty() {
                return Ok(());
            }
            for (path, kind) in next {
                self.take(&path, kind)?;
            }
            self.finish()?;
        }
        Ok(())
    }

    /// Adds one file or folder, and brings what has gathered when that is enough.
    fn take(&mut self, path: &str, kind: LowerKind) -> io::Result<()> {
        let layers = &self.shared.layers;
        let size = match kind {
            LowerKind::Folder => return layers.make_seen(path),
            LowerKind::File { size } => size,
        };
        let content = match layers.overlay.is_gone(path) {
            true => None,
            false => layers.find(path)?,
        };
        let Some(NodeKind::File(content)) = content else {
            self.state.done.fetch_add(size, Ordering::AcqRel);
            return Ok(());
        };
        if content.is_whole() {
            self.state.done.fetch_add(size, Ordering::AcqRel);
            return Ok(());
        }
        let file = Opened::new(self.shared, content, path)?;
        let step = self.state.step();
        let mut at = 0;
        while at < size && !self.state.is_stopped() {
            let end = at.saturating_add(step).min(size);
            let range = at..end;
            if layers.is_absent(&file.content, &range) {
                self.bytes = self.bytes.saturating_add(end.saturating_sub(at));
                let file = Arc::clone(&file);
                self.wanted.push(Wanted { file, range });
            }
            if self.bytes >= step {
                self.finish()?;
            }
            at = end;
        }
        self.files.push((path.to_owned(), size, file));
        Ok(())
    }

    /// Brings what is wanted, and makes the files whole of which everything has come.
    fn finish(&mut self) -> io::Result<()> {
        self.state.wait(std::mem::take(&mut self.bytes));
        if self.state.is_stopped() {
            return Ok(());
        }
        let wanted = std::mem::take(&mut self.wanted);
        let how = (Rank::Rest, limits::MOUNT_HYDRATE_FRAMES);
        bring::all(self.shared, &wanted, how)?;
        drop(wanted);
        for (path, size, file) in self.files.drain(..) {
            self.shared.layers.complete(&file.content, &path)?;
            self.state.done.fetch_add(size, Ordering::AcqRel);
        }
        Ok(())
    }
}
