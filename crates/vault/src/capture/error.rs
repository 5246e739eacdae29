//! Why capture of a source stops, and whether it can go on by itself.

use holdfast_core::{ByteCount, Code, Coded, Lsn, Untrusted};
use holdfast_wire::pg::basebackup::{BaseMessageError, TarError};
use holdfast_wire::pg::replication::ServerMessage;
use holdfast_wire::pg::wal::WalError;

use super::incremental::IncrementalError;
use crate::repository::RepositoryError;
use crate::source::SourceError;
use crate::spool::SpoolError;

/// Why capture of a source stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    /// The log has a hole, and no base behind it yet.
    #[error(
        "the log has a hole before {from}, and what comes after it can be restored only from a new base"
    )]
    Broken {
        /// Where it goes on.
        from: Lsn,
    },
    /// The base backup ended before it was complete.
    #[error("the base backup is not complete: {what}")]
    Incomplete {
        /// What is missing.
        what: &'static str,
    },
    /// The base backup brings much more than was announced.
    #[error("the base backup does not end: {announced} were announced, and far more came")]
    Endless {
        /// What the source said.
        announced: ByteCount,
    },
    /// A restore point cannot be built on the one before.
    #[error(transparent)]
    Incremental(#[from] IncrementalError),
    /// A message of a base backup is not readable.
    #[error("the base backup is not readable")]
    Message(#[from] BaseMessageError),
    /// The source has removed the log that comes next.
    #[error("the source no longer has the log that comes next")]
    Missing {
        /// What the server said.
        source: Box<ServerMessage>,
    },
    /// The disk is kept for the log.
    #[error("the repository's disk has {free} left, and {kept} are kept for the log")]
    Room {
        /// What is free.
        free: ByteCount,
        /// What a base backup leaves free.
        kept: ByteCount,
    },
    /// Somebody streams from our slot.
    #[error("somebody else streams from the vault's replication slot")]
    SlotTaken {
        /// What the server said.
        source: SourceError,
    },
    /// The source is on a timeline that does not descend from ours.
    #[error(
        "the source is on timeline {found}, which does not continue timeline {known} that is kept"
    )]
    OldTimeline {
        /// The timeline that is kept.
        known: u32,
        /// The source's.
        found: u32,
    },
    /// Another cluster answers.
    #[error("the source is cluster {found}, and under this name cluster {known} is kept")]
    OtherCluster {
        /// System identifier of what is kept.
        known: u64,
        /// System identifier of what answers.
        found: u64,
    },
    /// The repository does not take it.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The server is shutting down.
    #[error("the source is shutting down")]
    ShutDown,
    /// The source does not do what was asked.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The spool does not take it.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// What the source sends is not log.
    #[error("the source sends something else than write-ahead log")]
    Wal(#[from] WalError),
    /// An entry of a base backup is refused.
    #[error("the base backup is refused: {what}")]
    Entry {
        /// Which entry, and why.
        what: String,
    },
    /// An archive of a base backup is refused.
    #[error("the archive `{}` of the base backup is refused", Untrusted(archive))]
    Tar {
        /// Which archive.
        archive: String,
        /// Why.
        source: TarError,
    },
}

impl CaptureError {
    /// Tells whether trying again changes nothing until a person has mended something.
    pub(crate) fn needs_a_person(&self) -> bool {
        match self {
            Self::OldTimeline { .. } | Self::OtherCluster { .. } => true,
            Self::Source(error) => matches!(
                error,
                SourceError::Password { .. }
                    | SourceError::Method { .. }
                    | SourceError::Replication { .. }
                    | SourceError::Setting { .. }
                    | SourceError::Tls { .. }
                    | SourceError::Version { .. }
            ),
            Self::Spool(error) => !matches!(error, SpoolError::Gap { .. }),
            Self::Repository(_) => true,
            Self::Broken { .. }
            | Self::Endless { .. }
            | Self::Incomplete { .. }
            | Self::Incremental(_)
            | Self::Message(_)
            | Self::Missing { .. }
            | Self::Room { .. }
            | Self::ShutDown
            | Self::SlotTaken { .. }
            | Self::Entry { .. }
            | Self::Tar { .. }
            | Self::Wal(_) => false,
        }
    }
}

impl Coded for CaptureError {
    fn code(&self) -> Code {
        match self {
            Self::Entry { .. } | Self::Incomplete { .. } | Self::Message(_) | Self::Tar { .. } => {
                Code::ZI304
            }
            Self::Endless { .. } => Code::ZI310,
            Self::Room { .. } => Code::ZS312,
            Self::Wal(error) => error.code(),
            Self::Broken { .. } | Self::Missing { .. } => Code::ZI302,
            Self::OldTimeline { .. } | Self::OtherCluster { .. } => Code::ZI301,
            Self::Incremental(error) => error.code(),
            Self::Repository(error) => error.code(),
            Self::ShutDown => Code::ZS301,
            Self::SlotTaken { .. } => Code::ZS311,
            Self::Source(error) => error.code(),
            Self::Spool(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Incremental(error) => return error.hint(),
            Self::Repository(error) => return error.hint(),
            Self::Source(error) => return error.hint(),
            Self::Spool(error) => return error.hint(),
            Self::Wal(_) => {
                "nothing of it was kept; look at the source, and whether something stands between it and the vault"
            }
            Self::Entry { .. } | Self::Incomplete { .. } | Self::Message(_) | Self::Tar { .. } => {
                "no restore point was made of it; the vault takes another base backup by itself"
            }
            Self::Broken { .. } | Self::Missing { .. } => {
                "what is kept stays restorable up to its end; the vault takes a new base backup by itself; raise `max_slot_wal_keep_size` so that the source waits longer"
            }
            Self::OldTimeline { .. } | Self::OtherCluster { .. } => {
                "nothing was captured and nothing that is kept was changed; correct the connection string, or add this cluster under a new name"
            }
            Self::Endless { .. } => {
                "no restore point was made of it, and the next base backup is tried in an hour; look at what answers under this name, and restart the vault to try at once"
            }
            Self::Room { .. } => {
                "the log goes on and nothing is lost; free space on the repository's disk: the vault then takes the base backup by itself"
            }
            Self::SlotTaken { .. } => {
                "nothing is lost; if it is an old stream of this vault, the source ends it within `wal_sender_timeout`; otherwise the vault makes a slot of another name by itself"
            }
            Self::ShutDown => "nothing is lost; the vault connects again by itself",
        };
        Some(text.to_owned())
    }
}
