//! `holdfast init`: keys, configuration, the first approver.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use clap::Args;
use holdfast_core::Code;
use serde_json::json;

use crate::cli::Shared;
use crate::cmd::block_on;
use crate::config::Config;
use crate::report::{Done, Failure, Output};
use crate::wiring::guard::ask_or_open;
use crate::wiring::keys::{self, NewKeys};
use crate::wiring::recovery::{Given, NewRecovery};
use crate::wiring::secrets::{Asking, NewApprover, Twice, new_approver, passphrase};
use crate::wiring::{Half, operator, random, state_folder, system};

/// Makes keys, `holdfast.toml` and the first approver. What is there already is kept.
#[derive(Debug, Args)]
pub struct Init {
    /// The name of the first approver; the account's name if absent.
    #[arg(long, value_name = "NAME", conflicts_with = "no_approver")]
    approver: Option<String>,
    /// Make no approver: what is held then stays held.
    #[arg(long)]
    no_approver: bool,
    /// Read the passphrase from the first line of stdin.
    #[arg(long, conflicts_with = "no_approver")]
    passphrase_stdin: bool,
    #[command(flatten)]
    recovery: NewRecovery,
    /// Make no recovery key: the vault does not run here without one.
    #[arg(long, conflicts_with_all = ["recovery_key_out", "recovery_recipient", "recovery_key_in_json"])]
    no_recovery_key: bool,
}

/// What `init` writes when there is no configuration.
const TEMPLATE: &str = "\
# Holdfast. Every key is explained in docs/configuration.md; an unknown key is an error.
# Secrets are never written here: `env:NAME` or `file:PATH` says where they are.

state_dir = \"holdfast-state\"

[guard]
pg_listen = \"127.0.0.1:6543\"
http_listen = \"127.0.0.1:6480\"

[vault]
# Put it on another disk than the database, best on another machine.
repository = \"repository\"
";

impl Init {
    /// Makes what is not there.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let made = write_template(&shared.config)?;
        let config = shared.config()?;
        state_folder(&config)?;
        for half in Half::ALL {
            half.key(&config)?;
        }
        let approver = self.approver(&config)?;
        let given = self.keys(&config, output)?;
        let value = json!({
            "config": shared.config, "config_made": made,
            "state": config.state_dir, "approver": approver, "recovery_key": given,
        });
        output.result(&value, || {
            let mut text = text(shared, &config, made, approver.as_deref());
            if let Some(given) = &given {
                text.push_str(&describe(given));
            }
            text + "next   holdfast source add NAME --vault-url env:VAULT_URL --guard-url env:GUARD_URL"
        });
        Ok(())
    }

    /// Makes the keys of the repository's objects that are missing; the recovery key goes to a person.
    fn keys(&self, config: &Config, output: Output) -> Result<Option<Given>, Failure> {
        let ring = keys::open(config)?;
        let given = match ring.recovery.is_empty() && !self.no_recovery_key {
            true => Some(self.recovery.give(config, output)?),
            false => None,
        };
        let new = NewKeys {
            machine: ring.machine.is_empty(),
            recovery: given.as_ref().map(|given| given.recipient),
            by: operator(),
        };
        if new.machine || new.recovery.is_some() {
            block_on(keys::add_anywhere(config, &new))?;
        }
        Ok(given)
    }

    /// Makes the first approver, unless there is one or none is wanted.
    fn approver(&self, config: &Config) -> Result<Option<String>, Failure> {
        let known = block_on(ask_or_open(config, "approver.list", json!(null)))?;
        let has_one = known.as_array().is_some_and(|known| !known.is_empty());
        if has_one || self.no_approver {
            return Ok(None);
        }
        let account = || std::env::var("USER").unwrap_or_else(|_| "operator".to_owned());
        let name = self.approver.clone().unwrap_or_else(account);
        let asking = match self.passphrase_stdin {
            true => Asking::Stdin,
            false => Asking::Terminal,
        };
        let passphrase = passphrase(&name, asking, Twice::Yes).map_err(|failure| Failure {
            hint: Some(
                "run `holdfast init` at a terminal, or with --passphrase-stdin, or with --no-approver"
                    .to_owned(),
            ),
            ..failure
        })?;
        let approver = new_approver(&name, &passphrase, random()?)?;
        let first = NewApprover {
            approver,
            endorsement: None,
        };
        block_on(ask_or_open(config, "approver.add", json!(first)))?;
        Ok(Some(name))
    }
}

/// Writes the configuration if there is none; tells whether it did.
fn write_template(path: &Path) -> Result<bool, Failure> {
    let failed = |error: &std::io::Error| system(&format!("write `{}`", path.display()), error);
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    }
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path);
    match file {
        Ok(mut file) => file
            .write_all(TEMPLATE.as_bytes())
            .map(|()| true)
            .map_err(|error| failed(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Failure {
            code: Code::ZU608,
            ..failed(&error)
        }),
    }
}

fn text(shared: &Shared, config: &Config, made: bool, approver: Option<&str>) -> String {
    let mut text = String::new();
    let file = shared.config.display();
    text.push_str(&match made {
        true => format!("made   {file}\n"),
        false => format!("kept   {file}\n"),
    });
    text.push_str(&format!("keys   {}\n", config.state_dir.display()));
    if let Some(name) = approver {
        text.push_str(&format!(
            "approver {name}: keep the passphrase where no agent reads; nobody can restore it\n"
        ));
    }
    text
}

fn describe(given: &Given) -> String {
    let Given {
        recipient, file, ..
    } = given;
    match file {
        Some(file) => format!(
            "recovery key in {}: take it off this machine; it opens the repository when all else is lost\n",
            file.display()
        ),
        None => {
            format!("recovery key of {recipient}: it opens the repository when all else is lost\n")
        }
    }
}
