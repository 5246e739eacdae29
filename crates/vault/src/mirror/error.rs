//! Why a mirror does not follow.

use std::path::PathBuf;

use holdfast_core::{ByteCount, Code, Coded, Lsn};
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
    /// Its disk has too little room.
    #[error("the disk of the mirror `{}` has {free} free, and {needed} are kept for capture", path.display())]
    Full {
        /// The folder.
        path: PathBuf,
        /// Bytes that are free.
        free: ByteCount,
        /// Bytes that must stay free.
        needed: ByteCount,
    },
    /// Its data directory is not one.
    #[error("the mirror's files are not whole")]
    Half(#[source] RestoreError),
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
    /// Another process has its folder.
    #[error("another process has the folder `{}` of the mirror", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
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
            Self::Diverged { .. }
                | Self::Full { .. }
                | Self::Half(_)
                | Self::Promote { .. }
                | Self::Tablespace { .. }
        )
    }

    /// Tells whether the system or the server said that a disk is full.
    pub(super) fn is_of_full_disk(&self) -> bool {
        if let Self::Replay { why, .. } | Self::Server { why, .. } = self {
            return why.contains(NO_SPACE);
        }
        let mut next: Option<&dyn std::error::Error> = Some(self);
        while let Some(error) = next {
            let system = error.downcast_ref::<std::io::Error>();
            if system.is_some_and(|one| one.kind() == std::io::ErrorKind::StorageFull) {
                return true;
            }
            next = error.source();
        }
        false
    }
}

/// SOURCE: errno(3), `ENOSPC`, as every program prints it.
const NO_SPACE: &str = "No space left on device";

impl Coded for MirrorError {
    fn code(&self) -> Code {
        match self {
            Self::Ask(_) | Self::Server { .. } | Self::Stopped => Code::ZS380,
            Self::Diverged { .. } | Self::Tablespace { .. } => Code::ZI381,
            Self::Folder { .. } => Code::ZS381,
            Self::Full { .. } => Code::ZS490,
            Self::Half(_) => Code::ZI490,
            Self::Taken { .. } => Code::ZS491,
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
            Self::Full { .. } => {
                "capture goes on; free space: a new mirror is made by itself when there is room"
                    .to_owned()
            }
            Self::Half(_) => {
                "nothing is lost; a new mirror is made from the newest restore point".to_owned()
            }
            Self::Taken { .. } => {
                "the other one's mirror was not touched; stop one vault, or give each a `state_dir` of its own"
                    .to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_from_log_that_does_not_replay() {
        let replay = |why: &str| MirrorError::Replay {
            why: why.to_owned(),
            said: String::new(),
        };
        let full = "could not write to file \"pg_wal/xlogtemp.7\": No space left on device";
        assert!(replay(full).is_of_full_disk());
        assert!(!replay("WAL contains references to invalid pages").is_of_full_disk());
        let folder = |kind| MirrorError::Folder {
            step: "write to",
            path: PathBuf::from("x"),
            source: std::io::Error::from(kind),
        };
        assert!(folder(std::io::ErrorKind::StorageFull).is_of_full_disk());
        assert!(!folder(std::io::ErrorKind::PermissionDenied).is_of_full_disk());
    }
}
