//! What the vault is told: sources, places, drills. Parsed by the binary, used here as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::{ByteCount, SourceName, Timestamp};
use holdfast_store::object::{Keys, Location};
use serde::{Deserialize, Serialize};

use crate::clone::FormWish;
use crate::engine::directory::DirectoryConfig;
use crate::limits;
use crate::retention::window::LOCK_FOR;
use crate::retention::{KeepRules, Span};
use crate::source::ConnectionUrl;

/// Reads the time; an argument, so that tests own it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Returns the system's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| Timestamp::from(std::time::SystemTime::now()))
}

/// How commits of the source wait for the vault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckMode {
    /// Commits never wait; at most about a second of them is lost with the source.
    #[default]
    Asynchronous,
    /// A commit is acknowledged only when the vault has it on disk; none is ever lost.
    Synchronous,
}

impl fmt::Display for AckMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asynchronous => "asynchronous",
            Self::Synchronous => "synchronous",
        })
    }
}

impl FromStr for AckMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "asynchronous" => Ok(Self::Asynchronous),
            "synchronous" => Ok(Self::Synchronous),
            _ => Err("the mode is `asynchronous` or `synchronous`".to_owned()),
        }
    }
}

/// Where a position must be kept before the source is told that it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckAt {
    /// In the repository: what was acknowledged survives the loss of the vault's machine too.
    Repository,
    /// On the vault's own disk; the repository has it about a second later.
    #[default]
    Spool,
}

impl fmt::Display for AckAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Repository => "repository",
            Self::Spool => "spool",
        })
    }
}

impl FromStr for AckAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "repository" => Ok(Self::Repository),
            "spool" => Ok(Self::Spool),
            _ => Err("`ack` is `spool` or `repository`".to_owned()),
        }
    }
}

/// A question about the data that the user wants every drill to ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assertion {
    /// What it is called in reports.
    pub name: String,
    /// The database to ask.
    pub database: String,
    /// A query with one row and one column; only `t` passes.
    pub sql: String,
}

/// One PostgreSQL cluster to protect.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// Its name.
    pub name: SourceName,
    /// How to connect.
    pub url: ConnectionUrl,
    /// How commits wait.
    pub mode: AckMode,
    /// Where a position must be kept before it is acknowledged.
    pub ack: AckAt,
    /// What drills ask besides the structural checks.
    pub assertions: Vec<Assertion>,
}

/// Where PostgreSQL's programs are and who runs them.
#[derive(Clone, Debug, Default)]
pub struct PostgresConfig {
    /// Folders to look in first: a `bin` folder, or one that holds `<major>/bin` or `bin`.
    pub dirs: Vec<PathBuf>,
    /// The account that runs restored servers when the vault itself runs as root; `postgres` if unset.
    pub run_as: Option<String>,
}

/// When restore points are proven.
#[derive(Clone, Debug)]
pub struct DrillConfig {
    /// Time from one drill of a source's newest point to the next, while it changes.
    pub every: Duration,
    /// The same while nothing changes: a proof must not grow old.
    pub unchanged_every: Duration,
    /// Time from one drill of an older point of a source to the next.
    pub older_every: Duration,
    /// The percentage of the time in which drills may run that nobody asked for.
    pub share: u32,
    /// By how much the priority of such a drill is lowered, 0 to 19.
    pub nice: i32,
    /// Bytes that such a drill may read or write in a second; `None` does not limit it.
    pub bytes_per_s: Option<u64>,
    /// Where drills restore to; a folder of ours below the state directory, or the system's temporary
    /// directory where the server's account cannot reach that.
    pub dir: Option<PathBuf>,
    /// How long the checks of one drill may take; what is left over is reported as not run.
    pub budget: Duration,
    /// In which form newest points are opened.
    pub form: FormWish,
}

impl Default for DrillConfig {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(5 * 60),
            unchanged_every: Duration::from_secs(3600),
            older_every: Duration::from_secs(3600),
            share: 25,
            nice: 0,
            bytes_per_s: None,
            dir: None,
            budget: Duration::from_secs(10 * 60),
            form: FormWish::Auto,
        }
    }
}

/// When restore points are taken.
#[derive(Clone, Debug)]
pub struct PointsConfig {
    /// Time from one restore point to the next, while the source changes.
    pub every: Duration,
    /// Time from one that stands on its own to the next.
    pub full_every: Duration,
    /// Bytes of log after which one is taken in any case, so that replay stays short.
    pub log_bytes: u64,
    /// Which sources have a mirror that points are sealed from, and where.
    pub mirrors: MirrorConfig,
}

/// Which sources have a mirror, and where their servers lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorConfig {
    /// The sources; each costs a server and a copy of its data.
    pub sources: BTreeSet<SourceName>,
    /// The folder of all mirrors, which the servers' account can enter; `mirror` beside the state
    /// directory if unset.
    pub dir: Option<PathBuf>,
    /// How long one waits before what destroys; meanwhile it takes over at the moment before in seconds.
    pub hold: Duration,
    /// What a mirror leaves free on its disk for capture.
    pub reserve: ByteCount,
}

impl Default for MirrorConfig {
    fn default() -> Self {
        Self {
            sources: BTreeSet::new(),
            dir: None,
            hold: limits::MIRROR_HOLD,
            reserve: limits::MIRROR_RESERVE,
        }
    }
}

impl Default for PointsConfig {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(3600),
            full_every: Duration::from_secs(7 * 24 * 3600),
            log_bytes: 1 << 30,
            mirrors: MirrorConfig::default(),
        }
    }
}

/// Everything the vault is told.
#[derive(Clone, Debug)]
pub struct VaultConfig {
    /// The vault's own state: the spool, drills.
    pub state: PathBuf,
    /// Where the repository is.
    pub repository: Location,
    /// What objects are sealed to and opened with.
    pub keys: Keys,
    /// The PostgreSQL clusters.
    pub sources: Vec<SourceConfig>,
    /// The directories.
    pub directories: Vec<DirectoryConfig>,
    /// PostgreSQL's programs.
    pub postgres: PostgresConfig,
    /// Drills.
    pub drill: DrillConfig,
    /// Restore points.
    pub points: PointsConfig,
    /// How long things are kept, and as which writer.
    pub retention: RetentionConfig,
}

/// How long things are kept, and as which writer.
#[derive(Clone, Debug)]
pub struct RetentionConfig {
    /// Everything is kept at least this long; it can only grow.
    pub lock_for: Span,
    /// Objects in a directory get the file system's immutable flag.
    pub immutable: bool,
    /// Time from one heartbeat of the writer to the next.
    pub heartbeat: Duration,
    /// The rules of every source that has any; without, nothing of it expires.
    pub rules: BTreeMap<SourceName, KeepRules>,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            lock_for: LOCK_FOR,
            immutable: false,
            heartbeat: limits::HEARTBEAT,
            rules: BTreeMap::new(),
        }
    }
}
