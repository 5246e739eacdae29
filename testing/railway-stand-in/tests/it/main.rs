//! The stand-in as its users meet it: over HTTPS, with curl, and by what is left on the disk.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod backups;
mod changes;
mod graphql;
mod incident;
mod pack;
mod schema;
mod support;
