//! Measures the vault, its clones and the PostgreSQL door against their peers, on one machine and in one run.
//!
//! Called as `cargo xtask bench vault`, `clone` or `pg-door`, which builds it with optimisation first.
//! The program starts itself again for what is measured as a process: a vault, a restore, a copy.
//!
//! # Architecture invariants
//! - Engines take turns within a repetition, and every other repetition turns the order round.
//! - A number is printed as its median, with the smallest and largest that were seen.
//! - What was restored is compared with the source before its time counts.
//! - Everything is written below one temporary folder, which is removed at the end;
//!   only `clone --work` keeps what the next run needs.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measuring program talks to the terminal"
)]

mod child;
mod clone;
mod cluster;
mod copies;
mod door;
mod engine;
mod ground;
mod limits;
mod machine;
mod meter;
mod parts;
mod sources;
mod table;
mod vault;
mod wal;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "holdfast-bench",
    about = "Measures the vault, its clones and the PostgreSQL door against their peers"
)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Measures recovery, clones and the mirror.
    Clone(clone::Options),
    /// Measures the PostgreSQL door.
    PgDoor(door::Options),
    /// Measures the vault.
    Vault(vault::Options),
    /// A part of it, as a process of its own.
    #[command(subcommand, hide = true)]
    Child(child::Child),
}

fn main() -> ExitCode {
    let done: Result<()> = match Arguments::parse().what {
        What::Clone(options) => clone::run(&options),
        What::PgDoor(options) => door::run(&options),
        What::Vault(options) => vault::run(&options),
        What::Child(child) => child::run(child),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
