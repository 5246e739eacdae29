//! The locks that a rehearsal takes, looked at from a second connection while it runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use holdfast_core::LockTaken;

use super::objects::Objects;
use crate::limits;
use crate::source::{Connection, SourceError};

/// A lock on one relation in one mode: from when to when it was seen.
type Seen = BTreeMap<(u32, String), (Instant, Instant)>;

/// Looks at the locks of one backend until it is stopped.
pub(super) struct Locks {
    seen: Arc<Mutex<Seen>>,
    looking: Option<JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
}

impl Locks {
    /// Begins to look; `connection` is ours and is used for nothing else.
    pub(super) fn watch(mut connection: Connection, process: u32) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let is_over = Arc::new(AtomicBool::new(false));
        let (into, until) = (Arc::clone(&seen), Arc::clone(&is_over));
        let looking = thread::Builder::new()
            .name("holdfast-locks".to_owned())
            .spawn(move || {
                while !until.load(Ordering::SeqCst) {
                    if look(&mut connection, process, &into).is_err() {
                        return;
                    }
                    thread::sleep(limits::REHEARSAL_LOCKS_EVERY);
                }
            });
        Self {
            seen,
            looking: looking.ok(),
            is_over,
        }
    }

    /// Looks once more, now.
    pub(super) fn look(
        &self,
        connection: &mut Connection,
        process: u32,
    ) -> Result<(), SourceError> {
        look(connection, process, &self.seen)
    }

    /// Returns what was taken, the strongest first; `end` is when a transaction would have let go.
    pub(super) fn taken(
        mut self,
        end: Option<Instant>,
        (before, after): (&Objects, &Objects),
    ) -> Vec<LockTaken> {
        self.stop();
        let seen = std::mem::take(&mut *self.lock());
        let mut taken = Vec::new();
        for ((oid, mode), (first, last)) in seen {
            let name = before.relation(oid).or_else(|| after.relation(oid));
            let Some(name) = name else { continue };
            let end = end.unwrap_or(last);
            taken.push(LockTaken {
                relation: name.to_owned(),
                mode,
                held: end.saturating_duration_since(first),
            });
        }
        taken.sort_by_key(|one| (strength(&one.mode), one.relation.clone()));
        taken
    }

    fn stop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(looking) = self.looking.take() {
            let _ = looking.join();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        self.stop();
    }
}

fn look(connection: &mut Connection, process: u32, into: &Mutex<Seen>) -> Result<(), SourceError> {
    let sql = format!(
        "SELECT relation, mode FROM pg_catalog.pg_locks WHERE pid = {process} AND granted
         AND locktype = 'relation' AND mode <> 'AccessShareLock' AND relation >= 16384"
    );
    let reply = connection.query(&sql, "look at the locks of the clone")?;
    let now = Instant::now();
    let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
    for row in reply.rows() {
        let [Some(relation), Some(mode)] = row.as_slice() else {
            continue;
        };
        let Ok(relation) = relation.parse() else {
            continue;
        };
        let times = seen.entry((relation, mode.clone())).or_insert((now, now));
        times.1 = now;
    }
    Ok(())
}

/// SOURCE: PostgreSQL 18, "Explicit Locking", table-level locks.
fn strength(mode: &str) -> usize {
    const MODES: [&str; 7] = [
        "AccessExclusiveLock",
        "ExclusiveLock",
        "ShareRowExclusiveLock",
        "ShareLock",
        "ShareUpdateExclusiveLock",
        "RowExclusiveLock",
        "RowShareLock",
    ];
    let found = MODES.iter().position(|one| *one == mode);
    found.unwrap_or(MODES.len())
}
