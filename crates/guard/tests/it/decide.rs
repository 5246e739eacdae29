//! The one path from an action to a permit, with its ledger and state file on a real disk.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test"
)]

mod bench;
mod freeze;
mod holds;
mod leases;
mod ledger;
mod policy;
mod restart;
mod sequences;
