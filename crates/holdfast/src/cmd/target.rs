//! `holdfast vault check-target`: what the repository's place refuses, and so what may be promised.

use holdfast_core::{CheckOutcome, Code};
use holdfast_store::object::Promise;
use holdfast_store::object::probe::TargetReport;
use holdfast_vault::check_target;

use crate::config::Config;
use crate::report::{Done, Failure, Output, table};

/// Tries it, remembers it for the vault's next start, and tells each check.
pub fn run(config: &Config, output: Output) -> Done {
    let (location, probe) = (config.repository(), config.probe.as_ref());
    let report = check_target(&location, probe, &config.vault_dir())?;
    output.result(&report, || describe(&report));
    let failed: Vec<&str> = report.failed().map(|check| check.name.as_str()).collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Code::ZI261,
        format!("`{}` does not hold: {}", report.place, failed.join(", ")),
        "what is stored there can be taken away before its time; docs/storage.md says how a place is made that holds",
    ))
}

/// Returns what is said of a repository in one line.
pub fn label(promise: &Promise) -> String {
    match promise {
        Promise::Advisory { why } => format!("advisory ({why})"),
        Promise::Compliance => "immutable until each lock ends".to_owned(),
    }
}

fn describe(report: &TargetReport) -> String {
    let rows: Vec<Vec<String>> = report
        .checks
        .iter()
        .map(|check| {
            let outcome = match check.outcome {
                CheckOutcome::Alarm => "ALARM",
                CheckOutcome::Failed => "FAILED",
                CheckOutcome::NotRun => "not run",
                CheckOutcome::Passed => "passed",
            };
            vec![outcome.to_owned(), check.name.clone(), check.detail.clone()]
        })
        .collect();
    let text = table(&["RESULT", "CHECK", "DETAIL"], &rows);
    format!("{text}{}: {}", report.place, label(&report.promise))
}
