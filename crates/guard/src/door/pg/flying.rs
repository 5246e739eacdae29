//! Cancel requests that are on their way to the server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;

use futures_util::task::AtomicWaker;

/// How many cancel requests of a session are on their way. While there is one, the session begins
/// nothing new, so that a late one cannot hit what comes after.
#[derive(Default)]
pub(super) struct Flying {
    count: AtomicUsize,
    waker: AtomicWaker,
}

impl Flying {
    /// One leaves.
    pub(super) fn depart(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// The server has acted on it.
    pub(super) fn arrive(&self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Tells whether one is on its way; the task is woken when it has arrived.
    pub(super) fn is_busy(&self, ctx: &Context<'_>) -> bool {
        if self.count.load(Ordering::SeqCst) == 0 {
            return false;
        }
        self.waker.register(ctx.waker());
        self.count.load(Ordering::SeqCst) > 0
    }
}
