//! The binary: command line, configuration, wiring.
//!
//! It may use every room and holds no decision of its own: what an action does is said by `judge`,
//! whether it may happen by `guard`, what can be brought back by `vault`.
//!
//! # Architecture invariants
//! - The environment and the configuration are read here and nowhere else.
//! - **I6 people approve.** A passphrase is typed or piped by a person; it is kept nowhere, and only
//!   somebody who may approve lets another one in.
//! - **I9 no pretence.** What is shown is what the halves say, never what the configuration wishes.

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
