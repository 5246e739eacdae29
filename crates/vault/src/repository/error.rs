//! Why the repository cannot take something in or give it back.

use std::io;
use std::path::PathBuf;

use holdfast_core::{Code, Coded, Lsn, PointId, SourceName, Untrusted};
use holdfast_store::object::fence::FenceError;
use holdfast_store::object::{ObjectError, ObjectKey};
use holdfast_wire::pg::basebackup::ManifestError;

use crate::retention::WindowError;

/// Why the repository cannot be used, or what in it is wrong.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The base backup ended, but is not what PostgreSQL's own manifest says.
    #[error("the base backup does not match its manifest: {what}")]
    BaseMismatch {
        /// The file and what is wrong with it.
        what: String,
    },
    /// The spool and the repository disagree.
    #[error("the spool contradicts the repository in the log of timeline {timeline} after {at}")]
    Contradiction {
        /// On which timeline.
        timeline: u32,
        /// Where the file of the spool begins.
        at: Lsn,
    },
    /// A checksum, a length or a name is wrong.
    #[error("the object `{key}` is damaged: {what}")]
    Damaged {
        /// Which object.
        key: ObjectKey,
        /// What is wrong with it.
        what: String,
    },
    /// Another vault is or may be the writer.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// What was to be stored is not in the order or of the size that the format has.
    #[error("cannot store this: {what}")]
    Misuse {
        /// What is wrong.
        what: String,
    },
    /// The log has a hole.
    #[error("write-ahead log of timeline {timeline} is missing from {from} to {to}")]
    MissingLog {
        /// On which timeline.
        timeline: u32,
        /// The first position that is missing.
        from: Lsn,
        /// The first position after that which is there, or the one that was needed.
        to: Lsn,
    },
    /// The restore point has no such file.
    #[error("the restore point `{point}` has no file `{}`", Untrusted(path))]
    NoFile {
        /// Which point.
        point: PointId,
        /// The path that was asked for.
        path: String,
    },
    /// There is no such base.
    #[error("there is no restore point `{0}`")]
    NoPoint(PointId),
    /// There is no base at all.
    #[error("there is no restore point of `{0}`")]
    NoPoints(SourceName),
    /// The store refused.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The repository has a format that is read and no longer written.
    #[error("the repository has format {found}, which is read and no longer written")]
    OldFormat {
        /// Its format.
        found: u32,
    },
    /// The repository was made with another key.
    #[error("the repository was made by a vault with another key")]
    OtherKey,
    /// PostgreSQL's manifest is not readable.
    #[error("the base backup came with a manifest that is refused")]
    ServerManifest(#[from] ManifestError),
    /// A signature is not the vault's.
    #[error("the object `{key}` was not signed by this vault")]
    Signature {
        /// Which object.
        key: ObjectKey,
    },
    /// A file of the spool cannot be read.
    #[error("cannot read `{}` in the spool", path.display())]
    Spool {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The lock window cannot be used.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// The system refused a thread or random bytes.
    #[error("cannot {step}: {}", Untrusted(what))]
    System {
        /// What was attempted.
        step: &'static str,
        /// What the system said.
        what: String,
    },
}

impl Coded for RepositoryError {
    fn code(&self) -> Code {
        match self {
            Self::BaseMismatch { .. } | Self::ServerManifest(_) => Code::ZI304,
            Self::Contradiction { .. } => Code::ZI303,
            Self::Damaged { .. } => Code::ZI251,
            Self::Misuse { .. } => Code::ZB301,
            Self::Fence(error) => error.code(),
            Self::MissingLog { .. } => Code::ZI302,
            Self::NoFile { .. } => Code::ZU282,
            Self::NoPoint(_) | Self::NoPoints(_) => Code::ZU307,
            Self::Object(error) => error.code(),
            Self::OldFormat { .. } => Code::ZU281,
            Self::OtherKey => Code::ZU251,
            Self::Signature { .. } => Code::ZI305,
            Self::Spool { .. } => Code::ZS304,
            Self::System { .. } => Code::ZS251,
            Self::Window(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::BaseMismatch { .. } | Self::ServerManifest(_) => {
                "no restore point was made of it; the vault takes another base backup by itself"
            }
            Self::Contradiction { .. } => {
                "nothing of it was used; restore with another state directory, then without the spool's part of the log"
            }
            Self::Damaged { .. } | Self::Signature { .. } => {
                "nothing of it was used; keep the repository as it is, restore another point, or copy the object back from a replica"
            }
            Self::Misuse { .. } => "nothing was stored; please report this with the vault's log",
            Self::MissingLog { .. } => {
                "restore to a time before the hole; `holdfast point list` shows the spans"
            }
            Self::NoFile { .. } => "look at the point's files; names begin at the data directory",
            Self::NoPoint(_) | Self::NoPoints(_) => {
                "`holdfast point list` shows what can be brought back"
            }
            Self::Fence(error) => return error.hint(),
            Self::Object(error) => return error.hint(),
            Self::Window(error) => return error.hint(),
            Self::OldFormat { .. } => {
                "nothing was written; name a new directory for the repository: the next base backup goes there, and what the old one holds stays restorable from it"
            }
            Self::OtherKey => {
                "nothing was written; put the vault's key file back, or name an empty directory"
            }
            Self::Spool { .. } => {
                "nothing was changed; check the disk and who owns the state directory"
            }
            Self::System { .. } => "nothing was stored; free memory or processes and try again",
        };
        Some(text.to_owned())
    }
}
