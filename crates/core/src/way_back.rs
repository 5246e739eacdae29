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

impl WayBackAnswer {
    /// Returns how long it is since the restore point was really restored.
    pub fn age(&self, now: Timestamp) -> Duration {
        now.since(self.proof.report().drilled_at)
    }

    /// Returns how long it took then until a first write was committed.
    pub fn rto(&self) -> Duration {
        self.proof.report().rto
    }

    /// Returns what a person must look at although the source can be brought back.
    pub fn alarm(&self) -> Option<String> {
        self.proof.report().alarm()
    }
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

impl NoWayBack {
    /// Says what a person does next.
    pub fn hint(&self) -> String {
        match self {
            Self::NeverProven(source) => format!(
                "a human runs `holdfast drill run {source}`; `holdfast source list` says whether it has a restore point; then ask again"
            ),
            Self::ProofFailed(source) => format!(
                "a human looks at what failed with `holdfast drill show {source}`, mends it and runs `holdfast drill run {source}`; then ask again"
            ),
            Self::UnknownSource(_) => {
                "add it with `holdfast source add`, so that the vault keeps and drills it".to_owned()
            }
            Self::Unreachable => {
                "a human starts the vault with `holdfast up` or `holdfast vault run`; then ask again"
                    .to_owned()
            }
            Self::CaptureStopped(source, _) => format!(
                "`holdfast source list` says why the vault does not hear `{source}`; when it does again, ask again"
            ),
        }
    }
}

/// Answers from memory, in microseconds, whether a source can be brought back.
pub trait WayBack: Send + Sync {
    /// Returns the newest proof of `source` and what would be lost since.
    ///
    /// # Errors
    /// [`NoWayBack`]; every error refuses what asked.
    fn way_back(&self, source: &SourceName, now: Timestamp) -> Result<WayBackAnswer, NoWayBack>;
}
