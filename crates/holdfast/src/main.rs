//! The binary: command line, configuration, wiring.
//!
//! It may use every room and holds no decision of its own: what an action does is said by `judge`,
//! whether it may happen by `guard`, what can be brought back by `vault`.

mod api;
mod cli;
mod cmd;
mod config;
mod replay;
mod report;
mod wiring;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
