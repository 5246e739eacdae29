//! What is told of restore points.

use holdfast_core::{ByteCount, Lsn, PointId, SourceName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::retention::Mark;
use crate::status::ProofState;

/// What can be brought back of a source without a hole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PointSpan {
    /// Which source.
    pub source: SourceName,
    /// Whether everything between its ends comes back, or only its points.
    pub kind: SpanKind,
    /// The log of a PostgreSQL cluster.
    #[serde(flatten)]
    pub log: Option<LogRange>,
    /// The earliest time it brings back.
    pub from: Timestamp,
    /// The newest commit it brings back; of a directory, its newest point.
    pub to: Timestamp,
    /// Seconds since that.
    pub age_s: f64,
    /// What it occupies in the repository; what points share is counted once.
    pub bytes: ByteCount,
    /// What its newest point occupies when it is restored, without the log.
    pub restored: ByteCount,
    /// How far it is behind the source; `None` when the source writes elsewhere now.
    pub lag: Option<Lag>,
    /// The seconds of that, when they are known.
    pub lag_s: Option<f64>,
    /// The points in it, oldest first.
    pub points: Vec<PointShown>,
    /// The newest drill of any of its points.
    pub proof: PointProof,
}

/// What a span consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpanKind {
    /// Every position between its ends comes back.
    Log,
    /// Only its points come back.
    Moments,
}

/// The log of a span.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRange {
    /// The timeline of its end.
    pub timeline: u32,
    /// The earliest position it brings back.
    pub from_lsn: Lsn,
    /// The end of its log.
    pub to_lsn: Lsn,
    /// How much before its end is in this machine's spool alone, and not yet in the repository.
    pub spooled: ByteCount,
    /// The source has left this part of its timeline; `--timeline` brings it back.
    pub is_left: bool,
    /// What is missing behind its end.
    pub hole: Option<LogHole>,
}

/// A part of the log that is kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHole {
    /// Its first position.
    pub from_lsn: Lsn,
    /// The position after its last byte.
    pub to_lsn: Lsn,
    /// Its size.
    pub bytes: ByteCount,
}

/// How far a span is behind its source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// What it was compared with.
    pub against: LagAgainst,
    /// What the source has written and the span does not have.
    pub bytes: Option<ByteCount>,
    /// Age of the oldest commit that the span does not have; since the source last spoke while nobody
    /// hears it.
    pub seconds: Option<f64>,
    /// Why it is not known, or what stands in the way.
    pub why: Option<String>,
}

/// What a lag was measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LagAgainst {
    /// What the source had written when it last spoke, and it does not speak now: it may be more.
    LastHeard,
    /// What the source has written, as the vault that streams from it hears.
    Source,
    /// Nothing: nobody knows what the source has written.
    Unknown,
}

/// A restore point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PointShown {
    /// Its id.
    pub point: PointId,
    /// The earliest time it brings back.
    pub at: Timestamp,
    /// The earliest position it brings back, of a PostgreSQL cluster.
    pub lsn: Option<Lsn>,
    /// Seconds since then.
    pub age_s: f64,
    /// Bytes of its files when it is restored.
    pub bytes: ByteCount,
    /// Bytes that were stored for it; what it shares with older points is not counted.
    pub stored: ByteCount,
    /// It was taken from nothing, not on top of another.
    pub is_whole: bool,
    /// Whether it is proven.
    pub proof: PointProof,
    /// The word of whoever keeps it, whatever the rules say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Mark>,
}

/// Whether a point was really restored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PointProof {
    /// How the newest drill of it ended.
    pub state: ProofState,
    /// When that drill ended, which is what `holdfast drill list` calls it by.
    pub at: Option<Timestamp>,
    /// Seconds from the start of that restore to the first committed write.
    pub rto_s: Option<f64>,
    /// The position that it recovered to.
    pub reached: Option<Lsn>,
    /// How many drills of this point ended.
    pub drills: usize,
    /// What was wrong, or why nothing is known.
    pub why: Option<String>,
    /// What a person must look at although the point can be brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<String>,
}
