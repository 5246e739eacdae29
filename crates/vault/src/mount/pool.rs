//! Threads that wait for the repository, so that those that answer the kernel need not.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    /// What somebody waits for.
    first: VecDeque<Job>,
    is_closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    came: Condvar,
    emptied: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.first.pop_front() {
                if queue.first.is_empty() {
                    self.emptied.notify_all();
                }
                return Some(job);
            }
            if queue.is_closed {
                return None;
            }
            queue = self
                .came
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A bounded number of threads for what somebody waits for.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Pool {
    pub(super) fn start(count: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut threads = Vec::new();
        for number in 0..count {
            let shared = Arc::clone(&shared);
            let work = move || {
                while let Some(job) = shared.next() {
                    job();
                }
            };
            let named = std::thread::Builder::new().name(format!("mount-fetch-{number}"));
            threads.push(named.spawn(work)?);
        }
        Ok(Self {
            shared,
            threads: Mutex::new(threads),
        })
    }

    /// Does something as soon as a thread is free.
    pub(super) fn first(&self, job: impl FnOnce() + Send + 'static) {
        self.shared.queue().first.push_back(Box::new(job));
        self.shared.came.notify_one();
    }

    /// Lets what somebody waits for go first, for as long as `limit`.
    pub(super) fn wait_for_first(&self, limit: Duration) {
        let queue = self.shared.queue();
        let busy = |queue: &mut Queue| !queue.first.is_empty() && !queue.is_closed;
        let waited = self.shared.emptied.wait_timeout_while(queue, limit, busy);
        drop(waited);
    }

    /// Ends the threads after what somebody waits for.
    pub(super) fn close(&self) {
        self.shared.queue().is_closed = true;
        self.shared.came.notify_all();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // A thread that fell over has left its jobs unanswered; the kernel is told by the unmount.
            let _ = thread.join();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}
