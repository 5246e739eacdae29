//! Proving a restore point: it is really restored, started, written to and checked.

mod amcheck;
mod catalogs;
mod checks;
mod directory;
mod error;
mod folder;
mod history;
mod memory;
mod open;
mod pace;
pub(crate) mod pages;
mod room;
mod rows;
mod run;
mod schedule;
mod server;
mod service;
mod tally;
mod turns;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ed25519_dalek::SigningKey;
use holdfast_core::{DrillOf, DrillReport, PointId, Proof, SourceName};
use holdfast_store::ledger::Ledger;

use crate::config::{Clock, DrillConfig, SourceConfig};
use crate::engine::directory::DirectoryStatus;
use crate::repository::Repository;
use crate::restore::Place;

pub use error::DrillError;
pub(crate) use history::{History, Known};
pub use memory::{DrillRecord, drills};
pub(crate) use memory::{recall, status};
pub(crate) use pace::Pace;
pub(crate) use schedule::{Due, View};
pub(crate) use turns::{Need, Turns};

/// Ends what drills left behind whose vault was killed: servers and folders.
pub(crate) fn sweep(config: &DrillConfig, state: &std::path::Path) {
    let wished = config
        .dir
        .clone()
        .unwrap_or_else(|| state.join(run::FOLDER));
    let swept = folder::sweep(&wished);
    if swept > 0 {
        tracing::info!(swept, "ended drills that an earlier vault had begun");
    }
}

/// What a drill needs besides the source.
#[derive(Clone)]
pub(crate) struct DrillContext {
    /// Where the vault's things are.
    pub(crate) place: Place,
    /// How drills are run.
    pub(crate) config: DrillConfig,
    /// Where proofs are kept.
    pub(crate) repository: Repository,
    /// Where every drill is recorded.
    pub(crate) ledger: Ledger,
    /// What proofs are signed with.
    pub(crate) key: SigningKey,
    /// Reads the time.
    pub(crate) clock: Clock,
    /// What earlier drills left.
    pub(crate) history: Arc<Mutex<History>>,
}

impl DrillContext {
    /// Locks what earlier drills left; never held across I/O.
    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who waits for a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    /// Nobody: it keeps within the limits of drills.
    Background,
    /// A person: it is run as fast as it can be.
    Waited,
}

/// Is told how far a drill is, from several threads.
pub(crate) type TellFn = Arc<dyn Fn(String) + Send + Sync>;

/// One drill that is to be run.
#[derive(Clone)]
pub(crate) struct Job {
    /// Which kind.
    pub(crate) of: DrillOf,
    /// Which point; the newest if absent.
    pub(crate) point: Option<PointId>,
    /// Who waits for it.
    pub(crate) haste: Haste,
    /// Who is told how far it is.
    pub(crate) tell: TellFn,
}

impl Job {
    fn tell(&self, text: &str) {
        (self.tell)(text.to_owned());
    }

    fn teller(&self) -> TellFn {
        Arc::clone(&self.tell)
    }

    /// Returns what holds it back.
    fn pace(&self, config: &DrillConfig) -> Option<Arc<Pace>> {
        let limit = config
            .bytes_per_s
            .filter(|_| self.haste == Haste::Background);
        limit.map(|limit| Arc::new(Pace::new(limit)))
    }

    fn nice(&self, config: &DrillConfig) -> i32 {
        match self.haste {
            Haste::Background => config.nice,
            Haste::Waited => 0,
        }
    }

    fn is_paced(&self, config: &DrillConfig) -> bool {
        self.nice(config) > 0 || self.pace(config).is_some()
    }
}

/// Returns a random number, or none too random where the system has none.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => 0,
    }
}

/// Runs a drill in a thread of its own, whose priority can be lowered and whose end ends its server.
async fn in_thread<T: Send + 'static>(
    nice: i32,
    work: impl FnOnce() -> Result<T, DrillError> + Send + 'static,
) -> Result<T, DrillError> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let spawned = std::thread::Builder::new()
        .name("holdfast-drill".to_owned())
        .spawn(move || {
            pace::be_nice(nice);
            // Nobody may be waiting any more.
            let _ = tell.send(work());
        });
    match spawned {
        Ok(_) => told.await.unwrap_or(Err(DrillError::Thread)),
        Err(_) => Err(DrillError::Thread),
    }
}

/// A drill that was run to its end.
#[derive(Clone, Debug)]
pub(crate) struct Drilled {
    /// What it did and found.
    pub(crate) report: DrillReport,
    /// The proof, when everything that was checked was right.
    pub(crate) proof: Option<Proof>,
}

/// Restores a point of a directory into a folder of its own, compares it, records and signs it.
///
/// # Errors
/// As [`drill`].
///
/// # Cancellation
/// As [`drill`].
pub(crate) async fn drill_directory(
    ctx: &DrillContext,
    source: &SourceName,
    standing: DirectoryStatus,
    job: &Job,
) -> Result<Drilled, DrillError> {
    let (ctx, source, job) = (ctx.clone(), source.clone(), job.clone());
    let nice = job.nice(&ctx.config);
    in_thread(nice, move || {
        directory::run(&ctx, (&source, &standing), &job)
    })
    .await
}

/// Restores a point of `source` into a folder of its own, checks it, records and signs it.
///
/// # Errors
/// [`DrillError`] when the drill could not be run to its end: that says nothing about the point. A
/// point that cannot be restored or is damaged is a report that failed.
///
/// # Cancellation
/// The drill itself goes on in its thread, and removes what it made.
pub(crate) async fn drill(
    ctx: &DrillContext,
    source: &SourceConfig,
    job: &Job,
) -> Result<Drilled, DrillError> {
    let (ctx, source, job) = (ctx.clone(), source.clone(), job.clone());
    let nice = job.nice(&ctx.config);
    in_thread(nice, move || run::run(&ctx, &source, &job)).await
}
