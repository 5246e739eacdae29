//! The suites of real drivers: what ends well directly ends well through the door.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test"
)]

mod python;
mod rust;
mod stage;
mod tools;
