//! One object on its way into the repository.

use std::io;
use std::sync::Arc;

use holdfast_core::Lsn;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::line::{Cut, CutKind};
use crate::capture::links::Links;
use crate::capture::{Capture, CaptureError};
use crate::limits;
use crate::repository::RepositoryError;
use crate::spool::{Cluster, Segment, SpoolError};

/// What all sources of a vault share: memory for what is on its way into the repository, and turns to
/// take a base backup.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    memory: Arc<Semaphore>,
    bases: Arc<Semaphore>,
}

impl Budget {
    /// Makes the budget of one vault.
    pub(crate) fn new() -> Self {
        Self {
            memory: Arc::new(Semaphore::new(UNITS)),
            bases: Arc::new(Semaphore::new(limits::BASES_AT_ONCE)),
        }
    }

    /// Blocks until there is a turn to take in a base backup, or until `stop`.
    pub(in crate::capture) fn base(
        &self,
        stop: &CancellationToken,
    ) -> Option<OwnedSemaphorePermit> {
        Handle::current().block_on(async {
            tokio::select! {
                () = stop.cancelled() => None,
                turn = Arc::clone(&self.bases).acquire_owned() => turn.ok(),
            }
        })
    }

    /// Takes memory for `bytes`, or nothing when too much is taken now; what is larger than the whole
    /// budget has to wait until it is alone.
    fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = usize::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(UNITS);
        let units = u32::try_from(units.clamp(1, UNITS)).unwrap_or(u32::MAX);
        Arc::clone(&self.memory).try_acquire_many_owned(units).ok()
    }
}

const UNIT_BYTES: u64 = 64 << 10;
const UNITS: usize = limits::SHIPPING_BYTES / (64 << 10);

/// The bytes of one object, and the memory that they take.
#[derive(Debug)]
pub(super) struct Payload {
    from: Lsn,
    bytes: Vec<u8>,
    _memory: OwnedSemaphorePermit,
}

impl Payload {
    /// Reads from the spool what `cut` stores, or returns nothing while there is no memory for it.
    pub(super) fn read(
        capture: &Capture,
        cluster: &Cluster,
        cut: Cut,
    ) -> Result<Option<Self>, CaptureError> {
        let size = cluster.segment_bytes;
        let segment = Segment::containing(cut.timeline, cut.start, size);
        let (from, length) = match cut.kind {
            CutKind::Segment | CutKind::Whole => (segment.start, size.get()),
            CutKind::Tail => (cut.start, cut.end.since(cut.start).0),
        };
        let Some(memory) = capture.budget.take(length) else {
            return Ok(None);
        };
        let bytes = capture.spool.read(segment, size, from, length)?;
        if u64::try_from(bytes.len()).ok() != Some(length) {
            return Err(SpoolError::Io {
                step: "read all of",
                path: capture.spool.path(segment, size),
                source: io::Error::from(io::ErrorKind::UnexpectedEof),
            }
            .into());
        }
        Ok(Some(Self {
            from,
            bytes,
            _memory: memory,
        }))
    }

    /// Returns the bytes and where they begin.
    pub(super) fn content(&self) -> (Lsn, &[u8]) {
        (self.from, &self.bytes)
    }
}

/// How an upload ended.
#[derive(Debug)]
pub(in crate::capture) struct Done {
    pub(super) cut: Cut,
    pub(super) result: Result<(), RepositoryError>,
}

/// Tells the shipper how an upload ended, also when a defect ends it.
pub(super) struct Upload {
    links: Arc<Links>,
    cut: Cut,
    result: Option<Result<(), RepositoryError>>,
}

impl Upload {
    /// Begins; from here on the shipper will be told.
    pub(super) fn new(links: Arc<Links>, cut: Cut) -> Self {
        Self {
            links,
            cut,
            result: None,
        }
    }

    /// Tells how it ended.
    pub(super) fn ends(mut self, result: Result<(), RepositoryError>) {
        self.result = Some(result);
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or_else(|| {
            Err(RepositoryError::System {
                step: "store a part of the log",
                what: "it was given up".to_owned(),
            })
        });
        self.links.board.post(Done {
            cut: self.cut,
            result,
        });
    }
}
