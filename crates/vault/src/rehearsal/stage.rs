//! The clones that rehearsals run on: one a source is kept for a while, so that the next is quick.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_core::{Confinement, ErrorChain, Lsn, NoRehearsal, SourceName, Timestamp};

use crate::clone::{self, CloneRequest, CloneShown, ClonesConfig, Form, FormWish, Kept, ThinClone};
use crate::limits;
use crate::restore::{Place, ProgressFn, RestoreTarget};
use crate::source::{Connection, SourceError};

/// A clone that rehearsals run on.
pub(super) struct Stage {
    clone: ThinClone,
    shown: CloneShown,
    opened: Instant,
}

impl Stage {
    /// Opens the newest point of `source`; blocks.
    pub(super) fn open(
        place: &Place,
        source: &SourceName,
        form: FormWish,
    ) -> Result<Self, NoRehearsal> {
        let clones = ClonesConfig {
            form,
            // It is gone before that would be of use.
            hydrate: None,
            ..ClonesConfig::beside(&place.state)
        };
        let mut request = CloneRequest::new(clones, source.clone(), RestoreTarget::Latest);
        request.owner = OWNER.to_owned();
        let progress: ProgressFn = Arc::new(|_| {});
        let opened = clone::open(place, &request, &progress);
        let clone = opened.map_err(|error| NoRehearsal::NotOpened {
            why: ErrorChain(&error).to_string(),
        })?;
        Ok(Self {
            shown: clone.shown(),
            clone,
            opened: Instant::now(),
        })
    }

    /// Connects with all rights.
    pub(super) fn keeper(&self, database: &str) -> Result<Connection, SourceError> {
        self.clone.connect(database)
    }

    /// Connects as a role of the source, with its rights and no others.
    pub(super) fn role(&self, role: &str, database: &str) -> Result<Connection, SourceError> {
        let admitted = self.clone.admit(role, database)?;
        self.clone.connect_as(&admitted, database)
    }

    pub(super) fn position(&self) -> Lsn {
        self.shown.wal_end.unwrap_or_default()
    }

    pub(super) fn newest_commit(&self) -> Option<Timestamp> {
        self.shown.newest_commit
    }

    pub(super) fn form(&self) -> &'static str {
        match self.shown.form {
            Form::Mounted => "mounted",
            Form::Restored => "restored",
        }
    }

    /// Tells whether the system itself keeps it in.
    pub(super) fn confinement(&self) -> Confinement {
        match self.shown.confinement.as_ref().map(|one| one.kept) {
            Some(Kept::Enforced) => Confinement::Enforced,
            Some(Kept::Advisory) | None => Confinement::Advisory,
        }
    }
}

/// Who a clone of a rehearsal belongs to; it ends with the vault that opened it.
pub const OWNER: &str = "rehearsal";

/// The clones that are open and idle, and the turn of whoever rehearses.
#[derive(Default)]
pub(crate) struct Stages {
    idle: Mutex<BTreeMap<SourceName, Stage>>,
    /// One rehearsal at a time: each is a whole server.
    turn: Mutex<()>,
    /// How long one may run, in milliseconds; 0 for as long as usual.
    limit_ms: AtomicU64,
    /// In which form clones are opened.
    form: FormWish,
}

impl Stages {
    /// Begins without any, to open them in this form.
    pub(crate) fn opening(form: FormWish) -> Self {
        Self {
            form,
            ..Self::default()
        }
    }

    pub(super) fn form(&self) -> FormWish {
        self.form
    }

    /// Waits for its turn.
    pub(super) fn turn(
        &self,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<std::sync::MutexGuard<'_, ()>, NoRehearsal> {
        loop {
            match self.turn.try_lock() {
                Ok(turn) => return Ok(turn),
                Err(std::sync::TryLockError::Poisoned(turn)) => return Ok(turn.into_inner()),
                Err(std::sync::TryLockError::WouldBlock) if cancelled() => {
                    return Err(NoRehearsal::Cancelled);
                }
                Err(std::sync::TryLockError::WouldBlock) => {
                    std::thread::sleep(limits::REHEARSAL_POLL);
                }
            }
        }
    }

    /// Takes the clone of a source that is still warm, if nothing was committed there since.
    pub(super) fn take(&self, source: &SourceName, newest: Option<Timestamp>) -> Option<Stage> {
        self.cool();
        let stage = self.lock().remove(source)?;
        (newest.is_some() && stage.newest_commit() == newest).then_some(stage)
    }

    /// Tells whether a clone of a source is open.
    pub(crate) fn has(&self, source: &SourceName) -> bool {
        self.lock().contains_key(source)
    }

    /// Sets how long a rehearsal may run.
    pub(crate) fn limit(&self, limit: Duration) {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.limit_ms.store(limit_ms.max(1), Ordering::Relaxed);
    }

    /// Returns how long a rehearsal may run.
    pub(super) fn lasts(&self) -> Duration {
        match self.limit_ms.load(Ordering::Relaxed) {
            0 => limits::REHEARSAL_LASTS,
            limit_ms => Duration::from_millis(limit_ms),
        }
    }

    /// Keeps a clone for the next rehearsal.
    pub(super) fn keep(&self, source: &SourceName, stage: Stage) {
        let mut idle = self.lock();
        if idle.len() < limits::REHEARSAL_WARM_MAX {
            idle.insert(source.clone(), stage);
        }
    }

    /// Ends the clones that nobody needed for a while; tells whether any is left.
    pub(crate) fn cool(&self) -> bool {
        let mut idle = self.lock();
        let is_warm = |stage: &Stage| stage.opened.elapsed() < limits::REHEARSAL_WARM;
        let cold: Vec<SourceName> = idle
            .iter()
            .filter(|(_, stage)| !is_warm(stage))
            .map(|(source, _)| source.clone())
            .collect();
        let ended: Vec<Stage> = cold.iter().filter_map(|one| idle.remove(one)).collect();
        let is_left = !idle.is_empty();
        drop(idle);
        // Servers end without anybody waiting for the lock.
        drop(ended);
        is_left
    }

    /// Ends all of them.
    pub(crate) fn clear(&self) {
        let ended = std::mem::take(&mut *self.lock());
        drop(ended);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<SourceName, Stage>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
