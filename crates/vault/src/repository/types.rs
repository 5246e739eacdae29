//! What goes into the repository and comes out of it, as words.

use holdfast_core::{ByteCount, Lsn, PointId, SourceName, Timestamp};
use serde::{Deserialize, Serialize};

use super::layout;

/// What is known when a base backup begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseStart {
    /// Of which source.
    pub source: SourceName,
    /// PostgreSQL's system identifier.
    pub system_identifier: u64,
    /// PostgreSQL's major version.
    pub major: u32,
    /// The timeline that it was taken on.
    pub timeline: u32,
    /// Where replay must begin.
    pub start_lsn: Lsn,
    /// The size of one file of the log.
    pub segment_bytes: u32,
    /// The tablespaces besides the two that every cluster has.
    pub tablespaces: Vec<Tablespace>,
}

/// A tablespace of the source. Its files are stored below `pg_tblspc/<oid>/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its object id.
    pub oid: u32,
    /// Where it lies on the source; a restore never touches that path.
    pub location: String,
}

/// What is known when a base backup has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseEnd {
    /// Replay must reach this before the base is consistent.
    pub stop_lsn: Lsn,
    /// The `backup_manifest` exactly as PostgreSQL sent it.
    pub backup_manifest: Vec<u8>,
}

/// One file, folder or link of a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Path relative to the data directory, with `/` between parts and none at the ends.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Its permission bits.
    pub mode: u32,
}

/// What an entry of a data directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A folder.
    Directory,
    /// A file of exactly this many bytes.
    File {
        /// Its size.
        size: u64,
    },
    /// A symbolic link; kept for the record and never made by a restore.
    Symlink {
        /// Where it points.
        target: String,
    },
}

/// Whose log, and how it is cut into files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalPlace {
    /// Of which source.
    pub source: SourceName,
    /// PostgreSQL's system identifier.
    pub system_identifier: u64,
    /// The timeline.
    pub timeline: u32,
    /// The size of one file of the log.
    pub segment_bytes: u32,
}

impl WalPlace {
    /// Returns PostgreSQL's name of the segment that contains `position`.
    pub fn segment_name(&self, position: Lsn) -> String {
        layout::segment_name(self, position)
    }

    /// Returns where the segment that contains `position` begins.
    pub fn segment_start(&self, position: Lsn) -> Lsn {
        Lsn(position.0 - position.0 % u64::from(self.segment_bytes.max(1)))
    }

    /// Returns where the segment of this timeline with this name begins.
    pub fn read_segment_name(&self, name: &str) -> Option<Lsn> {
        layout::read_segment_name(name, self.segment_bytes)
            .filter(|(timeline, _)| *timeline == self.timeline)
            .map(|(_, start)| start)
    }
}

/// A base in few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseSummary {
    /// Its id.
    pub point: PointId,
    /// PostgreSQL's system identifier.
    pub system_identifier: u64,
    /// PostgreSQL's major version.
    pub major: u32,
    /// The timeline that it was taken on.
    pub timeline: u32,
    /// The size of one file of its log.
    pub segment_bytes: u32,
    /// Where replay begins.
    pub start_lsn: Lsn,
    /// Where it becomes consistent: the earliest position it brings back.
    pub stop_lsn: Lsn,
    /// When it was finished, by the vault's clock: the earliest time it brings back.
    pub at: Timestamp,
    /// Bytes of the data directory.
    pub bytes: ByteCount,
    /// Bytes in the repository.
    pub stored: ByteCount,
}
