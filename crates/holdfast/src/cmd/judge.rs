//! `holdfast judge`: JSON lines in, verdicts out, nothing executed.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use clap::Subcommand;
use holdfast_core::Code;
use holdfast_judge::http::HttpLine;
use holdfast_judge::line::{JudgeLine, verdict_line};
use holdfast_judge::packs::Packs;
use holdfast_judge::policy::Policy;
use serde::Deserialize;

use crate::cli::Shared;
use crate::report::{Done, Failure};
use crate::wiring::{guard, system};

/// Judges what an agent would ask on production.
#[derive(Debug, Subcommand)]
pub enum Judge {
    /// Lines `{"id","method","url","headers":{},"body"|"body_b64"}`
    Http {
        /// Cedar text instead of the configured or shipped policy.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
    /// Lines `{"id","sql"}`
    Sql {
        /// Cedar text instead of the configured or shipped policy.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
}

#[derive(Deserialize)]
struct SqlLine {
    #[serde(default)]
    id: serde_json::Value,
    sql: String,
}

impl Judge {
    /// Answers each line of stdin with one line on stdout, at once.
    pub fn run(self, shared: &Shared) -> Done {
        match self {
            Self::Http { policy } => {
                let (policy, packs) = (load(policy, shared)?, Packs::shipped());
                each_line(|line| {
                    let line: HttpLine = serde_json::from_str(line)?;
                    Ok(holdfast_judge::http::verdict_line(&line, &packs, &policy))
                })
            }
            Self::Sql { policy } => {
                let policy = load(policy, shared)?;
                each_line(|line| {
                    let line: SqlLine = serde_json::from_str(line)?;
                    Ok(verdict_line(line.id, &line.sql, &policy))
                })
            }
        }
    }
}

fn load(file: Option<PathBuf>, shared: &Shared) -> Result<Policy, Failure> {
    match file {
        Some(file) => {
            let text = std::fs::read_to_string(&file).map_err(|error| {
                system(&format!("read the policy `{}`", file.display()), &error)
            })?;
            Ok(Policy::parse(&text)?)
        }
        None => match shared.config() {
            Ok(config) => guard::policy(&config),
            Err(crate::config::ConfigError::Absent { .. }) => Ok(Policy::shipped()),
            Err(error) => Err(error.into()),
        },
    }
}

fn each_line(mut judge: impl FnMut(&str) -> Result<JudgeLine, serde_json::Error>) -> Done {
    let mut stdout = std::io::stdout().lock();
    for (index, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line.map_err(|error| system("read stdin", &error))?;
        if line.trim().is_empty() {
            continue;
        }
        let answer = judge(&line).map_err(|error| {
            Failure::new(
                Code::ZU605,
                format!("line {} of stdin: {error}", index.saturating_add(1)),
                "write one JSON object a line; `holdfast judge --help` shows the fields",
            )
        })?;
        let text = serde_json::to_string(&answer)
            .map_err(|error| system("write the answer", &std::io::Error::other(error)))?;
        if writeln!(stdout, "{text}")
            .and_then(|()| stdout.flush())
            .is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}
