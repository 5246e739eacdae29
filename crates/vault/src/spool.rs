//! The spool: WAL as it arrives, durable before its position is acknowledged.

use std::io;
use std::path::PathBuf;

use holdfast_core::{Code, Coded};

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk is full.
    #[error("no space left in the spool to {step} `{}`", path.display())]
    Full {
        /// What was attempted.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Any other trouble of the system.
    #[error("cannot {step} `{}` in the spool", path.display())]
    Io {
        /// What was attempted.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Coded for SpoolError {
    fn code(&self) -> Code {
        match self {
            Self::Full { .. } => Code::ZS303,
            Self::Io { .. } => Code::ZS304,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Full { .. } => "free space on the spool's disk; nothing was acknowledged that is not kept, and the vault goes on by itself".to_owned(),
            Self::Io { .. } => "check the disk and who owns the state directory; nothing was acknowledged that is not kept".to_owned(),
        })
    }
}
