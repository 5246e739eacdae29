//! The connections of one program, opened when needed and given up when the database moves.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::{Desk, DeskError};
use crate::database::{ConnectError, Connection, UrlSource};

/// A bounded set of connections to wherever the URL points now.
#[derive(Debug)]
pub struct Pool {
    source: UrlSource,
    limit: Duration,
    seats: Semaphore,
    idle: Mutex<Vec<Connection>>,
    away: Mutex<Option<Away>>,
    opened: AtomicU64,
}

/// Since when the database is away, and what was observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// The first failure after the last success.
    pub since: Timestamp,
    /// What was observed last.
    pub reason: String,
}

impl Pool {
    /// A pool of at most `seats` connections whose operations each take at most `limit`.
    pub fn new(source: UrlSource, seats: u32, limit: Duration) -> Self {
        let seats = usize::try_from(seats).unwrap_or(1).max(1);
        Self {
            source,
            limit,
            seats: Semaphore::new(seats),
            idle: Mutex::new(Vec::new()),
            away: Mutex::new(None),
            opened: AtomicU64::new(0),
        }
    }

    /// Takes a connection: an open one, unless the URL has changed since it was opened.
    ///
    /// # Errors
    /// `DeskError::Away` when there is none within the limit of the pool.
    pub async fn desk(&self) -> Result<Desk<'_>, DeskError> {
        let deadline = Instant::now() + self.limit;
        let Ok(Ok(seat)) = timeout_at(deadline, self.seats.acquire()).await else {
            return Err(DeskError::Away {
                reason: "all connections are busy".to_owned(),
            });
        };
        let connection = self.connection(deadline).await.map_err(|error| {
            let reason = chain(&error);
            self.note_away(&reason, Timestamp::now());
            DeskError::Away { reason }
        })?;
        Ok(Desk {
            pool: self,
            connection: Some(connection),
            deadline,
            in_transaction: false,
            _seat: seat,
        })
    }

    /// Since when the database is away, or `None` when the last operation reached it.
    pub fn away(&self) -> Option<Away> {
        lock(&self.away).clone()
    }

    /// How many connections were opened so far.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    async fn connection(&self, deadline: Instant) -> Result<Connection, ConnectError> {
        let url = self.source.read().await?;
        while let Some(connection) = self.idle_one() {
            if connection.url == url && !connection.client.is_closed() {
                return Ok(connection);
            }
        }
        let connection = url.connect(deadline).await?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(connection)
    }

    fn idle_one(&self) -> Option<Connection> {
        lock(&self.idle).pop()
    }

    pub(super) fn take_back(&self, connection: Connection) {
        lock(&self.idle).push(connection);
    }

    pub(super) fn note_here(&self) {
        *lock(&self.away) = None;
    }

    /// Remembers an outage; idle connections have probably ended with it.
    pub(super) fn note_away(&self, reason: &str, now: Timestamp) {
        lock(&self.idle).clear();
        let mut away = lock(&self.away);
        let since = away.as_ref().map_or(now, |earlier| earlier.since);
        *away = Some(Away {
            since,
            reason: reason.to_owned(),
        });
    }
}

/// An error with its last cause.
fn chain(error: &ConnectError) -> String {
    let mut cause: Option<&dyn Error> = error.source();
    let mut text = error.to_string();
    while let Some(inner) = cause {
        if inner.source().is_none() {
            text = format!("{text}: {inner}");
        }
        cause = inner.source();
    }
    text
}

/// Locks, also after a panic elsewhere: what is kept here is never half written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
