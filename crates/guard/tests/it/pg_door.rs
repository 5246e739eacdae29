//! The PostgreSQL door: real clients on one side, real servers on the other.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test"
)]

mod access;
pub mod bench;
mod corpus;
mod encrypted;
mod extended;
mod fuzz;
mod hidden;
mod judged;
mod messages;
pub mod permitted;
mod race;
mod raw;
mod roles;
mod speed;
mod stopped;
mod transparent;
mod twophase;
