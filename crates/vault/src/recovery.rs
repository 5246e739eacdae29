//! Recovery: a source back in service, as the next timeline of the same source.
//!
//! The mirror is promoted where there is one that has not replayed too much; otherwise a restore point
//! is restored. Either way the new server has the vault's slot before anybody is told of it, so that the
//! log of its new timeline is kept from its first byte.

use std::path::{Path, PathBuf};
use std::time::Instant;

use holdfast_core::{Code, Coded, Lsn, SourceName, Timestamp};
use holdfast_wire::pg::replication::quote_literal;
use serde::{Deserialize, Serialize};

use crate::mirror::{MirrorError, Promoted, root, take_over_alone};
use crate::restore::{
    Place, ProgressFn, RestoreError, RestoreRequest, RestoreTarget, Restored, ServerAddress, Start,
    aim, restore_to_recover,
};
use crate::source::{SourceError, kept_slot_name};

/// What is to be brought back.
#[derive(Clone, Debug)]
pub struct RecoverRequest {
    /// Which source.
    pub source: SourceName,
    /// Which moment.
    pub at: RestoreTarget,
    /// The timeline to follow; `None` takes the newest that leads there.
    pub timeline: Option<u32>,
}

impl RecoverRequest {
    /// The same as a restore that goes nowhere, to find out where it would lead.
    pub(crate) fn restore(&self) -> RestoreRequest {
        let start = Start::Yes { port: None };
        let mut request =
            RestoreRequest::new(self.source.clone(), self.at.clone(), PathBuf::new(), start);
        request.timeline = self.timeline;
        request
    }
}

/// Which way a source was brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Its mirror was promoted: nothing was copied.
    Mirror,
    /// A restore point was restored.
    Restore,
}

/// A source that was brought back by its mirror.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recovered {
    /// Which source.
    pub source: SourceName,
    /// The target as it was asked for.
    pub at: String,
    /// Which way.
    pub way: Way,
    /// The data directory, which is the user's from now on.
    pub directory: PathBuf,
    /// The server.
    pub server: ServerAddress,
    /// The timeline that it writes.
    pub timeline: u32,
    /// The log was replayed up to here.
    pub wal_end: Lsn,
    /// The newest commit in it, if one was seen.
    pub newest_commit: Option<Timestamp>,
    /// Seconds until it took the first write.
    pub promoted_s: f64,
}

impl Recovered {
    pub(crate) fn by_mirror(request: &RecoverRequest, promoted: Promoted, promoted_s: f64) -> Self {
        Self {
            source: request.source.clone(),
            at: request.at.to_string(),
            way: Way::Mirror,
            directory: promoted.directory,
            server: ServerAddress {
                host: "127.0.0.1".to_owned(),
                port: promoted.local.port,
                pid: promoted.local.pid,
                log: promoted.local.log,
            },
            timeline: promoted.timeline,
            wal_end: promoted.reached,
            newest_commit: promoted.newest_commit,
            promoted_s,
        }
    }
}

/// Why a source was not brought back.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The mirror did not take over.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The target or the restore.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The new server has no slot.
    #[error("the recovered server runs on port {port}, and the vault's slot was not made on it")]
    Slot {
        /// Where it listens.
        port: u16,
        /// Why not.
        source: SourceError,
    },
}

impl RecoverError {
    /// Tells whether the slower way may lead where the mirror does not.
    pub fn is_of_mirror(&self) -> bool {
        matches!(self, Self::Mirror(_))
    }
}

impl Coded for RecoverError {
    fn code(&self) -> Code {
        match self {
            Self::Mirror(error) => error.code(),
            Self::Restore(error) => error.code(),
            Self::Slot { source, .. } => source.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Mirror(error) => error.hint(),
            Self::Restore(error) => error.hint(),
            Self::Slot { .. } => Some(
                "use the server; the vault makes the slot itself when its connection string names it"
                    .to_owned(),
            ),
        }
    }
}

/// Brings a source back with the mirror of a vault that does not run; blocks.
///
/// # Errors
/// [`RecoverError`]; nothing was changed when the mirror cannot take over.
pub fn recover_alone(
    place: &Place,
    mirrors: Option<&Path>,
    request: &RecoverRequest,
) -> Result<Recovered, RecoverError> {
    let began = Instant::now();
    let root = root(&place.state, mirrors);
    if !root.join(request.source.as_str()).is_dir() {
        let why = "there is none".to_owned();
        return Err(MirrorError::None { why }.into());
    }
    let aimed = aim(place, &request.restore())?;
    let slot = kept_slot_name(&place.state, &request.source);
    let promoted = take_over_alone(place, (&root, &request.source), aimed, &slot)?;
    let promoted_s = began.elapsed().as_secs_f64();
    Ok(Recovered::by_mirror(request, promoted, promoted_s))
}

/// Restores as [`crate::restore()`] does, and makes the vault's slot on the new server.
///
/// # Errors
/// [`RecoverError`]. What was written stays; nothing else was touched.
pub fn recover_by_restore(
    place: &Place,
    request: &RestoreRequest,
    progress: &ProgressFn,
) -> Result<Restored, RecoverError> {
    let (restored, local) = restore_to_recover(place, request, progress)?;
    if let Some(local) = local {
        let slot = quote_literal(&kept_slot_name(&place.state, &request.source));
        let sql = format!(
            "SELECT pg_create_physical_replication_slot({slot}, true)::text \
             WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {slot})"
        );
        let made = local
            .connect("postgres")
            .or_else(|_| local.connect("template1"))
            .and_then(|mut connection| connection.query(&sql, "make a replication slot"));
        made.map_err(|source| RecoverError::Slot {
            port: local.port,
            source,
        })?;
    }
    Ok(restored)
}
