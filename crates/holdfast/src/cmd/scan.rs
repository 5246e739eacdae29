//! `holdfast scan`: credentials that lie where agents can read them, and custody for them.

use std::path::PathBuf;

use clap::Args;
use holdfast_core::Code;
use holdfast_guard::lease::LeaseMode;
use holdfast_guard::scan::{Finding, FindingKind, Reach, ScanReport, ask_reach, home_places, scan};
use holdfast_judge::packs::Packs;
use serde_json::{Value, json};

use crate::cli::Shared;
use crate::cmd::block_on;
use crate::config::Config;
use crate::report::{Done, Failure, Output};
use crate::wiring::guard::{TakeAsked, TicketRequest, ask_or_open, upstreams};
use crate::wiring::operator;

/// Finds credentials and says what each can destroy; with --take, puts a lease in its place.
#[derive(Debug, Args)]
pub struct Scan {
    /// Folders and files; the places of the home folder where tools keep credentials if absent.
    paths: Vec<PathBuf>,
    /// Ask the provider, with the credential found, what it reaches. Reads only.
    #[arg(long)]
    ask: bool,
    /// Take what is found into custody.
    #[arg(long, requires = "source", requires = "agent")]
    take: bool,
    /// The source that the leases lead to.
    #[arg(long)]
    source: Option<String>,
    /// The agent that works in these folders.
    #[arg(long)]
    agent: Option<String>,
    /// How long the leases last.
    #[arg(long = "for", default_value = "8h", value_parser = crate::cmd::lease::duration)]
    lasts: std::time::Duration,
    /// Put back a file that custody changed, when nobody has changed it since.
    #[arg(long, value_name = "ID", conflicts_with_all = ["take", "ask", "paths"])]
    put_back: Option<String>,
    /// Show what lies in custody.
    #[arg(long, conflicts_with_all = ["take", "ask", "paths", "put_back"])]
    custody: bool,
}

impl Scan {
    /// Scans, asks, takes.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        if self.custody {
            return list(&shared.config()?, output);
        }
        if let Some(id) = &self.put_back {
            return put_back(&shared.config()?, id, output);
        }
        let packs = Packs::shipped();
        let paths = self.paths()?;
        let report = scan(&paths, &packs)?;
        let reaches = match self.ask {
            true => ask(&report, &packs, shared)?,
            false => Vec::new(),
        };
        let taken = match self.take {
            true => self.take(&report, &shared.config()?, output)?,
            false => Vec::new(),
        };
        let value = json!({
            "findings": report.findings, "files": report.files, "cut": report.cut,
            "skipped": report.skipped, "reaches": reaches, "taken": taken,
        });
        output.result(&value, || describe(&report, &reaches, &taken));
        if report.cut {
            output.say("warning: there was more than the limit, and not all was looked at");
        }
        Ok(())
    }

    fn paths(&self) -> Result<Vec<PathBuf>, Failure> {
        if !self.paths.is_empty() {
            return Ok(self.paths.clone());
        }
        let home = std::env::home_dir().ok_or_else(|| {
            Failure::new(
                Code::ZU508,
                "there is no home folder to scan",
                "name folders or files",
            )
        })?;
        Ok(home_places(&home))
    }

    /// Takes each credential once, however often it stands in a file.
    fn take(
        &self,
        report: &ScanReport,
        config: &Config,
        output: Output,
    ) -> Result<Vec<Value>, Failure> {
        let (Some(source), Some(agent)) = (&self.source, &self.agent) else {
            return Ok(Vec::new());
        };
        config.source(source)?;
        let mut done: Vec<&Finding> = Vec::new();
        let mut taken = Vec::new();
        for finding in &report.findings {
            let same =
                |other: &&&Finding| other.file == finding.file && other.secret == finding.secret;
            if done.iter().any(|other| same(&other)) {
                continue;
            }
            done.push(finding);
            let asked = TakeAsked {
                file: std::path::absolute(&finding.file)
                    .map_err(|error| crate::wiring::system("find the file", &error))?,
                credential: finding.secret.expose().to_owned(),
                provider: finding.provider.clone(),
                hosts: finding.hosts.clone(),
                lease: TicketRequest {
                    source: source.clone(),
                    is_clone: false,
                    agent: agent.clone(),
                    purpose: format!("in place of a credential in {}", finding.file.display()),
                    rows: None,
                    mode: LeaseMode::Data,
                    lasts_s: self.lasts.as_secs(),
                    database: None,
                    by: operator(),
                },
            };
            let answer = block_on(ask_or_open(config, "custody.take", json!(asked)))?;
            output.say(&format!(
                "taken: {} of {} at {}:{}",
                finding.shown,
                finding.provider,
                finding.file.display(),
                finding.line
            ));
            taken.push(answer);
        }
        Ok(taken)
    }
}

fn ask(report: &ScanReport, packs: &Packs, shared: &Shared) -> Result<Vec<Reach>, Failure> {
    let upstreams = match shared.config() {
        Ok(config) => upstreams(&config),
        Err(crate::config::ConfigError::Absent { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    block_on(async {
        let mut reaches = Vec::new();
        for finding in &report.findings {
            reaches.push(ask_reach(finding, packs, &upstreams).await);
        }
        Ok(reaches)
    })
}

fn describe(report: &ScanReport, reaches: &[Reach], taken: &[Value]) -> String {
    let mut text = String::new();
    for (index, finding) in report.findings.iter().enumerate() {
        let kind = match finding.kind {
            FindingKind::DatabaseUrl => "connection string",
            FindingKind::ProviderToken => "token",
        };
        text.push_str(&format!(
            "{}:{}  {} {} {}\n  because   {}\n",
            finding.file.display(),
            finding.line,
            finding.provider,
            kind,
            finding.shown,
            finding.because
        ));
        for destroys in &finding.can_destroy {
            text.push_str(&format!("  can       {destroys}\n"));
        }
        let Some(reach) = reaches.get(index) else {
            continue;
        };
        for name in &reach.names {
            text.push_str(&format!("  reaches   {}\n", holdfast_core::Untrusted(name)));
        }
        for problem in &reach.problems {
            text.push_str(&format!(
                "  not asked {}\n",
                holdfast_core::Untrusted(problem)
            ));
        }
    }
    for skipped in &report.skipped {
        text.push_str(&format!(
            "skipped {}: {}\n",
            skipped.path.display(),
            skipped.why
        ));
    }
    text.push_str(&format!(
        "{} credentials in {} files",
        report.findings.len(),
        report.files
    ));
    if !taken.is_empty() {
        text.push_str(&format!(
            ", {} in custody now; `holdfast scan --custody` shows them",
            taken.len()
        ));
    } else if !report.findings.is_empty() {
        text.push_str("; `--take --source S --agent A` puts leases in their place");
    }
    text
}

fn list(config: &Config, output: Output) -> Done {
    let answer = block_on(ask_or_open(config, "custody.list", Value::Null))?;
    output.result(&answer, || {
        let items = answer.as_array().into_iter().flatten();
        let lines = items.map(|item| {
            let field = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or("-");
            let back = match item.get("restored").is_some_and(|at| !at.is_null()) {
                true => ", put back",
                false => "",
            };
            format!(
                "{}  {} {}  under {}, taken {}{back}",
                field("id"),
                field("provider"),
                field("file"),
                field("lease"),
                field("taken"),
            )
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        if text.is_empty() {
            "nothing is in custody".to_owned()
        } else {
            text
        }
    });
    Ok(())
}

fn put_back(config: &Config, id: &str, output: Output) -> Done {
    let args = json!([id, operator()]);
    let answer = block_on(ask_or_open(config, "custody.restore", args))?;
    output.result(&answer, || {
        format!("{id} is back in its file; the credential is in the open again")
    });
    Ok(())
}
