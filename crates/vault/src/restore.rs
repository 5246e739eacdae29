//! Bringing a restore point back into service, in a new directory.

mod directory;
mod error;
mod files;
mod frames;
mod log;
mod outside;
mod plan;
mod programs;
mod run;
mod server;
mod settings;
mod superuser;
mod tablespace;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::VerifyingKey;
use holdfast_core::{ActionId, ByteCount, Lsn, PointId, SourceName, Timestamp};
use holdfast_store::object::Location;
use serde::{Deserialize, Serialize};

use crate::config::PostgresConfig;

pub(crate) use directory::write as write_directory;
pub use directory::{DirectoryRequest, RestoredDirectory, is_directory, restore_directory};
pub use error::RestoreError;
pub(crate) use log::segment;
pub(crate) use plan::logs;
pub use run::restore;
pub(crate) use run::restore_locally;
pub(crate) use server::LocalServer;

/// Which moment to bring back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreTarget {
    /// Just before what an action destroyed; known from the log itself.
    Before(ActionId),
    /// Just before the record that begins at this position.
    BeforeLsn(Lsn),
    /// Everything that is kept.
    Latest,
    /// Everything up to and including the record at this position.
    Lsn(Lsn),
    /// Every commit up to and including this time.
    Time(Timestamp),
}

impl fmt::Display for RestoreTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before(action) => write!(f, "before:{action}"),
            Self::BeforeLsn(lsn) => write!(f, "before:{lsn}"),
            Self::Latest => f.write_str("latest"),
            Self::Lsn(lsn) => write!(f, "{lsn}"),
            Self::Time(time) => write!(f, "{time}"),
        }
    }
}

impl FromStr for RestoreTarget {
    type Err = RestoreError;

    /// Reads `latest`, a time, a position, `before:ACTION` or `before:POSITION`.
    fn from_str(text: &str) -> Result<Self, RestoreError> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Some(what) = text.strip_prefix("before:") {
            if let Ok(lsn) = what.parse() {
                return Ok(Self::BeforeLsn(lsn));
            }
            return what
                .parse()
                .map(Self::Before)
                .map_err(|_| RestoreError::Target {
                    target: text.chars().take(80).collect(),
                    why: "what follows `before:` is neither an action nor a position".to_owned(),
                    nearest: None,
                });
        }
        if let Ok(lsn) = text.parse() {
            return Ok(Self::Lsn(lsn));
        }
        text.parse()
            .map(Self::Time)
            .map_err(|_| RestoreError::Target {
                target: text.chars().take(80).collect(),
                why: "it is neither `latest`, a time, a position nor `before:ACTION`".to_owned(),
                nearest: None,
            })
    }
}

/// Where the vault's things are, for reading without a running vault.
#[derive(Clone, Debug)]
pub struct Place {
    /// The vault's state directory, which holds the spool; it may be lost.
    pub state: PathBuf,
    /// Where the repository is.
    pub repository: Location,
    /// The key that manifests must be signed with; `None` trusts the one in the repository's marker.
    pub vault_key: Option<VerifyingKey>,
    /// PostgreSQL's programs.
    pub postgres: PostgresConfig,
}

/// What to restore and where to.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// Which source.
    pub source: SourceName,
    /// Which moment.
    pub at: RestoreTarget,
    /// The new data directory; it must be absent or empty.
    pub into: PathBuf,
    /// Whether and how to start a server on it.
    pub start: Start,
}

/// Whether a restore ends with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Only the files; recovery happens when somebody starts a server on them.
    No,
    /// A promoted server on 127.0.0.1, on this port or on a free one.
    Yes {
        /// The port, or `None` for a free one.
        port: Option<u16>,
    },
}

/// How far a restore is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is going on.
    pub phase: RestorePhase,
    /// Bytes of the data directory written so far.
    pub done: ByteCount,
    /// Bytes to write.
    pub total: ByteCount,
    /// Time since the restore began.
    pub elapsed: Duration,
}

/// The part of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestorePhase {
    /// The files of the base are written.
    Files,
    /// The server replays the log.
    Replay,
    /// The log is brought in.
    Wal,
}

/// Is told how far a restore is, from several threads.
pub type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// What a restore brought back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    /// Which source.
    pub source: SourceName,
    /// The base it was built on.
    pub point: PointId,
    /// The target as it was asked for.
    pub at: String,
    /// The new data directory.
    pub directory: PathBuf,
    /// The log was available up to here.
    pub wal_end: Lsn,
    /// The newest commit in the log that was brought in, if it was read.
    pub newest_commit: Option<Timestamp>,
    /// Bytes written.
    pub bytes: ByteCount,
    /// Seconds until all files were there.
    pub files_s: f64,
    /// Seconds until the server was promoted; the whole way.
    pub promoted_s: Option<f64>,
    /// The server, when one was asked for.
    pub server: Option<ServerAddress>,
}

/// A started server. Roles and passwords are those of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerAddress {
    /// Always 127.0.0.1.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Process id of the postmaster.
    pub pid: u32,
    /// Where it writes its log.
    pub log: PathBuf,
}
