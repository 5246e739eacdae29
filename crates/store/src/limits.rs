//! Named limits of this room.

use std::time::Duration;

/// How long a reader or writer waits for SQLite's lock.
pub const RECORD_BUSY_WAIT: Duration = Duration::from_secs(5);

/// Entries between two signed tree heads.
pub const LEDGER_ENTRIES_PER_HEAD: u64 = 256;

/// How long an entry that nobody waits for may take until it is durable, besides the sync itself.
pub const LEDGER_SYNCS_AFTER: Duration = Duration::from_millis(50);

/// The longest record, in bytes of JSON.
pub const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The longest header of an envelope, in bytes. One recipient needs 98.
pub const ENVELOPE_HEADER_BYTES_MAX: usize = 16 * 1024;

/// The most recipients that an envelope names, of any kind.
pub const ENVELOPE_STANZAS_MAX: usize = 64;

/// What is read of an envelope to open it: its header and its first chunk, unless the header is very long.
pub const ENVELOPE_PREFIX_BYTES: usize = 68 * 1024;

/// Envelopes that stay open, so that reading on needs no key: about 1 KiB each.
pub const ENVELOPES_KEPT: usize = 1024;

/// Decrypted chunks that stay in memory: 64 KiB each.
pub const CHUNKS_KEPT: usize = 64;

/// How long a connection to an object storage may take to open.
pub const S3_CONNECT: Duration = Duration::from_secs(10);

/// How long a request to an object storage may take, besides the time that its bytes need.
pub const S3_REQUEST: Duration = Duration::from_secs(20);

/// The slowest rate at which bytes must flow, in bytes per second; a slower answer is given up.
pub const S3_BYTES_PER_S_MIN: u64 = 512 * 1024;

/// How often a request to an object storage is tried.
pub const S3_TRIES: u32 = 5;

/// The pause before the second try; it doubles with each further one.
pub const S3_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause between two tries.
pub const S3_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How old the last answer may be whose date tells the storage's time.
pub const S3_CLOCK_AGE: Duration = Duration::from_secs(10);

/// Connections that are kept open to one storage.
pub const S3_CONNECTIONS: usize = 16;

/// How long an unused connection is kept open.
pub const S3_IDLE: Duration = Duration::from_secs(30);

/// The longest head of an answer, in bytes.
pub const S3_HEAD_BYTES: usize = 32 * 1024;

/// The longest answer that is no object, in bytes: a page of a list.
pub const S3_ANSWER_BYTES: u64 = 4 * 1024 * 1024;

/// How much of an answer is read when it may be an error, in bytes.
pub const S3_ERROR_BYTES: u64 = 64 * 1024;

/// Characters of a storage's own words that an error repeats.
pub const S3_WORDS: usize = 200;

/// Versions whose names are remembered; about 200 bytes each.
pub const S3_VERSIONS_KNOWN: usize = 64 * 1024;

/// Pages of a list that are read before it is given up: a hundred million versions.
pub const S3_PAGES: u32 = 100_000;

/// How long the object of a probe is locked: longer than the probe takes, and it cannot be removed before.
pub const PROBE_LOCK: Duration = Duration::from_secs(600);

/// How much longer it is locked when lengthening is tried.
pub const PROBE_LONGER: Duration = Duration::from_secs(120);

/// How long the object that is to be deleted is locked, where the bucket locks everything.
pub const PROBE_SHORT: Duration = Duration::from_secs(4);

/// Names that are remembered because a try to store under them ended without an answer.
pub const S3_DOUBTFUL: usize = 16 * 1024;
/// The largest file with the key of an envelope, comments included.
pub const KEY_FILE_BYTES_MAX: usize = 8 * 1024;

/// The most that one entry of the block cache holds, in bytes: an encrypted chunk.
pub const CACHE_PART_BYTES: usize = 65_552;

/// What one entry takes of the disk, in bytes.
pub const CACHE_ENTRY_BYTES: u64 = 68 * 1024;

/// How many bytes one folder of the block cache holds at least, so that the oldest of it are old.
pub const CACHE_FOLDER_BYTES: u64 = 4 << 20;

/// The block cache takes at most this part of the disk that is free without it.
pub const CACHE_DISK_SHARE: u64 = 10;

/// A read of more chunks than this is one of everything, and takes no other entry's place.
pub const CACHE_PUSH_CHUNKS: usize = 16;

/// How exactly it is known when an entry was used last.
pub const CACHE_USED_EVERY: Duration = Duration::from_secs(30);
