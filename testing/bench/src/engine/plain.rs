//! PostgreSQL's own `pg_basebackup`, restored by a copy with several threads.

use anyhow::Result;

use super::{Bench, Engine, RESTORED, start_and_ask};
use crate::cluster::Content;
use crate::meter::{self, Used};

/// The tools that come with PostgreSQL.
#[derive(Default)]
pub struct Plain {
    copies: u32,
    /// Bytes of all copies so far, also of those that were replaced.
    written_bytes: u64,
}

impl Plain {
    fn newest(&self) -> String {
        format!("{HOME}/{}", self.copies)
    }
}

impl Engine for Plain {
    fn name(&self) -> &'static str {
        "pg_basebackup"
    }

    fn prepare(&mut self, bench: &Bench<'_>) -> Result<()> {
        *self = Self::default();
        bench.ground.folder(HOME)?;
        Ok(())
    }

    fn first(&mut self, bench: &Bench<'_>) -> Result<Used> {
        self.copies += 1;
        let mut command = bench
            .ground
            .command(&bench.ground.postgres.program("pg_basebackup"));
        command
            .args([
                "-h",
                "127.0.0.1",
                "-U",
                "postgres",
                "-c",
                "fast",
                "-X",
                "stream",
            ])
            .args(["-p", &bench.cluster.server.port().to_string(), "-D"])
            .arg(bench.ground.path(&self.newest()))
            .env("PGPASSWORD", bench.cluster.server.password());
        let log = bench.ground.path("plain.log");
        let used = meter::run(command, &log, bench.cluster.server.pid())?;
        self.written_bytes += bench.ground.bytes(&self.newest())?;
        Ok(used)
    }

    /// Before PostgreSQL 17 it has no increments: it is a whole copy again, which replaces the last.
    fn next(&mut self, bench: &Bench<'_>) -> Result<Option<Used>> {
        let before = self.newest();
        let used = self.first(bench)?;
        bench.ground.clear(&before)?;
        Ok(Some(used))
    }

    fn restore(&mut self, bench: &Bench<'_>) -> Result<(Used, Content)> {
        let mut command = bench.ground.child("copy");
        command
            .arg(bench.ground.path(&self.newest()))
            .arg(bench.ground.path(RESTORED));
        let files = meter::run(command, &bench.ground.path("plain.log"), None)?;
        start_and_ask(bench, files)
    }

    fn stored(&self, _bench: &Bench<'_>) -> Result<u64> {
        Ok(self.written_bytes)
    }

    fn clear(&mut self, bench: &Bench<'_>) -> Result<()> {
        bench.ground.clear(HOME)
    }
}

const HOME: &str = "plain";
