//! `holdfast lease`: what an agent gets instead of a password.

use clap::Subcommand;
use holdfast_core::{Code, LeaseId, SourceName};
use holdfast_guard::lease::{Lease as Kept, LeaseMode};
use serde_json::{Value, json};

use crate::cli::Shared;
use crate::cmd::block_on;
use crate::config::Config;
use crate::report::{Done, Failure, Output, table};
use crate::wiring::guard::{Ticket, TicketRequest, ask_or_open};
use crate::wiring::{Half, now, operator};

/// Short-lived authority of an agent at a source.
#[derive(Debug, Subcommand)]
pub enum Lease {
    /// Print a connection string and an environment for one agent
    Issue(Issue),
    /// Show the leases
    List,
    /// End a lease at once, also in open sessions
    Revoke {
        /// The lease's id.
        id: String,
    },
}

/// What is issued.
#[derive(Debug, clap::Args)]
pub struct Issue {
    /// Where it leads.
    #[arg(long, required_unless_present = "clone")]
    source: Option<String>,
    /// The clone that it leads to instead: a sandbox, in which what is destroyed is a copy.
    #[arg(long, value_name = "CLONE", conflicts_with = "source")]
    clone: Option<String>,
    /// The agent, such as `cursor`.
    #[arg(long)]
    agent: String,
    /// What it is for; people read it when they decide about a hold.
    #[arg(long)]
    purpose: String,
    /// What it may do in the database.
    #[arg(long, value_enum, default_value = "data", conflicts_with_all = ["read_only", "schema"])]
    mode: Mode,
    /// It may only read; the same as `--mode read-only`.
    #[arg(long, conflicts_with = "schema")]
    read_only: bool,
    /// It has the rights of the database's owner, so that migrations work; the same as `--mode schema`.
    #[arg(long)]
    schema: bool,
    /// Rows that one transaction may change unasked; an hour's budget grows with it.
    #[arg(long, value_name = "N")]
    rows: Option<u64>,
    /// How long it lasts, such as `30m`, `8h`.
    #[arg(long = "for", default_value = "8h", value_parser = duration)]
    lasts: std::time::Duration,
    /// The database, when it is not the one in `guard_url`.
    #[arg(long)]
    database: Option<String>,
}

/// What a lease may do in the database.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Mode {
    /// Read and change rows.
    Data,
    /// Read.
    ReadOnly,
    /// Read, change rows and the schema: migrations.
    Schema,
}

impl From<Mode> for LeaseMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Data => Self::Data,
            Mode::ReadOnly => Self::ReadOnly,
            Mode::Schema => Self::Schema,
        }
    }
}

/// Reads `90s`, `30m`, `8h` or `2d`.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || "write a number with s, m, h or d, such as `8h`".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let number = text.strip_suffix(unit).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let seconds = number.checked_mul(seconds).ok_or_else(wrong)?;
    if seconds == 0 {
        return Err("it would be over at once".to_owned());
    }
    Ok(std::time::Duration::from_secs(seconds))
}

impl Lease {
    /// Asks guard.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let config = shared.config()?;
        match self {
            Self::Issue(issue) => issue.run(&config, output),
            Self::List => list(&config, output),
            Self::Revoke { id } => revoke(&config, &id, output),
        }
    }
}

impl Issue {
    fn mode(&self) -> LeaseMode {
        match (self.read_only, self.schema) {
            (true, _) => LeaseMode::ReadOnly,
            (_, true) => LeaseMode::Schema,
            _ => self.mode.into(),
        }
    }

    fn run(self, config: &Config, output: Output) -> Done {
        let mode = self.mode();
        let (source, is_clone) = match (&self.clone, &self.source) {
            (Some(clone), _) => (clone.clone(), true),
            (None, Some(source)) => (config.source(source)?.name.to_string(), false),
            (None, None) => (String::new(), false),
        };
        let asked = TicketRequest {
            source,
            is_clone,
            agent: self.agent,
            purpose: self.purpose,
            mode,
            rows: self.rows,
            lasts_s: self.lasts.as_secs(),
            database: self.database,
            by: operator(),
        };
        let guard = Half::Guard.client(config);
        let ticket: Ticket = block_on(guard.ask("lease.issue", json!(asked)))?;
        for warning in &ticket.warnings {
            output.say(&format!("warning: {warning}"));
        }
        output.result(&ticket, || {
            let budget = ticket.budget;
            let mut text = format!(
                "# {} until {}: {}\n# unasked it may change {} rows a transaction, {} an hour\n",
                ticket.id,
                ticket.expires,
                meaning(mode),
                budget.transaction.0,
                budget.hour.0
            );
            if let Some(source) = &ticket.sandbox_of {
                text.push_str(&format!(
                    "# a sandbox: it leads to a clone of {source}, ends with it, and touches nothing else\n"
                ));
            }
            if let Some(url) = &ticket.url {
                text.push_str(&format!("export DATABASE_URL='{url}'\n"));
            }
            for (name, value) in &ticket.env {
                text.push_str(&format!("export {name}='{value}'\n"));
            }
            text
        });
        Ok(())
    }
}

/// Says in words what a lease may do in the database.
fn meaning(mode: LeaseMode) -> &'static str {
    match mode {
        LeaseMode::Data => "reads and changes rows",
        LeaseMode::ReadOnly => "reads",
        LeaseMode::Schema => {
            "acts with the rights of the owner; what it did is measured before COMMIT"
        }
    }
}

fn list(config: &Config, output: Output) -> Done {
    let answer = block_on(ask_or_open(config, "lease.list", Value::Null))?;
    let leases: Vec<Kept> = crate::cmd::read(answer)?;
    let now = now();
    let state = |lease: &Kept| match lease.ended(now) {
        None => "open",
        Some(_) if lease.revoked.is_some() => "revoked",
        Some(_) => "expired",
    };
    let word = |mode: LeaseMode| json!(mode).as_str().unwrap_or_default().to_owned();
    let rows: Vec<Value> = leases
        .iter()
        .map(|lease| {
            json!({
                "id": lease.id, "state": state(lease), "source": lease.source,
                "agent": lease.agent, "purpose": lease.purpose, "mode": lease.mode,
                "budget": lease.budget,
                "sandbox_of": sandbox_of(lease),
                "issued": lease.issued, "expires": lease.expires,
                "role": lease.pg.as_ref().map(|pg| &pg.role),
            })
        })
        .collect();
    output.result(&rows, || {
        let cells = leases.iter().map(|lease| {
            vec![
                lease.id.to_string(),
                state(lease).to_owned(),
                match sandbox_of(lease) {
                    Some(source) => format!("{} (sandbox of {source})", lease.source),
                    None => lease.source.to_string(),
                },
                lease.agent.clone(),
                word(lease.mode),
                lease.expires.to_string(),
                lease.purpose.clone(),
            ]
        });
        let header = [
            "ID", "STATE", "SOURCE", "AGENT", "MODE", "EXPIRES", "PURPOSE",
        ];
        table(&header, &cells.collect::<Vec<_>>())
    });
    Ok(())
}

/// Returns of which source the clone is that a lease leads to.
fn sandbox_of(lease: &Kept) -> Option<&SourceName> {
    lease.pg.as_ref()?.copy_of.as_ref()
}

fn revoke(config: &Config, id: &str, output: Output) -> Done {
    let id: LeaseId = id.parse().map_err(|_| {
        Failure::new(
            Code::ZU605,
            format!(
                "`{}` is not the id of a lease",
                holdfast_core::Untrusted(id)
            ),
            "`holdfast lease list` shows the ids",
        )
    })?;
    let args = json!([id, operator()]);
    let answer = block_on(ask_or_open(config, "lease.revoke", args))?;
    let warnings = answer.pointer("/warnings").and_then(Value::as_array);
    for warning in warnings.into_iter().flatten().filter_map(Value::as_str) {
        output.say(&format!("warning: {warning}"));
    }
    output.result(&answer, || {
        format!("{id} is revoked; open sessions have ended")
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_and_is_not_over_at_once() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("8h", 28_800), ("2d", 172_800)] {
            assert_eq!(duration(text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in [
            "",
            "8",
            "h",
            "0h",
            "-1h",
            "8 h",
            "8µ",
            "99999999999999999999d",
            "1w",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
