//! `holdfast point list`: what can be brought back.

use clap::Subcommand;
use holdfast_core::{SourceName, Untrusted};
use holdfast_vault::PointSpan;

use crate::cli::Shared;
use crate::config::Config;
use crate::report::{Done, Output, table};
use crate::wiring::{now, vault};

/// What can be brought back.
#[derive(Debug, Subcommand)]
pub enum Point {
    /// One line for each continuous span of restore points
    List {
        /// Only this source.
        source: Option<String>,
        /// The points that somebody named with pg_create_restore_point instead.
        #[arg(long)]
        names: bool,
    },
}

impl Point {
    /// Reads the repository; the vault need not run.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let config = shared.config()?;
        let Self::List { source, names } = self;
        let source = match &source {
            Some(source) => Some(config.source(source)?.name.clone()),
            None => None,
        };
        if names {
            return list_names(&config, source.as_ref(), output);
        }
        let mut spans: Vec<PointSpan> = holdfast_vault::points(&vault::place(&config)?, now())?;
        spans.retain(|span| source.as_ref().is_none_or(|name| span.source == *name));
        output.result(&spans, || {
            if spans.is_empty() {
                return "nothing can be brought back yet; `holdfast source list` shows why"
                    .to_owned();
            }
            let rows = spans.iter().map(|span| {
                let proof = serde_json::json!(span.proof.state);
                vec![
                    span.source.to_string(),
                    span.timeline.to_string(),
                    span.from.to_string(),
                    span.to.to_string(),
                    format!("{:.1} s", span.lag_s),
                    span.bytes.to_string(),
                    proof.as_str().unwrap_or_default().to_owned(),
                ]
            });
            let header = ["SOURCE", "TIMELINE", "FROM", "TO", "LAG", "STORED", "PROOF"];
            table(&header, &rows.collect::<Vec<_>>())
        });
        Ok(())
    }
}

fn list_names(config: &Config, source: Option<&SourceName>, output: Output) -> Done {
    let named = holdfast_vault::named_points(&vault::place(config)?, source)?;
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
