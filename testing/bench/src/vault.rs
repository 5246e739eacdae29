//! `cargo xtask bench vault`: which parts run, and what is printed above and below them.

use anyhow::{Result, bail};
use clap::Args;
use holdfast_testing::postgres;
use serde_json::{Value, json};

use crate::copies;
use crate::ground::Ground;
use crate::machine::Machine;
use crate::sources;
use crate::wal;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Size of the source in gigabytes.
    #[arg(long, default_value_t = 2.0)]
    pub scale: f64,
    /// How often everything is measured.
    #[arg(long, default_value_t = 2)]
    pub repetitions: u32,
    /// Only this part; may be given more than once.
    #[arg(long, value_name = "PART")]
    pub only: Vec<String>,
    /// How many sources one vault has in the part `sources`.
    #[arg(long, default_value_t = 50)]
    pub sources: u32,
    /// Which major version of PostgreSQL.
    #[arg(long, default_value_t = 15)]
    pub postgres: u32,
    /// Prints all samples as JSON.
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// Prints a text for people; with `--json` nothing but the JSON is printed.
    pub fn say(&self, text: &str) {
        if self.json {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }
}

type Part = fn(&Options, &Ground) -> Result<Value>;

const PARTS: &[(&str, Part)] = &[
    ("copies", copies::run),
    ("wal", wal::run),
    ("sources", sources::run),
];

/// Runs the parts one after the other.
pub fn run(options: &Options) -> Result<()> {
    for name in &options.only {
        if !PARTS.iter().any(|(part, _)| part == name) {
            let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
            bail!(
                "there is no part `{name}`; the parts are {}",
                names.join(", ")
            );
        }
    }
    let ground = Ground::make(postgres::installation(options.postgres)?)?;
    let machine = Machine::look(&ground.path(""));
    options.say(&format!(
        "{} x {}, {:.0} GB memory, Linux {}, {}, PostgreSQL {}\n",
        machine.cores,
        machine.processor,
        crate::machine::as_f64(machine.memory_bytes) / 1e9,
        machine.kernel,
        machine.filesystem,
        ground.postgres.version()
    ));
    let mut found = serde_json::Map::new();
    found.insert("machine".to_owned(), json!(machine));
    for (name, part) in PARTS {
        if options.only.is_empty() || options.only.iter().any(|only| only == name) {
            found.insert((*name).to_owned(), part(options, &ground)?);
        }
    }
    if options.json {
        println!("{}", Value::Object(found));
    }
    Ok(())
}
