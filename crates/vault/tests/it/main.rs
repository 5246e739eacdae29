//! The vault against real servers.

mod wal;
mod watch;
