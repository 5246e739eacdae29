//! How the parts of one source's capture wake each other: nobody looks at a clock to find out.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_core::Lsn;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::Notify;

use super::ship::Done;

/// Wakes a thread that waits for a socket.
#[derive(Debug)]
pub(crate) struct Waker {
    wakes: UnixStream,
    woken: UnixStream,
}

impl Waker {
    /// Makes one that nobody has woken.
    pub(crate) fn new() -> io::Result<Self> {
        let (wakes, woken) = UnixStream::pair()?;
        wakes.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        Ok(Self { wakes, woken })
    }

    /// Ends the present wait, or the next one at once.
    pub(crate) fn wake(&self) {
        // A full buffer means that it is awake already.
        let _ = (&self.wakes).write(&[1]);
    }

    /// Waits until `socket` has something to read, for a wake or for the time; tells whether the
    /// socket has something.
    pub(crate) fn wait_for(&self, socket: BorrowedFd<'_>, wait: Duration) -> io::Result<bool> {
        let mut both = [
            PollFd::from_borrowed_fd(socket, PollFlags::IN),
            PollFd::new(&self.woken, PollFlags::IN),
        ];
        wait_on(&mut both, wait)?;
        let [socket, woken] = both;
        if !woken.revents().is_empty() {
            self.rest();
        }
        Ok(!socket.revents().is_empty())
    }

    /// Waits for a wake or for the time.
    pub(crate) fn wait(&self, wait: Duration) {
        let mut one = [PollFd::from_borrowed_fd(self.woken.as_fd(), PollFlags::IN)];
        if wait_on(&mut one, wait).is_err() {
            std::thread::sleep(wait);
        }
        self.rest();
    }

    /// Forgets wakes that came.
    fn rest(&self) {
        let mut bytes = [0; 64];
        while matches!((&self.woken).read(&mut bytes), Ok(count) if count > 0) {}
    }
}

fn wait_on(fds: &mut [PollFd<'_>], wait: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(wait).map_err(io::Error::other)?;
    match poll(fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// What the shipper is told while it waits.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Uploads that have ended.
    pub(super) done: Vec<Done>,
    /// The stream has ended: nothing more will become durable.
    pub(super) ended: bool,
    woken: bool,
}

/// Where the stream and the uploads leave word for the shipper.
#[derive(Debug, Default)]
pub(super) struct Board {
    news: Mutex<News>,
    changed: Condvar,
    /// Positions below this are no news to the shipper.
    wanted: AtomicU64,
    /// Somebody waits for what is durable to be in the repository.
    hurried: AtomicBool,
}

impl Board {
    /// Says from which position on the shipper is to be woken.
    ///
    /// It asks for every position before it looks how far the log is, and for fewer only afterwards, so
    /// that nothing is missed.
    pub(super) fn want(&self, from: Lsn) {
        self.wanted.store(from.0, Ordering::SeqCst);
    }

    /// Tells that the log is durable up to a position.
    pub(super) fn reach(&self, durable: Lsn) {
        if durable.0 >= self.wanted.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Lets nothing gather before it is put into the repository, until [`Board::calm`].
    pub(super) fn hurry(&self) {
        self.hurried.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Lets parts of the log gather again.
    pub(super) fn calm(&self) {
        self.hurried.store(false, Ordering::SeqCst);
    }

    /// Tells whether somebody waits for the repository.
    pub(super) fn is_hurried(&self) -> bool {
        self.hurried.load(Ordering::SeqCst)
    }

    /// Tells that there is something to be looked at.
    pub(super) fn wake(&self) {
        self.lock().woken = true;
        self.changed.notify_one();
    }

    /// Tells that the stream has ended.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.wake();
    }

    /// Tells that an upload has ended.
    pub(super) fn post(&self, done: Done) {
        self.lock().done.push(done);
        self.wake();
    }

    /// Waits for news, until `deadline` if there is one, and takes them.
    pub(super) fn take(&self, deadline: Option<Instant>) -> News {
        let mut news = self.lock();
        while !news.woken {
            news = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => break,
                Some(left) => {
                    let waited = self.changed.wait_timeout(news, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.changed.wait(news);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
        news.woken = false;
        News {
            done: std::mem::take(&mut news.done),
            ended: news.ended,
            woken: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The links between stream, shipper and base backups of one source.
#[derive(Debug)]
pub(crate) struct Links {
    /// Wakes the stream: the repository has more, or it is time to stop.
    pub(super) stream: Waker,
    pub(super) board: Board,
    /// A base may be needed.
    pub(super) base: Notify,
}

impl Links {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            stream: Waker::new()?,
            board: Board::default(),
            base: Notify::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_before_the_wait_is_not_lost_and_counts_once() {
        let waker = Waker::new().unwrap();
        for _ in 0..100_000 {
            waker.wake();
        }
        let (quiet, _other) = UnixStream::pair().unwrap();
        let began = Instant::now();
        assert!(
            !waker
                .wait_for(quiet.as_fd(), Duration::from_secs(60))
                .unwrap()
        );
        assert!(began.elapsed() < Duration::from_secs(30));
        waker.wait(Duration::from_millis(1));
        assert!(!waker.wait_for(quiet.as_fd(), Duration::ZERO).unwrap());
    }

    #[test]
    fn bytes_of_the_socket_are_told_from_a_wake() {
        let waker = Waker::new().unwrap();
        let (socket, mut other) = UnixStream::pair().unwrap();
        other.write_all(b"x").unwrap();
        assert!(
            waker
                .wait_for(socket.as_fd(), Duration::from_secs(60))
                .unwrap()
        );
    }

    #[test]
    fn only_positions_that_are_wanted_wake() {
        let board = Board::default();
        board.want(Lsn(100));
        board.reach(Lsn(99));
        assert!(!board.lock().woken);
        board.reach(Lsn(100));
        assert!(board.lock().woken);
        board.take(None);
        board.want(Lsn::ZERO);
        board.reach(Lsn(1));
        assert!(board.lock().woken);
    }

    #[test]
    fn news_are_taken_once_and_a_deadline_ends_the_wait() {
        let board = Board::default();
        board.end();
        assert!(board.take(None).ended);
        let soon = Instant::now() + Duration::from_millis(5);
        assert!(board.take(Some(soon)).done.is_empty());
        assert!(Instant::now() >= soon);
    }
}
