//! PostgreSQL's formats: the client protocol, replication, base backups and the write-ahead log.
//!
//! Everything here turns bytes into words and back; sockets and files belong to the shells.

pub mod backend;
pub mod basebackup;
pub mod control;
pub mod frontend;
pub mod replication;
pub mod scram;
pub mod startup;
pub mod url;
pub mod wal;
