//! A source that was protected once and lost: base, log since, and what it held. Kept for later runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Scene;
use super::desk::{Desk, Told, lsn, text};
use super::size::Size;
use super::source::{self, Source};
use super::write;
use crate::cluster::{self, Cluster};
use crate::engine::{Bench, Engine, PgBackRest};
use crate::ground::{Ground, tree_bytes};
use crate::limits;

/// What is wanted of it.
pub struct Wanted {
    /// How large the source was.
    pub size: Size,
    /// Mebibytes of log since its base.
    pub log_mib: u64,
    /// What came last.
    pub end: End,
}

/// What came last in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A table was dropped.
    Drop,
    /// The source was lost.
    Loss,
}

/// It is ready to be recovered from.
pub struct Stock {
    /// Where it is.
    pub ground: Ground,
    /// What is known of it.
    pub facts: Facts,
}

/// What is known of a stock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    /// How large the source was, as it was asked for.
    pub size: String,
    /// The superuser's password.
    pub password: String,
    /// Bytes of the source's files.
    pub source_bytes: u64,
    /// Bytes that the repository occupies.
    pub stored_bytes: u64,
    /// Bytes of log since the base.
    pub log_bytes: u64,
    /// Seconds that the base took.
    pub base_s: f64,
    /// The end of the log.
    pub end: String,
    /// The position before the drop, if there is one, and the action that it is known by.
    pub before: Option<(String, String)>,
    /// What the tables held.
    pub sums: String,
    /// Whether pgBackRest has all of it as well.
    pub has_peer: bool,
}

/// Where a recovered server reads from.
pub enum Repository<'a> {
    /// A directory.
    Local,
    /// A bucket: lines of the configuration.
    Bucket(&'a str),
}

/// Opens what was made before, or makes it.
pub fn take(scene: &Scene<'_>, wanted: &Wanted) -> Result<Stock> {
    let end = match wanted.end {
        End::Drop => "-drop",
        End::Loss => "",
    };
    let name = format!("stock-{}-log{}{end}", wanted.size, wanted.log_mib);
    let ground = scene.work.kept(&name)?;
    if let Some(facts) = read(&ground.path(FACTS)) {
        return Ok(Stock { ground, facts });
    }
    ground.clear("")?;
    let ground = scene.work.kept(&name)?;
    // Two repositories of what compresses at least four times, and the log in each and at the source.
    let needed = wanted.size.dense() / 2 + wanted.log_mib * 3 * (1 << 20);
    scene.work.need(needed, "protecting the source")?;
    let source = source::take(scene, wanted.size)?;
    scene.say(&format!("making {name}, once"));
    let facts = make(scene, &ground, &source, wanted).with_context(|| format!("make {name}"))?;
    let text = serde_json::to_string(&facts)?;
    fs::write(ground.path(FACTS), text).context("note that it is complete")?;
    Ok(Stock { ground, facts })
}

fn make(scene: &Scene<'_>, ground: &Ground, source: &Source, wanted: &Wanted) -> Result<Facts> {
    let cluster = &source.cluster;
    cluster.execute("DROP TABLE IF EXISTS doomed")?;
    cluster.execute("CREATE TABLE doomed AS SELECT n FROM generate_series(1, 1000) n")?;
    cluster.settle()?;
    let url = cluster.server.url();
    let desk = Desk::init(
        scene,
        &ground.path(""),
        &Told {
            repository: &repository_line(&ground.path("repository")),
            source_url: &url,
            mirror: false,
            programs: &scene.work.postgres.bin_dir,
        },
    )?;
    let began = Instant::now();
    let vault = desk.vault()?;
    desk.wait(limits::COMMAND, |stands| stands["point"].is_string())?;
    let base_s = began.elapsed().as_secs_f64();
    let mut peer = peer(scene, wanted.size)?;
    let bench = Bench { ground, cluster };
    if let Some(peer) = &mut peer {
        peer.prepare(&bench)?;
        peer.first(&bench)?;
    }
    let log_bytes = write_log(ground, cluster, wanted.log_mib << 20)?;
    let sums = write::sums(&url)?;
    let before = match wanted.end {
        End::Drop => Some(drop_and_see(cluster, &desk)?),
        End::Loss => None,
    };
    let end = finish(cluster, &desk, peer.as_ref())?;
    vault.stop()?;
    crate::engine::drop_slots(cluster)?;
    Ok(Facts {
        size: wanted.size.to_string(),
        password: cluster.server.password().to_owned(),
        source_bytes: tree_bytes(&cluster.server.data_dir().join("base"))?,
        stored_bytes: tree_bytes(&ground.path("repository"))?,
        log_bytes,
        base_s,
        end,
        before,
        sums,
        has_peer: peer.is_some(),
    })
}

/// The peer, when what it restores would fit the disk.
fn peer(scene: &Scene<'_>, size: Size) -> Result<Option<PgBackRest>> {
    let Some(_) = &scene.peer else {
        return Ok(None);
    };
    // It writes every page, also empty ones.
    if let Err(why) = scene.work.need(size.0, "pgBackRest's restore") {
        scene.say(&format!("pgBackRest stays out: {why}"));
        return Ok(None);
    }
    PgBackRest::find().map(Some)
}

/// Lets pgbench run until so much log was written.
fn write_log(ground: &Ground, cluster: &Cluster, bytes: u64) -> Result<u64> {
    let now = || -> Result<u64> {
        let text = cluster.ask("SELECT pg_current_wal_insert_lsn()")?;
        lsn(&text).context("read the position")
    };
    let from = now()?;
    loop {
        let written = now()?.saturating_sub(from);
        if written >= bytes {
            return Ok(written);
        }
        let load = ["-n", "-c", "4", "-j", "2", "-t", "500"];
        cluster::pgbench(ground, &cluster.server.url(), &load)?;
    }
}

/// Drops the table, and returns the position before that and the action, as the vault has seen them.
fn drop_and_see(cluster: &Cluster, desk: &Desk) -> Result<(String, String)> {
    let from = cluster.ask("SELECT pg_current_wal_insert_lsn()")?;
    cluster.execute("DROP TABLE doomed")?;
    let deadline = Instant::now() + limits::ANSWER;
    loop {
        let kind = "source.destruction_seen";
        let seen = desk.json(&["ledger", "list", "--kind", kind])?;
        let last = seen.as_array().and_then(|all| all.last());
        if let Some(last) = last {
            let before = text(last, "/body/before_lsn")?;
            if lsn(before) >= lsn(&from) {
                return Ok((before.to_owned(), text(last, "/action")?.to_owned()));
            }
        }
        ensure!(Instant::now() < deadline, "the vault has not seen the drop");
        std::thread::sleep(limits::STAND_POLL);
    }
}

/// Waits until everybody has all of the log.
fn finish(cluster: &Cluster, desk: &Desk, peer: Option<&PgBackRest>) -> Result<String> {
    cluster.execute("CHECKPOINT")?;
    let file = cluster.ask("SELECT pg_walfile_name(pg_current_wal_lsn())")?;
    cluster.execute("SELECT pg_switch_wal()")?;
    let end = cluster.ask("SELECT pg_current_wal_flush_lsn()")?;
    let wanted = lsn(&end).context("read the position")?;
    let reached = |stands: &Value| stands["flushed"].as_str().and_then(lsn) >= Some(wanted);
    desk.wait(limits::ANSWER, reached)?;
    let deadline = Instant::now() + limits::ANSWER;
    while peer.is_some() {
        let archived = cluster.ask("SELECT last_archived_wal FROM pg_stat_archiver")?;
        if archived >= file {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "{archived} is archived, not {file}"
        );
        std::thread::sleep(limits::STAND_POLL);
    }
    if peer.is_some() {
        cluster.archive_with("true")?;
    }
    Ok(end)
}

impl Stock {
    /// The vault's machine at the moment of the loss: its state, and its repository or a bucket.
    pub fn desk(
        &self,
        scene: &Scene<'_>,
        (name, mirror): (&str, bool),
        repository: &Repository<'_>,
    ) -> Result<Desk> {
        let folder = scene.run.ground.folder(name)?;
        copy("-a", &self.ground.path("state"), &folder.join("state"))?;
        let lines = match repository {
            Repository::Local => {
                // Objects are never changed: what the vault adds stays in the copy.
                let own = folder.join("repository");
                copy("-al", &self.ground.path("repository"), &own)?;
                repository_line(&own)
            }
            Repository::Bucket(lines) => (*lines).to_owned(),
        };
        let gone = format!(
            "postgres://postgres:{}@127.0.0.1:1/postgres",
            self.facts.password
        );
        let told = Told {
            repository: &lines,
            source_url: &gone,
            mirror,
            programs: &scene.work.postgres.bin_dir,
        };
        let desk = Desk::at(scene, &folder, &told)?;
        if let Repository::Bucket(_) = repository {
            desk.secret("key-id", holdfast_testing::s3::ObjectStorage::OWNER)?;
            desk.secret("key", holdfast_testing::s3::ObjectStorage::SECRET)?;
        }
        Ok(desk)
    }

    /// The connection string of a recovered server, whose roles are those of the source.
    pub fn url(&self, port: u64) -> String {
        format!(
            "postgres://postgres:{}@127.0.0.1:{port}/postgres",
            self.facts.password
        )
    }

    /// The connection string that a call of the program told.
    pub fn told_url(&self, told: &Value) -> Result<String> {
        match told.pointer("/server/port").and_then(Value::as_u64) {
            Some(port) => Ok(self.url(port)),
            None => text(told, "/url").map(str::to_owned),
        }
    }

    /// Compares what a recovered database holds.
    pub fn check(&self, url: &str) -> Result<()> {
        let found = write::sums(url)?;
        ensure!(
            found == self.facts.sums,
            "something else came back: {found} instead of {}",
            self.facts.sums
        );
        Ok(())
    }
}

fn repository_line(path: &Path) -> String {
    format!("repository = \"{}\"\n", path.display())
}

fn copy(how: &str, from: &PathBuf, to: &PathBuf) -> Result<()> {
    let copied = Command::new("cp").arg(how).args([from, to]).status();
    let copied = copied.context("run cp")?;
    ensure!(copied.success(), "copy {}: {copied}", from.display());
    Ok(())
}

fn read(path: &Path) -> Option<Facts> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

const FACTS: &str = "facts.json";
