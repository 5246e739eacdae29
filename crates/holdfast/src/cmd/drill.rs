//! `holdfast drill`: restore points, proven by restoring them.

mod show;

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use holdfast_core::{Code, DrillOf, DrillReport, PointId, TableChange, Timestamp};
use holdfast_vault::DrillRecord;
use serde_json::{Value, json};

use crate::api::Client;
use crate::cli::Shared;
use crate::cmd::block_on;
use crate::config::Config;
use crate::report::{Done, Failure, Output, table};
use crate::wiring::{Half, vault};

use show::{describe, word};

/// How often a drill that runs is asked how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(700);

/// Restore points, proven by restoring them.
#[derive(Debug, Subcommand)]
pub enum Drill {
    /// Accept that a table lost most of its rows: the next drills compare with what is there now
    Accept {
        /// Which source.
        source: String,
    },
    /// Show the drills that ended
    List(List),
    /// Restore a point now and check it
    Run {
        /// Which source.
        source: String,
        /// Which point; the newest if absent.
        #[arg(long)]
        point: Option<PointId>,
    },
    /// Show what a drill checked, and what it did not
    Show {
        /// Which source.
        source: String,
        /// The newest drill of this point, instead of the newest of all.
        #[arg(long)]
        point: Option<PointId>,
        /// The drill that ended at this time, as `drill list` shows it.
        #[arg(long)]
        at: Option<Timestamp>,
    },
}

/// Which drills are shown.
#[derive(Debug, Args)]
pub struct List {
    /// Only this source.
    source: Option<String>,
    /// Only those that ended so.
    #[arg(long, value_enum)]
    result: Option<Ended>,
    /// Only drills of the newest point, or only those of older ones.
    #[arg(long, value_enum)]
    of: Option<Of>,
    /// How many, from the newest; all if absent.
    #[arg(long)]
    newest: Option<usize>,
}

/// How a drill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Ended {
    Alarm,
    Failed,
    Verified,
}

/// Which kind of drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Of {
    Newest,
    Older,
}

impl Drill {
    /// Asks the running vault, or reads the repository.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let config = shared.config()?;
        match self {
            Self::Accept { source } => accept(&config, &source, output),
            Self::List(list) => list.run(&config, output),
            Self::Run { source, point } => {
                let source = config.source(&source)?.name.clone();
                output.say("restoring; this takes as long as a restore and its checks");
                let vault = Half::Vault.client(&config);
                let args = json!(vault::DrillRequest {
                    source: source.clone(),
                    point,
                });
                let report: DrillReport = block_on(async {
                    let asked = vault.ask("drill.run", args);
                    tokio::pin!(asked);
                    let mut told = String::new();
                    loop {
                        tokio::select! {
                            report = &mut asked => return report,
                            () = tokio::time::sleep(PROGRESS_EVERY) => {
                                tell(&vault, source.as_str(), &mut told, output).await;
                            }
                        }
                    }
                })?;
                finish(&report, output)
            }
            Self::Show { source, point, at } => {
                let records = read(&config, Some(&source))?;
                let is_it = |record: &&DrillRecord| {
                    point
                        .as_ref()
                        .is_none_or(|point| record.report.point == *point)
                        && at.is_none_or(|at| record.at == at)
                };
                let newest = records.iter().rfind(is_it).ok_or_else(|| {
                    Failure::new(
                        Code::ZU307,
                        format!("no such drill of `{source}` has ended yet"),
                        format!("`holdfast drill list {source}` shows those that have; `holdfast drill run {source}` makes one"),
                    )
                })?;
                output.result(newest, || describe(&newest.report));
                Ok(())
            }
        }
    }
}

/// Says how far a drill is, when that is news.
async fn tell(vault: &Client, source: &str, told: &mut String, output: Output) {
    // Progress is a courtesy: whoever cannot tell it goes on all the same.
    let Ok(all) = vault.ask::<Vec<Value>>("vault.status", Value::Null).await else {
        return;
    };
    let mine = all.iter().find(|one| one["source"] == source);
    let busy = mine
        .and_then(|one| one["busy"].as_str())
        .unwrap_or_default();
    let drill = busy.split(", ").find(|part| part.starts_with("drill"));
    if let Some(now) = drill.filter(|now| now != told) {
        output.say(now);
        now.clone_into(told);
    }
}

fn accept(config: &Config, source: &str, output: Output) -> Done {
    let source = config.source(source)?.name.clone();
    let vault = Half::Vault.client(config);
    let losses: Vec<TableChange> = block_on(vault.ask("drill.accept", json!(source)))?;
    output.result(&losses, || {
        let names: Vec<&str> = losses.iter().map(|loss| loss.table.as_str()).collect();
        format!(
            "accepted that rows of {} are gone; the next drills compare with what is there now",
            names.join(", ")
        )
    });
    Ok(())
}

fn read(config: &Config, source: Option<&str>) -> Result<Vec<DrillRecord>, Failure> {
    let source = source.map(|name| config.source(name)).transpose()?;
    let place = vault::place(config)?;
    Ok(holdfast_vault::drills(&place, source.map(|s| &s.name))?)
}

impl List {
    fn wants(&self, record: &DrillRecord) -> bool {
        let report = &record.report;
        let result = self.result.is_none_or(|wanted| match wanted {
            Ended::Alarm => report.alarm().is_some(),
            Ended::Failed => !record.passed,
            Ended::Verified => record.passed,
        });
        let of = self.of.is_none_or(|wanted| match wanted {
            Of::Newest => report.details.of == DrillOf::Newest,
            Of::Older => report.details.of == DrillOf::Older,
        });
        result && of
    }

    fn run(self, config: &Config, output: Output) -> Done {
        let mut records = read(config, self.source.as_deref())?;
        records.retain(|record| self.wants(record));
        let skipped = records
            .len()
            .saturating_sub(self.newest.unwrap_or(usize::MAX));
        records.drain(..skipped);
        output.result(&records, || {
            if records.is_empty() {
                return "no such drill has ended yet".to_owned();
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
                    report.details.target.clone(),
                ]
            });
            let header = [
                "SOURCE", "AT", "RESULT", "RTO", "RESTORED", "POINT", "UP TO",
            ];
            table(&header, &rows.collect::<Vec<_>>())
        });
        Ok(())
    }
}

fn finish(report: &DrillReport, output: Output) -> Done {
    output.result(report, || describe(report));
    let source = &report.source;
    match (report.failure(), report.alarm()) {
        (Some(what), _) => Err(Failure::new(
            Code::ZI306,
            format!("the drill of `{source}` failed: {what}"),
            "look at the checks above; until a drill of the newest point passes, what cannot be undone stays refused",
        )),
        (None, Some(what)) => Err(Failure::new(
            Code::ZI390,
            format!("the point comes back, and rows are gone from `{source}`: {what}"),
            match &report.details.before_loss {
                Some(before) => format!(
                    "`holdfast restore {source} --at {} --into DIR` brings back what was there before; if it was meant: `holdfast drill accept {source}`",
                    before.reached
                ),
                None => format!("if it was meant: `holdfast drill accept {source}`"),
            },
        )),
        (None, None) if report.passed() => Ok(()),
        (None, None) => Err(Failure::new(
            Code::ZI306,
            format!("the drill of `{source}` checked nothing"),
            "the log of the vault says why",
        )),
    }
}
