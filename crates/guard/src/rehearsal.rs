//! Rehearsals of what is held: asked for when the hold is made, run one after the other, kept beside it.
//!
//! What a rehearsal runs stays in memory: texts and parameters may hold personal data. What it measured
//! is kept with the hold; the ledger has its digest and its numbers.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use holdfast_core::ledger::Draft;
use holdfast_core::{
    Digest, ErrorChain, HoldId, NoRehearsal, Principal, Rehearsal, RehearsalRequest,
    RehearsalState, Rehearse, Timestamp,
};
use holdfast_store::ledger::Ledger;
use holdfast_store::record::{Record, RecordError, Records};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::hold::Holds;
use crate::limits::{REHEARSAL_LOOKS_EVERY, REHEARSALS_WAITING_MAX};

/// The rehearsal of one hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRehearsal {
    /// The hold.
    pub hold: HoldId,
    /// Digest of what is run; `None` when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Digest>,
    /// How it stands.
    #[serde(flatten)]
    pub state: RehearsalState,
}

impl Record for KeptRehearsal {
    const KIND: &'static str = "rehearsal";
}

/// What is to be rehearsed, or why it cannot be.
pub type Wanted = Result<RehearsalRequest, String>;

/// Without a vault nothing can be rehearsed.
#[derive(Debug, Clone, Copy)]
pub struct NoStage;

impl Rehearse for NoStage {
    fn rehearse(
        &self,
        _request: &RehearsalRequest,
        _cancelled: &dyn Fn() -> bool,
    ) -> Result<Rehearsal, NoRehearsal> {
        Err(NoRehearsal::Unreachable)
    }
}

/// The queue of rehearsals. Clones share it.
#[derive(Clone)]
pub struct Rehearsals {
    shared: Arc<Shared>,
}

struct Shared {
    records: Records,
    ledger: Ledger,
    holds: Holds,
    stage: Arc<dyn Rehearse>,
    jobs: mpsc::Sender<Job>,
    queue: Mutex<Option<mpsc::Receiver<Job>>>,
    /// Holds that wait for one and the same rehearsal.
    waiting: Mutex<BTreeMap<Digest, Vec<HoldId>>>,
}

/// One rehearsal to be run.
struct Job {
    digest: Digest,
    request: RehearsalRequest,
}

impl Rehearsals {
    /// Makes the queue; it works once [`Rehearsals::run`] is called.
    ///
    /// Rehearsals of an earlier process are lost, because nothing of what they run was kept.
    ///
    /// # Errors
    /// [`RecordError`] when the state file cannot be read or written.
    pub fn new(
        records: Records,
        ledger: Ledger,
        stage: Arc<dyn Rehearse>,
    ) -> Result<Self, RecordError> {
        for (mut kept, version) in records.list::<KeptRehearsal>()? {
            if kept.state.is_open() {
                kept.state = RehearsalState::Impossible {
                    why: "guard was started anew before it ended; ask for the action again"
                        .to_owned(),
                    at: clock::now(),
                };
                records.replace(kept.hold.as_str(), version, &kept)?;
            }
        }
        let (jobs, queue) = mpsc::channel(REHEARSALS_WAITING_MAX);
        let shared = Shared {
            holds: Holds::new(records.clone(), ledger.clone()),
            records,
            ledger,
            stage,
            jobs,
            queue: Mutex::new(Some(queue)),
            waiting: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Asks for the rehearsal of a hold, unless it has one that stands or is on its way.
    ///
    /// It never waits for the rehearsal, and a rehearsal that cannot be made changes nothing of the hold.
    pub fn ask(&self, hold: &HoldId, wanted: Wanted) {
        let found = self.shared.records.find::<KeptRehearsal>(hold.as_str());
        let is_settled = match &found {
            Ok(Some((kept, _))) => {
                kept.state.is_open() || matches!(kept.state, RehearsalState::Done { .. })
            }
            Ok(None) | Err(_) => false,
        };
        if is_settled {
            return;
        }
        let now = clock::now();
        let request = match wanted {
            Ok(request) => request,
            Err(why) => return self.conclude(hold, None, Err(why)),
        };
        let digest = request.digest();
        let mut waiting = self.waiting();
        if let Some(holds) = waiting.get_mut(&digest) {
            // Kept while nobody can end it: what it ends with is never overwritten.
            self.keep(hold, Some(digest), RehearsalState::Pending { since: now });
            if !holds.contains(hold) {
                holds.push(hold.clone());
            }
            return;
        }
        self.keep(hold, Some(digest), RehearsalState::Pending { since: now });
        waiting.insert(digest, vec![hold.clone()]);
        drop(waiting);
        if self.shared.jobs.try_send(Job { digest, request }).is_err() {
            let why = format!("{REHEARSALS_WAITING_MAX} others wait already");
            self.end(digest, &Err(why));
        }
    }

    /// Runs what is asked for until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let queue = self.shared.queue.lock();
        let Some(mut queue) = queue.unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        loop {
            let job = tokio::select! {
                () = stop.cancelled() => return,
                job = queue.recv() => job,
            };
            let Some(job) = job else { return };
            let (own, stop) = (self.clone(), stop.clone());
            let ran = tokio::task::spawn_blocking(move || own.rehearse(&job, &stop)).await;
            if let Err(error) = ran {
                tracing::error!(%error, "a rehearsal ended by a defect");
            }
        }
    }

    fn rehearse(&self, job: &Job, stop: &CancellationToken) {
        let looked = Cell::new((Instant::now(), self.is_wanted(job.digest)));
        let cancelled = || {
            let (at, wanted) = looked.get();
            if at.elapsed() >= REHEARSAL_LOOKS_EVERY {
                looked.set((Instant::now(), self.is_wanted(job.digest)));
            }
            !wanted || stop.is_cancelled()
        };
        let outcome = if cancelled() {
            Err(NoRehearsal::Cancelled)
        } else {
            let since = clock::now();
            for hold in self.waiting().get(&job.digest).cloned().unwrap_or_default() {
                self.keep(&hold, Some(job.digest), RehearsalState::Running { since });
            }
            self.shared.stage.rehearse(&job.request, &cancelled)
        };
        let outcome = match outcome {
            Ok(rehearsal) if rehearsal.request != job.digest => {
                Err("the vault rehearsed something else".to_owned())
            }
            Ok(rehearsal) => Ok(rehearsal),
            Err(error) => Err(error.to_string()),
        };
        self.end(job.digest, &outcome);
    }

    /// Tells whether any hold that waits for it can still be approved or used.
    fn is_wanted(&self, digest: Digest) -> bool {
        let holds = self.waiting().get(&digest).cloned().unwrap_or_default();
        let now = clock::now();
        holds.iter().any(|hold| {
            let found = self.shared.holds.find(hold);
            found.is_ok_and(|hold| matches!(hold.word(now), "waiting" | "approved"))
        })
    }

    fn end(&self, digest: Digest, outcome: &Result<Rehearsal, String>) {
        let holds = self.waiting().remove(&digest).unwrap_or_default();
        for hold in holds {
            self.conclude(&hold, Some(digest), outcome.clone());
        }
    }

    fn conclude(&self, hold: &HoldId, digest: Option<Digest>, outcome: Result<Rehearsal, String>) {
        let now = clock::now();
        let (entry, state) = match outcome {
            Ok(rehearsal) => {
                let entry = done(&rehearsal, now);
                let rehearsal = Box::new(rehearsal);
                (entry, RehearsalState::Done { rehearsal })
            }
            Err(why) => {
                let entry = draft("rehearsal.impossible", now).with("why", why.clone());
                (entry, RehearsalState::Impossible { why, at: now })
            }
        };
        let found = self.shared.holds.find(hold);
        let mut entry = entry.with("hold", hold.to_string());
        if let Ok(found) = found {
            entry = entry.action(found.action.id);
            entry.source = found.action.source;
            entry.lease = found.action.lease;
        }
        // A rehearsal that is not in the ledger is not shown either.
        let state = match self.shared.ledger.append(entry) {
            Ok(_) => state,
            Err(error) => {
                let why = format!("it cannot be recorded: {}", ErrorChain(&error));
                RehearsalState::Impossible { why, at: now }
            }
        };
        self.keep(hold, digest, state);
    }

    fn keep(&self, hold: &HoldId, request: Option<Digest>, state: RehearsalState) {
        let kept = KeptRehearsal {
            hold: hold.clone(),
            request,
            state,
        };
        let records = &self.shared.records;
        let found = records.find::<KeptRehearsal>(hold.as_str());
        let kept = found.and_then(|found| match found {
            Some((_, version)) => records.replace(hold.as_str(), version, &kept),
            None => records.insert(hold.as_str(), &kept),
        });
        if let Err(error) = kept {
            let what = ErrorChain(&error);
            tracing::warn!(%hold, %what, "the rehearsal cannot be kept");
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Digest, Vec<HoldId>>> {
        self.shared
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn draft(kind: &'static str, now: Timestamp) -> Draft {
    Draft::new(kind, Principal::service("guard"), now)
}

/// The ledger has numbers and names of things; what a server said of a failure may hold a person's data.
fn done(rehearsal: &Rehearsal, now: Timestamp) -> Draft {
    let entry = draft("rehearsal.done", now)
        .with("digest", rehearsal.digest().to_string())
        .with("request", rehearsal.request.to_string())
        .with("position", rehearsal.position.to_string())
        .with("at", rehearsal.at.to_string())
        .with("form", rehearsal.form.clone())
        .with("confinement", serde_json::json!(rehearsal.confinement))
        .with("rows", serde_json::json!(rehearsal.rows))
        .with("objects", serde_json::json!(rehearsal.objects));
    match &rehearsal.failed {
        None => entry,
        Some(failed) => entry.with("failed", failed.code.clone()),
    }
}
