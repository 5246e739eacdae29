//! `cargo xtask bench pg-door`: the PostgreSQL door beside a direct connection and PgBouncer.

mod copy;
mod idle;
mod judge;
mod latency;
mod load;
mod target;

use anyhow::Result;
use clap::Args;
use holdfast_testing::postgres::{self, Server};
use serde_json::{Value, json};

use crate::ground::Ground;
use crate::machine::Machine;
use crate::parts::{self, Part};
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
        parts::say(self.json.into(), text);
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

fn all<'a>() -> [Part<Scene<'a>>; 5] {
    [
        ("load", load::run),
        ("latency", latency::run),
        ("copy", copy::run),
        ("idle", idle::run),
        ("judge", judge::run),
    ]
}

/// Runs the parts one after the other.
pub fn run(options: &Options) -> Result<()> {
    parts::check(&all(), &options.only)?;
    let ground = Ground::make(postgres::installation(options.postgres)?)?;
    let server = server(options, &ground)?;
    let machine = Machine::look(&ground.path(""));
    let targets = target::start(&ground, &server)?;
    let pooler = target::version()?;
    options.say(&format!(
        "{machine}, PostgreSQL {}, {pooler}\n",
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
    parts::run(&all(), &options.only, &scene, &mut found)?;
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
    let load = ["-i", "-q", "-s", &options.scale.to_string()];
    crate::cluster::pgbench(ground, &server.url(), &load)?;
    Ok(server)
}
