//! `holdfast <noun> <verb>`: what can be typed, and where it goes.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::cmd;
use crate::config::Config;
use crate::report::{Done, Output};

/// No irreversible action without a proven way back.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 done, 1 failed, 2 usage, 3 held for a human, 4 denied.\n\
Every command has --json: data on stdout, everything else on stderr."
)]
struct Cli {
    #[command(flatten)]
    shared: Shared,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub struct Shared {
    /// The configuration.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "HOLDFAST_CONFIG",
        default_value = crate::config::FILE
    )]
    pub config: PathBuf,
    /// Write JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

impl Shared {
    /// Reads the configuration.
    ///
    /// # Errors
    /// When it is absent or not valid.
    pub fn config(&self) -> Result<Config, crate::config::ConfigError> {
        Config::load(&self.config)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Restore points as running servers that reach nothing but themselves
    #[command(subcommand)]
    Clone(cmd::clone::Clone),
    /// Prove restore points by restoring them
    #[command(subcommand)]
    Drill(cmd::drill::Drill),
    /// Write a restore point for PostgreSQL alone: a directory or a tar archive
    Export(cmd::export::Export),
    /// Deny everything to agents until a human thaws it
    Freeze(cmd::freeze::Freeze),
    /// Run the guard alone: the doors
    #[command(subcommand)]
    Guard(cmd::up::GuardCommand),
    /// What waits for a human: list, show, approve, deny
    #[command(subcommand)]
    Hold(cmd::hold::Hold),
    /// Make keys, the configuration and the first approver
    Init(cmd::init::Init),
    /// Judge statements or requests from stdin; nothing is executed
    #[command(subcommand)]
    Judge(cmd::judge::Judge),
    /// Short-lived authority for agents: issue, list, revoke
    #[command(subcommand)]
    Lease(cmd::lease::Lease),
    /// The tamper-evident record: list, show, verify, export
    #[command(subcommand)]
    Ledger(cmd::ledger::Ledger),
    /// Restore points that are mounted
    #[command(subcommand, hide = true)]
    Mount(cmd::mount::Mount),
    /// What can be brought back
    #[command(subcommand)]
    Point(cmd::point::Point),
    /// A writable server from a restore point, in a new place
    Recover(cmd::recover::Recover),
    /// Play an incident against a throw-away stack, and count what is lost
    Replay(cmd::replay::Args),
    /// Bring a restore point back into a new directory
    Restore(cmd::restore::Restore),
    /// Find credentials where agents can read them, and take them into custody
    Scan(cmd::scan::Scan),
    /// What is protected: add, list, check, remove
    #[command(subcommand)]
    Source(cmd::source::Source),
    /// End a freeze
    Thaw(cmd::freeze::Thaw),
    /// Run guard and vault
    Up(cmd::up::Up),
    /// Run the vault alone: capture, repository, drills
    #[command(subcommand)]
    Vault(cmd::up::VaultCommand),
}

/// Reads the command line and does it.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let status = match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
                _ => 2,
            };
            // A closed pipe while help is printed is nobody's trouble.
            let _ = error.print();
            return ExitCode::from(status);
        }
    };
    log(&cli.command);
    holdfast_vault::mount::watched_by(cmd::mount::WATCH);
    let output = Output::new(cli.shared.json);
    match dispatch(cli.command, &cli.shared, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(output.failure(&failure)),
    }
}

fn dispatch(command: Command, shared: &Shared, output: Output) -> Done {
    match command {
        Command::Clone(command) => command.run(shared, output),
        Command::Drill(command) => command.run(shared, output),
        Command::Export(command) => command.run(shared, output),
        Command::Freeze(command) => command.run(shared, output),
        Command::Guard(command) => command.run(shared, output),
        Command::Hold(command) => command.run(shared, output),
        Command::Init(command) => command.run(shared, output),
        Command::Judge(command) => command.run(shared),
        Command::Lease(command) => command.run(shared, output),
        Command::Ledger(command) => command.run(shared, output),
        Command::Mount(command) => command.run(shared),
        Command::Point(command) => command.run(shared, output),
        Command::Recover(command) => command.run(shared, output),
        Command::Replay(args) => cmd::replay::run(&args, output),
        Command::Restore(command) => command.run(shared, output),
        Command::Scan(command) => command.run(shared, output),
        Command::Source(command) => command.run(shared, output),
        Command::Thaw(command) => command.run(shared, output),
        Command::Up(command) => command.run(shared, output),
        Command::Vault(command) => command.run(shared, output),
    }
}

/// Sends log lines to stderr: from `info` on for what keeps running, from `warn` on for the rest.
fn log(command: &Command) {
    let runs = matches!(
        command,
        Command::Up(_) | Command::Guard(_) | Command::Vault(_)
    );
    let default = if runs { "info" } else { "warn" };
    let filter =
        EnvFilter::try_from_env("HOLDFAST_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    if let Err(error) = subscriber.try_init() {
        let _ = writeln!(std::io::stderr(), "no log: {error}");
    }
}
