//! Settings of a source: printed, or applied with consent.

use std::io::{BufRead, IsTerminal};

use clap::Args;
use holdfast_core::{Code, SourceName};
use holdfast_vault::{ConnectionUrl, SettingsPlan, apply_settings, plan_settings};
use serde_json::json;

use crate::cmd::block_on;
use crate::config::{Config, SecretRef, SourceConfig};
use crate::report::{Failure, Output};
use crate::wiring::{failure, vault};

/// What is to be done about the settings of a source.
#[derive(Debug, Args)]
pub struct Settings {
    /// Print what the source must be told, as a script for psql; changes nothing in it.
    #[arg(long, conflicts_with = "apply")]
    print_settings: bool,
    /// Show what would be changed in the source, ask, and change it.
    #[arg(long)]
    apply: bool,
    /// The source's name once more, as consent to --apply.
    #[arg(long, value_name = "NAME")]
    yes: Option<String>,
    /// Where the connection string of a superuser is, for --print-settings and --apply: `env:NAME` or
    /// `file:PATH`; without it the vault's own role is used.
    #[arg(long, value_name = "REF")]
    admin_url: Option<String>,
}

impl Settings {
    /// Prints or applies; `false` when neither was asked for, or when it is time to check again.
    pub fn run(
        &self,
        config: &Config,
        source: &SourceConfig,
        output: Output,
    ) -> Result<bool, Failure> {
        if !self.print_settings && !self.apply {
            return Ok(false);
        }
        let told = vault::source(config, source)?;
        let admin = self.admin(config, &told.url)?;
        let plan = block_on(async { Ok(plan_settings(&told, &admin).await?) })?;
        if self.print_settings {
            output.result(&plan, || match plan.is_empty() {
                true => "-- the source is as it should be".to_owned(),
                false => plan.script(),
            });
            return Ok(true);
        }
        if plan.statements.is_empty() {
            output.say("nothing to apply");
            for line in &plan.by_hand {
                output.say(&format!("by hand: {line}"));
            }
            return Ok(false);
        }
        self.consent(&source.name, &plan, output)?;
        let done = block_on(async { Ok(apply_settings(&told, &admin, &plan).await?) })?;
        output.say(&format!("{done} statements were run in `{}`", source.name));
        if plan.needs_restart() {
            output.result(
                &json!({"source": source.name, "applied": done, "restart": true, "by_hand": plan.by_hand}),
                || format!("restart the server, then run `holdfast source check {}`", source.name),
            );
            return Ok(true);
        }
        Ok(false)
    }

    fn admin(&self, config: &Config, own: &ConnectionUrl) -> Result<ConnectionUrl, Failure> {
        let Some(reference) = &self.admin_url else {
            return Ok(own.clone());
        };
        let reference = SecretRef::try_from(reference.clone()).map_err(|why| {
            Failure::new(
                Code::ZU602,
                format!("--admin-url: {why}"),
                "nothing was changed",
            )
        })?;
        let text = reference.read("--admin-url", &config.base)?;
        text.expose().parse().map_err(|error| failure(&error))
    }

    /// Shows the plan and wants the name.
    fn consent(
        &self,
        name: &SourceName,
        plan: &SettingsPlan,
        output: Output,
    ) -> Result<(), Failure> {
        output.say(&format!(
            "this would be run in `{name}`:\n{}",
            plan.script()
        ));
        let said = match &self.yes {
            Some(yes) => yes.clone(),
            None if std::io::stdin().is_terminal() => {
                output.say("nothing else is touched, pg_hba.conf in particular; type the source's name to go on:");
                let mut line = String::new();
                let read = std::io::stdin().lock().read_line(&mut line);
                read.map_or(String::new(), |_| line.trim().to_owned())
            }
            None => String::new(),
        };
        if said == name.as_str() {
            return Ok(());
        }
        Err(Failure::new(
            Code::ZU608,
            format!("`{name}` was not confirmed; nothing was changed in it"),
            format!("say so with `--apply --yes {name}`"),
        ))
    }
}
