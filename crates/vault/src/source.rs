//! The protected PostgreSQL cluster: connecting to it, asking it, checking what it allows.

mod check;
mod connection;
mod rights;
mod settings;
mod synchronous;
mod tls;
mod url;

pub use check::{CheckReport, Requirement, RequirementState, check_source};
pub use settings::{SettingsPlan, Statement, apply_settings, plan_settings};
pub use synchronous::{Synchronous, disable_synchronous, enable_synchronous};
pub use url::{ConnectionUrl, SslMode, UrlError};

pub(crate) use check::{MAJOR_MAX, MAJOR_MIN, explain};
pub(crate) use connection::{APPLICATION_NAME, Allowance, Connection, Purpose, Reply};
pub(crate) use rights::missing_rights;

use std::path::Path;

use holdfast_core::{Code, Coded, SourceName};
use holdfast_wire::pg::replication::{
    FrameError, ReplyError, ServerMessage, StreamError, quote_literal,
};

/// Why a source does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No connection could be made.
    #[error("cannot connect to {address}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the connection to {address} broke while we {step}")]
    Broken {
        /// Host and port.
        address: String,
        /// What was going on.
        step: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server did not answer in time.
    #[error("{address} did not answer in time while we {step}")]
    Silent {
        /// Host and port.
        address: String,
        /// What was going on.
        step: &'static str,
    },
    /// Encryption is wanted and was refused or failed.
    #[error("no encrypted connection to {address}: {why}")]
    Tls {
        /// Host and port.
        address: String,
        /// Why.
        why: String,
    },
    /// The password or the role is wrong.
    #[error("the source refused user `{user}`")]
    Password {
        /// The user.
        user: String,
        /// What the server said.
        source: Box<ServerMessage>,
    },
    /// The server wants a way of authentication that we do not speak.
    #[error("the source wants {method} authentication, which is not supported")]
    Method {
        /// Which one.
        method: &'static str,
    },
    /// The server does not let this role replicate.
    #[error("the source does not let user `{user}` replicate")]
    Replication {
        /// The user.
        user: String,
        /// What the server said.
        source: Box<ServerMessage>,
    },
    /// The server answered with an error.
    #[error("the source refused to {step}")]
    Refused {
        /// What was asked.
        step: &'static str,
        /// What the server said.
        source: Box<ServerMessage>,
    },
    /// The answer is not what the protocol or the question allows.
    #[error("the source gave an answer that makes no sense while we {step}: {what}")]
    Nonsense {
        /// What was going on.
        step: &'static str,
        /// What is wrong.
        what: String,
    },
    /// A setting has to be changed first.
    #[error("{what}")]
    Setting {
        /// What is wrong.
        what: String,
        /// The exact command or line.
        fix: String,
    },
    /// We were told to stop.
    #[error("stopped while we {step}")]
    Stopped {
        /// What was going on.
        step: &'static str,
    },
    /// The version is too old or unknown.
    #[error("the source runs PostgreSQL {major}, and 13 to 18 are supported")]
    Version {
        /// Its major version.
        major: u32,
    },
}

/// Returns the usual name of the slot that keeps a source's log for the vault.
pub fn slot_name(source: &SourceName) -> String {
    format!("holdfast_{}", source.as_str().replace('-', "_"))
}

/// Returns the name of the slot that a vault with this state directory uses for a source: another than
/// the usual one when that was left to somebody who took it.
pub fn kept_slot_name(state: &Path, source: &SourceName) -> String {
    crate::spool::kept_slot(state, source).unwrap_or_else(|| slot_name(source))
}

/// Returns what matches the usual name of a source's slot and those that may follow it, as a literal.
fn slot_names(source: &SourceName) -> String {
    quote_literal(&format!("^{}(_[0-9]+)?$", slot_name(source)))
}

impl SourceError {
    pub(crate) fn nonsense(step: &'static str, what: impl ToString) -> Self {
        Self::Nonsense {
            step,
            what: what.to_string(),
        }
    }

    /// Returns the SQLSTATE, when the server stated one.
    pub(crate) fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Password { source, .. }
            | Self::Replication { source, .. }
            | Self::Refused { source, .. } => Some(&source.sqlstate),
            _ => None,
        }
    }
}

impl Coded for SourceError {
    fn code(&self) -> Code {
        match self {
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Silent { .. }
            | Self::Stopped { .. }
            | Self::Tls { .. } => Code::ZS301,
            Self::Password { .. } | Self::Method { .. } => Code::ZL301,
            Self::Replication { .. } => Code::ZL302,
            Self::Refused { .. } | Self::Nonsense { .. } => Code::ZS302,
            Self::Setting { .. } => Code::ZU301,
            Self::Version { .. } => Code::ZU302,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Setting { fix, .. } => fix.clone(),
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Silent { .. } => {
                "nothing was changed; check host, port and network, the vault tries again by itself".to_owned()
            }
            Self::Tls { .. } => {
                "nothing was sent; fix the certificate, or choose `sslmode=require` or `sslmode=disable` knowingly".to_owned()
            }
            Self::Password { .. } | Self::Method { .. } => {
                "nothing was changed; correct user and password in the connection string".to_owned()
            }
            Self::Replication { .. } => {
                "nothing was changed; `holdfast source check` prints the exact line and command".to_owned()
            }
            Self::Refused { .. } | Self::Nonsense { .. } => {
                "`holdfast source check` says what the source lacks".to_owned()
            }
            Self::Stopped { .. } => "nothing is lost; start it again".to_owned(),
            Self::Version { .. } => "upgrade the source to a supported version".to_owned(),
        })
    }
}

pub(crate) fn from_frame(step: &'static str) -> impl FnOnce(FrameError) -> SourceError {
    move |error| SourceError::nonsense(step, error)
}

pub(crate) fn from_reply(step: &'static str) -> impl FnOnce(ReplyError) -> SourceError {
    move |error| SourceError::nonsense(step, error)
}

pub(crate) fn from_stream(error: StreamError) -> SourceError {
    SourceError::nonsense("stream", error)
}
