//! The HTTP door: real curl on one side, a real TLS server on the other.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test"
)]

mod bench;
mod credentials;
mod faults;
mod judged;
mod speed;
mod upstream;
