//! Named limits of this room.

use std::time::Duration;

/// How long a reader or writer waits for SQLite's lock.
pub const RECORD_BUSY_WAIT: Duration = Duration::from_secs(5);

/// Entries between two signed tree heads.
pub const LEDGER_ENTRIES_PER_HEAD: u64 = 256;

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
