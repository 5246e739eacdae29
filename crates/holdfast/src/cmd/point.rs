//! `holdfast point`: what can be brought back, and what is kept whatever the rules say.

mod show;

use clap::Subcommand;
use holdfast_core::{Code, PointId, SourceName, Timestamp, Untrusted};
use holdfast_vault::retention::{Mark, MarkKind, MarkRequest};
use holdfast_vault::{DirectoryStatus, PointSpan, Running};
use serde_json::{Value, json};

use crate::cli::Shared;
use crate::cmd::{block_on, read};
use crate::config::Config;
use crate::report::{Done, Failure, Output, table};
use crate::wiring::access::{Access, Reading};
use crate::wiring::vault::Standing;
use crate::wiring::{Half, now, operator};

/// What can be brought back.
#[derive(Debug, Subcommand)]
pub enum Point {
    /// Keep a restore point whatever the rules say, until it is released; the running vault does it
    Keep {
        #[command(flatten)]
        marked: Marked,
        /// When the rules decide again, RFC 3339.
        #[arg(long, value_name = "TIME")]
        until: Option<Timestamp>,
    },
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
    /// Let the rules decide again about a point that was kept
    Release {
        #[command(flatten)]
        marked: Marked,
    },
}

/// Which point, and why.
#[derive(Debug, clap::Args)]
pub struct Marked {
    /// Its source.
    source: String,
    /// The point, as `holdfast point list` names it.
    point: String,
    /// Why, for those who come later.
    #[arg(long, value_name = "TEXT")]
    because: String,
}

impl Point {
    /// Reads the repository; a vault that runs is asked how far the source is.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let (source, names, all, access) = match self {
            Self::Keep { marked, until } => {
                return marked.set(shared, output, (MarkKind::Keep, until));
            }
            Self::List {
                source,
                names,
                all,
                access,
            } => (source, names, all, access),
            Self::Release { marked } => {
                return marked.set(shared, output, (MarkKind::Release, None));
            }
        };
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

impl Marked {
    fn id(&self) -> Result<PointId, Failure> {
        let named = Untrusted(&self.point);
        self.point.parse().map_err(|error| {
            Failure::new(
                Code::ZU307,
                format!("`{named}` names no restore point: {error}"),
                "nothing was changed; `holdfast point list` names them",
            )
        })
    }

    /// Asks the vault, which is the one that writes to the repository.
    fn set(self, shared: &Shared, output: Output, said: (MarkKind, Option<Timestamp>)) -> Done {
        let config = shared.config()?;
        let request = MarkRequest {
            source: config.source(&self.source)?.name.clone(),
            point: self.id()?,
            kind: said.0,
            because: self.because,
            by: operator(),
            until: said.1,
        };
        let vault = Half::Vault.client(&config);
        let mark: Mark = read(block_on(vault.ask("point.mark", json!(request)))?)?;
        output.result(&mark, || match (mark.kind, mark.until) {
            (MarkKind::Keep, Some(until)) => format!("{} is kept until {until}", mark.point),
            (MarkKind::Keep, None) => format!("{} is kept until it is released", mark.point),
            (MarkKind::Release, _) => format!("the rules decide about {} again", mark.point),
        });
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
