//! One source, as the file tells of it.

use std::path::PathBuf;

use holdfast_core::{Resource, SourceName};
use holdfast_vault::retention::KeepRules;
use serde::Deserialize;

use super::SecretRef;

/// One protected PostgreSQL cluster or directory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Its name.
    pub name: SourceName,
    /// What it is for, as policies see it: `production`, `staging`, …
    #[serde(default = "production")]
    pub environment: String,
    /// Connection string of the role that the vault streams with (`REPLICATION`).
    #[serde(default)]
    pub vault_url: Option<SecretRef>,
    /// Connection string of the role that guard makes lease roles with.
    #[serde(default)]
    pub guard_url: Option<SecretRef>,
    /// The directory that is protected, instead of a PostgreSQL cluster; relative to the file.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// Seconds from one restore point of a directory to the next.
    #[serde(default = "every_hour")]
    pub every_s: u64,
    /// Whether commits wait until the vault has them on disk.
    #[serde(default)]
    pub synchronous: bool,
    /// Whether the vault keeps a mirror of it; what `mirror` of `[vault]` says if absent.
    #[serde(default)]
    pub mirror: Option<bool>,
    /// Where the vault must have a position before the source is told so: `spool` or `repository`.
    #[serde(default)]
    pub ack: holdfast_vault::AckAt,
    /// What providers call the things that carry this source, as `kind:name`, such as `railway:volume:3d2c…`.
    #[serde(default)]
    pub resources: Vec<String>,
    /// SQL statements that a drill runs; each must return true.
    #[serde(default)]
    pub assertions: Vec<String>,
    /// How long restore points are kept.
    #[serde(default)]
    pub keep: KeepRules,
}

fn every_hour() -> u64 {
    3600
}

fn production() -> String {
    "production".to_owned()
}

impl SourceConfig {
    /// Returns the resources that carry this source.
    pub fn resources(&self) -> Vec<Resource> {
        let split = |text: &String| {
            let (kind, name) = text.rsplit_once(':').unwrap_or(("", text));
            Resource::new(kind, name).of(self.name.clone())
        };
        self.resources.iter().map(split).collect()
    }
}
