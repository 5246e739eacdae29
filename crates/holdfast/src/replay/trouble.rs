//! Why a replay cannot be played, or did not end as promised.

use std::io;
use std::path::PathBuf;

use holdfast_core::{Code, Coded};

/// Why a replay did not end well. Everything it had started has ended when this is seen.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// A program of the stack is not there.
    #[error("`{name}` is not in `{}`; nothing was started", folder.display())]
    Absent {
        /// The program.
        name: &'static str,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// A program of the system is not there.
    #[error("`{0}` is in no folder of PATH; nothing was started")]
    NoTool(&'static str),
    /// There is no replay of that name.
    #[error("there is no replay `{name}`; nothing was started", name = holdfast_core::Untrusted(.0))]
    Unknown(String),
    /// The replay's file is wrong.
    #[error("the replay `{name}` is not valid: {why}; nothing was started")]
    Invalid {
        /// Its name or path.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Somebody pressed Ctrl-C.
    #[error("the replay was stopped; everything it had started has ended")]
    Stopped,
    /// A part of the stack ended, failed or did not come up in time.
    #[error("{part}: {what}; the act was given up and everything it had started has ended")]
    Part {
        /// Which part.
        part: String,
        /// What happened, with the end of its log.
        what: String,
    },
    /// A file or process of the replay.
    #[error("cannot {step}; the act was given up and everything it had started has ended")]
    System {
        /// What was done.
        step: String,
        /// What the system said.
        source: io::Error,
    },
    /// An act ended otherwise than promised.
    #[error("the replay did not end as promised: {0}")]
    Promise(String),
}

impl Trouble {
    /// Makes the error of a part of the stack.
    pub fn part(part: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Part {
            part: part.into(),
            what: what.into(),
        }
    }

    /// Returns a function that adds the step to an error of the system.
    pub fn system(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let step = step.into();
        move |source| Self::System { step, source }
    }
}

impl Coded for Trouble {
    fn code(&self) -> Code {
        match self {
            Self::Absent { .. } | Self::NoTool(_) => Code::ZU702,
            Self::Unknown(_) => Code::ZU701,
            Self::Invalid { .. } => Code::ZU703,
            Self::Stopped => Code::ZS702,
            Self::Part { .. } => Code::ZS701,
            Self::System { .. } => Code::ZS704,
            Self::Promise(_) => Code::ZS703,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Absent { .. } => "build all programs with `cargo build --workspace --bins`, or run `make demo`".to_owned(),
            Self::NoTool(name) => format!("install `{name}`; `scripts/setup` does"),
            Self::Unknown(_) => format!("there are {}; a path to a .toml file plays that file", super::story::names().join(", ")),
            Self::Invalid { .. } => "docs/replays.md describes the file".to_owned(),
            Self::Stopped => "run it again; every act begins with a fresh stack".to_owned(),
            Self::Part { .. } => "run it again with `--keep` and read the logs in the folder that it names".to_owned(),
            Self::System { .. } => "mend what the system names; TMPDIR chooses another folder".to_owned(),
            Self::Promise(_) => "this is a defect of holdfast or of its environment; run that act again with `--act NAME --keep` and keep the folder".to_owned(),
        })
    }
}
