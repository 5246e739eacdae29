//! pgBackRest, with what its guide recommends: bundles, block incrementals, zstd.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Bench, Engine, RESTORED, start_and_ask, version};
use crate::cluster::Content;
use crate::ground::Ground;
use crate::limits;
use crate::meter::{self, Used};

/// The peer that most people use.
pub struct PgBackRest {
    program: PathBuf,
    /// Its version.
    pub version: String,
}

impl PgBackRest {
    /// Finds the program: `$HOLDFAST_PGBACKREST`, or the one that is installed.
    pub fn find() -> Result<Self> {
        let given = std::env::var_os("HOLDFAST_PGBACKREST").map(PathBuf::from);
        let program = given.unwrap_or_else(|| PathBuf::from("/usr/bin/pgbackrest"));
        let version = version(&program)
            .context("install the Debian package pgbackrest, or see scripts/newer-pgbackrest")?;
        Ok(Self { program, version })
    }

    /// One of its commands; what it keeps is in `ground`.
    pub fn command(&self, ground: &Ground, arguments: &[&str]) -> Command {
        let mut command = ground.command(&self.program);
        command
            .arg("--stanza=bench")
            .arg(format!("--config={}", ground.path(CONFIG).display()))
            .args(arguments);
        command
    }

    fn run(&self, bench: &Bench<'_>, arguments: &[&str]) -> Result<Used> {
        let mut command = self.command(bench.ground, arguments);
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGUSER", "postgres")
            .env("PGPASSWORD", bench.cluster.server.password());
        let log = bench.ground.path("pgbackrest.log");
        meter::run(command, &log, bench.cluster.server.pid())
    }

    fn configure(&self, bench: &Bench<'_>) -> Result<()> {
        // Block incrementals were behind a switch in 2.45.
        let beta = if self.version.ends_with(" 2.45") {
            "beta=y\n"
        } else {
            ""
        };
        let home = bench.ground.path(HOME);
        let text = format!(
            "[global]\nrepo1-path={home}/repository\nlog-path={home}/log\nlock-path={home}/lock\n\
             spool-path={home}/spool\nlog-level-file=off\nlog-level-console=info\n\
             process-max={processes}\ncompress-type=zst\ncompress-level={level}\nrepo1-bundle=y\n\
             repo1-block=y\nstart-fast=y\n{beta}\n[bench]\npg1-path={data}\npg1-port={port}\n\
             pg1-user=postgres\n",
            home = home.display(),
            processes = limits::PARALLEL,
            level = limits::ZSTD_LEVEL,
            data = bench.cluster.server.data_dir().display(),
            port = bench.cluster.server.port(),
        );
        fs::write(bench.ground.path(CONFIG), text).context("write pgBackRest's configuration")
    }
}

impl Engine for PgBackRest {
    fn name(&self) -> &'static str {
        "pgBackRest"
    }

    fn prepare(&mut self, bench: &Bench<'_>) -> Result<()> {
        bench.ground.folder(HOME)?;
        for folder in ["repository", "log", "lock", "spool"] {
            bench.ground.folder(&format!("{HOME}/{folder}"))?;
        }
        self.configure(bench)?;
        self.run(bench, &["stanza-create"])?;
        let push = format!(
            "{} --stanza=bench --config={} archive-push %p",
            self.program.display(),
            bench.ground.path(CONFIG).display()
        );
        bench.cluster.archive_with(&push)
    }

    fn first(&mut self, bench: &Bench<'_>) -> Result<Used> {
        self.run(bench, &["--type=full", "backup"])
    }

    fn next(&mut self, bench: &Bench<'_>) -> Result<Option<Used>> {
        self.run(bench, &["--type=incr", "backup"]).map(Some)
    }

    fn restore(&mut self, bench: &Bench<'_>) -> Result<(Used, Content)> {
        let into = bench.ground.folder(RESTORED)?;
        let into = format!("--pg1-path={}", into.display());
        let command = self.command(bench.ground, &[&into, "--archive-mode=off", "restore"]);
        let files = meter::run(command, &bench.ground.path("pgbackrest.log"), None)?;
        start_and_ask(bench, files)
    }

    fn stored(&self, bench: &Bench<'_>) -> Result<u64> {
        bench.ground.bytes(&format!("{HOME}/repository"))
    }

    fn clear(&mut self, bench: &Bench<'_>) -> Result<()> {
        bench.cluster.archive_with("true")?;
        bench.ground.clear(HOME)
    }
}

const HOME: &str = "pgbackrest";
const CONFIG: &str = "pgbackrest/pgbackrest.conf";
