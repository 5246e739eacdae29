//! The mount of a clone: held by the process that serves it, and ended after its server.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use holdfast_core::{ByteCount, ErrorChain};
use serde::{Deserialize, Serialize};

use super::CloneError;
use super::folder::{self, CloneFolder, failed};
use crate::limits;
use crate::mount::{Hydration, Mount, MountError, MountRequest};
use crate::repository::Reader;
use crate::restore::{Place, Programs, files_owner};

/// Blocks by file.
type Blocks = BTreeMap<String, Vec<Range<u64>>>;

/// A clone's mount.
pub(super) struct Held {
    mount: Option<Arc<Mount>>,
    ahead: Option<JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
}

/// How much of a clone has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hydrated {
    /// Bytes of files that need the repository no more.
    pub done: ByteCount,
    /// Bytes of all files of the restore point.
    pub total: ByteCount,
    /// Everything has come.
    pub complete: bool,
    /// Why it does not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl From<Hydration> for Hydrated {
    fn from(hydration: Hydration) -> Self {
        Self {
            done: hydration.done,
            total: hydration.total,
            complete: hydration.is_complete,
            failed: hydration.failed,
        }
    }
}

impl Hydrated {
    /// Tells whether two are the same to whoever looks now and then.
    pub(super) fn is_near(&self, other: &Self) -> bool {
        let percent = |one: &Self| one.done.0.saturating_mul(100) / one.total.0.max(1);
        (percent(self), self.complete, &self.failed)
            == (percent(other), other.complete, &other.failed)
    }
}

impl Held {
    /// Takes charge of a mount, and begins to bring what its server's replay will read.
    pub(super) fn new(mount: Mount, reads: Blocks) -> Self {
        let (mount, is_over) = (Arc::new(mount), Arc::new(AtomicBool::new(false)));
        let ahead = match reads.is_empty() {
            true => None,
            false => {
                let (mount, is_over) = (Arc::clone(&mount), Arc::clone(&is_over));
                let named = thread::Builder::new().name("holdfast-ahead".to_owned());
                // Without the thread they come when they are asked for.
                named
                    .spawn(move || bring_ahead(&mount, reads, &is_over))
                    .ok()
            }
        };
        Self {
            mount: Some(mount),
            ahead,
            is_over,
        }
    }

    /// Mounts a clone's point again over what was written to it.
    pub(super) fn again(
        place: &Place,
        folder: &CloneFolder,
        (source, point): (&holdfast_core::SourceName, &holdfast_core::PointId),
    ) -> Result<Self, CloneError> {
        let repository = |error| CloneError::Restore(crate::restore::RestoreError::from(error));
        let reader =
            Reader::open(&place.repository, place.vault_key, &place.keys).map_err(repository)?;
        let point = reader.point(source, point).map_err(repository)?;
        let major = point.summary().postgres.as_ref().map_or(0, |one| one.major);
        let programs = Programs::of(&place.postgres, major, &folder.data())?;
        let mount = Mount::open(MountRequest {
            point,
            overlay: folder.overlay(),
            mountpoint: folder.data(),
            owner: files_owner(&programs),
        })?;
        Ok(Self::new(mount, Blocks::new()))
    }

    /// Brings the rest, beside what is asked for; called again it only sets the bound.
    pub(super) fn hydrate(&self, rate: Option<ByteCount>) -> Result<(), CloneError> {
        match &self.mount {
            Some(mount) => mount
                .hydrate(rate)
                .map_err(|error| failed("bring the rest of", mount.path(), error)),
            None => Ok(()),
        }
    }

    /// Tells how much has come.
    pub(super) fn hydrated(&self) -> Option<Hydrated> {
        self.mount.as_ref().map(|mount| mount.hydration().into())
    }

    /// Unmounts, after the server has ended.
    pub(super) fn close(mut self) -> Result<(), MountError> {
        self.end_ahead();
        match self.mount.take().and_then(Arc::into_inner) {
            Some(mount) => mount.close(),
            None => Ok(()),
        }
    }

    fn end_ahead(&mut self) {
        self.is_over.store(true, Ordering::Release);
        if let Some(ahead) = self.ahead.take() {
            let _ = ahead.join();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end_ahead();
    }
}

/// Brings blocks in steps, so that it ends soon when they are not needed any more.
fn bring_ahead(mount: &Mount, reads: Blocks, is_over: &AtomicBool) {
    let (mut step, mut blocks) = (Blocks::new(), 0_u64);
    let bring = |step: &mut Blocks| {
        let brought = mount.prefetch(step);
        step.clear();
        if let Err(error) = &brought {
            // Replay meets it too, and says it.
            tracing::warn!(error = %ErrorChain(error), "blocks for a clone cannot be brought");
        }
        brought.is_ok()
    };
    for (path, ranges) in reads {
        for range in ranges {
            blocks = blocks.saturating_add(range.end.saturating_sub(range.start));
            step.entry(path.clone()).or_default().push(range);
            if blocks < limits::PREFETCH_AT_ONCE {
                continue;
            }
            blocks = 0;
            if is_over.load(Ordering::Acquire) || !bring(&mut step) {
                return;
            }
        }
    }
    if !is_over.load(Ordering::Acquire) {
        bring(&mut step);
    }
}

/// Returns what is left in an overlay that makes its data directory less than whole.
pub(super) fn unfinished(overlay: &Path) -> u64 {
    folder::files(&overlay.join("notes")).saturating_add(folder::files(&overlay.join("partial")))
}
