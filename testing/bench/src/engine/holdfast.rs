//! The vault: one process that streams the log and takes points.

use anyhow::{Context, Result};
use holdfast_testing::signals;
use serde_json::Value;

use super::{Bench, Engine, RESTORED, drop_slots};
use crate::child::DRILLED;
use crate::cluster::{self, Content};
use crate::meter::{self, Measured, Used};

/// The vault under measurement.
#[derive(Default)]
pub struct Holdfast {
    vault: Option<Measured>,
    /// Every stage of the newest first backup, as the vault told it.
    pub stages: Vec<String>,
}

impl Engine for Holdfast {
    fn name(&self) -> &'static str {
        "holdfast"
    }

    fn prepare(&mut self, bench: &Bench<'_>) -> Result<()> {
        bench.ground.folder(HOME)?;
        Ok(())
    }

    fn first(&mut self, bench: &Bench<'_>) -> Result<Used> {
        let mut command = bench.ground.child("capture");
        command
            .arg(bench.ground.path(STATE))
            .arg(bench.ground.path(REPOSITORY))
            .env("SOURCE_URL", bench.cluster.server.url());
        let log = bench.ground.path("holdfast.log");
        let mut vault = Measured::start(command, &log, bench.cluster.server.pid())?;
        let (_, used) = vault.line("\"event\":\"point\"")?;
        self.stages = vault.log().lines().map(str::to_owned).collect();
        // The drill that follows is nobody's measured work, and no other engine's either.
        vault.line(DRILLED)?;
        self.vault = Some(vault);
        Ok(used)
    }

    fn next(&mut self, bench: &Bench<'_>) -> Result<Option<Used>> {
        let vault = self.vault.as_mut().context("no vault runs")?;
        let log = vault.log();
        let known: Vec<String> = log.lines().filter_map(point).collect();
        let server = bench.cluster.server.pid().context("the source has ended")?;
        let before = (vault.used_so_far()?, meter::tree_cpu_s(server)?);
        signals::send(vault.pid(), signals::Signal::USR1)?;
        let (_, took) = meter::time(|| {
            vault.line_that(|line| point(line).is_some_and(|one| !known.contains(&one)))
        })?;
        let after = vault.used_so_far()?;
        let server_cpu_s = meter::tree_cpu_s(server)? - before.1;
        let drilled = known_drills(&log);
        vault.line_that(|line| line.contains(DRILLED) && !drilled.iter().any(|one| one == line))?;
        Ok(Some(Used {
            wall_s: took.as_secs_f64(),
            cpu_s: after.cpu_s - before.0.cpu_s,
            server_cpu_s,
            peak_bytes: after.peak_bytes,
        }))
    }

    fn restore(&mut self, bench: &Bench<'_>) -> Result<(Used, Content)> {
        let mut command = bench.ground.child("restore");
        command
            .arg(bench.ground.path(STATE))
            .arg(bench.ground.path(REPOSITORY))
            .arg(bench.ground.path(RESTORED))
            .arg(&bench.ground.postgres.bin_dir);
        let log = bench.ground.path("holdfast-restore.log");
        let mut used = meter::run(command, &log, None)?;
        let told = std::fs::read_to_string(&log).context("read what was restored")?;
        let restored: Value = serde_json::from_str(told.lines().last().unwrap_or_default())
            .with_context(|| format!("read what was restored: {told}"))?;
        let number = |name: &str| {
            let value = restored.pointer(name).and_then(Value::as_u64);
            value.with_context(|| format!("the restore told no {name}"))
        };
        let (port, pid) = (
            number("/server/port")?,
            u32::try_from(number("/server/pid")?)?,
        );
        let answered = || -> Result<(Used, Content)> {
            let password = bench.cluster.server.password();
            let url = format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres");
            let (_, took) = meter::time(|| cluster::ask(&url, "SELECT 1"))?;
            used.wall_s += took.as_secs_f64();
            used.server_cpu_s = meter::tree_cpu_s(pid)?;
            Ok((used, cluster::content(&url)?))
        }();
        signals::kill_tree(pid)?;
        bench.ground.clear(RESTORED)?;
        answered
    }

    fn stored(&self, bench: &Bench<'_>) -> Result<u64> {
        bench.ground.bytes(REPOSITORY)
    }

    fn clear(&mut self, bench: &Bench<'_>) -> Result<()> {
        if let Some(vault) = self.vault.take() {
            vault.terminate()?;
        }
        drop_slots(bench.cluster)?;
        bench.ground.clear(HOME)
    }
}

/// The drills that were told of already.
fn known_drills(log: &str) -> Vec<String> {
    let drills = log.lines().filter(|line| line.contains(DRILLED));
    drills.map(str::to_owned).collect()
}

/// The point that a line tells of.
fn point(line: &str) -> Option<String> {
    let told: Value = serde_json::from_str(line).ok()?;
    Some(told.get("point")?.as_str()?.to_owned())
}

const HOME: &str = "holdfast";
const STATE: &str = "holdfast/state";
const REPOSITORY: &str = "holdfast/repository";
