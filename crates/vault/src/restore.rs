//! Bringing a restore point back into service, in a new directory.

mod choose;
mod content;
mod directory;
mod error;
mod export;
mod files;
mod frames;
mod ground;
mod held;
mod journal;
mod line;
mod local;
pub(crate) mod log;
mod names;
mod old;
mod outside;
mod over;
mod plan;
mod programs;
pub(crate) mod promote;
mod room;
mod run;
mod seek;
mod server;
mod settings;
pub(crate) mod spans;
mod standby;
mod superuser;
pub(crate) mod survey;
pub(crate) mod tablespace;
mod target;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::VerifyingKey;
use holdfast_core::{ByteCount, Lsn, PointId, SourceName, Timestamp};
use holdfast_store::object::{Keys, Location};
use serde::{Deserialize, Serialize};

use crate::config::PostgresConfig;
use crate::drill::Pace;

pub(crate) use directory::write as write_directory;
pub use directory::{DirectoryRequest, RestoredDirectory, is_directory, restore_directory};
pub use error::RestoreError;
pub use export::{ExportRequest, ExportTo, Exported, export};
pub(crate) use files::{NEEDED_FOLDERS, is_left_out, own};
pub use ground::{Came, ReadBack, Ways};
pub(crate) use held::Held;
pub use names::{NamedPoint, named_points};
pub(crate) use over::{Aimed, files_owner};
pub(crate) use programs::{Programs, command, owner};
pub use run::restore;
pub(crate) use run::{lay_down, restore_locally, restore_to_recover};
pub(crate) use server::{LocalServer, tail};
pub(crate) use settings::preloaded;
pub(crate) use standby::{Standby, aim, lay};
pub(crate) use superuser::names as superusers;
pub use target::RestoreTarget;
pub use verify::{Verified, VerifiedPages};

/// Where the vault's things are, for reading without a running vault.
#[derive(Clone, Debug)]
pub struct Place {
    /// The vault's state directory, which holds the spool; it may be lost.
    pub state: PathBuf,
    /// Where the repository is.
    pub repository: Location,
    /// What objects are opened with: the vault's own keys, or a recovery key.
    pub keys: Keys,
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
    /// The timeline to follow; `None` takes the newest that leads there.
    pub timeline: Option<u32>,
    /// How to go about it.
    pub ways: Ways,
    /// The point to build on; `None` takes the newest that leads there.
    pub(crate) point: Option<PointId>,
    /// Whether its server goes on without us.
    pub(crate) life: ServerLife,
    /// What holds the restore back.
    pub(crate) pace: Option<Arc<Pace>>,
    /// The directory may be taken anywhere: no setting names a place of this machine.
    pub(crate) is_portable: bool,
}

impl RestoreRequest {
    /// Asks for a moment on the newest timeline that leads there.
    #[must_use]
    pub fn new(source: SourceName, at: RestoreTarget, into: PathBuf, start: Start) -> Self {
        Self {
            source,
            at,
            into,
            start,
            timeline: None,
            ways: Ways::default(),
            point: None,
            life: ServerLife::Outlives,
            pace: None,
            is_portable: false,
        }
    }
}

/// Whether a server goes on when the process that started it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerLife {
    /// It ends with the thread that started it, where the system can see to that.
    EndsWithUs,
    /// It goes on.
    Outlives,
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
    /// What was written is read back.
    Verify,
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
    /// The timeline that was followed.
    #[serde(default)]
    pub timeline: u32,
    /// Where in the log a transaction, a name or an action was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
    /// What whoever asked should know about the target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The new data directory.
    pub directory: PathBuf,
    /// The log was available up to here.
    pub wal_end: Lsn,
    /// The newest commit in the log that was brought in, if it was read.
    pub newest_commit: Option<Timestamp>,
    /// Bytes written.
    pub bytes: ByteCount,
    /// Where they came from.
    #[serde(default)]
    pub came: Came,
    /// What was read back from the disk, when that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// Seconds until all files were there.
    pub files_s: f64,
    /// Seconds until the server was promoted; the whole way.
    pub promoted_s: Option<f64>,
    /// The server, when one was asked for.
    pub server: Option<ServerAddress>,
}

/// Where a target was found in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Where its record begins.
    pub lsn: Lsn,
    /// When it was written, by the source's clock.
    pub time: Option<Timestamp>,
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
