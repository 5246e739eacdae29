//! The source that is measured: its data, its changes, and what its content adds up to.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use holdfast_testing::postgres::Server;

use crate::ground::{Ground, files};

/// A server with tables of a wanted size.
pub struct Cluster {
    /// The server.
    pub server: Server,
}

/// What the tables hold, for comparing a restore with its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Rows and sums, as text.
    pub sums: String,
}

impl Cluster {
    /// Makes the server and fills it with `gigabytes`: three fifths `pgbench`, two fifths orders.
    pub fn make(ground: &Ground, gigabytes: f64) -> Result<Self> {
        let server = Server::builder(&ground.postgres)
            .data_dir(&ground.path("source"))
            .log_file(&ground.path("source.log"))
            .setting("shared_buffers", "512MB")
            .setting("max_wal_size", "8GB")
            .setting("checkpoint_timeout", "1h")
            .setting("autovacuum", "off")
            .setting("archive_mode", "on")
            .setting("archive_command", "true")
            .start()?;
        let cluster = Self { server };
        // The load itself is not measured, and a base backup reads it from the cache either way.
        cluster.execute("ALTER SYSTEM SET fsync = off")?;
        cluster.execute("SELECT pg_reload_conf()")?;
        cluster.fill(ground, gigabytes)?;
        cluster.execute("ALTER SYSTEM RESET fsync")?;
        cluster.execute("SELECT pg_reload_conf()")?;
        cluster.settle()?;
        Ok(cluster)
    }

    /// Starts a server again on what [`Cluster::make`] has made and somebody has stopped.
    pub fn open(ground: &Ground, password: &str) -> Result<Self> {
        let server = Server::builder(&ground.postgres)
            .existing(&ground.path("source"), password)
            .log_file(&ground.path("source.log"))
            .start_limit(crate::limits::ANSWER)
            .start()?;
        Ok(Self { server })
    }

    fn fill(&self, ground: &Ground, gigabytes: f64) -> Result<()> {
        let scale = (gigabytes * PGBENCH_SHARE * PGBENCH_SCALE_PER_GB)
            .ceil()
            .max(1.0);
        let load = [
            "-i",
            "-q",
            "-I",
            "dtGvp",
            "-F",
            "90",
            "-s",
            &scale.to_string(),
        ];
        pgbench(ground, &self.server.url(), &load)?;
        let rows = (gigabytes * (1.0 - PGBENCH_SHARE) * ORDERS_PER_GB).ceil();
        self.execute(&format!(
            "CREATE TABLE orders WITH (fillfactor = 90) AS
             SELECT gen_random_uuid() AS id,
                    timestamptz '2026-01-01' + n * interval '1.7 s' AS placed,
                    (ARRAY['open','paid','sent','done'])[1 + n % 4] AS state,
                    round((random() * 900)::numeric, 2) AS total,
                    'customer ' || md5((n % 50000)::text) AS customer,
                    jsonb_build_object('lines', n % 9, 'note', left(md5(n::text), 12),
                                       'city', (ARRAY['Lund','Porto','Graz','Brno'])[1 + n % 4]) AS more
             FROM generate_series(1, {rows}) AS n"
        ))?;
        self.execute("ALTER TABLE orders ADD PRIMARY KEY (id)")?;
        self.execute("VACUUM (FREEZE, ANALYZE)")
    }

    /// Writes everything down, so that what follows does not pay for what came before.
    pub fn settle(&self) -> Result<()> {
        self.execute("CHECKPOINT")?;
        let status = std::process::Command::new("sync")
            .status()
            .context("run sync")?;
        ensure!(status.success(), "sync: {status}");
        Ok(())
    }

    /// Sets what archives the log, and waits for nothing.
    pub fn archive_with(&self, command: &str) -> Result<()> {
        let text = command.replace('\'', "''");
        self.execute(&format!("ALTER SYSTEM SET archive_command = '{text}'"))?;
        self.execute("SELECT pg_reload_conf()")
    }

    /// Changes one row on a share of the pages of `pgbench_accounts`, chosen at random.
    ///
    /// Returns how many pages of tables and indexes have really changed since, by their own headers.
    pub fn change(&self, share: f64) -> Result<u64> {
        let before = self.ask("SELECT pg_current_wal_insert_lsn()")?;
        self.execute(&format!(
            "WITH facts AS (
                 SELECT relpages AS pages, ceil(reltuples / relpages)::int AS per_page
                 FROM pg_class WHERE relname = 'pgbench_accounts'),
             chosen AS (
                 SELECT 1 + (page * per_page) AS aid
                 FROM facts, generate_series(0, pages - 1) AS page
                 ORDER BY random() LIMIT (SELECT (pages * {share})::int FROM facts))
             UPDATE pgbench_accounts SET abalance = abalance + 1
             WHERE aid IN (SELECT aid FROM chosen)"
        ))?;
        self.settle()?;
        changed_pages(&self.server.data_dir().join("base"), lsn(&before)?)
    }

    /// Adds up what the tables hold.
    pub fn content(&self) -> Result<Content> {
        content(&self.server.url())
    }

    /// Runs statements.
    pub fn execute(&self, sql: &str) -> Result<()> {
        ask(&self.server.url(), sql).map(|_| ())
    }

    /// Asks for one value.
    pub fn ask(&self, sql: &str) -> Result<String> {
        ask(&self.server.url(), sql)
    }
}

/// Runs pgbench, and returns what it has said.
pub fn pgbench(ground: &Ground, url: &str, arguments: &[&str]) -> Result<String> {
    let mut pgbench = ground.command(&ground.postgres.program("pgbench"));
    pgbench.args(arguments).arg(url);
    let log = ground.path("pgbench.log");
    crate::meter::run(pgbench, &log, None)?;
    std::fs::read_to_string(&log).context("read what pgbench said")
}

/// Adds up what the tables of any server hold.
pub fn content(url: &str) -> Result<Content> {
    let sums = ask(
        url,
        "SELECT concat_ws(' ',
            (SELECT count(*) FROM pgbench_accounts), (SELECT sum(abalance) FROM pgbench_accounts),
            (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(tbalance) FROM pgbench_tellers),
            (SELECT count(*) FROM pgbench_history), (SELECT coalesce(sum(delta), 0) FROM pgbench_history),
            (SELECT count(*) FROM orders), (SELECT sum(total) FROM orders),
            (SELECT sum(hashtext(id::text)::bigint) FROM orders))",
    )?;
    Ok(Content { sums })
}

/// Runs SQL and returns the first value of the last row, or nothing.
pub fn ask(url: &str, sql: &str) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
            .await
            .context("connect")?;
        let connection = tokio::spawn(connection);
        let messages = client
            .simple_query(sql)
            .await
            .with_context(|| format!("ask: {}", sql.chars().take(60).collect::<String>()))?;
        drop(client);
        let _ = connection.await;
        let value = messages.iter().rev().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(value.unwrap_or_default())
    })
}

/// Counts pages whose header names a position after `since`.
fn changed_pages(base: &Path, since: u64) -> Result<u64> {
    let mut changed = 0;
    for file in files(base)? {
        let bytes = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        for page in bytes.chunks_exact(PAGE_BYTES) {
            // SOURCE: PostgreSQL 15, bufpage.h: pd_lsn is two 32-bit words, the higher one first.
            let word = |at: usize| -> Option<u64> {
                let bytes = page.get(at..)?.first_chunk::<4>()?;
                Some(u64::from(u32::from_le_bytes(*bytes)))
            };
            let at = word(0)
                .zip(word(4))
                .map_or(0, |(high, low)| high << 32 | low);
            changed += u64::from(at > since);
        }
    }
    Ok(changed)
}

fn lsn(text: &str) -> Result<u64> {
    let parts = text.split_once('/').and_then(|(high, low)| {
        let high = u64::from_str_radix(high, 16).ok()?;
        Some(high << 32 | u64::from_str_radix(low, 16).ok()?)
    });
    parts.ok_or_else(|| anyhow!("no position: {text}"))
}

const PAGE_BYTES: usize = 8192;
/// `pgbench` pages compress far better than real ones, so they are not all of it.
const PGBENCH_SHARE: f64 = 0.6;
/// Its tables and indexes at fillfactor 90, by trial.
const PGBENCH_SCALE_PER_GB: f64 = 59.0;
/// Rows of orders, with their index, by trial.
const ORDERS_PER_GB: f64 = 4_250_000.0;
