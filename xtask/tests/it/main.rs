//! The scripts that a person calls, in a machine made of a few files.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod setup;
