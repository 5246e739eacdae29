//! A file as the mount has it: from the restore point, in the overlay, or partly both.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use fuser::BackingId;

use super::ahead::Reads;
use super::presence::Presence;
use super::record::Kept;

/// Where the bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// All in the restore point.
    Lower,
    /// Blocks in a sparse file of the overlay, the others in the restore point.
    Partial,
    /// All in a file of the data directory.
    Whole,
}

/// What a file was in the restore point.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) path: Arc<str>,
    pub(super) size: u64,
}

/// One file, however many have it open.
pub(super) struct Content {
    origin: Option<Origin>,
    body: RwLock<Body>,
    /// The generation of the durable record; who writes one holds this.
    noting: Mutex<u64>,
    /// Blocks came since the record was written.
    is_unnoted: AtomicBool,
    is_unlinked: AtomicBool,
    /// How many of its handles the kernel may not know yet.
    unseen: AtomicUsize,
    /// Who reads it from its beginning to its end.
    pub(super) reads: Reads,
}

/// What changes about a file.
pub(super) struct Body {
    pub(super) layer: Layer,
    /// The overlay's file, while somebody has it open.
    pub(super) file: Option<Arc<File>>,
    pub(super) opens: u64,
    /// Its size, unless it is whole: then the file's own counts.
    pub(super) length: u64,
    pub(super) presence: Presence,
    /// The file as the kernel reads and writes it without us.
    pub(super) backing: Option<Arc<BackingId>>,
    /// Handles of open files that we serve, of which the kernel may not know yet.
    pub(super) unseen: BTreeSet<u64>,
}

impl Content {
    fn new(origin: Option<Origin>, layer: Layer, kept: Kept, length: u64) -> Self {
        Self {
            origin,
            body: RwLock::new(Body {
                layer,
                file: None,
                opens: 0,
                length,
                presence: kept.presence,
                backing: None,
                unseen: BTreeSet::new(),
            }),
            noting: Mutex::new(kept.generation),
            is_unnoted: AtomicBool::new(false),
            is_unlinked: AtomicBool::new(false),
            unseen: AtomicUsize::new(0),
            reads: Reads::default(),
        }
    }

    /// Of a file that was never touched.
    pub(super) fn lower(origin: Origin) -> Self {
        let (size, kept) = (origin.size, nothing(origin.size));
        Self::new(Some(origin), Layer::Lower, kept, size)
    }

    /// Of a file with this record and this length.
    pub(super) fn partial(origin: Origin, kept: Kept, length: u64) -> Self {
        Self::new(Some(origin), Layer::Partial, kept, length)
    }

    /// Of a file that the overlay has.
    pub(super) fn whole() -> Self {
        Self::new(None, Layer::Whole, nothing(0), 0)
    }

    pub(super) fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    pub(super) fn look(&self) -> RwLockReadGuard<'_, Body> {
        self.body.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self) -> RwLockWriteGuard<'_, Body> {
        self.body.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn to write the record. Taken before [`Content::look`] and [`Content::change`].
    pub(super) fn note(&self) -> MutexGuard<'_, u64> {
        self.noting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the kernel may not know all of its handles yet.
    pub(super) fn has_unseen(&self) -> bool {
        self.unseen.load(Ordering::Acquire) > 0
    }

    /// Says how many these are; told by who changes them.
    pub(super) fn set_unseen(&self, count: usize) {
        self.unseen.store(count, Ordering::Release);
    }

    pub(super) fn set_unnoted(&self) {
        self.is_unnoted.store(true, Ordering::Release);
    }

    /// Tells whether blocks came since the record was written, and forgets it.
    pub(super) fn take_unnoted(&self) -> bool {
        self.is_unnoted.swap(false, Ordering::AcqRel)
    }

    /// No name leads to it from here on: it never gets a place in the data directory again.
    pub(super) fn set_nameless(&self) {
        let _turn = self.change();
        self.is_unlinked.store(true, Ordering::Release);
    }

    /// A name leads to it after all.
    pub(super) fn set_named(&self) {
        let _turn = self.change();
        self.is_unlinked.store(false, Ordering::Release);
    }

    /// Whether the restore point is not needed for it any more.
    pub(super) fn is_whole(&self) -> bool {
        self.look().layer == Layer::Whole
    }

    /// Whether no name leads to it any more.
    pub(super) fn is_unlinked(&self) -> bool {
        self.is_unlinked.load(Ordering::Acquire)
    }
}

fn nothing(size: u64) -> Kept {
    Kept {
        presence: Presence::absent(size),
        cut: None,
        generation: 0,
    }
}
