//! Named limits of this room: every wait, queue, retry and buffer.

use std::time::Duration;

/// How long connecting to a source may take.
pub const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long a source may take to answer a short question.
pub const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How long a base backup may send nothing before it counts as dead; a checkpoint may come first.
pub const BASE_SILENCE: Duration = Duration::from_secs(600);
/// How often a waiting reader looks at whether it should stop.
pub const POLL: Duration = Duration::from_millis(200);
/// How long a WAL stream may send nothing before it counts as dead.
pub const STREAM_SILENCE: Duration = Duration::from_secs(60);
/// How often the source is told our position while nothing happens.
pub const STATUS_EVERY: Duration = Duration::from_secs(5);
/// The first wait before connecting again; it doubles up to [`BACKOFF_MAX`].
pub const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// The longest wait before connecting again.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// The most rows that an answer to a question of ours may have.
pub const ANSWER_ROWS: usize = 200_000;
/// How often WAL that is not yet in the repository is put there.
pub const SHIP_EVERY: Duration = Duration::from_millis(800);
/// Transactions whose doings are followed through the log at once.
pub const WATCHED_TRANSACTIONS: usize = 65_536;
/// Catalog rows of one transaction that are remembered.
pub const WATCHED_ROWS: usize = 200_000;
/// Marks on databases that are remembered while their removal has not ended.
pub const WATCHED_MARKS: usize = 64;
/// The most that is put into the repository as one tail.
pub const TAIL_BYTES: u64 = 4 << 20;
/// How long the log that a finished base backup needs may take to arrive in the repository.
pub const BASE_LOG_WAIT: Duration = Duration::from_secs(600);

/// Bytes of a file in one frame of the repository: 16 pages.
pub const FRAME_BYTES: usize = 128 * 1024;
/// Stored bytes after which a bundle is closed.
pub const BUNDLE_BYTES: usize = 32 * 1024 * 1024;
/// How many threads compress frames of a base, and how many write files of a restore.
pub const PACK_THREADS: usize = 2;
/// How many frames may wait between two threads.
pub const FRAMES_WAITING: usize = 16;
/// zstd's level for everything in the repository.
pub const ZSTD_LEVEL: i32 = 3;
/// The largest manifest of a base that is read, in bytes.
pub const MANIFEST_BYTES: u64 = 1 << 30;
/// The largest segment of the log that PostgreSQL can have, in bytes.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;
/// The smallest one, in bytes.
pub const SEGMENT_BYTES_MIN: u32 = 1 << 20;
/// The largest proof or history file that is read, in bytes.
pub const NOTE_BYTES: u64 = 4 << 20;
/// When a drill that could not be run is tried again.
pub const DRILL_AGAIN: Duration = Duration::from_secs(30);
/// How often a drill looks at its server.
pub const DRILL_POLL: Duration = Duration::from_millis(20);
/// How long a drill's server may take to stop.
pub const DRILL_STOP: Duration = Duration::from_secs(300);
/// How long a single question of a drill may be silent beyond the time it was given.
pub const DRILL_SLACK: Duration = Duration::from_secs(30);
/// Tables whose row counts are kept for the next drill.
pub const DRILL_TABLES: usize = 2_000;
/// A table below this many rows is not compared with the drill before.
pub const DRILL_ROWS_MIN: u64 = 100;
/// Findings that one check spells out; the others are counted.
pub const DRILL_FINDINGS: usize = 5;
/// How many frames a restore reads at once.
pub const FRAMES_PER_READ: usize = 32;
/// How long a restored server may take to replay its log; a server that ends is noticed at once.
pub const PROMOTION_WAIT: Duration = Duration::from_secs(24 * 60 * 60);
/// How often a restored server is asked whether it is promoted.
pub const PROMOTION_POLL: Duration = Duration::from_millis(4);
/// How many segments are read backwards from the end of a log for its newest commit.
pub const COMMIT_SEGMENTS: usize = 8;
