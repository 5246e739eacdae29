//! The office as its users meet it: the program's commands, real servers, pages over HTTP.

#![expect(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod booking;
mod browser;
mod journal;
mod office;
mod outage;
mod pages;
mod seed;
mod seeding;
mod traffic;
