//! Why a mirror does not follow.

use std::path::PathBuf;

use holdfast_core::{Code, Coded, Lsn};
use holdfast_wire::pg::wal::WalError;

use crate::repository::RepositoryError;
use crate::restore::RestoreError;
use crate::source::SourceError;
use crate::spool::SpoolError;

/// Why a mirror does not follow, or cannot take over.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// Its server does not answer.
    #[error("the mirror's server does not answer")]
    Ask(#[source] SourceError),
    /// It has replayed what the source has left.
    #[error(
        "the mirror has replayed timeline {timeline} to {fed}, and the source left it at {left}"
    )]
    Diverged {
        /// The timeline.
        timeline: u32,
        /// Where the source left it.
        left: Lsn,
        /// How far the mirror was fed.
        fed: Lsn,
    },
    /// Its folder cannot be used.
    #[error("cannot {step} `{}` for the mirror", path.display())]
    Folder {
        /// What was attempted.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The log cannot be read.
    #[error("the log at {at} cannot be read for the mirror")]
    Log {
        /// Where.
        at: Lsn,
        /// Why.
        source: WalError,
    },
    /// There is no mirror that could take over.
    #[error("no mirror of this source can take over: {why}")]
    None {
        /// Why not.
        why: String,
    },
    /// What was asked for lies before what it has replayed.
    #[error("the mirror has replayed more than that already")]
    Passed,
    /// It was not promoted.
    #[error("the mirror was not promoted: {why}")]
    Promote {
        /// Why.
        why: String,
        /// The last lines of its log.
        said: String,
    },
    /// PostgreSQL cannot replay the log.
    #[error("the log does not replay: {why}")]
    Replay {
        /// What it said.
        why: String,
        /// The last lines of its log.
        said: String,
    },
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Its files cannot be laid.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Its server ended.
    #[error("the mirror's server does not run: {why}")]
    Server {
        /// Where.
        directory: PathBuf,
        /// What it said last.
        why: String,
    },
    /// The spool cannot be read.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// We were told to stop.
    #[error("stopped")]
    Stopped,
    /// The log makes a tablespace.
    #[error("the log makes a tablespace at {at}, whose place on this machine is not the mirror's")]
    Tablespace {
        /// Where.
        at: Lsn,
    },
}

impl MirrorError {
    /// Tells whether a new mirror is the only way on.
    pub(super) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Diverged { .. } | Self::Promote { .. } | Self::Tablespace { .. }
        )
    }
}

impl Coded for MirrorError {
    fn code(&self) -> Code {
        match self {
            Self::Ask(_) | Self::Server { .. } | Self::Stopped => Code::ZS380,
            Self::Diverged { .. } | Self::Tablespace { .. } => Code::ZI381,
            Self::Folder { .. } => Code::ZS381,
            Self::Log { .. } | Self::Replay { .. } => Code::ZI380,
            Self::None { .. } | Self::Passed | Self::Promote { .. } => Code::ZS382,
            Self::Repository(error) => error.code(),
            Self::Restore(error) => error.code(),
            Self::Spool(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Ask(_) | Self::Stopped => {
                "capture and restore points go on; the mirror is started again by itself".to_owned()
            }
            Self::Diverged { .. } => {
                "nothing is lost; a new mirror is made from the newest restore point".to_owned()
            }
            Self::Folder { .. } => {
                "free space, or look at who owns it; capture and restore points go on".to_owned()
            }
            Self::Log { .. } => {
                "capture goes on; run `holdfast drill run` now, and take a new base if it fails too"
                    .to_owned()
            }
            Self::Replay { said, .. } => format!(
                "run `holdfast drill run` now: what the mirror cannot replay no restore can; its log ends with: {}",
                said.trim().replace('\n', " | ")
            ),
            Self::None { .. } | Self::Passed => {
                "nothing was changed; the restore from the repository takes longer and is tried instead"
                    .to_owned()
            }
            Self::Promote { said, .. } => format!(
                "nothing of the vault was changed; its log ends with: {}",
                said.trim().replace('\n', " | ")
            ),
            Self::Server { directory, .. } => format!(
                "it is started again by itself; its log is `{}`",
                directory.join("holdfast.log").display()
            ),
            Self::Tablespace { .. } => {
                "nothing is lost; a restore point is read from the source, and a new mirror made of it"
                    .to_owned()
            }
            Self::Repository(error) => return error.hint(),
            Self::Restore(error) => return error.hint(),
            Self::Spool(error) => return error.hint(),
        })
    }
}
