//! Every foreign format, sans-IO: bytes in, words out, and back.
//!
//! This room never opens a socket or a file, never reads a clock, and never trusts a length that
//! came from outside.
//!
//! # Architecture invariants
//! - Everything here is pure: the same bytes give the same words.
//! - Foreign bytes are refused with an error; they never panic and never size an allocation unchecked.

pub mod graphql;
pub mod http;
pub mod limits;
pub mod pg;
pub mod tar;
