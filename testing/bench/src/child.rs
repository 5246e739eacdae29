//! What runs as a process of its own, so that its time and memory are its own.

mod capture;
mod copy;
mod door;
mod restore;

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

/// One part of the work.
#[derive(Subcommand)]
pub enum Child {
    /// Runs a vault for the source in `SOURCE_URL`, until SIGTERM.
    Capture {
        /// The vault's state.
        state: PathBuf,
        /// The repository.
        repository: PathBuf,
    },
    /// Copies a folder with several threads and makes the copy durable.
    Copy {
        /// The folder.
        from: PathBuf,
        /// Where the copy goes.
        into: PathBuf,
    },
    /// Serves a PostgreSQL door to the source in `SOURCE_URL`, until SIGTERM.
    Door {
        /// The guard's state.
        state: PathBuf,
        /// How many leases are issued.
        leases: u32,
    },
    /// Restores the newest moment and starts a server on it.
    Restore {
        /// The vault's state.
        state: PathBuf,
        /// The repository.
        repository: PathBuf,
        /// The new data directory.
        into: PathBuf,
        /// The folder with PostgreSQL's programs.
        programs: PathBuf,
    },
    /// Ends and removes everything in a folder when stdin ends.
    Watch {
        /// The folder.
        folder: PathBuf,
    },
}

/// Runs one part.
pub fn run(child: Child) -> Result<()> {
    match child {
        Child::Capture { state, repository } => capture::run(state, repository),
        Child::Copy { from, into } => copy::run(&from, &into),
        Child::Door { state, leases } => door::run(&state, leases),
        Child::Restore {
            state,
            repository,
            into,
            programs,
        } => restore::run(state, repository, into, programs),
        Child::Watch { folder } => crate::clone::watch(&folder),
    }
}

pub use door::READY as DOOR_READY;

/// What a vault writes when it has drilled its newest point.
pub const DRILLED: &str = "\"event\":\"drilled\"";

/// What it writes when that is so of every source.
pub const ALL_DRILLED: &str = "\"event\":\"all drilled\"";

/// The name of the one source.
const SOURCE: &str = "prod";
