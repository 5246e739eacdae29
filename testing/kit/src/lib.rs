//! Throw-away PostgreSQL servers, processes and network faults for tests.
//!
//! Every room's tests use this crate; the product never does.
//! It may start processes and write below the temporary folder, and it must leave nothing behind:
//! each server dies with the process that started it, even when that process is killed.
//!
//! # Architecture invariants
//! - PostgreSQL never runs as root: as root, servers run as the system user `postgres`.
//! - Everything listens on 127.0.0.1 only.
//! - A missing PostgreSQL is an error that names the set-up command, never a skipped test.
//! - Only processes started by this crate are ever signalled.

pub mod bins;
pub mod dirs;
pub mod disk;
pub mod limits;
pub mod ports;
pub mod postgres;
pub mod process;
#[cfg(target_os = "linux")]
pub mod s3;
pub mod signals;
pub mod tcp;
