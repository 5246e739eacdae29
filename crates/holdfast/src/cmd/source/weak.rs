//! What makes leases at a source weaker, as `holdfast source check` shows it.

use holdfast_core::Untrusted;
use holdfast_guard::door::pg::look_for_weaknesses;
use holdfast_guard::lease::weak::{Concerns, Severity, Weakness, Weaknesses};
use serde::Serialize;

use crate::cmd::block_on;
use crate::config::{Config, SourceConfig};
use crate::report::Failure;
use crate::wiring::{failure, guard};

/// Looks through the database that leases lead to; `None` when the source has no `guard_url`.
///
/// # Errors
/// When guard's connection string leads nowhere, or the source does not answer.
pub fn look(
    config: &Config,
    source: &SourceConfig,
    database: Option<&str>,
) -> Result<Option<Weaknesses>, Failure> {
    let doors = guard::pg_sources(config)?;
    let Some(door) = doors.iter().find(|door| door.name == source.name) else {
        return Ok(None);
    };
    let looking = async {
        look_for_weaknesses(door, database)
            .await
            .map_err(|error| failure(&error))
    };
    block_on(looking).map(Some)
}

/// Says what was found.
pub fn describe(all: &Weaknesses) -> String {
    let database = Untrusted(&all.database);
    let mut text = match all.found.len() {
        0 => format!("leases: nothing was found in `{database}` that makes them weaker\n"),
        1 => format!("leases: 1 thing makes them weaker in `{database}`\n"),
        count => format!("leases: {count} things make them weaker in `{database}`\n"),
    };
    for one in &all.found {
        text.push_str(&format!(
            "\n{} {} ({}): {}\n    {}\n    {}\n",
            word(one.severity),
            one.id,
            concerns(one.concerns),
            objects(one),
            one.effect,
            one.fix
        ));
    }
    if !all.unseen.is_empty() {
        text.push_str(&format!(
            "\nnot seen, because guard's role may not look at it: {}\n",
            all.unseen.join(", ")
        ));
    }
    text
}

fn objects(one: &Weakness) -> String {
    let named = one.objects.join(", ");
    let more = one
        .count
        .saturating_sub(one.objects.len().try_into().unwrap_or_default());
    match more {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn concerns(concerns: Concerns) -> &'static str {
    match concerns {
        Concerns::Every => "every lease",
        Concerns::Schema => "schema leases",
        Concerns::Writing => "leases that write",
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::High => "high",
        Severity::Medium => "medium",
        Severity::Low => "low",
    }
}

/// What the vault needs, with what makes leases weaker beside it.
#[derive(Serialize)]
pub struct Checked<'a, Report: Serialize> {
    /// What the vault needs; absent without a `vault_url`.
    #[serde(flatten)]
    pub report: Option<&'a Report>,
    /// What makes leases weaker; absent without a `guard_url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leases: Option<&'a Weaknesses>,
}
