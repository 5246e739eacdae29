//! The doors, one file (and folder) a protocol.

pub mod http;
pub mod pg;
