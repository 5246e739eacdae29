//! How a directory stands, in memory.

use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_core::{ByteCount, NoWayBack, Proof, Timestamp, WayBackAnswer};

use super::{Captured, DirectoryConfig, DirectoryStatus};
use crate::repository::PointSummary;
use crate::status::{ProofState, ProofStatus, Trouble};

/// One directory and what is known about it.
pub(crate) struct DirectoryStanding {
    pub(crate) config: DirectoryConfig,
    facts: Mutex<DirectoryFacts>,
}

/// What is known about a directory right now.
#[derive(Clone, Debug, Default)]
pub(crate) struct DirectoryFacts {
    pub(crate) trouble: Option<Trouble>,
    pub(crate) newest: Option<PointSummary>,
    pub(crate) captured: Option<Captured>,
    pub(crate) proof: Option<Proof>,
    pub(crate) proof_status: ProofStatus,
    pub(crate) busy: Option<&'static str>,
}

impl DirectoryStanding {
    pub(crate) fn new(config: DirectoryConfig) -> Self {
        Self {
            config,
            facts: Mutex::default(),
        }
    }

    /// Locks the facts; never held across I/O.
    pub(crate) fn facts(&self) -> MutexGuard<'_, DirectoryFacts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what `status` shows.
    pub(crate) fn status(&self) -> DirectoryStatus {
        let facts = self.facts().clone();
        let newest = facts.newest.as_ref();
        let is_newest = |captured: &&Captured| newest.map(|n| &n.point) == Some(&captured.point);
        let captured = facts.captured.as_ref().filter(is_newest);
        DirectoryStatus {
            source: self.config.name.clone(),
            directory: self.config.directory.clone(),
            trouble: facts.trouble,
            point: newest.map(|newest| newest.point.clone()),
            at: newest.map(|newest| newest.began),
            files: newest.map_or(0, |newest| newest.files),
            bytes: newest.map_or(ByteCount(0), |newest| newest.bytes),
            read: ByteCount(captured.map_or(0, |captured| captured.read)),
            unsettled: captured.map_or(0, |captured| captured.unsettled),
            missing: captured.map_or(0, |captured| captured.missing),
            left_out: captured
                .map(|captured| captured.left_out.clone())
                .unwrap_or_default(),
            proof: facts.proof_status,
            busy: facts.busy.map(str::to_owned),
        }
    }

    /// Answers the guard's question.
    pub(crate) fn way_back(&self, now: Timestamp) -> Result<WayBackAnswer, NoWayBack> {
        let facts = self.facts();
        let name = || self.config.name.clone();
        if facts.proof_status.state == ProofState::Failed {
            return Err(NoWayBack::ProofFailed(name()));
        }
        let Some(proof) = facts.proof.clone() else {
            return Err(NoWayBack::NeverProven(name()));
        };
        // Without new points, newer files would be lost.
        let newest = facts
            .newest
            .as_ref()
            .map_or(Timestamp(0), |newest| newest.began);
        let late = self.config.every.saturating_mul(2);
        if facts.trouble.is_some() || now.since(newest) > late {
            return Err(NoWayBack::CaptureStopped(name(), now.since(newest)));
        }
        Ok(WayBackAnswer {
            safe_until: proof.report().covers_until,
            lag: ByteCount(0),
            proof,
        })
    }
}
