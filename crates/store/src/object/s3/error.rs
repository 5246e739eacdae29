//! Why an object storage does not do what was asked.

use std::time::Duration;

use holdfast_core::{Code, Coded, Untrusted};

/// Why an object storage does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// It answered with an error that is not one of the others.
    #[error(
        "`{place}` answered {status} {} to {step}: {}",
        Untrusted(code),
        Untrusted(message)
    )]
    Answered {
        /// The storage.
        place: String,
        /// What was asked.
        step: &'static str,
        /// The HTTP status.
        status: u16,
        /// Its error code.
        code: String,
        /// Its words.
        message: String,
    },
    /// The credentials cannot be read, or the storage does not accept them.
    #[error("the credentials for `{place}` are refused: {}", Untrusted(why))]
    Credentials {
        /// The storage.
        place: String,
        /// Why.
        why: String,
    },
    /// The answer ended too early, had another length than stated, or was no answer.
    #[error(
        "the answer of `{place}` to {step} was cut or is another than asked for: {}",
        Untrusted(why)
    )]
    Cut {
        /// The storage.
        place: String,
        /// What was asked.
        step: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The credentials are good, but do not permit this.
    #[error("`{place}` does not permit to {step}: {}", Untrusted(message))]
    Denied {
        /// The storage.
        place: String,
        /// What was asked.
        step: &'static str,
        /// Its words.
        message: String,
    },
    /// The configuration names a place that cannot be one.
    #[error("the location `{}` is not usable: {why}", Untrusted(place))]
    Location {
        /// The place as it was written.
        place: String,
        /// Why.
        why: String,
    },
    /// The object was stored, but it can be deleted.
    #[error("`{place}` stored `{key}` without the lock that was asked for: {why}")]
    NotLocked {
        /// The storage.
        place: String,
        /// The object.
        key: String,
        /// What was seen instead.
        why: String,
    },
    /// No answer in time.
    #[error("`{place}` did not answer to {step} within {} s", within.as_secs())]
    Timeout {
        /// The storage.
        place: String,
        /// What was asked.
        step: &'static str,
        /// The time it had.
        within: Duration,
    },
    /// A writing request was tried, and nobody knows whether it was performed.
    #[error("whether `{key}` was stored in `{place}` is not known")]
    Unknown {
        /// The storage.
        place: String,
        /// The object.
        key: String,
        /// What happened to the last try.
        source: Box<Self>,
    },
    /// There is no connection.
    #[error("`{place}` cannot be reached: {}", Untrusted(why))]
    Unreachable {
        /// The storage.
        place: String,
        /// Why.
        why: String,
    },
}

impl S3Error {
    /// Tells whether the same request may succeed a little later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Answered { status, code, .. } => {
                matches!(status, 429 | 500 | 502 | 503 | 504)
                    || matches!(
                        code.as_str(),
                        "ConditionalRequestConflict" | "OperationAborted" | "RequestTimeout"
                    )
            }
            Self::Cut { .. } | Self::Timeout { .. } | Self::Unreachable { .. } => true,
            Self::Credentials { .. }
            | Self::Denied { .. }
            | Self::Location { .. }
            | Self::NotLocked { .. }
            | Self::Unknown { .. } => false,
        }
    }

    /// Returns the status and code of the storage's own answer.
    pub(in crate::object) fn answer(&self) -> Option<(u16, &str)> {
        match self {
            Self::Answered { status, code, .. } => Some((*status, code)),
            Self::Denied { .. } => Some((403, "AccessDenied")),
            _ => None,
        }
    }
}

impl Coded for S3Error {
    fn code(&self) -> Code {
        match self {
            Self::Answered { .. } => Code::ZS261,
            Self::Credentials { .. } => Code::ZL260,
            Self::Cut { .. } => Code::ZS262,
            Self::Denied { .. } => Code::ZL261,
            Self::Location { .. } => Code::ZU260,
            Self::NotLocked { .. } => Code::ZI260,
            Self::Timeout { .. } | Self::Unreachable { .. } => Code::ZS260,
            Self::Unknown { .. } => Code::ZS263,
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Answered { .. } => {
                "nothing was acknowledged; the vault tries again by itself, look at the storage's status if it goes on"
            }
            Self::Credentials { .. } => {
                "nothing was changed; renew the credentials where the configuration points, the vault reads them again by itself"
            }
            Self::Cut { .. } => {
                "nothing was acknowledged; the vault tries again by itself, look for a proxy in between if it goes on"
            }
            Self::Denied { .. } => {
                "nothing was changed; docs/storage.md has the least policy that the vault's credential needs"
            }
            Self::Location { .. } => {
                "nothing was changed; docs/storage.md says how a location is written"
            }
            Self::NotLocked { .. } => {
                "do not rely on this bucket; docs/storage.md says how one with Object Lock is made"
            }
            Self::Timeout { .. } | Self::Unreachable { .. } => {
                "nothing was acknowledged; check the network and the endpoint, the vault tries again by itself"
            }
            Self::Unknown { .. } => {
                "it was not acknowledged; the vault looks whether it is there before it stores it again"
            }
        };
        Some(text.to_owned())
    }
}
