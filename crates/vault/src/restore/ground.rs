//! Where a restore writes, with whom, and what spares it work.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_core::ByteCount;
use serde::{Deserialize, Serialize};

use super::files::Owner;
use crate::limits;

/// How a restore goes about its work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// An older copy of the same source: what has not changed since is taken from there.
    pub delta_from: Option<PathBuf>,
    /// How many threads read and write; `None` leaves it to us.
    pub jobs: Option<usize>,
    /// Whether everything is read back at the end.
    pub check: ReadBack,
}

/// Whether what was written is read back from the disk and compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadBack {
    /// Each frame is checked before it is written, and that is all.
    #[default]
    No,
    /// Every file is also read back and compared.
    Yes,
}

/// Where the bytes of a restore came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Came {
    /// Bytes that were read from the repository, as they are stored.
    pub fetched: ByteCount,
    /// Bytes of files that an interrupted restore had already written.
    pub resumed: ByteCount,
    /// Bytes of files that the older copy had.
    pub copied: ByteCount,
}

/// The directory of a restore and how it is filled.
pub(super) struct Ground<'a> {
    pub(super) directory: &'a Path,
    pub(super) owner: Owner,
    /// An interrupted restore has written a part already.
    pub(super) is_resumed: bool,
    /// An older copy.
    pub(super) old: Option<&'a Path>,
    /// How many threads work.
    pub(super) jobs: usize,
    pub(super) counts: Counts,
}

/// Counts what came from where.
#[derive(Debug, Default)]
pub(super) struct Counts {
    fetched: AtomicU64,
    resumed: AtomicU64,
    copied: AtomicU64,
}

impl<'a> Ground<'a> {
    pub(super) fn new(directory: &'a Path, owner: Owner, ways: &'a Ways) -> Self {
        let jobs = ways.jobs.unwrap_or(limits::RESTORE_THREADS);
        Self {
            directory,
            owner,
            is_resumed: false,
            old: ways.delta_from.as_deref(),
            jobs: jobs.clamp(1, limits::RESTORE_JOBS_MAX),
            counts: Counts::default(),
        }
    }
}

impl Counts {
    pub(super) fn fetched(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn resumed(&self, bytes: u64) {
        self.resumed.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn copied(&self, bytes: u64) {
        self.copied.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn came(&self) -> Came {
        let read = |count: &AtomicU64| ByteCount(count.load(Ordering::Relaxed));
        Came {
            fetched: read(&self.fetched),
            resumed: read(&self.resumed),
            copied: read(&self.copied),
        }
    }
}
