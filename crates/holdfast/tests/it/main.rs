//! The binary as its users meet it: typed commands, real servers, real processes.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test"
)]

#[cfg(target_os = "linux")]
mod bucket;
#[cfg(target_os = "linux")]
mod bucket_writer;
mod cli;
#[cfg(target_os = "linux")]
mod clones;
mod desk;
mod keys;
mod ledger;
mod pg_door;
mod product;
mod recover;
mod recovery;
mod rehearsal;
mod replay;
mod settings;
mod weak;
mod writer;
