//! Proving a restore point: it is really restored, started, written to and checked.

mod checks;
mod directory;
mod error;
mod folder;
mod memory;
pub(crate) mod pages;
mod run;
mod server;

use ed25519_dalek::SigningKey;
use holdfast_core::{DrillReport, Proof, SourceName};
use holdfast_store::ledger::Ledger;

use crate::config::{Clock, DrillConfig, SourceConfig};
use crate::engine::directory::DirectoryStatus;
use crate::repository::Repository;
use crate::restore::Place;

pub use error::DrillError;
pub use memory::{DrillRecord, drills};
pub(crate) use memory::{recall, status};

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
}

/// A drill that was run to its end.
#[derive(Clone, Debug)]
pub(crate) struct Drilled {
    /// What it did and found.
    pub(crate) report: DrillReport,
    /// The proof, when everything that was checked was right.
    pub(crate) proof: Option<Proof>,
}

/// Restores the newest point of a directory into a folder of its own, compares it, records and signs it.
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
) -> Result<Drilled, DrillError> {
    let (ctx, source) = (ctx.clone(), source.clone());
    match tokio::task::spawn_blocking(move || directory::run(&ctx, &source, &standing)).await {
        Ok(drilled) => drilled,
        Err(_) => Err(DrillError::Thread),
    }
}

/// Restores the newest point of `source` into a folder of its own, checks it, records and signs it.
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
) -> Result<Drilled, DrillError> {
    let (ctx, source) = (ctx.clone(), source.clone());
    match tokio::task::spawn_blocking(move || run::run(&ctx, &source)).await {
        Ok(drilled) => drilled,
        Err(_) => Err(DrillError::Thread),
    }
}
