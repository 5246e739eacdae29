//! Writing bundles: frames are compressed by a few threads, put back in order, gathered and stored.
//!
//! The memory in use is the bundle being gathered, those being stored, and a fixed number of frames.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use holdfast_core::SourceName;
use holdfast_store::object::ObjectStore;

use super::bundle::{FramesSize, Gathering, Packed};
use super::format::{Format, Kind, frame_compressor};
use super::{RepositoryError, layout};
use crate::limits;

/// Where the bundles of one restore point go.
pub(crate) struct Target {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) source: SourceName,
    /// The last part of the point's folder.
    pub(crate) folder: String,
}

/// Takes the frames of a restore point in and writes bundles.
pub(crate) struct Packer {
    jobs: Option<SyncSender<(u64, Vec<u8>)>>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
    next: u64,
}

/// A bundle whose frames are settled; it may not be stored yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Its number, from 1.
    pub(crate) number: u32,
    /// Its first frame among all frames of the point.
    pub(crate) first: u64,
    pub(crate) frames: u32,
}

struct Shared {
    target: Target,
    /// Nothing more comes and all of it counts: the last bundle is to be written too.
    complete: AtomicBool,
    cuts: Mutex<Vec<Cut>>,
    stored: Mutex<BTreeMap<u32, FramesSize>>,
    /// Memory of bundles that are stored, to be used again.
    spare: Mutex<Vec<Vec<u8>>>,
    failed: Mutex<Option<RepositoryError>>,
    has_failed: AtomicBool,
}

type Frame = (u64, Packed);
type Closing = (u32, Gathering);

impl Packer {
    /// Starts the threads of one restore point.
    pub(crate) fn start(target: Target) -> Result<Self, RepositoryError> {
        let shared = Arc::new(Shared {
            target,
            complete: AtomicBool::new(false),
            cuts: Mutex::new(Vec::new()),
            stored: Mutex::new(BTreeMap::new()),
            spare: Mutex::new(Vec::new()),
            failed: Mutex::new(None),
            has_failed: AtomicBool::new(false),
        });
        let (jobs, waiting) = sync_channel(limits::FRAMES_WAITING);
        let (done, packed) = sync_channel(limits::FRAMES_WAITING);
        let (closing, closed) = sync_channel(1);
        let (waiting, closed) = (Arc::new(Mutex::new(waiting)), Arc::new(Mutex::new(closed)));
        let mut threads = Vec::new();
        for _ in 0..limits::PACK_THREADS {
            let (waiting, done) = (Arc::clone(&waiting), done.clone());
            let shared = Arc::clone(&shared);
            threads.push(spawn("holdfast-pack", move || {
                shared.note(pack(&waiting, &done));
            })?);
        }
        let gathering = Arc::clone(&shared);
        threads.push(spawn("holdfast-bundle", move || {
            gathering.note(gathering.gather(&packed, &closing));
        })?);
        for _ in 0..limits::STORE_THREADS {
            let (closed, shared) = (Arc::clone(&closed), Arc::clone(&shared));
            threads.push(spawn("holdfast-store", move || {
                shared.note(shared.store(&closed));
            })?);
        }
        Ok(Self {
            jobs: Some(jobs),
            threads,
            shared,
            next: 0,
        })
    }

    /// Takes the next frame's bytes, waiting when too many are under way; returns its number.
    pub(crate) fn frame(&mut self, raw: Vec<u8>) -> Result<u64, RepositoryError> {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        let sent = self.jobs.as_ref().map(|jobs| jobs.send((number, raw)));
        match sent {
            Some(Ok(())) if !self.shared.has_failed.load(Ordering::SeqCst) => Ok(number),
            // A thread has ended early: it knows why.
            _ => Err(self.end().err().unwrap_or_else(gone)),
        }
    }

    /// Returns the bundles that were settled since the last call, in order.
    pub(crate) fn cuts(&self) -> Vec<Cut> {
        std::mem::take(&mut *lock(&self.shared.cuts))
    }

    /// Waits until all bundles are durable and returns how large each is, by number.
    pub(crate) fn finish(&mut self) -> Result<BTreeMap<u32, FramesSize>, RepositoryError> {
        self.shared.complete.store(true, Ordering::SeqCst);
        self.end()?;
        Ok(std::mem::take(&mut *lock(&self.shared.stored)))
    }

    fn end(&mut self) -> Result<(), RepositoryError> {
        self.jobs = None;
        let mut all_ended = true;
        for thread in self.threads.drain(..) {
            all_ended &= thread.join().is_ok();
        }
        match lock(&self.shared.failed).take() {
            Some(error) => Err(error),
            None if all_ended => Ok(()),
            None => Err(gone()),
        }
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        // Without `complete` no further bundle is begun.
        let _ = self.end();
    }
}

impl Shared {
    /// Remembers the first failure; the threads end when they see it.
    fn note(&self, ended: Result<(), RepositoryError>) {
        if let Err(error) = ended {
            lock(&self.failed).get_or_insert(error);
            self.has_failed.store(true, Ordering::SeqCst);
        }
    }

    /// Puts frames back in order and gathers them into bundles.
    fn gather(
        &self,
        packed: &Receiver<Frame>,
        closing: &SyncSender<Closing>,
    ) -> Result<(), RepositoryError> {
        let mut early = BTreeMap::new();
        let mut next = 0_u64;
        let mut open = self.begin();
        let mut cut = Cut {
            number: 1,
            first: 0,
            frames: 0,
        };
        while let Ok((number, frame)) = packed.recv() {
            early.insert(number, frame);
            while let Some(frame) = early.remove(&next) {
                next = next.saturating_add(1);
                open.take(&frame);
                if open.is_full(limits::BUNDLE_BYTES) {
                    let full = std::mem::replace(&mut open, self.begin());
                    cut = self.settle(cut, full, closing)?;
                }
            }
        }
        if self.complete.load(Ordering::SeqCst) && early.is_empty() && open.count() > 0 {
            self.settle(cut, open, closing)?;
        }
        Ok(())
    }

    fn begin(&self) -> Gathering {
        Gathering::begin(lock(&self.spare).pop().unwrap_or_default())
    }

    /// Hands a bundle over to be stored and returns where the next one begins.
    fn settle(
        &self,
        cut: Cut,
        gathered: Gathering,
        closing: &SyncSender<Closing>,
    ) -> Result<Cut, RepositoryError> {
        let frames = gathered.count();
        lock(&self.cuts).push(Cut { frames, ..cut });
        if self.has_failed.load(Ordering::SeqCst) {
            return Err(gone());
        }
        closing.send((cut.number, gathered)).map_err(|_| gone())?;
        Ok(Cut {
            number: cut.number.saturating_add(1),
            first: cut.first.saturating_add(u64::from(frames)),
            frames: 0,
        })
    }

    /// Stores bundles until there are no more.
    fn store(&self, closed: &Mutex<Receiver<Closing>>) -> Result<(), RepositoryError> {
        let target = &self.target;
        loop {
            let next = lock(closed).recv();
            let Ok((number, gathered)) = next else {
                return Ok(());
            };
            let letters = layout::letters(&target.folder);
            let gathered = gathered.close(Kind::Bundle, letters, number)?;
            let key = layout::bundle(Format::V2, &target.source, &target.folder, number)?;
            target.store.create_new(&key, gathered.object())?;
            lock(&self.stored).insert(number, gathered.size);
            lock(&self.spare).push(gathered.memory());
        }
    }
}

/// Compresses frames until there are no more.
fn pack(
    waiting: &Mutex<Receiver<(u64, Vec<u8>)>>,
    done: &SyncSender<Frame>,
) -> Result<(), RepositoryError> {
    let mut compressor = frame_compressor()?;
    loop {
        let job = lock(waiting).recv();
        let Ok((number, raw)) = job else {
            return Ok(());
        };
        let packed = Packed::pack(&mut compressor, &raw)?;
        if done.send((number, packed)).is_err() {
            return Ok(());
        }
    }
}

fn gone() -> RepositoryError {
    RepositoryError::System {
        step: "go on with the restore point",
        what: "a thread of it has ended".to_owned(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, RepositoryError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| RepositoryError::System {
            step: "start a thread",
            what: error.to_string(),
        })
}
