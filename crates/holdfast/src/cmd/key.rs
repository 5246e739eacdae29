//! `holdfast vault key`: the keys of the repository's objects.

use clap::Subcommand;
use holdfast_core::Code;
use serde_json::json;

use crate::cli::Shared;
use crate::cmd::block_on;
use crate::config::Config;
use crate::report::{Done, Failure, Output, table};
use crate::wiring::keys::{self, KeyKind, Listed, NewKeys};
use crate::wiring::operator;
use crate::wiring::recovery::NewRecovery;

/// The keys that the repository's objects are sealed to.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Show the recipients of all keys, and which are in use
    List,
    /// Seal what comes from now on to new keys; what is there stays readable with the old ones
    Rotate(Rotate),
}

/// Which keys are exchanged: the machine's, the recovery key or both.
#[derive(Debug, clap::Args)]
pub struct Rotate {
    /// Make a new key of the vault's machine.
    #[arg(long)]
    machine: bool,
    /// Make or take a new recovery key.
    #[arg(long)]
    recovery: bool,
    #[command(flatten)]
    new: NewRecovery,
}

impl Key {
    /// Reads the vault's folder, or asks the running vault for what changes.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let config = shared.config()?;
        match self {
            Self::List => {
                let listed = keys::list(&keys::open(&config)?);
                output.result(&listed, || text(&listed));
                Ok(())
            }
            Self::Rotate(rotate) => rotate.run(&config, output),
        }
    }
}

impl Rotate {
    fn run(self, config: &Config, output: Output) -> Done {
        let is_recovery = self.recovery || self.new.is_asked();
        if !self.machine && !is_recovery {
            return Err(Failure::new(
                Code::ZU605,
                "it is not said which key; nothing was changed",
                "give --machine, --recovery or both",
            ));
        }
        let given = match is_recovery {
            true => Some(self.new.give(config, output)?),
            false => None,
        };
        let new = NewKeys {
            machine: self.machine,
            recovery: given.as_ref().map(|given| given.recipient),
            by: operator(),
        };
        let listed = block_on(keys::add_anywhere(config, &new))?;
        let value = json!({"keys": listed, "recovery_key": given});
        output.result(&value, || {
            let mut text = text(&listed);
            if is_recovery {
                text.push_str(
                    "what is in the repository stays sealed to the old recovery key: keep that one, too, \
                     as long as you may need an old restore point\n",
                );
            }
            text + "`holdfast vault key check --recovery-key FILE` proves that a recovery key opens the newest point"
        });
        Ok(())
    }
}

fn text(listed: &[Listed]) -> String {
    if listed.is_empty() {
        return "there are no keys yet; `holdfast init` makes them\n".to_owned();
    }
    let rows = listed.iter().map(|key| {
        let kind = match key.kind {
            KeyKind::Machine => "machine",
            KeyKind::Recovery => "recovery",
        };
        vec![
            kind.to_owned(),
            key.number.to_string(),
            key.recipient.to_string(),
            key.since
                .map_or_else(String::new, |since| since.to_string()),
            match key.used {
                true => "seals and opens".to_owned(),
                false => "opens what is older".to_owned(),
            },
        ]
    });
    table(
        &["KEY", "NO", "RECIPIENT", "SINCE", "USE"],
        &rows.collect::<Vec<_>>(),
    )
}
