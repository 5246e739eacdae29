//! The kit's own tests: what every other test relies on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions
)]

mod disk;
mod postgres;
mod process;
mod tcp;
