//! `holdfast ledger`: the tamper-evident record.

mod verify;

use std::io::Write;

use clap::{Args, Subcommand};
use holdfast_core::Code;
use holdfast_core::ledger::Entry;
use holdfast_store::ledger::{self, Verified};
use serde_json::{Value, json};

use crate::cli::Shared;
use crate::config::Config;
use crate::report::{Done, Failure, Output, table};
use crate::wiring::{Half, system};

use verify::Verify;

/// The tamper-evident record of everything that was asked and done.
#[derive(Debug, Subcommand)]
pub enum Ledger {
    /// Write every entry as one line of JSON, exactly as it is signed for
    Export(Which),
    /// Show the newest entries
    List(List),
    /// Show one entry whole
    Show {
        #[command(flatten)]
        which: Which,
        /// Its number.
        seq: u64,
    },
    /// Check every entry, every signed head and every proof; works beside a running holdfast
    Verify(Verify),
}

/// Whose ledger.
#[derive(Debug, Args)]
pub struct Which {
    /// Guard's or the vault's; both if absent.
    #[arg(long, value_enum)]
    half: Option<Half>,
}

/// What is shown.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    which: Which,
    /// Only entries of this kind, such as `action.held`.
    #[arg(long)]
    kind: Option<String>,
    /// Only entries about this source.
    #[arg(long)]
    source: Option<String>,
    /// How many, from the newest.
    #[arg(long, default_value_t = 50)]
    newest: usize,
}

impl Ledger {
    /// Reads the files; nothing needs to run.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let asked = match self {
            Self::Verify(asked) => return asked.run(shared, output),
            asked => asked,
        };
        let config = shared.config()?;
        match asked {
            Self::Export(which) => export(&config, &which),
            Self::List(list) => list.run(&config, output),
            Self::Show { which, seq } => show(&config, &which, seq, output),
            Self::Verify(asked) => asked.run(shared, output),
        }
    }
}

/// Reads one ledger, verifying it.
fn read(config: &Config, half: Half, each: impl FnMut(&Entry)) -> Result<Verified, Failure> {
    let folder = half.ledger(config);
    Ok(ledger::verify(&folder, &half.public_key(config)?, each)?)
}

fn halves(config: &Config, which: &Which) -> Vec<Half> {
    match which.half {
        Some(half) => vec![half],
        None => Half::LEDGERS
            .into_iter()
            .filter(|half| half.ledger(config).join(ledger::FILE).exists())
            .collect(),
    }
}

impl List {
    fn run(self, config: &Config, output: Output) -> Done {
        let mut entries: Vec<(Half, Entry)> = Vec::new();
        for half in halves(config, &self.which) {
            read(config, half, |entry| {
                let draft = &entry.draft;
                let of_kind = self.kind.as_ref().is_none_or(|kind| draft.kind == *kind);
                let of_source = self.source.as_ref().is_none_or(|name| {
                    draft
                        .source
                        .as_ref()
                        .is_some_and(|source| source.as_str() == name)
                });
                if of_kind && of_source {
                    entries.push((half, entry.clone()));
                }
            })?;
        }
        entries.sort_by_key(|(_, entry)| (entry.draft.at, entry.seq));
        let skipped = entries.len().saturating_sub(self.newest);
        entries.drain(..skipped);
        let values: Vec<Value> = entries
            .iter()
            .map(|(half, entry)| with_half(*half, entry))
            .collect();
        output.result(&values, || {
            let rows = entries.iter().map(|(half, entry)| {
                let draft = &entry.draft;
                let text = |key: &str| draft.body.get(key).and_then(Value::as_str).unwrap_or("");
                let about = draft.action.as_ref().map_or("", |action| action.as_str());
                vec![
                    half.word().to_owned(),
                    entry.seq.to_string(),
                    draft.at.to_string(),
                    draft.kind.clone(),
                    draft.principal.to_string(),
                    about.to_owned(),
                    holdfast_core::Untrusted(text("summary")).to_string(),
                ]
            });
            let header = ["LEDGER", "NO", "AT", "KIND", "WHO", "ACTION", "WHAT"];
            table(&header, &rows.collect::<Vec<_>>())
        });
        Ok(())
    }
}

fn with_half(half: Half, entry: &Entry) -> Value {
    let mut value = json!(entry);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("ledger".to_owned(), json!(half));
    }
    value
}

fn show(config: &Config, which: &Which, seq: u64, output: Output) -> Done {
    let mut found: Vec<Value> = Vec::new();
    for half in halves(config, which) {
        read(config, half, |entry| {
            if entry.seq == seq {
                found.push(with_half(half, entry));
            }
        })?;
    }
    if found.is_empty() {
        return Err(Failure::new(
            Code::ZU605,
            format!("no ledger has an entry {seq}"),
            "`holdfast ledger list` shows the numbers",
        ));
    }
    output.result(&found, || {
        let texts = found.iter().map(serde_json::to_string_pretty);
        texts.flatten().collect::<Vec<_>>().join("\n")
    });
    Ok(())
}

fn export(config: &Config, which: &Which) -> Done {
    let mut stdout = std::io::stdout().lock();
    for half in halves(config, which) {
        read(config, half, |_| ())?;
        let path = half.ledger(config).join(ledger::FILE);
        let failed = |error: std::io::Error| system(&format!("read `{}`", path.display()), &error);
        let mut file = std::fs::File::open(&path).map_err(failed)?;
        std::io::copy(&mut file, &mut stdout).map_err(failed)?;
    }
    stdout.flush().map_err(|error| system("write", &error))
}
