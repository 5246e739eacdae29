//! `holdfast recover`: a source back in service, and what makes others find it.

mod forward;
mod rewrite;
mod server;

use clap::{Args, Subcommand};
use holdfast_core::ledger::Draft;
use holdfast_store::ledger::Ledger;
use serde_json::{Value, json};

use crate::cli::Shared;
use crate::cmd::block_on;
use crate::config::Config;
use crate::report::{Done, Failure, Output};
use crate::wiring::{Half, now, operator};

/// Brings a writable server into service in a new place; the damaged original is not touched.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Recover {
    #[command(subcommand)]
    cut_over: Option<CutOver>,
    #[command(flatten)]
    server: server::Server,
}

/// What makes others find the recovered server; each is a step of its own, and recorded.
#[derive(Debug, Subcommand)]
enum CutOver {
    /// Pass connections on to a server that can be exchanged
    Forward(forward::Forward),
    /// Point a running forwarder at another server
    Point(forward::Point),
    /// Put the new server's address into a file with connection strings
    Rewrite(rewrite::Rewrite),
}

impl Recover {
    /// Recovers, or does one of the steps afterwards.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        match self.cut_over {
            None => self.server.run(shared, output),
            Some(CutOver::Forward(forward)) => forward.run(shared, output),
            Some(CutOver::Point(point)) => point.run(shared, output),
            Some(CutOver::Rewrite(rewrite)) => rewrite.run(shared, output),
        }
    }
}

/// Writes a step of a cut-over down: by the running vault, or in its ledger when it does not run.
fn record(config: &Config, kind: &str, body: &Value) -> Result<(), Failure> {
    let args = json!({"kind": kind, "by": operator(), "body": body});
    let asked = Half::Vault.client(config);
    let told: Result<Value, Failure> = block_on(async { asked.ask("recovery.note", args).await });
    match told {
        Err(failure) if failure.code == holdfast_core::Code::ZS601 => {
            let key = Half::Vault.key(config)?;
            let ledger = Ledger::open(&Half::Vault.ledger(config), key, now())?;
            ledger.append(draft(kind, operator(), body))?;
            Ok(())
        }
        told => told.map(drop),
    }
}

/// Makes the entry of a step.
pub fn draft(kind: &str, by: holdfast_core::Principal, body: &Value) -> Draft {
    let kind = match kind {
        "recovery.rewritten" => "recovery.rewritten",
        _ => "recovery.pointed",
    };
    let mut draft = Draft::new(kind, by, now());
    for (name, value) in body.as_object().into_iter().flatten() {
        draft = draft.with(name, value.clone());
    }
    draft
}
