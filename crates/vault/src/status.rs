//! What the vault says about itself: per source, per span of restore points.

use holdfast_core::{ByteCount, Lsn, PointId, SourceName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::{AckAt, AckMode};

/// What capture of a source is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureState {
    /// The source cannot be reached; the vault tries again by itself.
    Disconnected,
    /// Something must be mended by a person first: another cluster, missing rights, a full disk.
    Failed,
    /// Not connected yet.
    #[default]
    Starting,
    /// WAL arrives and is kept.
    Streaming,
}

/// How one source stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Which source.
    pub source: SourceName,
    /// What capture is doing.
    pub state: CaptureState,
    /// The code and text of what stands in the way, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// How commits are configured to wait.
    pub mode: AckMode,
    /// Where a position is kept before the source is told so.
    #[serde(default)]
    pub ack: AckAt,
    /// PostgreSQL's system identifier, once known.
    pub system_identifier: Option<u64>,
    /// The timeline that is streamed.
    pub timeline: u32,
    /// Durable in the spool up to here.
    pub flushed: Lsn,
    /// In the repository up to here.
    pub shipped: Lsn,
    /// WAL of the source that is not yet durable here.
    pub lag: ByteCount,
    /// Age of the oldest commit that is not yet durable here; zero when there is none.
    pub lag_s: f64,
    /// The newest commit that is durable here.
    pub newest_commit: Option<Timestamp>,
    /// The newest restore point, if there is one.
    pub point: Option<PointId>,
    /// How it was read from the source, if this vault took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<PointReading>,
    /// Whether it is proven.
    pub proof: ProofStatus,
    /// The points whose newest drill failed, the newest point among them or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_points: Vec<PointId>,
    /// How its mirror stands, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorStatus>,
    /// The server that took the source's place at a recovery, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<String>,
    /// What is being done besides streaming, such as `base backup` or `drill`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy: Option<String>,
}

/// What a mirror is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MirrorState {
    /// It does not follow; restore points are read from the source meanwhile.
    Failed,
    /// It replays what arrives.
    Following,
    /// It waits before something that destroys until a point before it has been sealed.
    Holding,
    /// Its files are laid, or it has not caught up yet.
    #[default]
    Starting,
}

/// How the mirror of a source stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MirrorStatus {
    /// What it is doing.
    pub state: MirrorState,
    /// It has replayed the log up to here.
    pub replayed: Lsn,
    /// Log that is durable here and not replayed yet.
    pub lag: ByteCount,
    /// Since when it has not had everything replayed, in seconds; zero when it has.
    pub lag_s: f64,
    /// The newest commit that it was given.
    pub newest_commit: Option<Timestamp>,
    /// Before this position something destroys, and it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds_before: Option<Lsn>,
    /// Restore points that were sealed from it since the vault began to run.
    pub sealed: u64,
    /// Why it does not follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
}

/// How the newest restore point was read from the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointReading {
    /// Which way.
    pub way: ReadingWay,
    /// Why not only the changed blocks were read, when that could have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Bytes of files that the source sent.
    pub read: ByteCount,
}

/// A way of reading a restore point from the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadingWay {
    /// Only changed blocks were read, and stored.
    ChangedBlocks,
    /// Everything was read, and only changed blocks were stored.
    Everything,
    /// Everything was read and stored.
    Full,
    /// Only changed blocks were read, from the mirror: the source was not asked.
    Mirror,
}

/// What stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The error's code.
    pub code: String,
    /// What happened, with its causes.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Whether a restore point was really restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProofState {
    /// The newest drill found something wrong.
    Failed,
    /// No drill has ended.
    #[default]
    None,
    /// A drill restored it and all its checks passed.
    Verified,
}

/// The newest drill's result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProofStatus {
    /// How it ended.
    pub state: ProofState,
    /// When.
    pub at: Option<Timestamp>,
    /// Seconds from the start of the restore to the first committed write.
    pub rto_s: Option<f64>,
    /// What a person must look at although the point can be brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<String>,
}
