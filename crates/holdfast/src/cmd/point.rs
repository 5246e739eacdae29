//! `holdfast point list`: what can be brought back.

mod show;

use clap::Subcommand;
use holdfast_core::{SourceName, Untrusted};
use holdfast_vault::{DirectoryStatus, PointSpan, Running};
use serde_json::Value;

use crate::cli::Shared;
use crate::cmd::{block_on, read};
use crate::config::Config;
use crate::report::{Done, Output, table};
use crate::wiring::access::{Access, Reading};
use crate::wiring::vault::Standing;
use crate::wiring::{Half, now};

/// What can be brought back.
#[derive(Debug, Subcommand)]
pub enum Point {
    /// The spans of positions that can be brought back, what is missing between them, and the points
    List {
        /// Only this source.
        source: Option<String>,
        /// The points that somebody named with pg_create_restore_point instead.
        #[arg(long)]
        names: bool,
        /// Every restore point, not only the newest ten of each source.
        #[arg(long, conflicts_with = "names")]
        all: bool,
        #[command(flatten)]
        access: Access,
    },
}

impl Point {
    /// Reads the repository; a vault that runs is asked how far the source is.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let Self::List {
            source,
            names,
            all,
            access,
        } = self;
        let reading = access.open(shared, output)?;
        let source = match &source {
            Some(source) => Some(reading.source(source)?),
            None => None,
        };
        if names {
            return list_names(&reading, source.as_ref(), output);
        }
        let running = running(&reading.config);
        let mut spans: Vec<PointSpan> = holdfast_vault::points(&reading.place, &running, now())?;
        spans.retain(|span| source.as_ref().is_none_or(|name| span.source == *name));
        let shown = if all { usize::MAX } else { show::NEWEST };
        output.result(&spans, || show::text(&spans, shown));
        Ok(())
    }
}

/// Asks the vault how the sources stand; one that does not run, or not well, is not needed.
fn running(config: &Config) -> Running {
    let client = Half::Vault.client(config);
    let asked = block_on(async {
        let sources: Vec<Standing> = read(client.ask("vault.status", Value::Null).await?)?;
        let directories = client.ask("vault.directories", Value::Null).await?;
        let directories: Vec<DirectoryStatus> = read(directories)?;
        Ok((sources, directories))
    });
    let (sources, directories) = asked.unwrap_or_default();
    Running {
        sources: sources
            .into_iter()
            .map(|standing| standing.status)
            .collect(),
        directories,
    }
}

fn list_names(reading: &Reading, source: Option<&SourceName>, output: Output) -> Done {
    let named = holdfast_vault::named_points(&reading.place, source)?;
    output.result(&named, || {
        if named.is_empty() {
            return "nobody has named a point in the log that is kept; `SELECT pg_create_restore_point('NAME')` on the source does".to_owned();
        }
        let rows = named.iter().map(|point| {
            let state = match (point.is_reachable, point.is_left) {
                (false, _) => "log missing".to_owned(),
                (true, true) => format!("--timeline {}", point.timeline),
                (true, false) => String::new(),
            };
            vec![
                point.source.to_string(),
                point.timeline.to_string(),
                point.time.to_string(),
                point.lsn.to_string(),
                Untrusted(&point.name).to_string(),
                state,
            ]
        });
        let header = ["SOURCE", "TIMELINE", "TIME", "POSITION", "NAME", "NEEDS"];
        table(&header, &rows.collect::<Vec<_>>())
    });
    Ok(())
}
