//! Every wait and size of this program, by name.

use std::time::Duration;

/// How long one measured command may take.
pub const COMMAND: Duration = Duration::from_secs(1200);
/// How long a restored server may take until it answers.
pub const ANSWER: Duration = Duration::from_secs(300);
/// Pause between two looks at a process that is measured.
pub const POLL: Duration = Duration::from_millis(5);
/// How often the memory of all processes of a command is added up.
pub const MEMORY_EVERY: Duration = Duration::from_millis(100);
/// How many bytes of the source the rates of this machine are measured on.
pub const SAMPLE_BYTES: usize = 256 << 20;
/// Bytes in one piece of that sample, as in one frame of the repository.
pub const PIECE_BYTES: usize = 64 << 10;
/// The level of zstd that all engines use.
pub const ZSTD_LEVEL: i32 = 3;
/// How many processes or threads each engine may use.
pub const PARALLEL: usize = 2;
/// The most memory that the vault may use, whatever the size of the source.
pub const MEMORY_BAR_BYTES: u64 = 512 << 20;
/// Clock ticks in a second, as `/proc` counts them: the same on every Linux we know.
pub const TICKS_PER_SECOND: f64 = 100.0;
/// How long the source is left alone before a restore, so that every engine has its log.
pub const QUIET: Duration = Duration::from_secs(2);
/// How long many sources are looked at, idle and with traffic.
pub const STRETCH: Duration = Duration::from_secs(15);
/// Transactions a second of that traffic.
pub const RATE: u32 = 50;
/// How long the source is under load before it is killed.
pub const LOAD: Duration = Duration::from_secs(6);
/// What is left free of a disk, whatever is measured.
pub const DISK_RESERVE: u64 = 3_000_000_000;
/// How long one call of the program may take.
pub const CALL: Duration = Duration::from_secs(1800);
/// Pause between two looks at how a vault or a clone stands.
pub const STAND_POLL: Duration = Duration::from_millis(100);
/// How many threads bring a repository to the object storage.
pub const UPLOADS: usize = 4;
