//! Thin clones: a restore point as a writable, running server that reaches nothing but itself.
//!
//! [`open`] is the entry for everybody who needs such a server: the command line, drills, rehearsals
//! and recovery. It blocks until the server takes writes and what could reach outside is disabled, and
//! returns a [`ThinClone`], which ends with the process that holds it.
//!
//! A clone has one of two forms, which it says of itself: `mounted` (blocks are fetched as they are
//! touched) or `restored` (everything was fetched before it was opened, where no mount is possible).
//! Both have the same commands and the same folder.
//!
//! # Architecture invariants
//! - **I8 never in place.** A clone has a new folder of its own, and writes nowhere else.
//! - **I9 no pretence.** `enforced` is said only when the system itself keeps the server in; what was
//!   disabled is listed, and what could not be is listed too.
//! - No role of the source opens a clone: two roles are made, and nobody else is admitted but whom the
//!   clone's own role lets in.

mod admit;
mod confine;
mod data;
mod disarm;
mod error;
mod folder;
mod forward;
mod id;
mod mounted;
mod open;
mod processes;
mod record;
mod registry;
mod server;
mod settings;
mod standing;
mod way_in;

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_core::{ByteCount, SourceName};
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::restore::RestoreTarget;

pub use error::CloneError;
pub use id::CloneId;
pub use mounted::Hydrated;
pub use open::{ThinClone, open};
pub use record::{CloneRecord, CloneShown, CloneState, Took};
pub use registry::{Listed, clones, find, remove, reopen};
pub use standing::{Standing, prepare};
pub use way_in::{WayIn, way_in};

/// Where clones live and what they may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClonesConfig {
    /// The folder in which every clone has one of its own; the server's account must reach it.
    pub dir: PathBuf,
    /// How many clones there may be at once.
    pub count_max: usize,
    /// What one clone may take of the disk.
    pub disk_max: ByteCount,
    /// What one clone's processes may take of the memory.
    pub memory_max: ByteCount,
    /// How long a clone lives when nobody says.
    pub ttl: Duration,
    /// How long one may live at most.
    pub ttl_max: Duration,
    /// In which form they are opened.
    pub form: FormWish,
    /// Bytes in a second that the rest of a mounted one is brought by in the background; `None` leaves
    /// it until somebody asks.
    pub hydrate: Option<ByteCount>,
}

/// In which form a clone shall be opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FormWish {
    /// Mounted where that is possible, and restored elsewhere.
    #[default]
    Auto,
    /// Mounted, or not at all.
    Mounted,
    /// Restored, also where it could be mounted.
    Restored,
}

impl std::str::FromStr for FormWish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "mounted" => Ok(Self::Mounted),
            "restored" => Ok(Self::Restored),
            _ => Err("a clone's form is `auto`, `mounted` or `restored`".to_owned()),
        }
    }
}

impl ClonesConfig {
    /// Returns the defaults, with clones in a folder beside the vault's state.
    #[must_use]
    pub fn beside(state: &Path) -> Self {
        Self {
            dir: state.parent().unwrap_or(state).join("clones"),
            count_max: limits::CLONES,
            disk_max: limits::CLONE_DISK,
            memory_max: limits::CLONE_MEMORY,
            ttl: limits::CLONE_TTL,
            ttl_max: limits::CLONE_TTL_MAX,
            form: FormWish::Auto,
            hydrate: Some(limits::CLONE_HYDRATE),
        }
    }
}

/// What is to be opened.
#[derive(Clone, Debug)]
pub struct CloneRequest {
    /// Where, and within which limits.
    pub clones: ClonesConfig,
    /// Which source.
    pub source: SourceName,
    /// Which moment.
    pub at: RestoreTarget,
    /// The timeline to follow; `None` takes the newest that leads there.
    pub timeline: Option<u32>,
    /// Who asked for it.
    pub owner: String,
    /// The lease that may use it; `None` leaves it to the owner.
    pub writable_by: Option<String>,
    /// How long it lives; `None` takes the default.
    pub ttl: Option<Duration>,
    /// The database that its connection string names; one that every cluster has if absent.
    pub database: Option<String>,
    /// The port on 127.0.0.1; a free one if absent.
    pub port: Option<u16>,
}

impl CloneRequest {
    /// Asks for a moment on the newest timeline that leads there.
    #[must_use]
    pub fn new(clones: ClonesConfig, source: SourceName, at: RestoreTarget) -> Self {
        Self {
            clones,
            source,
            at,
            timeline: None,
            owner: "holdfast".to_owned(),
            writable_by: None,
            ttl: None,
            database: None,
            port: None,
        }
    }
}

/// How the data of a clone came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Blocks are fetched as they are touched.
    Mounted,
    /// Everything was fetched before it was opened.
    Restored,
}

/// Whether the system itself keeps a clone from reaching outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// Only settings and disabled objects do.
    Advisory,
    /// The kernel does: no network, no files, no processes but its own.
    Enforced,
}

/// What keeps a clone in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Whether it is enforced.
    pub kept: Kept,
    /// By what.
    pub by: Vec<String>,
    /// What is missing, if anything is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Something in the data that could have reached outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// What it is: `subscription`, `foreign server`, `job`, `library`, `setting`, …
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The database it is in, unless it belongs to the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// What was done about it.
    pub how: String,
    /// It could not be disabled; the confinement alone keeps it in.
    #[serde(default)]
    pub failed: bool,
}
