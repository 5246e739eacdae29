//! The office as its users meet it: the program's commands, real servers, pages over HTTP.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod journal;
mod office;
mod pages;
mod seed;
