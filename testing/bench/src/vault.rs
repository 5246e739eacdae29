//! `cargo xtask bench vault`: which parts run, and what is printed above and below them.

use anyhow::Result;
use clap::Args;
use holdfast_testing::postgres;
use serde_json::{Value, json};

use crate::copies;
use crate::ground::Ground;
use crate::machine::Machine;
use crate::parts::{self, Part};
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
        parts::say(self.json.into(), text);
    }
}

type Scene<'a> = (&'a Options, &'a Ground);

fn all<'a>() -> [Part<Scene<'a>>; 3] {
    [
        ("copies", |(options, ground)| copies::run(options, ground)),
        ("wal", |(options, ground)| wal::run(options, ground)),
        ("sources", |(options, ground)| sources::run(options, ground)),
    ]
}

/// Runs the parts one after the other.
pub fn run(options: &Options) -> Result<()> {
    parts::check(&all(), &options.only)?;
    let ground = Ground::make(postgres::installation(options.postgres)?)?;
    let machine = Machine::look(&ground.path(""));
    options.say(&format!(
        "{machine}, {}, PostgreSQL {}\n",
        machine.filesystem,
        ground.postgres.version()
    ));
    let mut found = serde_json::Map::new();
    found.insert("machine".to_owned(), json!(machine));
    parts::run(&all(), &options.only, &(options, &ground), &mut found)?;
    if options.json {
        println!("{}", Value::Object(found));
    }
    Ok(())
}
