//! `holdfast vault key`: the keys of the repository's objects.

use clap::Subcommand;
use holdfast_core::Code;
use holdfast_vault::{Openable, Refused, openable};
use serde_json::json;

use crate::cli::Shared;
use crate::cmd::block_on;
use crate::config::Config;
use crate::report::{Done, Failure, Output, table};
use crate::wiring::access::{Access, Reading};
use crate::wiring::keys::{self, KeyKind, Listed, NewKeys};
use crate::wiring::operator;
use crate::wiring::recovery::NewRecovery;

/// The keys that the repository's objects are sealed to.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Show the recipients of all keys, and which are in use
    List,
    /// Prove that a recovery key opens the restore points: read some of the newest of each source
    Check {
        #[command(flatten)]
        access: Access,
    },
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
        match self {
            Self::Check { access } => check(&access.open(shared, output)?, output),
            Self::List => {
                let listed = keys::list(&keys::open(&shared.config()?)?);
                output.result(&listed, || text(&listed));
                Ok(())
            }
            Self::Rotate(rotate) => rotate.run(&shared.config()?, output),
        }
    }
}

/// Tries the keys on everything that can be brought back.
fn check(reading: &Reading, output: Output) -> Done {
    if !reading.place.keys.can_open() {
        return Err(Failure::new(
            Code::ZU605,
            "there is no key to try: this machine has none of the vault's",
            "give the recovery key with --recovery-key FILE",
        ));
    }
    let found = openable(&reading.place)?;
    output.result(&found, || found_text(&found));
    let refused: Vec<&Refused> = found.iter().flat_map(|one| &one.refused).collect();
    let Some(first) = refused.first() else {
        return Ok(());
    };
    Err(Failure::new(
        Code::ZL271,
        format!(
            "these keys do not open {} of the restore points; the first: {}",
            refused.len(),
            first.why
        ),
        "points from before a rotation need the recovery key of that time: put all of them into one file and give that",
    ))
}

fn found_text(found: &[Openable]) -> String {
    if found.is_empty() {
        return "there is no restore point yet, so nothing was proven; try again when `holdfast point list` shows one"
            .to_owned();
    }
    let none = || "-".to_owned();
    let rows = found.iter().map(|one| {
        let newest = one.newest.as_ref();
        let all = one.opened.saturating_add(one.refused.len());
        vec![
            one.source.to_string(),
            format!("{} of {all}", one.opened),
            newest.map_or_else(none, |newest| newest.point.to_string()),
            newest.map_or_else(none, |newest| newest.at.to_string()),
            newest.map_or_else(none, |newest| newest.read.to_string()),
            newest
                .and_then(|newest| newest.log_to)
                .map_or_else(none, |log_to| log_to.to_string()),
        ]
    });
    table(
        &["SOURCE", "OPENED", "NEWEST", "AT", "READ", "LOG TO"],
        &rows.collect::<Vec<_>>(),
    )
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
