//! Threads that wait for the repository, so that those that answer the kernel need not.
//!
//! What somebody waits for goes first, then what somebody will probably ask for, then the rest; and
//! some threads are kept for the first kind, so that it never waits for a free one.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::limits;

type Job = Box<dyn FnOnce() + Send>;

/// How much a job matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// Somebody waits for it.
    First,
    /// Somebody will probably ask for it.
    Ahead,
    /// It must come some time.
    Rest,
}

#[derive(Default)]
struct Line {
    jobs: VecDeque<Job>,
    running: usize,
}

#[derive(Default)]
struct Queue {
    first: Line,
    ahead: Line,
    rest: Line,
    is_closed: bool,
}

impl Queue {
    fn line(&mut self, rank: Rank) -> &mut Line {
        match rank {
            Rank::First => &mut self.first,
            Rank::Ahead => &mut self.ahead,
            Rank::Rest => &mut self.rest,
        }
    }

    /// Takes the job that matters most of those that may begin now.
    fn take(&mut self) -> Option<(Rank, Job)> {
        let behind = self.ahead.running.saturating_add(self.rest.running);
        let is_room = behind < limits::MOUNT_FETCHES;
        // While somebody waits, the rest does not take the whole way.
        let rest_max = match self.first.running {
            0 => limits::MOUNT_HYDRATING,
            _ => limits::MOUNT_HYDRATING_BESIDE,
        };
        let rank = if !self.first.jobs.is_empty() {
            Rank::First
        } else if is_room && !self.ahead.jobs.is_empty() {
            Rank::Ahead
        } else if is_room && self.rest.running < rest_max {
            Rank::Rest
        } else {
            return None;
        };
        let line = self.line(rank);
        let job = line.jobs.pop_front()?;
        line.running = line.running.saturating_add(1);
        Some((rank, job))
    }
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    came: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<(Rank, Job)> {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.take() {
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

    fn ended(&self, rank: Rank) {
        let mut queue = self.queue();
        let line = queue.line(rank);
        line.running = line.running.saturating_sub(1);
    }
}

/// A bounded number of threads.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Pool {
    /// Starts the threads: some for everything, and some more for what somebody waits for.
    pub(super) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut threads = Vec::new();
        let count = limits::MOUNT_FETCHES.saturating_add(limits::MOUNT_FETCHES_FIRST);
        for number in 0..count {
            let shared = Arc::clone(&shared);
            let work = move || {
                while let Some((rank, job)) = shared.next() {
                    job();
                    shared.ended(rank);
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

    /// Does something in its turn.
    pub(super) fn push(&self, rank: Rank, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.shared.queue();
        // What nobody waits for is not begun any more.
        if rank == Rank::First || !queue.is_closed {
            queue.line(rank).jobs.push_back(Box::new(job));
            self.shared.came.notify_one();
        }
    }

    /// Returns how many jobs of a rank wait for their turn.
    pub(super) fn waiting(&self, rank: Rank) -> usize {
        self.shared.queue().line(rank).jobs.len()
    }

    /// Does all of these in their turns, and waits until they are done; returns the sum.
    pub(super) fn all<J>(&self, rank: Rank, jobs: Vec<J>) -> io::Result<u64>
    where
        J: FnOnce() -> io::Result<u64> + Send + 'static,
    {
        let count = jobs.len();
        let (done, came) = channel();
        for job in jobs {
            let done = done.clone();
            self.push(rank, move || {
                // Whoever waited may have gone.
                let _ = done.send(job());
            });
        }
        drop(done);
        let ended: Vec<io::Result<u64>> = came.iter().collect();
        if ended.len() < count {
            return Err(io::Error::other("the mount ends"));
        }
        ended
            .into_iter()
            .try_fold(0_u64, |sum, one| Ok(sum.saturating_add(one?)))
    }

    /// Ends the threads after what somebody waits for.
    pub(super) fn close(&self) {
        {
            let mut queue = self.shared.queue();
            queue.is_closed = true;
            queue.ahead.jobs.clear();
            queue.rest.jobs.clear();
        }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender};
    use std::time::Duration;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// Jobs that say that they have begun and then wait.
    struct Held {
        begun: Sender<Rank>,
        gate: Arc<(Mutex<bool>, Condvar)>,
    }

    impl Held {
        fn new() -> (Self, Receiver<Rank>) {
            let (begun, seen) = channel();
            let gate = Arc::default();
            (Self { begun, gate }, seen)
        }

        fn push(&self, pool: &Pool, rank: Rank) {
            let (begun, gate) = (self.begun.clone(), Arc::clone(&self.gate));
            pool.push(rank, move || {
                begun.send(rank).unwrap();
                let open = gate.0.lock().unwrap();
                drop(gate.1.wait_while(open, |is_open| !*is_open).unwrap());
            });
        }

        fn open(&self) {
            *self.gate.0.lock().unwrap() = true;
            self.gate.1.notify_all();
        }
    }

    #[test]
    fn what_somebody_waits_for_finds_a_thread_however_much_else_there_is() {
        let pool = Pool::start().unwrap();
        let (held, seen) = Held::new();
        for _ in 0..100 {
            held.push(&pool, Rank::Rest);
            held.push(&pool, Rank::Ahead);
        }
        let mut ranks = Vec::new();
        for _ in 0..limits::MOUNT_FETCHES {
            ranks.push(seen.recv_timeout(LIMIT).unwrap());
        }
        let rest = ranks.iter().filter(|rank| **rank == Rank::Rest).count();
        assert!(rest <= limits::MOUNT_HYDRATING, "{rest}");
        for _ in 0..limits::MOUNT_FETCHES_FIRST {
            held.push(&pool, Rank::First);
            assert_eq!(seen.recv_timeout(LIMIT).unwrap(), Rank::First);
        }
        // Nothing else begins before something ends.
        assert!(seen.try_recv().is_err());
        assert!(pool.waiting(Rank::Ahead) > 0);
        held.open();
        let later: Vec<Rank> = (0..60).map(|_| seen.recv_timeout(LIMIT).unwrap()).collect();
        let first_rest = later.iter().position(|rank| *rank == Rank::Rest);
        let ahead = later.iter().take(first_rest.unwrap_or(60)).count();
        assert!(ahead > 50, "read-ahead goes before the rest: {ahead}");
    }

    #[test]
    fn what_nobody_waits_for_is_left_when_the_pool_closes() {
        let pool = Arc::new(Pool::start().unwrap());
        let (held, seen) = Held::new();
        for _ in 0..limits::MOUNT_FETCHES {
            held.push(&pool, Rank::Ahead);
            seen.recv_timeout(LIMIT).unwrap();
        }
        let done = Arc::new(AtomicUsize::new(0));
        let (waiting, counted) = (Arc::clone(&pool), Arc::clone(&done));
        let waiter = std::thread::spawn(move || {
            let jobs = (0..3).map(|_| {
                let counted = Arc::clone(&counted);
                move || {
                    counted.fetch_add(1, Ordering::SeqCst);
                    Ok(1)
                }
            });
            waiting.all(Rank::Rest, jobs.collect())
        });
        while pool.waiting(Rank::Rest) < 3 {
            std::thread::yield_now();
        }
        let closing = Arc::clone(&pool);
        let closer = std::thread::spawn(move || closing.close());
        waiter.join().unwrap().unwrap_err();
        held.open();
        closer.join().unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 0);
    }
}
