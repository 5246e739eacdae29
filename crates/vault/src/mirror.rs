//! The mirror: per source a server in continuous recovery, fed from the spool.
//!
//! It is the fast way of recovery (promote, no copy), the first to notice log that does not replay, and
//! where restore points are read from without the source: each is sealed in backup mode of the mirror,
//! as PostgreSQL backs up a standby, and only the blocks that the log named are read.
//!
//! # Architecture invariants
//! - It is never given log past something that destroys before a point before that has been sealed.
//! - It never connects to the source: what it replays comes from the spool or the repository.

mod error;
mod feed;
mod folder;
mod log;
mod run;
mod server;
mod take;

use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use holdfast_core::{Lsn, Timestamp};

pub use error::MirrorError;
pub(crate) use run::{Mirror, root};
pub(crate) use take::take_over_alone;

use crate::limits;
use crate::restore::LocalServer;
use crate::status::{MirrorState, MirrorStatus, Trouble};
use crate::watch::{Brink, Checkpointed, CutAt};

/// What a mirror became.
#[derive(Clone, Debug)]
pub(crate) struct Promoted {
    pub(crate) directory: PathBuf,
    pub(crate) local: LocalServer,
    /// The timeline that it writes.
    pub(crate) timeline: u32,
    /// The log was replayed up to here.
    pub(crate) reached: Lsn,
    pub(crate) newest_commit: Option<Timestamp>,
}

/// Asks a mirror to take over.
pub(crate) struct Ask {
    pub(crate) cut: CutAt,
    /// The timeline that leads there.
    pub(crate) timeline: u32,
    /// The slot that keeps the new server's log for the vault.
    pub(crate) slot: String,
    pub(crate) answer: SyncSender<Result<Promoted, MirrorError>>,
}

/// How a mirror stands, for everybody who asks.
#[derive(Default)]
pub(crate) struct Board {
    facts: Mutex<Facts>,
}

#[derive(Default)]
struct Facts {
    is_wanted: bool,
    state: MirrorState,
    trouble: Option<Trouble>,
    replayed: Lsn,
    behind_since: Option<Instant>,
    newest_commit: Option<Timestamp>,
    checkpoint: Option<Checkpointed>,
    brink: Option<Brink>,
    local: Option<LocalServer>,
    sealed: u64,
    /// Restore points are read from the source until then.
    unfit_until: Option<Instant>,
    /// There is a point before what destroys here.
    may_pass: Option<Lsn>,
    ask: Option<Ask>,
}

/// A mirror that a restore point can be sealed from.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) local: LocalServer,
    pub(crate) replayed: Lsn,
    /// The newest checkpoint of the source that it has replayed.
    pub(crate) checkpoint: Option<Checkpointed>,
    /// Before what it waits: it has replayed everything before something that destroys.
    pub(crate) brink: Option<Lsn>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that there is to be a mirror.
    pub(crate) fn want(&self) {
        self.lock().is_wanted = true;
    }

    /// Returns the mirror when points can be sealed from it.
    pub(crate) fn ready(&self) -> Option<Ready> {
        let facts = self.lock();
        let is_unfit = facts
            .unfit_until
            .is_some_and(|until| Instant::now() < until);
        let follows = matches!(facts.state, MirrorState::Following | MirrorState::Holding);
        let local = facts.local.clone().filter(|_| follows && !is_unfit)?;
        Some(Ready {
            local,
            replayed: facts.replayed,
            checkpoint: facts.checkpoint,
            brink: facts
                .brink
                .filter(|brink| brink.behind <= facts.replayed)
                .map(|brink| brink.before),
        })
    }

    /// Lets the mirror go on past what destroys at `brink` when its time has come: there is a point
    /// before it.
    pub(crate) fn let_pass(&self, brink: Option<Lsn>) {
        self.lock().may_pass = brink;
    }

    /// Notes a restore point that was sealed.
    pub(crate) fn sealed(&self) {
        let mut facts = self.lock();
        facts.sealed = facts.sealed.saturating_add(1);
        facts.unfit_until = None;
    }

    /// Has restore points read from the source for a while.
    pub(crate) fn unfit(&self) {
        self.lock().unfit_until = Instant::now().checked_add(limits::MIRROR_UNFIT);
    }

    /// Asks the mirror to take over; `false` when there is none that follows.
    pub(crate) fn ask(&self, ask: Ask) -> bool {
        let mut facts = self.lock();
        let follows = matches!(facts.state, MirrorState::Following | MirrorState::Holding);
        if follows {
            facts.ask = Some(ask);
        }
        follows
    }

    /// Returns what `status` shows.
    pub(crate) fn status(&self, flushed: Lsn) -> Option<MirrorStatus> {
        let facts = self.lock();
        facts.is_wanted.then(|| MirrorStatus {
            state: facts.state,
            replayed: facts.replayed,
            lag: flushed.since(facts.replayed),
            lag_s: facts
                .behind_since
                .map_or(0.0, |since| since.elapsed().as_secs_f64()),
            newest_commit: facts.newest_commit,
            holds_before: facts.brink.map(|brink| brink.before),
            sealed: facts.sealed,
            trouble: facts.trouble.clone(),
        })
    }
}
