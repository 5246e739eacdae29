//! Named limits of this room: every wait, queue, retry and buffer.

use std::time::Duration;

use holdfast_core::{ByteCount, Lsn};

/// How long connecting to a source may take.
pub const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long a source may take to answer a short question.
pub const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How long a base backup may send nothing before it counts as dead; a checkpoint may come first.
pub const BASE_SILENCE: Duration = Duration::from_secs(600);
/// How often a waiting reader looks at whether it should stop.
pub const POLL: Duration = Duration::from_millis(200);
/// How long our slot may be in use by somebody before it counts as taken: longer than PostgreSQL's
/// `wal_sender_timeout` of one minute, after which it notices that a stream of ours is dead.
pub const SLOT_TAKEN_WAIT: Duration = Duration::from_secs(75);
/// The longest name of a slot, in bytes.
pub const SLOT_NAME_BYTES: usize = 63;
/// Room that is made at once in a segment's file where commits wait for it, in bytes.
pub const ROOM_BYTES: u64 = 1 << 20;
/// How long a WAL stream may send nothing before it counts as dead.
pub const STREAM_SILENCE: Duration = Duration::from_secs(60);
/// How often the source is told our position while nothing happens.
pub const STATUS_EVERY: Duration = Duration::from_secs(10);
/// How long log that no commit waits for gathers in the socket before it is taken in.
pub const GATHER: Duration = Duration::from_millis(5);
/// How long log that no commit waits for may be here before it is durable.
pub const SYNC_EVERY: Duration = Duration::from_millis(100);
/// How long a WAL stream may send nothing before the source is asked for a sign of life.
pub const STREAM_QUIET: Duration = Duration::from_secs(20);
/// The first wait before connecting again; it doubles up to [`BACKOFF_MAX`].
pub const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// The longest wait before connecting again.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long a log-in may take altogether, however often the server speaks.
pub const LOGIN_WAIT: Duration = Duration::from_secs(15);
/// How many times its wait the answer to one question may take altogether.
pub const ANSWER_WAITS: u32 = 10;
/// The most that an answer to a question of ours may have, in bytes.
pub const ANSWER_BYTES: usize = 64 << 20;
/// Messages that carry nothing which a server may send in a row: notices, changes of settings.
pub const CHATTER: usize = 10_000;
/// The longest message of a replication connection, in bytes; PostgreSQL's have 128 KiB.
pub const REPLICATION_FRAME_BYTES: usize = 2 << 20;
/// Positions of the log end here: PostgreSQL would write for ten thousand years to get there, and
/// nothing that is added to them overflows.
pub const POSITION_MAX: Lsn = Lsn(1 << 62);
/// Entries of one base backup.
pub const BASE_ENTRIES: usize = 2_000_000;
/// The largest backup manifest that is taken from a source, in bytes.
pub const BASE_MANIFEST_BYTES: usize = 256 << 20;
/// What a base backup must bring in each [`BASE_SILENCE`], in bytes; less counts as silence.
pub const BASE_LEAST_BYTES: u64 = 1 << 20;
/// What a base backup may bring beyond one and a half times what was announced, in bytes: a source
/// grows while it is read.
pub const BASE_MORE_BYTES: u64 = 1 << 30;
/// How often the repository's disk is looked at while a base comes, in bytes brought.
pub const BASE_LOOK_BYTES: u64 = 32 << 20;
/// What a base backup leaves free of the repository's disk, for the log of all sources.
pub const BASE_KEEPS_BYTES: u64 = 1 << 30;
/// The part of a small disk that it leaves free instead: one in so many.
pub const BASE_KEEPS_PART: u64 = 20;
/// How long a source whose base did not end gets no other.
pub const BASE_LIED_WAIT: Duration = Duration::from_secs(60 * 60);
/// The shortest time between two bases that damage of the log leads to.
pub const HEAL_EVERY: Duration = Duration::from_secs(10 * 60);
/// Base backups that are taken at once, of all sources together.
pub const BASES_AT_ONCE: usize = 4;
/// How long one of them may keep the others waiting.
pub const BASE_TURN: Duration = Duration::from_secs(5 * 60);
/// The most rows that an answer to a question of ours may have.
pub const ANSWER_ROWS: usize = 200_000;
/// How often WAL that is not yet in the repository is put there, unless commits wait for it.
pub const SHIP_EVERY: Duration = Duration::from_millis(800);
/// Tails of one source that are on their way into the repository at once: a store that takes seconds
/// for each does not make the next one late.
pub const TAILS_ON_THEIR_WAY: usize = 8;
/// The same where commits wait for them: few, so that many commits share one.
pub const TAILS_WAITED_FOR: usize = 2;
/// Whole segments of one source that are on their way at once.
pub const SEGMENTS_ON_THEIR_WAY: usize = 2;
/// Memory for what is on its way into the repository, of all sources together.
pub const SHIPPING_BYTES: usize = 128 << 20;
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

/// How often the vault looks whether a restore point is due.
pub const DUE_LOOK: Duration = Duration::from_secs(1);
/// How often a restore point looks whether the log that it begins with has arrived.
pub const LOG_POLL: Duration = Duration::from_millis(10);
/// How often a torn control file is read again.
pub const CONTROL_TRIES: usize = 20;
/// Files of a source that are held in memory as a list.
pub const SOURCE_FILES: usize = 2_000_000;

/// Bytes of a page of PostgreSQL's; no frame begins or ends within one.
pub const PAGE_BYTES: u64 = 8192;
/// Bytes of files in one frame of the repository: 16 pages.
pub const FRAME_BYTES: usize = 128 * 1024;
/// The same, as the format counts it.
pub const FRAME_BYTES_U32: u32 = 128 * 1024;
/// The most that a frame of any version may hold.
pub const FRAME_BYTES_MAX: u32 = 1 << 20;
/// The most that a frame of format 1 holds.
pub const FRAME_V1_BYTES: u32 = 128 * 1024;
/// Stored bytes after which a bundle is closed.
pub const BUNDLE_BYTES: usize = 32 * 1024 * 1024;
/// Stored bytes after which an object with nodes of a block map is closed.
pub const MAP_BYTES: usize = 8 * 1024 * 1024;
/// Frames after which an object is closed: its index, which is read first, stays below 200 KB.
pub const FRAMES_PER_OBJECT: u32 = 4096;
/// Bytes of a node of a block map, above which it is cut in two.
pub const NODE_BYTES: usize = 8 * 1024;
/// The most that a node may have: a single entry can be large.
pub const NODE_BYTES_MAX: u32 = 1 << 20;
/// The longest key of a block map: a path, and a position.
pub const KEY_BYTES: usize = 8 * 1024;
/// The longest value of a block map: what is known of a file.
pub const VALUE_BYTES: usize = 256 * 1024;
/// Objects with nodes that a restore point may refer to before its map is written anew.
pub const MAPS_PER_POINT: usize = 64;
/// A file of at most this many bytes is kept in memory until it is known whether it has changed.
pub const SMALL_FILE_BYTES: usize = 1 << 20;
/// Changes of a block map that are kept in memory before they are made.
pub const EDITS_BYTES: usize = 64 * 1024 * 1024;
/// Extents of a file that are looked at at once.
pub const EXTENTS_AT_ONCE: usize = 16 * 1024;
/// Nodes of a block map that are read at once when all of it is wanted.
pub const NODES_AHEAD: u32 = 64;
/// Extents that are passed over one by one before the next file is looked for.
pub const NODES_SKIPPED: usize = 64;
/// Memory for nodes of block maps that were read.
pub const NODES_KEPT_BYTES: usize = 32 * 1024 * 1024;
/// Memory for indexes of bundles and map objects that were read.
pub const INDEXES_KEPT_BYTES: usize = 32 * 1024 * 1024;
/// Memory for frames that were read.
pub const FRAMES_KEPT_BYTES: usize = 8 * 1024 * 1024;
/// Restore points of which is remembered what they are.
pub const SUMMARIES_KEPT: usize = 8192;
/// How many threads compress the frames of a restore point.
pub const PACK_THREADS: usize = 2;
/// How many threads store bundles: one is being written while the next is.
pub const STORE_THREADS: usize = 2;
/// How many frames may wait between two threads.
pub const FRAMES_WAITING: usize = 16;
/// zstd's level for everything in the repository.
pub const ZSTD_LEVEL: i32 = 3;
/// Binary logarithm of the entries of the table in which frames look for long matches.
pub const ZSTD_LONG_TABLE_LOG: u32 = 13;
/// The same of the table in which they look for short ones.
pub const ZSTD_SHORT_TABLE_LOG: u32 = 12;
/// The largest manifest of format 1 that is read, in bytes.
pub const MANIFEST_V1_BYTES: u64 = 1 << 30;
/// The largest segment of the log that PostgreSQL can have, in bytes.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;
/// The smallest one, in bytes.
pub const SEGMENT_BYTES_MIN: u32 = 1 << 20;
/// The largest manifest, proof or history file that is read, in bytes.
pub const NOTE_BYTES: u64 = 4 << 20;
/// How long a rehearsal may run on its clone.
pub const REHEARSAL_LASTS: Duration = Duration::from_secs(120);
/// How long the tables that a rehearsal removes or rewrites are counted.
pub const REHEARSAL_COUNTS: Duration = Duration::from_secs(20);
/// How long a rehearsal waits for what the source has written and the vault has not got yet.
pub const REHEARSAL_CATCHES_UP: Duration = Duration::from_secs(15);
/// How often a running rehearsal is looked at.
pub const REHEARSAL_POLL: Duration = Duration::from_millis(100);
/// How often the locks of a rehearsal are looked at.
pub const REHEARSAL_LOCKS_EVERY: Duration = Duration::from_millis(20);
/// Steps after each of which the locks are looked at; of longer transactions only now and then.
pub const REHEARSAL_STEPS_LOOKED_AT: usize = 200;
/// Objects, locks and tables that a rehearsal names; the others are counted.
pub const REHEARSAL_NAMED: usize = 500;
/// How long a clone is kept for the next rehearsal of the same source.
pub const REHEARSAL_WARM: Duration = Duration::from_secs(120);
/// Sources whose clones are kept so.
pub const REHEARSAL_WARM_MAX: usize = 2;
/// When a drill that could not be run is tried again.
pub const DRILL_AGAIN: Duration = Duration::from_secs(30);
/// The longest time until it is looked again whether a drill is due; a clock that jumped is noticed
/// by then.
pub const DRILL_LOOK: Duration = Duration::from_secs(30);
/// The same of a directory, of whose new points nobody tells.
pub const DRILL_LOOK_DIRECTORY: Duration = Duration::from_millis(500);
/// How often it is looked for older points to drill.
pub const DRILL_OLDER_LOOK: Duration = Duration::from_secs(300);
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
/// Tables whose change a report names.
pub const DRILL_CHANGES: usize = 20;
/// Points of a source whose drills are remembered.
pub const DRILL_POINTS: usize = 10_000;
/// How often a proof of the same point is kept in the repository beside the ledger: each is an object.
pub const PROOF_STORE_EVERY: Duration = Duration::from_secs(3600);
/// When a drill that failed is run again; each further failure doubles it.
pub const DRILL_FAILED_AGAIN: Duration = Duration::from_secs(60);
/// When an older point that was drilled is due again at the earliest.
pub const DRILL_SAME: Duration = Duration::from_secs(7 * 24 * 3600);
/// The classes of age that older points are drawn from: a day, a week, a month, and what is older.
pub const DRILL_AGES: [Duration; 3] = [
    Duration::from_secs(24 * 3600),
    Duration::from_secs(7 * 24 * 3600),
    Duration::from_secs(30 * 24 * 3600),
];
/// The longest rest after a drill.
pub const DRILL_REST: Duration = Duration::from_secs(4 * 3600);
/// How much of a program's output a drill reads.
pub const DRILL_OUTPUT_BYTES: u64 = 1 << 20;
/// With less than this free on its disk, what goes wrong in a drill says nothing about the point.
pub const DRILL_ROOM_BYTES: u64 = 16 << 20;
/// How many frames a restore reads at once.
pub const FRAMES_PER_READ: u32 = 64;
/// Frames between two that are wanted which a restore reads along rather than asking twice.
pub const FRAMES_SKIPPED: u32 = 4;
/// Extents, or files, that a restore plans at once.
pub const EXTENTS_PER_BATCH: usize = 64 * 1024;
/// Bytes that a restore plans at once.
pub const BATCH_BYTES: u64 = 4 << 30;
/// How much of a settings file of the source is read when it is exported, in bytes.
pub const SETTINGS_BYTES: usize = 4 << 20;
/// How many threads read frames and write files of a restore; while one waits, others decompress.
pub const RESTORE_THREADS: usize = 4;
/// The most threads that a restore can be told to use.
pub const RESTORE_JOBS_MAX: usize = 64;
/// How long a restored server may take to replay its log; a server that ends is noticed at once.
pub const PROMOTION_WAIT: Duration = Duration::from_secs(24 * 60 * 60);
/// How much of the log a mirror is given at once, in bytes.
pub const MIRROR_BYTES: u64 = 1 << 20;
/// Checkpoints of the source that a mirror has not replayed and that are remembered.
pub const MIRROR_CHECKPOINTS: usize = 64;
/// How long a mirror that has been given everything waits until it looks for more.
pub const MIRROR_POLL: Duration = Duration::from_millis(5);
/// The same when nothing came for [`MIRROR_QUIET`].
pub const MIRROR_IDLE_POLL: Duration = Duration::from_millis(50);
/// After so long without any log a mirror looks less often.
pub const MIRROR_QUIET: Duration = Duration::from_secs(2);
/// How often a mirror's server is asked how far it is.
pub const MIRROR_ASK: Duration = Duration::from_millis(100);
/// How long a mirror may replay nothing of what it was given before it counts as stuck.
pub const MIRROR_STUCK: Duration = Duration::from_secs(60);
/// How long a mirror's server may take to let us in; it may have much to replay first.
pub const MIRROR_START: Duration = Duration::from_secs(30 * 60);
/// How long a mirror's server may take to stop in order.
pub const MIRROR_STOP: Duration = Duration::from_secs(60);
/// The first wait before a mirror that failed is started again; it doubles.
pub const MIRROR_AGAIN: Duration = Duration::from_secs(1);
/// The longest.
pub const MIRROR_AGAIN_MAX: Duration = Duration::from_secs(60);
/// After so many failures in a row a mirror is made anew.
pub const MIRROR_FAILURES: u32 = 5;
/// How long restore points are read from the source after one could not be sealed from the mirror.
pub const MIRROR_UNFIT: Duration = Duration::from_secs(10 * 60);
/// Time from one restore point that a mirror seals to the next, at least.
pub const MIRROR_SEAL_EVERY: Duration = Duration::from_secs(5 * 60);
/// Bytes of log after which one is sealed in any case: replay of more costs seconds.
pub const MIRROR_SEAL_LOG: u64 = 64 << 20;
/// How long a mirror waits before what destroys unless told otherwise: who wants the moment before it back
/// is served in seconds.
pub const MIRROR_HOLD: Duration = Duration::from_secs(10 * 60);
/// Bytes of log behind what destroys after which a mirror goes on in any case: replay of more costs
/// seconds to who wants the newest state.
pub const MIRROR_HOLD_LOG: u64 = 64 << 20;
/// Bytes that a mirror leaves free on its disk, where the spool may lie as well; with half of that left
/// a mirror that follows is given up.
pub const MIRROR_RESERVE: ByteCount = ByteCount(1 << 30);
/// How often it is looked whether a mirror's disk has room.
pub const MIRROR_ROOM_LOOK: Duration = Duration::from_secs(1);
/// How long a recovery by the mirror may take before the slower way is gone.
pub const MIRROR_PROMOTE: Duration = Duration::from_secs(120);
/// Sockets of a forwarder's clients that are open at once.
pub const FORWARD_CLIENTS: usize = 1024;
/// How often a restored server is asked whether it is promoted.
pub const PROMOTION_POLL: Duration = Duration::from_millis(4);
/// How many segments are read backwards from the end of a log for its newest commit.
pub const COMMIT_SEGMENTS: usize = 8;

/// How far the clocks and the newest times on record may disagree before nothing expires.
pub const CLOCK_LIMIT: Duration = Duration::from_secs(5 * 60);
/// A clock may seem to go back by this much: storages tell whole seconds, and clocks are corrected.
pub const CLOCK_GRAIN: Duration = Duration::from_secs(5);
/// How long the repository may have been silent before nothing expires: a vault that runs is heard.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(60 * 60);
/// A time without any record that is longer than this may have been a jump of the clock.
pub const RECORD_GAP: Duration = Duration::from_secs(26 * 60 * 60);
/// How long records must have followed each other after such a gap until anything expires again.
pub const RECORD_SETTLED: Duration = Duration::from_secs(24 * 60 * 60);
/// Objects of a point without a manifest may be of one that is being made, until they are this old.
pub const UNFINISHED_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long a point that is no longer the newest may still be what another one builds on.
pub const PARENT_AGE: Duration = Duration::from_secs(60 * 60);
/// The longest path of a directory's file that a restore point can have, in bytes.
pub const DIRECTORY_PATH_BYTES: usize = 1024;
/// How much of what a restore point lacks is named.
pub const DIRECTORY_LEFT_OUT: usize = 20;
/// How long after its last change a file counts as settled: file systems have coarse clocks.
pub const DIRECTORY_SETTLES: Duration = Duration::from_secs(2);
/// How much of a large file is read at once.
pub const DIRECTORY_READ_BYTES: usize = 1 << 20;
/// The most that one extended attribute, or the list of their names, may have; Linux's own limit.
pub const XATTR_BYTES: usize = 64 * 1024;
/// How old a plan of what expires may be when it is begun.
pub const PLAN_AGE: Duration = Duration::from_secs(30 * 60);
/// The largest file with a plan that is read, in bytes.
pub const PLAN_BYTES: u64 = 1 << 30;
/// After so many removed objects it is looked whether a point was made meanwhile.
pub const RECHECK_OBJECTS: usize = 256;
/// After so long it is looked again, however few were removed.
pub const RECHECK_EVERY: Duration = Duration::from_secs(5);
/// How long heartbeats of writers are kept at least: longer than the clock guard looks back.
pub const HEARTBEATS_KEPT: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// The longest time between two looks at the locks of what unexpired points need; each lists all names.
pub const LOCKS_EVERY: Duration = Duration::from_secs(12 * 60 * 60);
/// The longest time to the next look when one failed or left something.
pub const LOCKS_AGAIN: Duration = Duration::from_secs(10 * 60);
/// The most locks that are lengthened in one look; the rest follows with the next.
pub const LOCKS_AT_ONCE: usize = 20_000;
/// How many segments are looked through at once for a transaction or a name.
pub const SURVEY_SEGMENTS: usize = 4;
/// How much of a segment is kept while the one before it is looked through: a record that ends there.
pub const SURVEY_OVERLAP_BYTES: usize = 17 << 20;
/// How many named points a refusal names.
pub const NEAREST_NAMES: usize = 5;
/// The largest memory of named points that is read, in bytes; a larger one counts for nothing.
pub const NAMES_MEMORY_BYTES: u64 = 64 << 20;

/// How long it is believed that a bucket refuses deletes after a key that may delete was refused.
pub const TARGET_PROVEN_FOR: Duration = Duration::from_secs(90 * 24 * 3600);

/// How long nothing is tried again, however often the vault is started.
pub const TARGET_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// Of how many files of a restore point `vault key check` reads the beginning, at the most.
pub const KEY_CHECK_FILES: usize = 32;

/// How much of each, in bytes.
pub const KEY_CHECK_BYTES: usize = 64 << 10;
/// Time from one heartbeat of a writer to the next.
pub const HEARTBEAT: Duration = Duration::from_secs(60);
/// How long after its start a vault looks at locks for the first time: capture comes first.
pub const LOCKS_FIRST: Duration = Duration::from_secs(10);
/// How many clones there may be at once.
pub const CLONES: usize = 20;
/// What one clone may take of the disk.
pub const CLONE_DISK: ByteCount = ByteCount(64 << 30);
/// What one clone's processes may take of the memory.
pub const CLONE_MEMORY: ByteCount = ByteCount(1 << 30);
/// How long a clone lives when nobody says.
pub const CLONE_TTL: Duration = Duration::from_secs(2 * 60 * 60);
/// How long one may live at most.
pub const CLONE_TTL_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The largest record of a clone that is read, in bytes: what was disabled is listed in it.
pub const CLONE_RECORD_BYTES: usize = 16 << 20;
/// How long a clone's server may take to stop before it is stopped more firmly.
pub const CLONE_STOP: Duration = Duration::from_secs(20);
/// How long a clone's server gets to end its processes when nothing of it is needed any more.
pub const CLONE_QUIT: Duration = Duration::from_secs(2);
/// How often a clone's server is looked at while it stops.
pub const CLONE_POLL: Duration = Duration::from_millis(5);
/// How long a clone's server may take to admit its own roles alone.
pub const CLONE_RELOAD: Duration = Duration::from_secs(10);
/// Threads that pass bytes on to a clone's server.
pub const CLONE_FORWARD_THREADS: usize = 2;
/// Connections that are passed on at once.
pub const CLONE_CONNECTIONS: usize = 128;
/// How often a clone is opened again after its process has ended by itself.
pub const CLONE_REOPENED: u32 = 5;

/// Blocks that replay will read and that are brought before it does.
pub const PREFETCH_BLOCKS: usize = 16 * 1024;
/// Blocks of them that are asked for at once: what is not needed any more is not brought.
pub const PREFETCH_AT_ONCE: u64 = 256;
/// How much of a clone's rest is brought in a second beside its work, when nobody says.
pub const CLONE_HYDRATE: ByteCount = ByteCount(32 << 20);

/// Threads that answer the kernel's questions about one mount.
pub const MOUNT_THREADS: usize = 4;
/// What one mount fetches at once of what nobody waits for yet.
pub const MOUNT_FETCHES: usize = 16;
/// What it fetches beside that of what somebody waits for.
pub const MOUNT_FETCHES_FIRST: usize = 4;
/// How many of its fetches may be for the rest of its files.
pub const MOUNT_HYDRATING: usize = 8;
/// The same while somebody waits for something.
pub const MOUNT_HYDRATING_BESIDE: usize = 2;
/// Threads that see to the rest of a mount's files.
pub const MOUNT_HYDRATES: usize = 4;
/// Bytes of files that one of these brings before it makes files whole.
pub const MOUNT_HYDRATE_BYTES: u64 = 8 << 20;
/// Files that it makes whole together.
pub const MOUNT_HYDRATE_FILES: usize = 128;
/// The least that it brings at once when its pace is bounded, in bytes.
pub const MOUNT_HYDRATE_LEAST: u64 = 128 << 10;
/// Frames of one request when everything is brought.
pub const MOUNT_HYDRATE_FRAMES: u32 = 32;
/// Frames of one request when blocks are brought that were named.
pub const MOUNT_PREFETCH_FRAMES: u32 = 16;
/// Runs of blocks that one thread looks up.
pub const MOUNT_LOCATES: usize = 64;
/// Reads that follow each other before more is brought than was asked for.
pub const MOUNT_AHEAD_AFTER: u32 = 3;
/// Bytes between two reads that still follow each other.
pub const MOUNT_AHEAD_GAP: u64 = 256 << 10;
/// Bytes that are brought ahead at first; they double each time.
pub const MOUNT_AHEAD_LEAST: u64 = 256 << 10;
/// Bytes that are brought ahead at most.
pub const MOUNT_AHEAD_MOST: u64 = 8 << 20;
/// Frames of one request of these.
pub const MOUNT_AHEAD_FRAMES: u32 = 8;
/// How many may read the same file in order before the oldest is forgotten.
pub const MOUNT_AHEAD_RUNS: usize = 8;
/// Requests that may wait before no more is brought ahead.
pub const MOUNT_AHEAD_WAITING: usize = 64;
/// Blocks of 8 KiB that are remembered of a server's start.
pub const MOUNT_HOT_BLOCKS: usize = 4096;
/// The largest list of these that is read, in bytes.
pub const MOUNT_HOT_BYTES: u64 = 1 << 20;
/// What the block cache of all clones takes of the disk, unless told otherwise.
pub const BLOCK_CACHE: ByteCount = ByteCount(4 << 30);
/// How long threads that bring the rest wait at a time for their pace.
pub const MOUNT_PAUSE: Duration = Duration::from_millis(20);
/// How often it is looked whether the process of a mount was killed.
pub const MOUNT_WATCH: Duration = Duration::from_millis(200);
/// Untouched files of a mount that are remembered before those that nobody has are forgotten.
pub const MOUNT_KNOWN: usize = 4096;
