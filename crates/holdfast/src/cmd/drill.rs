//! `holdfast drill`: restore points, proven by restoring them.

use clap::Subcommand;
use holdfast_core::{Check, CheckOutcome, Code, DrillReport};
use holdfast_vault::DrillRecord;
use serde_json::json;

use crate::cli::Shared;
use crate::cmd::block_on;
use crate::config::Config;
use crate::report::{Done, Failure, Output, table};
use crate::wiring::{Half, vault};

/// Restore points, proven by restoring them.
#[derive(Debug, Subcommand)]
pub enum Drill {
    /// Show the drills that ended
    List {
        /// Only this source.
        source: Option<String>,
    },
    /// Restore the newest point now and check it
    Run {
        /// Which source.
        source: String,
    },
    /// Show what the newest drill checked, and what it did not
    Show {
        /// Which source.
        source: String,
    },
}

impl Drill {
    /// Asks the running vault, or reads the repository.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let config = shared.config()?;
        match self {
            Self::List { source } => list(&config, source.as_deref(), output),
            Self::Run { source } => {
                let source = config.source(&source)?.name.clone();
                output.say(
                    "restoring the newest point; this takes as long as a restore and its checks",
                );
                let vault = Half::Vault.client(&config);
                let report: DrillReport = block_on(vault.ask("drill.run", json!(source)))?;
                finish(&report, output)
            }
            Self::Show { source } => {
                let records = read(&config, Some(&source))?;
                let newest = records.last().ok_or_else(|| {
                    Failure::new(
                        Code::ZU307,
                        format!("no drill of `{source}` has ended yet"),
                        format!("`holdfast drill run {source}` makes one"),
                    )
                })?;
                output.result(newest, || describe(&newest.report));
                Ok(())
            }
        }
    }
}

fn read(config: &Config, source: Option<&str>) -> Result<Vec<DrillRecord>, Failure> {
    let source = source.map(|name| config.source(name)).transpose()?;
    let place = vault::place(config)?;
    Ok(holdfast_vault::drills(&place, source.map(|s| &s.name))?)
}

fn list(config: &Config, source: Option<&str>, output: Output) -> Done {
    let records = read(config, source)?;
    output.result(&records, || {
        if records.is_empty() {
            return "no drill has ended yet".to_owned();
        }
        let rows = records.iter().map(|record| {
            let report = &record.report;
            vec![
                report.source.to_string(),
                report.drilled_at.to_string(),
                word(report).to_owned(),
                format!("{:.1} s", report.rto.as_secs_f64()),
                report.restored.to_string(),
                report.point.to_string(),
            ]
        });
        let header = ["SOURCE", "AT", "RESULT", "RTO", "RESTORED", "POINT"];
        table(&header, &rows.collect::<Vec<_>>())
    });
    Ok(())
}

fn word(report: &DrillReport) -> &'static str {
    match report.passed() {
        true => "verified",
        false => "failed",
    }
}

fn finish(report: &DrillReport, output: Output) -> Done {
    output.result(report, || describe(report));
    if report.passed() {
        return Ok(());
    }
    let failed = |check: &&Check| check.outcome == CheckOutcome::Failed;
    let names: Vec<&str> = report
        .checks
        .iter()
        .filter(failed)
        .map(|check| check.name.as_str())
        .collect();
    Err(Failure::new(
        Code::ZI306,
        format!(
            "the drill of `{}` failed: {}",
            report.source,
            names.join(", ")
        ),
        "look at the checks above; until a drill passes, what cannot be undone stays refused",
    ))
}

fn describe(report: &DrillReport) -> String {
    let mut text = format!(
        "{} {} at {}: {} in {:.1} s, up to {} ({})\n",
        report.source,
        word(report),
        report.drilled_at,
        report.restored,
        report.rto.as_secs_f64(),
        report.reached,
        report.covers_until,
    );
    let rows: Vec<Vec<String>> = report
        .checks
        .iter()
        .map(|check| {
            let outcome = match check.outcome {
                CheckOutcome::Failed => "FAILED",
                CheckOutcome::NotRun => "not run",
                CheckOutcome::Passed => "passed",
            };
            vec![outcome.to_owned(), check.name.clone(), check.detail.clone()]
        })
        .collect();
    text.push_str(&table(&["RESULT", "CHECK", "DETAIL"], &rows));
    text
}
