//! Proving a restore point: the drill's outcome when there is no report.

use holdfast_core::{Code, Coded, SourceName};

/// Why a drill could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The repository holds no restore point of this source yet.
    #[error("there is no restore point of `{0}` to drill")]
    NoPoint(SourceName),
    /// The vault does not protect this source.
    #[error("`{0}` is not protected by this vault")]
    Unknown(SourceName),
}

impl Coded for DrillError {
    fn code(&self) -> Code {
        match self {
            Self::NoPoint(_) => Code::ZU307,
            Self::Unknown(_) => Code::ZU603,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoPoint(_) => {
                "wait for the first base backup; `holdfast source list` shows how far it is"
                    .to_owned()
            }
            Self::Unknown(_) => "`holdfast source list` names the sources".to_owned(),
        })
    }
}
