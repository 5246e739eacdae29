//! Guard's part of the file.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

/// Where a host really is, for private endpoints.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// The host name that agents ask for.
    pub host: String,
    /// The address that is connected to instead, `ADDRESS:PORT`.
    pub connect: SocketAddr,
    /// A certificate authority to trust for this host, PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// What becomes of an approval that comes before the rehearsal is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BeforeRehearsal {
    /// It is not accepted.
    Refuse,
    /// It is accepted, and the person is told.
    ///
    /// Nothing is lost by that: what is measured when the action runs again must be what was shown.
    #[default]
    Warn,
}

/// A share, 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u8")]
pub struct Percent(pub u8);

impl TryFrom<u8> for Percent {
    type Error = String;

    fn try_from(percent: u8) -> Result<Self, String> {
        match percent {
            0..=100 => Ok(Self(percent)),
            _ => Err(format!("{percent} is no share: it is 0 to 100 per cent")),
        }
    }
}

/// Guard's part.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardConfig {
    /// Where the PostgreSQL door listens.
    pub pg_listen: SocketAddr,
    /// The certificate that the PostgreSQL door shows, PEM; one of its own authority otherwise.
    pub pg_certificate_file: Option<PathBuf>,
    /// The key of that certificate, PEM.
    pub pg_key_file: Option<PathBuf>,
    /// Where the HTTP door listens.
    pub http_listen: SocketAddr,
    /// Cedar text instead of the shipped policy.
    pub policy_file: Option<PathBuf>,
    /// The oldest proof that still is a way back, in seconds.
    pub proof_age_max_s: u64,
    /// By how many per cent the rows of a table may have moved since an approval; 0 is exact.
    pub approval_tolerance_percent: Percent,
    /// What becomes of an approval that comes before the rehearsal is done: `warn` or `refuse`.
    pub approve_before_rehearsal: BeforeRehearsal,
    /// Hosts that are reached somewhere else.
    pub upstream: Vec<UpstreamConfig>,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            pg_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 6543)),
            pg_certificate_file: None,
            pg_key_file: None,
            http_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 6480)),
            policy_file: None,
            proof_age_max_s: holdfast_guard::limits::PROOF_AGE_MAX.as_secs(),
            approval_tolerance_percent: Percent::default(),
            approve_before_rehearsal: BeforeRehearsal::default(),
            upstream: Vec::new(),
        }
    }
}
