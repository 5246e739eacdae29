//! Why a restore point cannot be mounted.

use std::io;
use std::path::PathBuf;

use holdfast_core::{Code, Coded, PointId, Untrusted};

use crate::repository::RepositoryError;

/// Why a restore point cannot be mounted, or a mount cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// What the overlay says of itself is damaged.
    #[error("the overlay's record `{}` is damaged: {what}", path.display())]
    Damaged {
        /// Which record.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another process serves this overlay.
    #[error("the overlay `{}` is in use", path.display())]
    InUse {
        /// Which overlay.
        path: PathBuf,
    },
    /// The system does not let us mount.
    #[error("nothing can be mounted here: {why}")]
    NotPossible {
        /// What is missing.
        why: WhyNot,
    },
    /// The overlay belongs to another restore point.
    #[error("the overlay `{}` is of the restore point `{}`, not of `{wanted}`", path.display(), Untrusted(found))]
    OtherPoint {
        /// Which overlay.
        path: PathBuf,
        /// Of which point it is.
        found: String,
        /// Which was asked for.
        wanted: PointId,
    },
    /// The system refused something in the overlay's folder.
    #[error("cannot {step} `{}`", path.display())]
    Overlay {
        /// What was attempted.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The repository does not give the restore point.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Only a cluster can be mounted.
    #[error("the restore point `{0}` is of a directory, and only clusters are mounted")]
    NoCluster(PointId),
}

/// What is missing for a mount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyNot {
    /// There is no FUSE device, or it does not let us in.
    #[error("`/dev/fuse` cannot be opened ({0})")]
    Device(String),
    /// The kernel is not Linux.
    #[error("this system is not Linux")]
    NotLinux,
    /// Neither root nor a mount program.
    #[error("this account is not root, and neither `fusermount3` nor `fusermount` is installed")]
    NotRoot,
}

impl Coded for MountError {
    fn code(&self) -> Code {
        match self {
            Self::Damaged { .. } => Code::ZI360,
            Self::InUse { .. } => Code::ZU361,
            Self::NotPossible { .. } => Code::ZU362,
            Self::OtherPoint { .. } | Self::NoCluster(_) => Code::ZU360,
            Self::Overlay { .. } => Code::ZS360,
            Self::Repository(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Damaged { .. } => {
                "nothing of it was used; remove the clone and open a new one: the restore point is untouched"
            }
            Self::InUse { .. } => "close the clone that uses it, or name another folder",
            Self::NotPossible { .. } => {
                "nothing was mounted; a clone can still be made by a whole restore into its folder"
            }
            Self::OtherPoint { .. } => "nothing was mounted; name an empty folder",
            Self::NoCluster(_) => "restore it with `holdfast restore`",
            Self::Overlay { .. } => {
                "nothing of the restore point was changed; check the disk and who owns the folder"
            }
            Self::Repository(error) => return error.hint(),
        };
        Some(text.to_owned())
    }
}
