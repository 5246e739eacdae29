//! The doors, one file (and folder) a protocol.

pub mod ca;
pub mod http;
pub mod pg;
