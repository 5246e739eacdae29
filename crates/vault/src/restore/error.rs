//! Why a restore did not happen.

use std::io;
use std::path::PathBuf;

use holdfast_core::{ByteCount, Code, Coded, Lsn, Untrusted};

use crate::repository::RepositoryError;

/// Why a restore did not happen.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// An archive could not be written to its end.
    #[error("cannot write the archive `{}`", path.display())]
    Archive {
        /// Where to.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory cannot be used.
    #[error("cannot restore into `{}`: {why}", path.display())]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Something else was begun in the directory.
    #[error("cannot go on in `{}`: {why}", path.display())]
    Foreign {
        /// Which directory.
        path: PathBuf,
        /// What is in it.
        why: String,
    },
    /// The system refused something while files were written.
    #[error("cannot {step} `{}`", path.display())]
    Io {
        /// What was attempted.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The vault's own record cannot be read.
    #[error("cannot look action `{action}` up")]
    Ledger {
        /// Which action.
        action: String,
        /// What stands in the way.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No PostgreSQL can run the restored files.
    #[error("no PostgreSQL {major} was found to run the restored files")]
    NoPostgres {
        /// The major version that is needed.
        major: u32,
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// The disk is too small.
    #[error("`{}` needs {needed} and its disk has {free} free", path.display())]
    NoRoom {
        /// The new directory.
        path: PathBuf,
        /// Bytes that would be written.
        needed: ByteCount,
        /// Bytes that can be.
        free: ByteCount,
    },
    /// What was read back is not what was written.
    #[error("`{}` is not what was restored, from byte {offset} on", path.display())]
    NotAsWritten {
        /// Which file.
        path: PathBuf,
        /// The first byte that differs.
        offset: u64,
    },
    /// The older copy cannot spare any work.
    #[error("cannot take anything from the older copy `{}`: {why}", path.display())]
    OldCopy {
        /// Which directory.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The repository cannot give it back.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The files are there, but the server did not come into service.
    #[error("the restored server did not come into service: {why}")]
    Server {
        /// What happened.
        why: String,
        /// The last lines of its log.
        log: String,
        /// Where the files and the log are.
        directory: PathBuf,
    },
    /// The target is not one that can be brought back.
    #[error("cannot restore to `{target}`: {why}", target = Untrusted(target))]
    Target {
        /// What was asked for.
        target: String,
        /// Why not.
        why: String,
        /// The nearest that can.
        nearest: Vec<String>,
    },
    /// Replay would empty a place on this machine that is in use.
    #[error("cannot restore to `{target}`: replay makes a tablespace at `{location}`, where this machine keeps data that it would remove", target = Untrusted(target), location = Untrusted(location))]
    Tablespace {
        /// What was asked for.
        target: String,
        /// The place.
        location: String,
        /// Just before it.
        nearest: Lsn,
    },
}

impl RestoreError {
    /// Refuses a target before anything is written, with the nearest that are possible.
    pub(super) fn target(
        target: String,
        why: &str,
        nearest: impl IntoIterator<Item = String>,
    ) -> Self {
        Self::Target {
            target,
            why: why.to_owned(),
            nearest: nearest.into_iter().collect(),
        }
    }
}

impl Coded for RestoreError {
    fn code(&self) -> Code {
        match self {
            Self::Archive { .. } | Self::Directory { .. } => Code::ZU305,
            Self::Foreign { .. } => Code::ZU331,
            Self::Io { .. } => Code::ZU305,
            Self::NoRoom { .. } => Code::ZS331,
            Self::NotAsWritten { .. } => Code::ZI331,
            Self::OldCopy { .. } => Code::ZU332,
            Self::Ledger { .. } | Self::Tablespace { .. } | Self::Target { .. } => Code::ZU304,
            Self::NoPostgres { .. } => Code::ZU306,
            Self::Repository(error) => error.code(),
            Self::Server { .. } => Code::ZS305,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Archive { .. } => {
                "the archive is not complete and nothing else was touched; look at what takes it, then export again: it begins anew"
                    .to_owned()
            }
            Self::Directory { .. } => {
                "nothing was written; name a directory that is absent or empty".to_owned()
            }
            Self::Foreign { .. } => {
                "nothing was written; repeat the command that was begun there, or name a new directory"
                    .to_owned()
            }
            Self::Io { path, .. } => format!(
                "the restore is not complete and nothing else was touched; look at the disk of `{}`, then run it again with the same --into: it goes on",
                path.display()
            ),
            Self::NoRoom { .. } => {
                "nothing was written; free space, or restore into a directory on a larger disk"
                    .to_owned()
            }
            Self::NotAsWritten { .. } => {
                "do not use this directory; test its disk and memory, then restore onto another disk"
                    .to_owned()
            }
            Self::OldCopy { .. } => {
                "nothing was written; leave --delta-from out, or name an older copy of this source"
                    .to_owned()
            }
            Self::Ledger { .. } => {
                "nothing was written; restore `before:POSITION` or to a time instead".to_owned()
            }
            Self::NoPostgres { major, looked } => {
                let looked: Vec<String> = looked.iter().map(|p| p.display().to_string()).collect();
                format!(
                    "install PostgreSQL {major}, or name its folder under `postgres_dirs`; looked in {}",
                    looked.join(", ")
                )
            }
            Self::Repository(error) => return error.hint(),
            Self::Server { log, directory, .. } => format!(
                "the files are in `{}`; its log ends with: {}",
                directory.display(),
                log.trim().replace('\n', " | ")
            ),
            Self::Tablespace { nearest, .. } => {
                format!("no server was started; the nearest possible is `before:{nearest}`")
            }
            Self::Target { nearest, .. } => match nearest.as_slice() {
                [] => "nothing was written; `holdfast point list` shows what can be brought back"
                    .to_owned(),
                [only] => format!("nothing was written; the nearest possible is `{only}`"),
                all => format!(
                    "nothing was written; the nearest possible are `{}`",
                    all.join("`, `")
                ),
            },
        })
    }
}
