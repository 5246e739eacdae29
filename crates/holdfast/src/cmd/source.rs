//! `holdfast source`: what is protected.

mod block;
mod settings;
mod weak;

use clap::{Args, Subcommand};
use holdfast_core::{Code, SourceName};
use holdfast_vault::{
    AckAt, AckMode, CheckReport, DirectoryStatus, RequirementState, check_source, kept_slot_name,
};
use serde_json::{Value, json};

use crate::cli::Shared;
use crate::cmd::block_on;
use crate::config::{Config, SourceConfig};
use crate::report::{Done, Failure, Output, table};
use crate::wiring::Half;
use crate::wiring::vault::{self, Standing};

/// What is protected.
#[derive(Debug, Subcommand)]
pub enum Source {
    /// Write a source into the configuration, and say what it lacks
    Add(Add),
    /// Look at a source and say what it lacks; changes nothing without --apply
    Check {
        /// Its name.
        name: String,
        /// The database that is looked through for what makes leases weaker, when it is not the one in
        /// `guard_url`.
        #[arg(long)]
        database: Option<String>,
        #[command(flatten)]
        settings: settings::Settings,
    },
    /// How each source stands
    List,
    /// Take a source out of the configuration; what is kept of it stays
    Remove {
        /// Its name.
        name: String,
        /// The name once more, as consent.
        #[arg(long, value_name = "NAME")]
        yes: Option<String>,
    },
}

/// What is added.
#[derive(Debug, Args)]
pub struct Add {
    /// Its name: a-z, 0-9 and `-`.
    name: SourceName,
    /// Where the connection string of a role with REPLICATION is: `env:NAME` or `file:PATH`.
    #[arg(long, value_name = "REF")]
    vault_url: Option<String>,
    /// Where the connection string of a role that may create roles is: `env:NAME` or `file:PATH`.
    #[arg(long, value_name = "REF")]
    guard_url: Option<String>,
    /// A directory to protect instead of a PostgreSQL cluster.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["vault_url", "guard_url", "synchronous", "mirror"])]
    directory: Option<std::path::PathBuf>,
    /// Seconds from one restore point of a directory to the next.
    #[arg(
        long,
        value_name = "SECONDS",
        requires = "directory",
        default_value_t = 3600
    )]
    every_s: u64,
    /// What it is for, as policies see it.
    #[arg(long, default_value = "production")]
    environment: String,
    /// Commits wait until the vault has them on disk: none is ever lost.
    #[arg(long)]
    synchronous: bool,
    /// Keep a server of its own in step with it, which takes over in seconds.
    #[arg(long)]
    mirror: bool,
    /// What a provider calls a thing that carries it, such as `railway:volume:ID`; repeatable.
    #[arg(long = "resource", value_name = "KIND:NAME")]
    resources: Vec<String>,
    /// SQL that each drill runs and that must return true; repeatable.
    #[arg(long = "assertion", value_name = "SQL")]
    assertions: Vec<String>,
    /// What the source is told to be safe: what is in the vault's `spool`, or in the `repository`.
    #[arg(long, value_name = "WHERE", default_value_t)]
    ack: AckAt,
    #[command(flatten)]
    settings: settings::Settings,
}

impl Source {
    /// Reads or changes the configuration.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let config = shared.config()?;
        match self {
            Self::Add(add) => add.run(&config, output),
            Self::Check {
                name,
                database,
                settings,
            } => {
                let source = config.source(&name)?;
                if settings.run(&config, source, output)? {
                    return Ok(());
                }
                check(&config, source, database.as_deref(), output)
            }
            Self::List => list(&config, output),
            Self::Remove { name, yes } => remove(&config, &name, yes.as_deref(), output),
        }
    }
}

impl Add {
    fn run(self, config: &Config, output: Output) -> Done {
        if config.source(self.name.as_str()).is_ok() {
            return Err(Failure::new(
                Code::ZU608,
                format!(
                    "there is a source `{}` already; nothing was changed",
                    self.name
                ),
                "edit its block in holdfast.toml, or choose another name",
            ));
        }
        let directory = self.directory()?;
        if self.vault_url.is_none() && self.guard_url.is_none() && directory.is_none() {
            return Err(Failure::new(
                Code::ZU608,
                "a source needs --vault-url, --guard-url or both, or --directory; nothing was changed",
                "the vault streams with the one, guard makes lease roles with the other",
            ));
        }
        let block = block::write(&block::Block {
            name: self.name.as_str(),
            environment: &self.environment,
            vault_url: self.vault_url.as_deref(),
            guard_url: self.guard_url.as_deref(),
            directory: directory.as_deref().map(|path| (path, self.every_s)),
            synchronous: self.synchronous,
            mirror: self.mirror,
            ack: self.ack,
            resources: &self.resources,
            assertions: &self.assertions,
        });
        let changed = block::append(config, &block)?;
        let source = changed.source(self.name.as_str())?;
        output.say(&format!(
            "wrote the source `{}` to {}",
            self.name,
            config.file.display()
        ));
        if let Some(directory) = directory {
            output.result(
                &json!({"source": self.name, "added": true, "directory": directory}),
                || "restart what runs; `holdfast source list` shows its restore points".to_owned(),
            );
            return Ok(());
        }
        if source.vault_url.is_none() {
            output.result(&json!({"source": self.name, "added": true}), || {
                "without vault_url it has no way back: what cannot be undone stays refused"
                    .to_owned()
            });
            return Ok(());
        }
        if self.settings.run(&changed, source, output)? {
            return Ok(());
        }
        check(&changed, source, None, output)
    }
}

impl Add {
    /// Returns the absolute path of the directory to protect, which must be there.
    fn directory(&self) -> Result<Option<String>, Failure> {
        let Some(directory) = &self.directory else {
            return Ok(None);
        };
        let refused = |why: String| {
            Failure::new(
                Code::ZU608,
                format!(
                    "`{}` cannot be protected: {why}; nothing was changed",
                    directory.display()
                ),
                "name a directory that the vault's account may read",
            )
        };
        let path = std::fs::canonicalize(directory).map_err(|error| refused(error.to_string()))?;
        if !path.is_dir() {
            return Err(refused("it is not a directory".to_owned()));
        }
        match path.into_os_string().into_string() {
            Ok(path) => Ok(Some(path)),
            Err(_) => Err(refused("its name is not UTF-8".to_owned())),
        }
    }
}

/// Prints what a source lacks, and what makes leases weaker there; fails when the vault could not work
/// with it.
fn check(config: &Config, source: &SourceConfig, database: Option<&str>, output: Output) -> Done {
    if let Some(directory) = &source.directory {
        return check_directory(&config.base.join(directory), source, output);
    }
    let report: Option<CheckReport> = match source.vault_url {
        Some(_) => {
            let told = vault::source(config, source)?;
            Some(block_on(async { Ok(check_source(&told).await) })?)
        }
        None => None,
    };
    let leases = weak::look(config, source, database);
    let checked = weak::Checked {
        report: report.as_ref(),
        leases: leases.as_ref().ok().and_then(Option::as_ref),
    };
    output.result(&checked, || {
        let parts = [
            checked.report.map(describe),
            checked.leases.map(weak::describe),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        parts.join("\n")
    });
    match report.as_ref().and_then(|report| missing(source, report)) {
        Some(missing) => Err(missing),
        None => leases.map(drop),
    }
}

/// Returns why the vault could not work with a source.
fn missing(source: &SourceConfig, report: &CheckReport) -> Option<Failure> {
    let first = report
        .requirements
        .iter()
        .find(|one| one.state == RequirementState::Missing)?;
    let code = first.code.as_deref();
    let known = Code::ALL
        .iter()
        .find(|(known, _)| Some(known.as_str()) == code);
    Some(Failure {
        code: known.map_or(Code::ZU301, |(code, _)| *code),
        message: format!(
            "`{}` cannot be captured yet: {}: {}; nothing was changed in it",
            source.name, first.name, first.found
        ),
        hint: (!first.fix.is_empty()).then(|| first.fix.clone()),
    })
}

/// Says whether a directory can be read; the vault's account is taken to be this one.
fn check_directory(path: &std::path::Path, source: &SourceConfig, output: Output) -> Done {
    let listed = std::fs::read_dir(path).and_then(|mut entries| entries.next().transpose());
    match listed {
        Ok(_) => {
            let shown = path.display().to_string();
            output.result(&json!({"source": source.name, "directory": shown}), || {
                format!("{shown} can be read")
            });
            Ok(())
        }
        Err(error) => Err(Failure::new(
            Code::ZS340,
            format!("`{}` cannot be read: {error}", path.display()),
            "check that it is mounted and that the vault's account may read it",
        )),
    }
}

fn describe(report: &CheckReport) -> String {
    let mut text = format!("{} at {}", report.source, report.address);
    if let Some(major) = report.major {
        text.push_str(&format!(", PostgreSQL {major}"));
    }
    text.push('\n');
    let rows: Vec<Vec<String>> = report
        .requirements
        .iter()
        .map(|one| {
            let state = match one.state {
                RequirementState::Missing => "missing",
                RequirementState::Ok => "ok",
                RequirementState::Warning => "warning",
            };
            vec![state.to_owned(), one.name.clone(), one.found.clone()]
        })
        .collect();
    text.push_str(&table(&["STATE", "WHAT", "FOUND"], &rows));
    for one in report.requirements.iter().filter(|one| !one.fix.is_empty()) {
        text.push_str(&format!("\n{}: wanted is {}\n", one.name, one.wanted));
        for line in one.fix.lines() {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

/// Prints how every source stands: what the running vault says, or that none runs.
pub fn list(config: &Config, output: Output) -> Done {
    let asked = block_on(Half::Vault.client(config).ask("vault.status", Value::Null));
    let statuses: Option<Vec<Standing>> = match asked {
        Ok(statuses) => Some(statuses),
        Err(failure) if failure.code == Code::ZS601 => None,
        Err(failure) => return Err(failure),
    };
    if statuses.is_none() && !output.is_json() {
        output.say("the vault is not running, so only the configuration is shown");
    }
    let directories: Vec<DirectoryStatus> = match statuses {
        Some(_) => block_on(
            Half::Vault
                .client(config)
                .ask("vault.directories", Value::Null),
        )?,
        None => Vec::new(),
    };
    let statuses = statuses.unwrap_or_default();
    let status = |name: &SourceName| {
        statuses
            .iter()
            .find(|standing| standing.status.source == *name)
    };
    let values: Vec<Value> = config
        .sources
        .iter()
        .map(|source| {
            let mut value = json!({
                "source": source.name, "environment": source.environment,
                "vault": source.vault_url.is_some(), "guard": source.guard_url.is_some(),
                "resources": source.resources,
            });
            let directory = directories.iter().find(|one| one.source == source.name);
            let known = status(&source.name)
                .map(|status| json!(status))
                .or_else(|| directory.map(|one| json!(one)));
            if let (Some(fields), Some(Value::Object(known))) = (value.as_object_mut(), known) {
                fields.extend(known);
            }
            value
        })
        .collect();
    output.result(&values, || {
        if config.sources.is_empty() {
            return "no source yet: `holdfast source add NAME --vault-url env:VAULT_URL`"
                .to_owned();
        }
        let rows = config.sources.iter().map(|source| {
            let directory = directories.iter().find(|one| one.source == source.name);
            match &source.directory {
                Some(_) => directory_row(source, directory),
                None => row(source, status(&source.name)),
            }
        });
        let header = ["SOURCE", "STATE", "MODE", "LAG", "PROOF", "TROUBLE"];
        table(&header, &rows.collect::<Vec<_>>())
    });
    Ok(())
}

fn directory_row(source: &SourceConfig, status: Option<&DirectoryStatus>) -> Vec<String> {
    let none = || "-".to_owned();
    let word = |value: Value| value.as_str().unwrap_or_default().to_owned();
    let Some(status) = status else {
        let state = "not running".to_owned();
        return vec![
            source.name.to_string(),
            state,
            none(),
            none(),
            none(),
            none(),
        ];
    };
    let state = match (&status.busy, status.point.is_some()) {
        (Some(busy), _) => busy.clone(),
        (None, true) => format!("kept, {} files", status.files),
        (None, false) => "no point yet".to_owned(),
    };
    let age = status
        .at
        .map(|at| crate::wiring::now().since(at).as_secs_f64());
    let trouble = match (&status.trouble, status.missing) {
        (Some(one), _) => format!("{} {}", one.code, one.what),
        (None, 0) => none(),
        (None, missing) => format!("{missing} things are not kept"),
    };
    vec![
        source.name.to_string(),
        state,
        "directory".to_owned(),
        age.map_or_else(none, |age| format!("{age:.0} s")),
        word(json!(status.proof.state)),
        trouble,
    ]
}

fn row(source: &SourceConfig, standing: Option<&Standing>) -> Vec<String> {
    let Some(Standing {
        status,
        synchronous,
    }) = standing
    else {
        let none = "-".to_owned();
        let state = match source.vault_url {
            Some(_) => "not running",
            None => "no vault_url",
        };
        return vec![
            source.name.to_string(),
            state.to_owned(),
            none.clone(),
            none.clone(),
            none.clone(),
            none,
        ];
    };
    let word = |value: Value| value.as_str().unwrap_or_default().to_owned();
    let proof = match (status.proof.at, status.proof.rto_s) {
        (Some(at), Some(rto)) => format!("{} {at}, {rto:.1} s", word(json!(status.proof.state))),
        _ => word(json!(status.proof.state)),
    };
    let state = match &status.busy {
        Some(busy) => format!("{} ({busy})", word(json!(status.state))),
        None => word(json!(status.state)),
    };
    let mode = match (status.mode, synchronous) {
        (AckMode::Synchronous, false) => "synchronous once caught up".to_owned(),
        (mode, _) => mode.to_string(),
    };
    let proof = match &status.proof.alarm {
        Some(_) => format!("{proof}, ALARM"),
        None => proof,
    };
    let trouble = match (&status.trouble, &status.proof.alarm) {
        (Some(one), _) => format!("{} {}", one.code, one.what),
        (None, Some(alarm)) => format!("{} {alarm}", Code::ZI390),
        (None, None) if !status.failed_points.is_empty() => {
            format!(
                "{} older points failed their drill",
                status.failed_points.len()
            )
        }
        (None, None) => "-".to_owned(),
    };
    let mirror = status.mirror.as_ref().map_or(String::new(), |mirror| {
        let state = word(json!(mirror.state));
        format!("; mirror {state}, {}, {:.1} s", mirror.lag, mirror.lag_s)
    });
    vec![
        source.name.to_string(),
        state,
        mode,
        format!("{}, {:.1} s{mirror}", status.lag, status.lag_s),
        proof,
        trouble,
    ]
}

fn remove(config: &Config, name: &str, yes: Option<&str>, output: Output) -> Done {
    let source = config.source(name)?;
    if yes != Some(name) {
        return Err(Failure::new(
            Code::ZU608,
            format!(
                "`{name}` would no longer be protected; what the repository holds of it stays; nothing was changed"
            ),
            format!(
                "say so with `holdfast source remove {name} --yes {name}`, then restart what runs"
            ),
        ));
    }
    block::cut(config, &source.name)?;
    let slot = kept_slot_name(&config.vault_dir(), &source.name);
    let is_database = source.directory.is_none();
    output.result(
        &json!({"source": name, "removed": true, "slot": is_database.then_some(&slot)}),
        || {
            let done = format!("{name} is out of the configuration; restart what runs");
            if !is_database {
                return done;
            }
            format!("{done}. Its slot `{slot}` stays in the source: drop it there, with `SELECT pg_drop_replication_slot('{slot}')`")
        },
    );
    Ok(())
}
