//! The question that guard asks and the vault answers.

use std::time::Duration;

use crate::{ByteCount, Proof, SourceName, Timestamp};

/// What the vault can say about bringing a source back, now.
#[derive(Clone, Debug)]
pub struct WayBackAnswer {
    /// The newest proof of this source.
    pub proof: Proof,
    /// The newest commit that is safe in the repository.
    pub safe_until: Timestamp,
    /// Commits of the source that are not yet safe in the repository.
    pub lag: ByteCount,
}

/// Why there is no way back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoWayBack {
    /// No drill of this source has passed.
    #[error("no restore point of `{0}` has been proven by a drill")]
    NeverProven(SourceName),
    /// The newest drill found something wrong.
    #[error("the newest drill of `{0}` failed")]
    ProofFailed(SourceName),
    /// The vault does not protect this source.
    #[error("`{0}` is not protected by the vault")]
    UnknownSource(SourceName),
    /// The vault does not run or did not answer.
    #[error("the vault does not answer")]
    Unreachable,
    /// Capture has stopped, so that newer commits would be lost.
    #[error("capture of `{0}` stopped {1:?} ago")]
    CaptureStopped(SourceName, Duration),
}

/// Answers from memory, in microseconds, whether a source can be brought back.
pub trait WayBack: Send + Sync {
    /// Returns the newest proof of `source` and what would be lost since.
    ///
    /// # Errors
    /// [`NoWayBack`]; every error refuses what asked.
    fn way_back(&self, source: &SourceName, now: Timestamp) -> Result<WayBackAnswer, NoWayBack>;
}
