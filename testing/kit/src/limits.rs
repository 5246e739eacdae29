//! Every wait and retry of this crate, by name.

use std::time::Duration;

/// How long a server may take until it accepts connections, crash recovery included.
pub const SERVER_START: Duration = Duration::from_secs(60);

/// How long a fast shutdown may take.
pub const SERVER_STOP: Duration = Duration::from_secs(60);

/// How long killed processes may take to be gone.
pub const KILLED_GONE: Duration = Duration::from_secs(20);

/// Pause between two looks at a condition that no event announces.
pub const POLL: Duration = Duration::from_millis(10);

/// How many other ports are tried when somebody else took the chosen one.
pub const PORT_RETRIES: u32 = 8;

/// How many random ports are looked at before giving up.
pub const PORT_DRAWS: u32 = 256;

/// Lines of a log that an error message carries.
pub const LOG_TAIL_LINES: usize = 40;

/// How long an object storage may take until it accepts requests.
pub const STORAGE_START: Duration = Duration::from_secs(90);
