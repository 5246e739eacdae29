//! Every wait and size of a replay that has a limit, by name.

use std::time::Duration;

/// How often a condition is looked at.
pub const POLL: Duration = Duration::from_millis(25);

/// How often it is asked whether the data is still there.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The provider's stand-in comes up with its database.
pub const PROVIDER_UP: Duration = Duration::from_secs(60);

/// A program that only has to open files and ports comes up.
pub const PROGRAM_UP: Duration = Duration::from_secs(30);

/// A command that asks or changes something ends.
pub const COMMAND_ENDS: Duration = Duration::from_secs(60);

/// The vault has a base backup, has restored it and vouches for it.
pub const PROVEN: Duration = Duration::from_secs(240);

/// A mirror is laid, started and has replayed what there is.
pub const MIRROR_FOLLOWS: Duration = Duration::from_secs(120);

/// A killed vault streams again.
pub const STREAMS_AGAIN: Duration = Duration::from_secs(60);

/// Bookings are acknowledged again after the database moved.
pub const SERVING_AGAIN: Duration = Duration::from_secs(60);

/// The vault sees in the log what was destroyed.
pub const DESTRUCTION_SEEN: Duration = Duration::from_secs(30);

/// A recovery ends.
pub const RECOVERED: Duration = Duration::from_secs(180);

/// What the agent did takes effect; after that it counts as stopped.
pub const EFFECT: Duration = Duration::from_secs(2);

/// The journal has its first bookings.
pub const FIRST_BOOKINGS: Duration = Duration::from_secs(60);

/// Acknowledged bookings that stand in the journal before the agent begins.
pub const BOOKINGS_BEFORE: usize = 150;

/// Operations of the traffic in one second: enough to be busy, few enough for a small machine.
pub const TRAFFIC_PER_SECOND: u32 = 120;

/// Clerks that work at the same time.
pub const TRAFFIC_WORKERS: u32 = 6;

/// Rental companies in the office.
pub const COMPANIES: u32 = 2;

/// How long a program may take to end after SIGTERM, before it is killed.
pub const ENDS: Duration = Duration::from_secs(8);

/// Lines of a log that an error shows.
pub const LOG_LINES: usize = 12;

/// One question over HTTP.
pub const ASK: Duration = Duration::from_secs(2);

/// The longest answer of `GET /health` that is read.
pub const ANSWER_BYTES: u64 = 64 * 1024;

/// The longest part of what an agent's step printed that is kept in memory.
pub const TRANSCRIPT_BYTES: u64 = 1 << 20;

/// The longest moment between the start of a window and a kill in it.
pub const KILL_WINDOW: Duration = Duration::from_millis(1500);

/// How often it is asked whether an action waits for a human.
pub const LOOK_FOR_HOLDS: Duration = Duration::from_millis(200);

/// How long the person in a replay takes to say no.
pub const A_PERSON_READS: Duration = Duration::from_secs(1);
