//! The rental office on real PostgreSQL servers, by its programs and pages.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test"
)]

mod booking;
mod browser;
mod office;
mod outage;
mod pages;
mod seeding;
mod traffic;
