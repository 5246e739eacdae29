//! `cargo xtask bench pg-door`: the PostgreSQL door beside a direct connection and PgBouncer.

mod copy;
mod idle;
mod judge;
mod latency;
mod load;
mod target;

use anyhow::{Result, bail};
use clap::Args;
use holdfast_testing::postgres::{self, Server};
use serde_json::{Value, json};

use crate::ground::Ground;
use crate::machine::Machine;
use crate::meter;
use target::Target;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Scale factor of pgbench; 10 is 150 MB.
    #[arg(long, default_value_t = 20)]
    pub scale: u32,
    /// Seconds of each run.
    #[arg(long, default_value_t = 3)]
    pub seconds: u32,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3)]
    pub repetitions: u32,
    /// Megabytes that are copied out and in.
    #[arg(long, default_value_t = 1000)]
    pub copy_mb: u32,
    /// Sessions that are open and idle.
    #[arg(long, default_value_t = 1000)]
    pub sessions: u32,
    /// Only this part; may be given more than once.
    #[arg(long, value_name = "PART")]
    pub only: Vec<String>,
    /// Which major version of PostgreSQL.
    #[arg(long, default_value_t = 15)]
    pub postgres: u32,
    /// Prints all samples as JSON.
    #[arg(long)]
    pub json: bool,
}

impl Options {
    fn say(&self, text: &str) {
        if self.json {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }
}

/// What every part measures on.
struct Scene<'a> {
    options: &'a Options,
    ground: &'a Ground,
    server: &'a Server,
    targets: &'a [Target],
}

impl Scene<'_> {
    /// The targets in the order of a repetition: every other one turns it round.
    fn turn(&self, repetition: u32) -> Vec<&Target> {
        let mut order: Vec<&Target> = self.targets.iter().collect();
        if repetition % 2 == 1 {
            order.reverse();
        }
        order
    }
}

type Part = fn(&Scene<'_>) -> Result<Value>;

const PARTS: &[(&str, Part)] = &[
    ("load", load::run),
    ("latency", latency::run),
    ("copy", copy::run),
    ("idle", idle::run),
    ("judge", judge::run),
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
    let server = server(options, &ground)?;
    let machine = Machine::look(&ground.path(""));
    let targets = target::start(&ground, &server)?;
    let pooler = target::version()?;
    options.say(&format!(
        "{} x {}, {:.0} GB memory, Linux {}, PostgreSQL {}, {pooler}\n",
        machine.cores,
        machine.processor,
        crate::machine::as_f64(machine.memory_bytes) / 1e9,
        machine.kernel,
        ground.postgres.version()
    ));
    let scene = Scene {
        options,
        ground: &ground,
        server: &server,
        targets: &targets,
    };
    let mut found = serde_json::Map::new();
    found.insert("machine".to_owned(), json!(machine));
    for (name, part) in PARTS {
        if options.only.is_empty() || options.only.iter().any(|only| only == name) {
            found.insert((*name).to_owned(), part(&scene)?);
        }
    }
    for target in targets {
        target.stop()?;
    }
    if options.json {
        println!("{}", Value::Object(found));
    }
    Ok(())
}

/// A server whose tables are in memory and whose commits do not wait for the disk: what is left is the
/// way there and back.
fn server(options: &Options, ground: &Ground) -> Result<Server> {
    let server = Server::builder(&ground.postgres)
        .data_dir(&ground.path("source"))
        .log_file(&ground.path("source.log"))
        .setting("shared_buffers", "1GB")
        .setting("max_wal_size", "8GB")
        .setting("synchronous_commit", "off")
        .setting("autovacuum", "off")
        // The peer keeps its sessions with the server when its clients have left.
        .setting("max_connections", &(2 * options.sessions + 200).to_string())
        .start()?;
    let mut pgbench = ground.command(&ground.postgres.program("pgbench"));
    pgbench
        .args(["-i", "-q", "-s", &options.scale.to_string(), &server.url()])
        .env("PGPASSWORD", server.password());
    meter::run(pgbench, &ground.path("pgbench.log"), None)?;
    Ok(server)
}
