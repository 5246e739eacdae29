//! How a source stands, in memory: written by capture, read by status and by the guard's question.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use holdfast_core::{
    Coded, ErrorChain, Lsn, NoWayBack, PointId, Proof, SourceName, Timestamp, WayBackAnswer,
};

use tokio::sync::Notify;

use crate::config::SourceConfig;
use crate::limits;
use crate::mirror::Board;
use crate::moved::Moved;
use crate::source::ConnectionUrl;
use crate::status::{CaptureState, PointReading, ProofState, ProofStatus, SourceStatus, Trouble};

/// What is known about a source right now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) state: CaptureState,
    pub(crate) trouble: Option<Trouble>,
    /// What is in the way of the repository alone; capture into the spool goes on meanwhile.
    pub(crate) ship_trouble: Option<Trouble>,
    /// What is wrong with the log itself, until there is a base behind it.
    pub(crate) log_trouble: Option<Trouble>,
    /// From where on the log cannot be read, until it is given up from there.
    pub(crate) damaged_at: Option<Lsn>,
    /// When a new base was last begun because of that.
    pub(crate) healed: Option<Instant>,
    /// What is in the way of a base backup alone.
    pub(crate) base_trouble: Option<Trouble>,
    pub(crate) system_identifier: Option<u64>,
    pub(crate) timeline: u32,
    /// Per timeline, up to where the spool is durable and to be trusted.
    pub(crate) logs: BTreeMap<u32, Lsn>,
    /// Per timeline, up to where the repository has it.
    pub(crate) shipped_logs: BTreeMap<u32, Lsn>,
    /// The source no longer has the log that we need next.
    pub(crate) missing: bool,
    /// The source does not stream from our slot as it is.
    pub(crate) slot_refused: bool,
    /// Our slot was left to somebody, and the next has not been made.
    pub(crate) slot_left: bool,
    /// Since when somebody streams from our slot.
    pub(crate) slot_taken_since: Option<Instant>,
    /// The log is continuous from here on.
    pub(crate) log_from: Lsn,
    pub(crate) flushed: Lsn,
    pub(crate) shipped: Lsn,
    /// The end of the source's log when it last spoke.
    pub(crate) server_end: Lsn,
    /// Since when something of the source is not durable here.
    pub(crate) behind_since: Option<Instant>,
    /// When the source last spoke.
    pub(crate) heard_at: Option<Instant>,
    /// When capture stopped streaming, while it does not.
    pub(crate) stopped_at: Option<Instant>,
    pub(crate) newest_commit: Option<Timestamp>,
    /// The newest commit that is in the repository.
    pub(crate) safe_until: Option<Timestamp>,
    pub(crate) point: Option<PointId>,
    /// The newest base of the repository, and where its log begins.
    pub(crate) base: Option<(PointId, Lsn)>,
    /// Somebody asked for a restore point that was not yet taken.
    pub(crate) point_wanted: bool,
    /// How the newest restore point was read.
    pub(crate) reading: Option<PointReading>,
    pub(crate) proof: Option<Proof>,
    pub(crate) proof_status: ProofStatus,
    /// The points whose newest drill failed.
    pub(crate) failed_points: Vec<PointId>,
    pub(crate) busy: BTreeMap<&'static str, String>,
}

/// One source and what is known about it.
pub(crate) struct Standing {
    pub(crate) config: SourceConfig,
    facts: Mutex<Facts>,
    /// A restore point came or went.
    pub(crate) changed: Notify,
    pub(crate) mirror: Board,
    /// The server that took the source's place.
    moved: Mutex<Option<Moved>>,
    /// How often the source was exchanged for another server.
    moves: AtomicU64,
    /// Wakes capture when it was.
    pub(crate) wakes: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Standing {
    pub(crate) fn new(config: SourceConfig) -> Self {
        let facts = Facts {
            stopped_at: Some(Instant::now()),
            ..Facts::default()
        };
        Self {
            config,
            facts: Mutex::new(facts),
            changed: Notify::new(),
            mirror: Board::default(),
            moved: Mutex::new(None),
            moves: AtomicU64::new(0),
            wakes: OnceLock::new(),
        }
    }

    /// Returns how the server is reached that is the source now.
    pub(crate) fn url(&self) -> ConnectionUrl {
        let moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        match moved.as_ref() {
            Some(moved) => moved.url(&self.config.url),
            None => self.config.url.clone(),
        }
    }

    /// Notes that another server is the source from now on.
    pub(crate) fn moves(&self, to: Option<Moved>) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = to;
        self.moves.fetch_add(1, Ordering::Relaxed);
        if let Some(wake) = self.wakes.get() {
            wake();
        }
    }

    /// Tells how often the source was exchanged: whoever speaks with an older one is to stop.
    pub(crate) fn generation(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    /// Locks the facts; never held across I/O.
    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the stream does not run, and why; tells whether that is news.
    pub(crate) fn stopped(&self, state: CaptureState, trouble: Trouble) -> bool {
        let mut facts = self.facts();
        let before = facts.trouble.as_ref().map(|before| before.code.as_str());
        let is_new = before != Some(trouble.code.as_str());
        facts.state = state;
        facts.trouble = Some(trouble);
        facts.stopped_at.get_or_insert_with(Instant::now);
        is_new
    }

    /// Waits a little until `is_there` says that what is known is enough; blocks.
    pub(crate) fn wait_until(
        &self,
        is_there: impl Fn(&Facts) -> bool,
        cancelled: &dyn Fn() -> bool,
    ) -> bool {
        let until = Instant::now() + limits::REHEARSAL_CATCHES_UP;
        loop {
            if is_there(&self.facts()) {
                return true;
            }
            if Instant::now() >= until || cancelled() {
                return false;
            }
            std::thread::sleep(limits::DRILL_POLL);
        }
    }

    /// Shows what is being done until the returned mark is dropped.
    pub(crate) fn busy(&self, what: &'static str) -> Busy<'_> {
        self.facts().busy.insert(what, what.to_owned());
        Busy {
            standing: self,
            what,
        }
    }

    /// Returns what `status` shows; ages are measured by a clock that nobody can set.
    pub(crate) fn status(&self) -> SourceStatus {
        let facts = self.facts().clone();
        let seconds = |since: Instant| since.elapsed().as_secs_f64();
        // While nobody can tell what the source has committed, the time since it last spoke is the lag.
        let lag_s = match (facts.state, facts.behind_since, facts.heard_at) {
            (CaptureState::Streaming, behind, _) => behind.map_or(0.0, seconds),
            (_, _, Some(heard)) => seconds(heard),
            (_, _, None) => 0.0,
        };
        let state = match (facts.state, &facts.ship_trouble) {
            (CaptureState::Streaming, Some(_)) => CaptureState::Failed,
            (state, _) => state,
        };
        let busy: Vec<String> = facts.busy.into_values().collect();
        let mirror = self.mirror.status(facts.flushed);
        let moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        SourceStatus {
            source: self.config.name.clone(),
            state,
            trouble: facts
                .trouble
                .or(facts.ship_trouble)
                .or(facts.log_trouble)
                .or(facts.base_trouble)
                .or_else(|| mirror.as_ref()?.trouble.clone()),
            mode: self.config.mode,
            ack: self.config.ack,
            system_identifier: facts.system_identifier,
            timeline: facts.timeline,
            flushed: facts.flushed,
            shipped: facts.shipped,
            lag: facts.server_end.since(facts.flushed),
            lag_s,
            newest_commit: facts.newest_commit,
            point: facts.point,
            reading: facts.reading,
            proof: facts.proof_status,
            failed_points: facts.failed_points,
            moved_to: moved.as_ref().map(ToString::to_string),
            mirror,
            busy: (!busy.is_empty()).then(|| busy.join(", ")),
        }
    }

    /// Answers the guard's question.
    pub(crate) fn way_back(&self) -> Result<WayBackAnswer, NoWayBack> {
        let facts = self.facts();
        let name = || self.config.name.clone();
        if facts.proof_status.state == ProofState::Failed {
            return Err(NoWayBack::ProofFailed(name()));
        }
        let Some(proof) = facts.proof.clone() else {
            return Err(NoWayBack::NeverProven(name()));
        };
        if let Some(stopped) = facts.stopped_at {
            return Err(NoWayBack::CaptureStopped(name(), stopped.elapsed()));
        }
        let covered = proof.report().covers_until;
        Ok(WayBackAnswer {
            safe_until: facts.safe_until.map_or(covered, |safe| safe.max(covered)),
            lag: facts.server_end.since(facts.shipped),
            proof,
        })
    }
}

/// Shows that something is being done while it lives.
pub(crate) struct Busy<'a> {
    standing: &'a Standing,
    what: &'static str,
}

impl Busy<'_> {
    /// Shows how far it is.
    pub(crate) fn says(&self, text: String) {
        self.standing.facts().busy.insert(self.what, text);
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.standing.facts().busy.remove(self.what);
    }
}

/// Turns an error into what `status` shows.
pub(crate) fn trouble<E: Coded + 'static>(error: &E) -> Trouble {
    Trouble {
        code: error.code().to_string(),
        what: ErrorChain(error).to_string(),
        hint: error.hint(),
    }
}

/// Every source of this vault by name.
pub(crate) type Standings = BTreeMap<SourceName, std::sync::Arc<Standing>>;
