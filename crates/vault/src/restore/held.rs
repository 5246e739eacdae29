//! A mount that is held while a server runs on it, and what the server's replay reads brought ahead.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use holdfast_core::{ByteCount, ErrorChain};

use crate::limits;
use crate::mount::{Hydration, Mount, MountError};

/// Blocks by file.
pub(crate) type Blocks = BTreeMap<String, Vec<Range<u64>>>;

/// A mount that is held; it ends when this is dropped or closed, which must be after its server.
pub(crate) struct Held {
    mount: Option<Arc<Mount>>,
    ahead: Option<JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
}

impl Held {
    /// Takes charge of a mount, and begins to bring what its server's replay will read.
    pub(crate) fn new(mount: Mount, reads: Blocks) -> Self {
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

    /// Says that its server takes writes: what it has touched until now is what the next one needs first.
    pub(crate) fn serves(&self) {
        let kept = self.mount.as_ref().map(|mount| mount.keep_hot());
        if let Some(Err(error)) = kept {
            // The next one starts more slowly.
            tracing::info!(%error, "what a server touches at its start cannot be kept");
        }
    }

    /// Brings the rest, beside what is asked for; called again it only sets the bound.
    pub(crate) fn hydrate(&self, rate: Option<ByteCount>) -> io::Result<()> {
        match &self.mount {
            Some(mount) => mount.hydrate(rate),
            None => Ok(()),
        }
    }

    /// Tells how much has come.
    pub(crate) fn hydration(&self) -> Option<Hydration> {
        self.mount.as_ref().map(|mount| mount.hydration())
    }

    /// Unmounts, after the server has ended.
    pub(crate) fn close(mut self) -> Result<(), MountError> {
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
