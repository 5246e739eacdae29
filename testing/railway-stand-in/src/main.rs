//! A stand-in for Railway's public API whose volumes are real directories.
//!
//! Test tooling: it plays the provider on the day of the incident, so that what an agent can destroy
//! is really destroyed, on this machine only. It is never part of the product.
//!
//! # Architecture invariants
//! - It listens on 127.0.0.1 only and asks nobody outside.
//! - It removes only what lies below the folder `volumes` that it made itself.
//! - It signals only processes that it started.
//! - It uses no room of the product, so that it cannot share the product's mistakes.

mod add;
mod ask;
mod change;
mod cli;
mod database;
mod desk;
mod disk;
mod execute;
mod graphql;
mod http;
mod limits;
mod names;
mod node;
mod records;
mod setup;
mod tls;
mod world;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Each error with its causes on one line; where stderr is closed, the exit code remains.
            let _ignored = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
