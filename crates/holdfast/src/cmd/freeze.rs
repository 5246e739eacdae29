//! `freeze` and `thaw`: everything denied to agents, until a human ends it.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::Shared;
use crate::cmd::block_on;
use crate::report::{Done, Output};
use crate::wiring::{Half, operator};

/// Denies everything to agents, at once, also in open sessions.
#[derive(Debug, Args)]
pub struct Freeze {}

/// Ends a freeze.
#[derive(Debug, Args)]
pub struct Thaw {}

impl Freeze {
    /// Asks the running guard.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        set(true, shared, output)
    }
}

impl Thaw {
    /// Asks the running guard.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        set(false, shared, output)
    }
}

fn set(frozen: bool, shared: &Shared, output: Output) -> Done {
    let config = shared.config()?;
    let guard = Half::Guard.client(&config);
    let answer: Value = block_on(guard.ask("freeze.set", json!([frozen, operator()])))?;
    output.result(&answer, || match frozen {
        true => "frozen: nothing of any agent passes until `holdfast thaw`".to_owned(),
        false => "thawed: agents are judged again".to_owned(),
    });
    Ok(())
}
