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
            upstream: Vec::new(),
        }
    }
}
