//! The doors against real clients and real servers.

mod http_door;
