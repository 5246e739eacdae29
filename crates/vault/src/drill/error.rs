//! Why a drill could not be run to its end.

use std::path::PathBuf;

use holdfast_core::{Code, Coded, ProofError, SourceName};
use holdfast_store::ledger::LedgerError;

use crate::repository::RepositoryError;
use crate::restore::RestoreError;

/// Why a drill could not be run to its end. It says nothing about the restore point.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The drill's folder cannot be used.
    #[error("cannot {step} `{}`", path.display())]
    Folder {
        /// What was attempted.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The result cannot be written down.
    #[error("cannot record the drill")]
    Ledger(#[source] LedgerError),
    /// The repository holds no restore point of this source yet.
    #[error("there is no restore point of `{0}` to drill")]
    NoPoint(SourceName),
    /// The proof cannot be signed.
    #[error("cannot sign the proof")]
    Proof(#[source] ProofError),
    /// The repository cannot be asked.
    #[error("cannot read the repository")]
    Repository(#[source] RepositoryError),
    /// The loss that was to be accepted is none.
    #[error("no drill of `{0}` says that rows are gone")]
    NoLoss(SourceName),
    /// This machine ran out of something in the middle.
    #[error("this machine has too little for the drill of `{name}`: {what}")]
    Room {
        /// Which source.
        name: SourceName,
        /// What went wrong.
        what: String,
    },
    /// Nothing can be restored here.
    #[error("cannot restore for a drill")]
    Restore(#[source] RestoreError),
    /// The drill's thread ended early.
    #[error("the drill was broken off")]
    Thread,
    /// The vault does not protect this source.
    #[error("`{0}` is not protected by this vault")]
    Unknown(SourceName),
}

impl Coded for DrillError {
    fn code(&self) -> Code {
        match self {
            Self::Folder { .. } => Code::ZU305,
            Self::NoLoss(_) => Code::ZU390,
            Self::Room { .. } => Code::ZS331,
            Self::Ledger(error) => error.code(),
            Self::NoPoint(_) => Code::ZU307,
            Self::Proof(error) => error.code(),
            Self::Repository(error) => error.code(),
            Self::Restore(error) => error.code(),
            Self::Thread => Code::ZI306,
            Self::Unknown(_) => Code::ZU603,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Folder { .. } => {
                "nothing was restored; free space, or set `drill.dir` to a folder that the server's account can reach".to_owned()
            }
            Self::Ledger(error) => return error.hint(),
            Self::NoLoss(name) => format!("`holdfast drill show {name}` says what the newest drill found"),
            Self::Room { .. } => {
                "it says nothing about the restore point; free space where drills restore to, or set `drill_dir` to a larger disk".to_owned()
            }
            Self::NoPoint(_) => {
                "wait for the first base backup; `holdfast source list` shows how far it is".to_owned()
            }
            Self::Proof(error) => return error.hint(),
            Self::Repository(error) => return error.hint(),
            Self::Restore(error) => return error.hint(),
            Self::Thread => "run it again; the log says what happened".to_owned(),
            Self::Unknown(_) => "`holdfast source list` names the sources".to_owned(),
        })
    }
}
