//! The project's chores: `check`, `tidy`, `gen`, `bench`.
//!
//! Called as `cargo xtask <chore>`. It reads the tree and runs cargo; the product never uses it.
//!
//! # Architecture invariants
//! - The list in `check.rs` is the only list of checks; `make check` and `.ci/run` call it.
//! - Each tidy rule is one file, with a test that shows it catching a planted violation.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a chore talks to the terminal"
)]

mod bench;
mod check;
mod r#gen;
mod report;
mod tidy;
mod tree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of the Holdfast workspace")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Measures the vault beside its peers, built with optimisation.
    Bench(bench::Options),
    /// Runs every check, in order and timed, and prints the counts last.
    Check(check::Options),
    /// Writes the generated pages again.
    Gen {
        /// Only says which pages are stale.
        #[arg(long)]
        check: bool,
    },
    /// Checks the house rules that no compiler knows.
    Tidy {
        /// Only this rule; may be given more than once.
        #[arg(long, value_name = "RULE")]
        only: Vec<String>,
        /// Lists the rules and stops.
        #[arg(long)]
        list: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one chore and returns whether all was well.
fn run(arguments: Arguments) -> Result<bool> {
    let root = workspace_root()?;
    match arguments.chore {
        Chore::Bench(options) => bench::run(&root, &options),
        Chore::Check(options) => check::run(&root, &options),
        Chore::Gen { check } => r#gen::run(&root, check),
        Chore::Tidy { list: true, .. } => {
            tidy::list();
            Ok(true)
        }
        Chore::Tidy { only, .. } => tidy::run(&root, &only),
    }
}

fn workspace_root() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .context("the folder of xtask has no parent")
}
