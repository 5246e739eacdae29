//! `holdfast point list`: what can be brought back.

use clap::Subcommand;
use holdfast_vault::PointSpan;

use crate::cli::Shared;
use crate::report::{Done, Output, table};
use crate::wiring::{now, vault};

/// What can be brought back.
#[derive(Debug, Subcommand)]
pub enum Point {
    /// One line for each continuous span of restore points
    List {
        /// Only this source.
        source: Option<String>,
    },
}

impl Point {
    /// Reads the repository; the vault need not run.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let config = shared.config()?;
        let Self::List { source } = self;
        if let Some(source) = &source {
            config.source(source)?;
        }
        let mut spans: Vec<PointSpan> = holdfast_vault::points(&vault::place(&config)?, now())?;
        spans.retain(|span| {
            source
                .as_ref()
                .is_none_or(|name| span.source.as_str() == name)
        });
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
