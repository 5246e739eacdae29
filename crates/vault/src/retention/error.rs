//! Why nothing expires, or not everything of a plan.

use std::path::PathBuf;

use holdfast_core::{Code, Coded, Timestamp};
use holdfast_store::ledger::LedgerError;
use holdfast_store::object::{ObjectError, ObjectKey};

use super::clock::ClockError;
use super::window::WindowError;
use crate::repository::RepositoryError;

/// Why a plan cannot be made or performed.
#[derive(Debug, thiserror::Error)]
pub enum ExpiryError {
    /// The clocks do not agree.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The plan does not fit what is there now.
    #[error("the plan does not fit any more: {why}")]
    Changed {
        /// What changed.
        why: String,
    },
    /// The ledger refused.
    #[error("the plan cannot be recorded")]
    Ledger(#[from] LedgerError),
    /// The repository refused an object.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The plan was made too long ago.
    #[error("the plan was made at {made}, more than {limit_s} s ago")]
    Old {
        /// When it was made.
        made: Timestamp,
        /// Seconds that it is good for.
        limit_s: u64,
    },
    /// The plan's file cannot be used.
    #[error("cannot use the plan `{}`: {why}", path.display())]
    PlanFile {
        /// Which file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// What is there cannot be read, so nothing of it may go.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The storage keeps what was to go.
    #[error("`{key}` is kept by the storage until {until}")]
    Locked {
        /// Which object.
        key: ObjectKey,
        /// Until when.
        until: Timestamp,
    },
    /// The ledger does not have this plan.
    #[error("this plan was not recorded by this ledger")]
    Unrecorded,
    /// The lock window.
    #[error(transparent)]
    Window(#[from] WindowError),
}

impl Coded for ExpiryError {
    fn code(&self) -> Code {
        match self {
            Self::Clock(error) => error.code(),
            Self::Changed { .. } | Self::Locked { .. } => Code::ZI351,
            Self::Ledger(error) => error.code(),
            Self::Object(error) => error.code(),
            Self::Old { .. } | Self::PlanFile { .. } | Self::Unrecorded => Code::ZU352,
            Self::Repository(error) => error.code(),
            Self::Window(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Clock(error) => return error.hint(),
            Self::Changed { .. } | Self::Locked { .. } => {
                "nothing more was removed; make a new plan with `holdfast vault expire plan` and look at it"
                    .to_owned()
            }
            Self::Ledger(error) => return error.hint(),
            Self::Object(error) => return error.hint(),
            Self::Old { .. } | Self::PlanFile { .. } | Self::Unrecorded => {
                "nothing was removed; make a new plan with `holdfast vault expire plan`".to_owned()
            }
            Self::Repository(error) => return error.hint(),
            Self::Window(error) => return error.hint(),
        })
    }
}
