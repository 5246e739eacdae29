//! A small car-rental back office on PostgreSQL: companies, counters, vehicles, bookings, payments.
//!
//! It is the victim of the replays: an ordinary program that knows nothing of what protects it.
//!
//! *Architecture invariants*: a page is answered within `limits::LIMIT_PAGE`, database or not; an
//! operation counts as done only when PostgreSQL has acknowledged its COMMIT; what was acknowledged
//! to traffic stands in a journal outside the database; a password is never printed.

pub mod database;
pub mod desk;
pub mod dice;
pub mod journal;
pub mod limits;
pub mod schema;
pub mod seed;
pub mod traffic;
pub mod verify;
pub mod web;
