//! A directory as a source: uploads, documents, whatever lies beside the database.
//!
//! A restore point of it has folders, files, links of both kinds, owners, permission bits, times and
//! extended attributes; holes stay holes. Files that have not changed are not read again. It is not a
//! moment: what is written while it is read may be in the point or not, file by file, and a file that
//! changes while it is read is counted. No link is ever followed, and no other file system entered.

mod capture;
mod error;
mod names;
mod standing;
mod tree;

use std::path::PathBuf;
use std::time::Duration;

use holdfast_core::{ByteCount, PointId, SourceName, Timestamp};
use serde::{Deserialize, Serialize};

pub(crate) use capture::{Captured, capture};
pub use error::DirectoryError;
pub(crate) use names::decode;
pub(crate) use standing::DirectoryStanding;

use crate::status::{ProofStatus, Trouble};

/// One directory to protect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryConfig {
    /// Its name.
    pub name: SourceName,
    /// Where it is; absolute.
    pub directory: PathBuf,
    /// Time from the beginning of one restore point to that of the next.
    pub every: Duration,
}

/// Something in the directory that a restore point does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its path, shortened and made printable.
    pub path: String,
    /// Why it is left out.
    pub why: String,
}

/// How one directory stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirectoryStatus {
    /// Which source.
    pub source: SourceName,
    /// Where it is.
    pub directory: PathBuf,
    /// What stands in the way, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// The newest restore point.
    pub point: Option<PointId>,
    /// When that was begun: what was written before is in it.
    pub at: Option<Timestamp>,
    /// How many files it has.
    pub files: u64,
    /// Bytes of all its files.
    pub bytes: ByteCount,
    /// Bytes that were read for it; files that had not changed were not.
    pub read: ByteCount,
    /// Files that changed while they were read.
    pub unsettled: u64,
    /// How much is left out, sockets and the like not counted.
    pub missing: u64,
    /// Some of what is left out, and why.
    pub left_out: Vec<LeftOut>,
    /// Whether a point is proven.
    pub proof: ProofStatus,
    /// What is being done, such as `restore point` or `drill`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy: Option<String>,
}
