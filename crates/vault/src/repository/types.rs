//! What goes into the repository and comes out of it, as words.

use std::collections::BTreeMap;

use holdfast_core::{ByteCount, Digest, Lsn, PointId, SourceName, Timestamp};
use serde::{Deserialize, Serialize};

use super::layout;

/// What is known when a restore point begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointStart {
    /// Of which source.
    pub source: SourceName,
    /// What kind of source it is, and what that kind knows.
    pub engine: EngineStart,
    /// The point whose files this one keeps where nothing else is said; `None` begins from nothing.
    pub parent: Option<PointId>,
}

/// What is known of a source when a restore point begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineStart {
    /// A directory.
    Directory,
    /// A PostgreSQL cluster.
    Postgres(PostgresStart),
}

/// What is known of a PostgreSQL cluster when a restore point of it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresStart {
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

/// What is known when a restore point is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PointEnd {
    /// Of a directory: nothing more.
    Directory,
    /// Of a PostgreSQL cluster.
    Postgres {
        /// Replay must reach this before the point is consistent.
        stop_lsn: Lsn,
        /// The `backup_manifest` exactly as PostgreSQL sent it; a point without a parent needs one.
        backup_manifest: Option<Vec<u8>>,
    },
}

/// One file, folder or link that is put into a restore point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Path relative to the source, with `/` between parts and none at the ends.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Its permission bits.
    pub mode: u32,
    /// What else is known of it.
    pub meta: FileMeta,
}

/// What an entry of a restore point is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A folder.
    Directory,
    /// A file of exactly this many bytes.
    File {
        /// Its size.
        size: u64,
    },
    /// Another name of a file of this restore point.
    Hardlink {
        /// The path of that file.
        target: String,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: String,
    },
}

/// How a file is after its parts were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchTo {
    /// Its size; what lies behind it is dropped, what was never written reads as zeros.
    pub size: u64,
    /// Its permission bits.
    pub mode: u32,
    /// What else is known of it.
    pub meta: FileMeta,
}

/// What some sources know of a file besides its name, kind and mode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMeta {
    /// When its content was changed last, in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime_ns: Option<i64>,
    /// Its owner's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its group's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Extended attributes by name, values in hexadecimal digits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
    /// By what an engine knows that the file has not changed since; nobody else reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<String>,
}

/// What a restore point says of a file, folder or link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: RecordKind,
    /// Its permission bits.
    pub mode: u32,
    /// Bytes of a file; zero of everything else.
    #[serde(default)]
    pub size: u64,
    /// SHA-256 of the whole content, when it was written whole and is small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// Where a link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What else is known of it.
    #[serde(flatten)]
    pub meta: FileMeta,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordKind {
    /// A folder.
    Directory,
    /// A file.
    File,
    /// Another name of a file of the same restore point.
    Hardlink,
    /// A symbolic link.
    Symlink,
}

/// A run of a file's bytes and where they are; what no extent covers is zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Position of its first byte in the file.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// Where they are.
    pub place: FramePlace,
}

/// Where a run of bytes begins: in a frame of a bundle, and from there over full frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramePlace {
    /// The bundle's serial number.
    pub bundle: u32,
    /// The number of the frame in the bundle, from zero.
    pub frame: u32,
    /// Position of the first byte in the decompressed frame.
    pub within: u32,
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

/// A restore point in few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointSummary {
    /// Its id.
    pub point: PointId,
    /// The point that it was built on.
    pub parent: Option<PointId>,
    /// Of which source.
    pub source: SourceName,
    /// What is known of the PostgreSQL cluster; `None` when it is of something else.
    pub postgres: Option<PostgresPoint>,
    /// When it was begun, by the vault's clock.
    pub began: Timestamp,
    /// When it was finished, by the vault's clock: the earliest time it brings back.
    pub at: Timestamp,
    /// How many files it has.
    pub files: u64,
    /// Bytes of all its files.
    pub bytes: ByteCount,
    /// Bytes that were stored for it; what it shares with its parents is not counted.
    pub stored: ByteCount,
}

/// What a restore point knows of its PostgreSQL cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresPoint {
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
    /// The tablespaces besides the two that every cluster has.
    pub tablespaces: Vec<Tablespace>,
}

/// A restore point of a PostgreSQL cluster in few words.
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
    /// Bytes that were stored for it.
    pub stored: ByteCount,
}

impl PointSummary {
    /// Returns the same in the words of a PostgreSQL cluster, or `None` when it is of something else.
    pub fn base(&self) -> Option<BaseSummary> {
        let postgres = self.postgres.as_ref()?;
        Some(BaseSummary {
            point: self.point.clone(),
            system_identifier: postgres.system_identifier,
            major: postgres.major,
            timeline: postgres.timeline,
            segment_bytes: postgres.segment_bytes,
            start_lsn: postgres.start_lsn,
            stop_lsn: postgres.stop_lsn,
            at: self.at,
            bytes: self.bytes,
            stored: self.stored,
        })
    }
}
