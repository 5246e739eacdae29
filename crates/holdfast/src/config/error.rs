//! Why there is no configuration.

use std::path::PathBuf;

use holdfast_core::{Code, Coded, SourceName};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file.
    #[error("there is no configuration at `{}`", path.display())]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration `{}`", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key or a value of the wrong type.
    #[error("the configuration `{}` is not valid: {why}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Line and reason.
        why: String,
    },
    /// Two sources with one name.
    #[error("the configuration names the source `{0}` twice")]
    Twice(SourceName),
    /// A secret stands in the file itself, or its reference leads nowhere.
    #[error("the secret for {what} cannot be had: {why}")]
    Secret {
        /// What it is for.
        what: String,
        /// Why not; never contains the secret.
        why: String,
    },
    /// No source of that name.
    #[error("there is no source `{0}` in the configuration")]
    UnknownSource(String),
}

impl Coded for ConfigError {
    fn code(&self) -> Code {
        match self {
            Self::Absent { .. } | Self::File { .. } | Self::Malformed { .. } | Self::Twice(_) => {
                Code::ZU601
            }
            Self::Secret { .. } => Code::ZU602,
            Self::UnknownSource(_) => Code::ZU603,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Absent { .. } => "run `holdfast init`, or name the file with --config".to_owned(),
            Self::File { .. } => "check who owns the file".to_owned(),
            Self::Malformed { .. } | Self::Twice(_) => {
                "docs/configuration.md lists every key".to_owned()
            }
            Self::Secret { .. } => {
                "write `env:NAME` or `file:PATH`; a file must be readable by you alone".to_owned()
            }
            Self::UnknownSource(_) => "`holdfast source list` shows them".to_owned(),
        })
    }
}
