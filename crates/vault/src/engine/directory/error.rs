//! Why a directory cannot be taken in.

use std::io;
use std::path::PathBuf;

use holdfast_core::{Code, Coded};

use crate::repository::RepositoryError;

/// Why there is no new restore point of a directory.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The directory itself cannot be read.
    #[error("cannot read the directory `{}`", path.display())]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory would take in what the vault itself keeps.
    #[error("the directory `{}` contains what the vault keeps, or lies in it", path.display())]
    OwnPlace {
        /// Which directory.
        path: PathBuf,
    },
    /// The repository did not take it.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The vault is ending.
    #[error("told to stop")]
    Stopped,
}

impl Coded for DirectoryError {
    fn code(&self) -> Code {
        match self {
            Self::Directory { .. } => Code::ZS340,
            Self::OwnPlace { .. } => Code::ZU340,
            Self::Repository(error) => error.code(),
            Self::Stopped => Code::ZS340,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Directory { .. } => Some(
                "the points that are kept stay; check that it is mounted and that the vault's account may read it"
                    .to_owned(),
            ),
            Self::OwnPlace { .. } => Some(
                "nothing was read; keep state and repository outside of what is protected".to_owned(),
            ),
            Self::Repository(error) => error.hint(),
            Self::Stopped => None,
        }
    }
}
