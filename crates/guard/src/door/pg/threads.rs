//! The threads that serve sessions: each session stays on one, so no wake-up crosses threads.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::task::TaskTracker;

use crate::limits::{PG_CLOSE_WAITS_MAX, PG_SESSIONS_MAX, PG_THREADS_MAX};

/// A connection that was accepted.
pub(super) struct Accepted {
    pub stream: std::net::TcpStream,
    pub peer: SocketAddr,
    /// Its place among the sessions that may be open.
    pub place: OwnedSemaphorePermit,
}

/// Threads that take connections in turn.
pub(super) struct Threads {
    threads: Vec<(mpsc::Sender<Accepted>, JoinHandle<()>)>,
    next: usize,
}

impl Threads {
    /// Starts the threads.
    pub(super) fn start<S, F>(serve: S) -> io::Result<Self>
    where
        S: Fn(TcpStream, SocketAddr) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let serve = Arc::new(serve);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut threads = Vec::new();
        // The sources and the agents want processors as well.
        for _ in 0..cores.div_ceil(2).min(PG_THREADS_MAX) {
            let (tx, rx) = mpsc::channel(PG_SESSIONS_MAX);
            let serve = Arc::clone(&serve);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let thread = std::thread::Builder::new()
                .name("pg-door".to_owned())
                .spawn(move || runtime.block_on(take(rx, serve)))?;
            threads.push((tx, thread));
        }
        Ok(Self { threads, next: 0 })
    }

    /// Gives a connection to the thread whose turn it is.
    pub(super) async fn give(&mut self, accepted: Accepted) {
        self.next = self.next.wrapping_add(1);
        let at = self.next.checked_rem(self.threads.len()).unwrap_or(0);
        if let Some((thread, _)) = self.threads.get(at) {
            // A thread ends only after this end of the channel.
            let _ = thread.send(accepted).await;
        }
    }

    /// Waits until the sessions have ended; those that do not are left.
    pub(super) fn end(self) {
        let (channels, threads): (Vec<_>, Vec<_>) = self.threads.into_iter().unzip();
        drop(channels);
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the PostgreSQL door ended by a defect");
            }
        }
    }
}

async fn take<S, F>(mut accepted: mpsc::Receiver<Accepted>, serve: Arc<S>)
where
    S: Fn(TcpStream, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let sessions = TaskTracker::new();
    while let Some(Accepted {
        stream,
        peer,
        place,
    }) = accepted.recv().await
    {
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "the PostgreSQL door cannot serve a connection");
                continue;
            }
        };
        let serving = serve(stream, peer);
        sessions.spawn(async move {
            serving.await;
            drop(place);
        });
    }
    sessions.close();
    // A session ends by itself when the door is told to stop.
    let _ = tokio::time::timeout(PG_CLOSE_WAITS_MAX, sessions.wait()).await;
}
