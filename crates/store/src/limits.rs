//! Named limits of this room.

use std::time::Duration;

/// How long a reader or writer waits for SQLite's lock.
pub const RECORD_BUSY_WAIT: Duration = Duration::from_secs(5);

/// Entries between two signed tree heads.
pub const LEDGER_ENTRIES_PER_HEAD: u64 = 256;

/// The longest record, in bytes of JSON.
pub const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;
