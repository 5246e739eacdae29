//! `up`, `guard run`, `vault run`: what keeps running.

use std::sync::Arc;

use clap::{Args, Subcommand};
use holdfast_core::{Rehearse, WayBack};
use holdfast_guard::decide::NoVault;
use holdfast_store::object::Promise;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::Shared;
use crate::cmd::block_on;
use crate::cmd::key::Key;
use crate::config::Config;
use crate::report::{Done, Failure, Output};
use crate::wiring::rehearsal::RemoteStage;
use crate::wiring::way_back::RemoteVault;
use crate::wiring::{Half, guard, system, vault};

/// Runs both halves in one process, until it gets SIGINT or SIGTERM.
#[derive(Debug, Args)]
pub struct Up {}

/// The guard on its own.
#[derive(Debug, Subcommand)]
pub enum GuardCommand {
    /// Open the doors, until SIGINT or SIGTERM
    Run,
}

/// The vault on its own.
#[derive(Debug, Subcommand)]
pub enum VaultCommand {
    /// Try what the repository's place refuses, which decides what may be promised
    CheckTarget,
    /// What may go because no rule keeps it: plan, apply
    #[command(subcommand)]
    Expire(crate::cmd::expire::Expire),
    /// The keys that the repository's objects are sealed to
    #[command(subcommand)]
    Key(Key),
    /// What may be promised of the repository, and what its locks cost
    Locks,
    /// Capture, keep and drill, until SIGINT or SIGTERM
    Run,
    /// How each source stands
    Status,
    /// Take over the repository from a vault that is gone for good
    Takeover(crate::cmd::takeover::Takeover),
}

impl Up {
    /// Runs both halves.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let config = shared.config()?;
        block_on(async {
            let stop = stop_on_signal()?;
            let vault = vault::start(&config, stop.clone()).await?;
            let way_back: Arc<dyn WayBack> = Arc::new(vault.vault.clone());
            let stage: Arc<dyn Rehearse> = Arc::new(vault.vault.clone());
            let guard = match guard::start(&config, way_back, stage, stop.clone()).await {
                Ok(guard) => guard,
                Err(failure) => {
                    stop.cancel();
                    vault.ended().await?;
                    return Err(failure);
                }
            };
            announce(
                &config,
                Some(guard.addresses),
                Some(vault.vault.promise()),
                output,
            );
            guard.ended().await;
            vault.ended().await
        })
    }
}

impl GuardCommand {
    /// Runs the doors.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let Self::Run = self;
        let config = shared.config()?;
        block_on(async {
            let stop = stop_on_signal()?;
            let stage: Arc<dyn Rehearse> = Arc::new(RemoteStage::new(&config.vault_dir()));
            let guard = guard::start(&config, remote(&config), stage, stop).await?;
            announce(&config, Some(guard.addresses), None, output);
            guard.ended().await;
            Ok(())
        })
    }
}

impl VaultCommand {
    /// Runs the vault, or asks the running one; keys are tried also where there is no configuration.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        match self {
            Self::CheckTarget => crate::cmd::target::run(&shared.config()?, output),
            Self::Expire(command) => command.run(shared, output),
            Self::Key(command) => command.run(shared, output),
            Self::Locks => crate::cmd::takeover::locks(&shared.config()?, output),
            Self::Run => {
                let config = shared.config()?;
                block_on(async {
                    let stop = stop_on_signal()?;
                    let vault = vault::start(&config, stop).await?;
                    announce(&config, None, Some(vault.vault.promise()), output);
                    vault.ended().await
                })
            }
            Self::Status => crate::cmd::source::list(&shared.config()?, output),
            Self::Takeover(command) => command.run(shared, output),
        }
    }
}

/// The vault beside us, if one was ever made here; without it nothing irreversible is permitted.
fn remote(config: &Config) -> Arc<dyn WayBack> {
    match Half::Vault.public_key(config) {
        Ok(key) => Arc::new(RemoteVault::new(&config.vault_dir(), key)),
        Err(failure) => {
            tracing::warn!(
                "no vault: {}; what cannot be undone stays refused",
                failure.message
            );
            Arc::new(NoVault)
        }
    }
}

fn stop_on_signal() -> Result<CancellationToken, Failure> {
    let stop = CancellationToken::new();
    let listen = |kind| signal(kind).map_err(|error| system("listen for signals", &error));
    let (mut interrupt, mut terminate) = (
        listen(SignalKind::interrupt())?,
        listen(SignalKind::terminate())?,
    );
    let cancel = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
        cancel.cancel();
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::warn!("stopped at the second signal; what was acknowledged is on disk");
        std::process::exit(1);
    });
    Ok(stop)
}

fn announce(
    config: &Config,
    doors: Option<guard::Addresses>,
    promise: Option<&Promise>,
    output: Output,
) {
    let sources: Vec<String> = config.sources.iter().map(|s| s.name.to_string()).collect();
    let value = json!({
        "doors": doors, "sources": sources, "state": config.state_dir, "repository": promise,
    });
    output.result(&value, || {
        let mut text = String::new();
        if let Some(doors) = doors {
            text.push_str(&format!("PostgreSQL door  {}\n", doors.pg));
            text.push_str(&format!("HTTP door        {}\n", doors.http));
        }
        if let Some(promise) = promise {
            let label = crate::cmd::target::label(promise);
            text.push_str(&format!(
                "repository       {}: {label}\n",
                config.repository()
            ));
        }
        let sources = match sources.is_empty() {
            true => "none yet: `holdfast source add`".to_owned(),
            false => sources.join(", "),
        };
        text + &format!("sources          {sources}")
    });
}
