//! The vault's part of the file.

use std::path::PathBuf;

use holdfast_store::object::s3::Addressing;
use holdfast_vault::clone::FormWish;
use holdfast_vault::limits;
use holdfast_vault::retention::Span;
use holdfast_vault::retention::window::LOCK_FOR;
use serde::Deserialize;

use super::SecretRef;

/// The vault's part.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VaultConfig {
    /// The directory of the repository, relative to the state folder; or `s3://BUCKET[/PREFIX]`.
    pub repository: String,
    /// How the bucket is reached.
    pub object_storage: ObjectStorageConfig,
    /// Seconds between two drills of a source's newest point, while it changes.
    pub drill_every_s: u64,
    /// Seconds between two drills of a source's older points.
    pub drill_older_every_s: u64,
    /// The percentage of the time in which drills may run that nobody asked for.
    pub drill_share: u32,
    /// By how much the priority of such a drill is lowered.
    pub drill_nice: i32,
    /// Mebibytes that such a drill may read or write in a second.
    pub drill_mib_s: Option<u64>,
    /// Seconds that the checks of a drill may take.
    pub drill_budget_s: u64,
    /// Where drills restore to; a folder of the vault's own if absent.
    pub drill_dir: Option<PathBuf>,
    /// Seconds that a held action may run on the clone on which it is rehearsed.
    pub rehearsal_s: u64,
    /// Seconds from one restore point to the next, while the source changes.
    pub point_every_s: u64,
    /// Mebibytes of log after which a restore point is taken in any case.
    pub point_every_mib: u64,
    /// Seconds from one restore point that stands on its own to the next.
    pub full_every_s: u64,
    /// The vault keeps a mirror of every PostgreSQL source: a server each, and a copy of its data.
    pub mirror: bool,
    /// Seconds that a mirror waits before what destroys; meanwhile it takes over at the moment before.
    pub mirror_hold_s: u64,
    /// How long everything is kept at least, such as `14d`; it can only grow.
    pub lock_for: Span,
    /// Files of the repository get the file system's immutable flag.
    pub immutable: bool,
    /// Seconds from one heartbeat of the writer to the next.
    pub heartbeat_s: u64,
    /// The user that restored servers run as, when the vault runs as root.
    pub run_as: String,
    /// Folders with PostgreSQL's programs, searched first.
    pub postgres_bin_dirs: Vec<PathBuf>,
    /// What clones may take.
    pub clones: ClonesConfig,
}

impl Default for VaultConfig {
    fn default() -> Self {
        Self {
            repository: "repository".to_owned(),
            object_storage: ObjectStorageConfig::default(),
            drill_every_s: 300,
            drill_older_every_s: 3600,
            drill_share: 25,
            drill_nice: 5,
            drill_mib_s: None,
            drill_budget_s: 600,
            drill_dir: None,
            rehearsal_s: limits::REHEARSAL_LASTS.as_secs(),
            point_every_s: 3600,
            point_every_mib: 1024,
            full_every_s: 7 * 24 * 3600,
            mirror: false,
            mirror_hold_s: limits::MIRROR_HOLD.as_secs(),
            lock_for: LOCK_FOR,
            immutable: false,
            heartbeat_s: limits::HEARTBEAT.as_secs(),
            run_as: "postgres".to_owned(),
            postgres_bin_dirs: Vec::new(),
            clones: ClonesConfig::default(),
        }
    }
}

/// What clones may take.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClonesConfig {
    /// The folder in which every clone has one of its own; one in the state folder if absent.
    pub dir: Option<PathBuf>,
    /// How many there may be at once.
    pub count_max: usize,
    /// Mebibytes that one may take of the disk.
    pub disk_max_mib: u64,
    /// Mebibytes that one may take of the memory.
    pub memory_max_mib: u64,
    /// Mebibytes of the disk for what all of them have read from a bucket; 0 keeps nothing.
    pub cache_max_mib: u64,
    /// Seconds that one lives when nobody says.
    pub ttl_s: u64,
    /// Seconds that one may live at most.
    pub ttl_max_s: u64,
    /// `mounted` brings blocks when they are touched, `restored` everything at once; `auto` mounts where
    /// that is possible.
    pub form: FormWish,
    /// Mebibytes in a second that the rest of a mounted one is brought by in the background; 0 for not
    /// at all.
    pub hydrate_mib_s: u64,
}

impl Default for ClonesConfig {
    fn default() -> Self {
        Self {
            dir: None,
            count_max: limits::CLONES,
            disk_max_mib: limits::CLONE_DISK.0 >> 20,
            memory_max_mib: limits::CLONE_MEMORY.0 >> 20,
            cache_max_mib: limits::BLOCK_CACHE.0 >> 20,
            ttl_s: limits::CLONE_TTL.as_secs(),
            ttl_max_s: limits::CLONE_TTL_MAX.as_secs(),
            form: FormWish::Auto,
            hydrate_mib_s: limits::CLONE_HYDRATE.0 >> 20,
        }
    }
}

/// How the bucket of the repository is reached.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectStorageConfig {
    /// Where requests go; Amazon's endpoint of the region when it is absent.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// The name of the key.
    pub access_key_id: Option<SecretRef>,
    /// The key.
    pub secret_access_key: Option<SecretRef>,
    /// What temporary keys carry as well.
    pub session_token: Option<SecretRef>,
    /// The name of a key that may delete; `vault check-target` alone tries it.
    pub probe_access_key_id: Option<SecretRef>,
    /// That key.
    pub probe_secret_access_key: Option<SecretRef>,
    /// The name of a key that may delete; `vault expire` alone uses it.
    pub expire_access_key_id: Option<SecretRef>,
    /// That key.
    pub expire_secret_access_key: Option<SecretRef>,
    /// How the bucket is named in requests: `path` or `virtual-host`.
    pub addressing: Addressing,
    /// Permits requests without TLS to other machines.
    pub plain_http: bool,
    /// A certificate authority to trust instead of the system's, PEM.
    pub ca_file: Option<PathBuf>,
}
