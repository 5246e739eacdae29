//! The vault against real servers.

mod capture;
mod drill;
mod kept;
mod restore;
mod wal;
mod watch;
