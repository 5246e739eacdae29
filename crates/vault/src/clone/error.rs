//! Why a clone was not opened, or cannot be used.

use std::io;
use std::path::PathBuf;

use holdfast_core::{ByteCount, Code, Coded};

use super::CloneId;
use crate::mount::MountError;
use crate::restore::RestoreError;
use crate::source::SourceError;

/// Why a clone was not opened, or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CloneError {
    /// Its server refuses what makes it a clone.
    #[error("cannot {step} in the clone `{id}`")]
    Disarm {
        /// Which clone.
        id: CloneId,
        /// What was attempted.
        step: &'static str,
        /// What the server said.
        source: SourceError,
    },
    /// The folder of clones or of one cannot be used.
    #[error("cannot {step} `{}`", path.display())]
    Folder {
        /// What was attempted.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its process is not there, or does not answer.
    #[error("the clone `{id}` does not answer: {why}")]
    Gone {
        /// Which clone.
        id: CloneId,
        /// Why not.
        why: String,
    },
    /// There are as many as there may be.
    #[error("there are {count} clones, and there may be {max}")]
    Many {
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// Its point cannot be mounted, or its mount does not do what was asked.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// It was asked for as a mounted one.
    #[error("a clone cannot be mounted here: {why}")]
    NotMounted {
        /// Why not.
        why: String,
    },
    /// What a clone's folder says of it is damaged.
    #[error("the record of the clone in `{}` cannot be believed: {why}", path.display())]
    Record {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The data cannot be brought.
    #[error("cannot bring the data of a clone")]
    Restore(#[source] RestoreError),
    /// It would take more than a clone may.
    #[error("the clone would take {needed} of the disk, and a clone may take {max}")]
    Room {
        /// What it would take.
        needed: ByteCount,
        /// What it may.
        max: ByteCount,
    },
    /// Its server does not come into service.
    #[error("the server of the clone `{id}` does not come into service: {why}")]
    Server {
        /// Which clone.
        id: CloneId,
        /// Why not.
        why: String,
        /// The last lines of its log.
        log: String,
    },
    /// It is not in a state in which that can be done.
    #[error("the clone `{id}` cannot be {what}: {why}")]
    State {
        /// Which clone.
        id: CloneId,
        /// What was asked: `kept`, `closed`, …
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// It would live longer than a clone may.
    #[error("a clone lives for at most {max_s} s, and {asked_s} s were asked for")]
    Time {
        /// What was asked for, in seconds.
        asked_s: u64,
        /// The most, in seconds.
        max_s: u64,
    },
    /// No clone is called so.
    #[error("there is no clone `{0}`")]
    Unknown(String),
}

impl From<RestoreError> for CloneError {
    fn from(error: RestoreError) -> Self {
        Self::Restore(error)
    }
}

impl Coded for CloneError {
    fn code(&self) -> Code {
        match self {
            Self::Disarm { .. } => Code::ZS371,
            Self::Folder { .. } => Code::ZS372,
            Self::Gone { .. } => Code::ZS373,
            Self::Many { .. } | Self::Room { .. } | Self::Time { .. } => Code::ZU371,
            Self::Mount(error) => error.code(),
            Self::NotMounted { .. } => Code::ZU470,
            Self::Record { .. } => Code::ZI371,
            Self::Restore(error) => error.code(),
            Self::Server { .. } => Code::ZS374,
            Self::State { .. } => Code::ZU373,
            Self::Unknown(_) => Code::ZU372,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Disarm { .. } => {
                "the clone was not opened, its folder was removed and the source was not touched; look at the message, then open it again".to_owned()
            }
            Self::Folder { .. } => {
                "no clone was opened; set `dir` in `[vault.clones]` to a folder with room that the server's account can reach".to_owned()
            }
            Self::Gone { id, .. } => format!(
                "`holdfast clone list` opens it again or removes what is left; `holdfast clone close {id}` ends it"
            ),
            Self::Many { .. } => {
                "nothing was opened; close one with `holdfast clone close`, or raise `count_max` in `[vault.clones]`".to_owned()
            }
            Self::Mount(error) => return error.hint(),
            Self::NotMounted { .. } => {
                "nothing was opened; ask for `--form auto` or `--form restored`, which restores everything first".to_owned()
            }
            Self::Record { path, .. } => format!(
                "nothing was touched; `{}` is not removed by itself: look at it, then remove its folder by hand",
                path.display()
            ),
            Self::Restore(error) => return error.hint(),
            Self::Room { .. } => {
                "nothing was fetched; raise `disk_max_mib` in `[vault.clones]`".to_owned()
            }
            Self::Server { log, .. } => format!(
                "the source was not touched; the server's log ends with: {}",
                log.trim().replace('\n', " | ")
            ),
            Self::State { .. } => "nothing was changed; `holdfast clone show` says how it is".to_owned(),
            Self::Time { .. } => {
                "nothing was opened; ask for less with --ttl, or raise `ttl_max_s` in `[vault.clones]`".to_owned()
            }
            Self::Unknown(_) => "`holdfast clone list` shows them".to_owned(),
        })
    }
}
