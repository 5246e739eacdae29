//! What is compared: the vault, pgBackRest, and PostgreSQL's own tools.

mod holdfast;
mod pgbackrest;
mod plain;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use holdfast_testing::postgres::Server;

use crate::cluster::{self, Cluster, Content};
use crate::ground::Ground;
use crate::limits;
use crate::meter::{self, Used};

pub use holdfast::Holdfast;
pub use pgbackrest::PgBackRest;
pub use plain::Plain;

/// The run that engines take part in.
pub struct Bench<'a> {
    /// Where they write.
    pub ground: &'a Ground,
    /// What they protect.
    pub cluster: &'a Cluster,
}

/// One way of keeping copies of a source.
pub trait Engine {
    /// Its name in tables.
    fn name(&self) -> &'static str;

    /// Makes it ready, which is not measured; nothing of an earlier repetition is there.
    fn prepare(&mut self, bench: &Bench<'_>) -> Result<()>;

    /// Takes the first backup.
    fn first(&mut self, bench: &Bench<'_>) -> Result<Used>;

    /// Takes another one after the source has changed; `None` when it cannot yet.
    fn next(&mut self, bench: &Bench<'_>) -> Result<Option<Used>>;

    /// Restores the newest one to a promoted server that has answered, and returns what it holds.
    fn restore(&mut self, bench: &Bench<'_>) -> Result<(Used, Content)>;

    /// What all it keeps occupies, in bytes.
    fn stored(&self, bench: &Bench<'_>) -> Result<u64>;

    /// Stops it and removes everything it has written.
    fn clear(&mut self, bench: &Bench<'_>) -> Result<()>;
}

/// Where a restore goes.
const RESTORED: &str = "restored";

/// Starts a server on restored files, waits until it answers after recovery, and adds up its tables.
fn start_and_ask(bench: &Bench<'_>, files: Used) -> Result<(Used, Content)> {
    let began = Instant::now();
    let directory = bench.ground.path(RESTORED);
    // The vault starts its servers with these two as well.
    let server = Server::builder(&bench.ground.postgres)
        .existing(&directory, bench.cluster.server.password())
        .log_file(&bench.ground.path("restored.log"))
        .setting("recovery_init_sync_method", "syncfs")
        .setting("hot_standby", "off")
        .setting("archive_mode", "off")
        .start_limit(limits::ANSWER)
        .start()?;
    while cluster::ask(&server.url(), "SELECT pg_is_in_recovery()")
        .ok()
        .as_deref()
        != Some("f")
    {
        ensure!(
            began.elapsed() < limits::ANSWER,
            "the restored server is not promoted"
        );
        std::thread::sleep(limits::POLL);
    }
    let pid = server.pid().context("the restored server has ended")?;
    let used = Used {
        wall_s: files.wall_s + began.elapsed().as_secs_f64(),
        server_cpu_s: meter::tree_cpu_s(pid)?,
        ..files
    };
    let content = cluster::content(&server.url())?;
    drop(server);
    bench.ground.clear(RESTORED)?;
    Ok((used, content))
}

/// Drops what an ended engine has left at the source.
pub fn drop_slots(cluster: &Cluster) -> Result<()> {
    cluster.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active",
    )
}

/// The version that a program prints, in one line.
pub fn version(program: &Path) -> Result<String> {
    let output = std::process::Command::new(program)
        .arg(if program.ends_with("pgbackrest") {
            "version"
        } else {
            "--version"
        })
        .output()
        .with_context(|| format!("start {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
