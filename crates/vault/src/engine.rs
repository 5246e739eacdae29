//! Kinds of sources besides PostgreSQL, one folder each: how they are read, and what is kept of them.

pub mod directory;
