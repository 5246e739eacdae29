//! The vault against real servers.

mod capture;
mod wal;
mod watch;
