//! The doors against real clients and real servers.

mod decide;
mod http_door;
mod pg_door;
mod suites;
mod weak;
