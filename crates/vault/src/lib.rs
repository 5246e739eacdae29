//! The half that keeps the ways back: capture, repository, restore, drills.
//!
//! It connects out to sources and writes to its own spool and repository. It never removes or
//! overwrites what it has acknowledged, and never restores over anything.
//!
//! # Architecture invariants
//! - **I2 pull only.** Only this room opens the repository; sources hold nothing of ours.
//! - **I3 no delete.** Writers are given [`holdfast_store::object::ObjectStore`], which cannot remove.
//! - **I8 never in place.** A restore goes to a new, empty directory or is refused.
//! - A position is reported as flushed only after the bytes are durable in the spool.
//! - A restore point exists only when its signed manifest does, and that is written last.
//! - A [`holdfast_core::Proof`] is made in the drill and nowhere else.

mod capture;
pub mod clone;
pub mod config;
pub mod drill;
pub mod engine;
pub mod limits;
mod mirror;
pub mod mount;
mod moved;
pub mod points;
mod recovery;
mod rehearsal;
pub mod repository;
pub mod restore;
pub mod retention;
pub mod source;
pub mod spool;
mod standing;
pub mod status;
pub mod target;
pub mod vault;
pub mod watch;

pub use config::{
    AckAt, AckMode, Assertion, Clock, DrillConfig, MirrorConfig, PointsConfig, PostgresConfig,
    RetentionConfig, SourceConfig, VaultConfig, system_clock,
};
pub use drill::{DrillError, DrillRecord, drills};
pub use engine::directory::{DirectoryConfig, DirectoryError, DirectoryStatus, LeftOut};
pub use mirror::MirrorError;
pub use moved::{Moved, MovedError};
pub use points::{
    Lag, LagAgainst, LogHole, LogRange, Openable, Opened, PointProof, PointShown, PointSpan,
    Refused, Running, SpanKind, openable, points,
};
pub use recovery::{
    RecoverError, RecoverRequest, Recovered, Way, recover_alone, recover_by_restore,
};
pub use rehearsal::REHEARSAL_OWNER;
pub use repository::{
    BaseSummary, EngineStart, Extent, FileEntry, FileKind, FileMeta, FileRecord, FramePlace,
    PatchTo, Point, PointEnd, PointStart, PointSummary, PointWriter, PostgresPoint, PostgresStart,
    Reader, RecordKind, Repository, RepositoryError, Tablespace, WalPlace,
};
pub use restore::{
    Came, DirectoryRequest, ExportRequest, ExportTo, Exported, Found, NamedPoint, Place, Progress,
    ProgressFn, ReadBack, RestoreError, RestorePhase, RestoreRequest, RestoreTarget, Restored,
    RestoredDirectory, ServerAddress, Start, Verified, VerifiedPages, Ways, export, is_directory,
    named_points, restore, restore_directory,
};
pub use source::{
    CheckReport, ConnectionUrl, Requirement, RequirementState, SettingsPlan, SourceError, SslMode,
    Statement, Synchronous, UrlError, apply_settings, check_source, disable_synchronous,
    enable_synchronous, kept_slot_name, plan_settings, slot_name,
};
pub use spool::SpoolError;
pub use status::{
    CaptureState, MirrorState, MirrorStatus, PointReading, ProofState, ProofStatus, ReadingWay,
    SourceStatus, Trouble,
};
pub use target::{TargetError, check_target};
pub use vault::{RepositoryStatus, Vault, VaultError};
pub use watch::{Destroyed, LogWatch, Seen, WatchError};
