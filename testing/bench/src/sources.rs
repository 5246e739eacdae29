//! What many sources in one vault take: processor time, memory and threads, idle and with traffic.
//!
//! All sources are the same small cluster under different names: each has a slot, a stream, a spool
//! and restore points of its own, and the vault cannot know that the bytes are the same.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use holdfast_testing::postgres::Server;
use serde::Serialize;
use serde_json::{Value, json};

use crate::child::ALL_DRILLED;
use crate::cluster;
use crate::ground::Ground;
use crate::limits;
use crate::machine::as_f64;
use crate::meter::{self, Measured};
use crate::table::Table;
use crate::vault::Options;

/// What was seen in one stretch of time.
#[derive(Clone, Debug, Serialize)]
struct Stretch {
    sources: u32,
    what: &'static str,
    /// Bytes of log a second, for each source.
    log_bytes_s: f64,
    /// Of one core, by the whole vault.
    cpu_share: f64,
    resident_bytes: u64,
    threads: u64,
    /// The longest time that a source's log was behind, as the server saw it.
    lag_ms_max: f64,
}

/// Measures one source, and then many.
pub fn run(options: &Options, ground: &Ground) -> Result<Value> {
    let mut stretches = Vec::new();
    for sources in [1, options.sources.max(2)] {
        stretches.extend(measure(ground, sources).with_context(|| format!("{sources} sources"))?);
    }
    options.say(&table(&stretches));
    Ok(json!(stretches))
}

fn measure(ground: &Ground, sources: u32) -> Result<Vec<Stretch>> {
    for name in [SOURCE, HOME] {
        ground.clear(name)?;
    }
    let mut server = Server::builder(&ground.postgres)
        .data_dir(&ground.path(SOURCE))
        .setting("max_wal_senders", &(sources * 2 + 10).to_string())
        .setting("max_replication_slots", &(sources + 5).to_string())
        .setting("autovacuum", "off")
        .start()?;
    cluster::pgbench(ground, &server.url(), &["-i", "-q", "-s", "1"])?;
    ground.folder(HOME)?;
    let mut command = ground.child("capture");
    command
        .args([ground.path(STATE), ground.path(REPOSITORY)])
        .env("SOURCE_URL", server.url())
        .env("SOURCE_COUNT", sources.to_string());
    let mut vault = Measured::start(command, &ground.path("sources.log"), None)?;
    vault.line(ALL_DRILLED)?;
    let idle = stretch((sources, "idle"), &server, &vault, || {
        // WAIT: the time that is measured.
        std::thread::sleep(limits::STRETCH);
        Ok(())
    })?;
    let (seconds, rate) = (
        limits::STRETCH.as_secs().to_string(),
        limits::RATE.to_string(),
    );
    let busy = stretch((sources, "traffic"), &server, &vault, || {
        let load = ["-n", "-c", "2", "-R", &rate, "-T", &seconds];
        cluster::pgbench(ground, &server.url(), &load).map(drop)
    })?;
    vault.terminate()?;
    server.stop_fast()?;
    Ok(vec![idle, busy])
}

fn stretch(
    (sources, what): (u32, &'static str),
    server: &Server,
    vault: &Measured,
    work: impl FnOnce() -> Result<()> + Send,
) -> Result<Stretch> {
    let log_end = || -> Result<f64> {
        let text = cluster::ask(&server.url(), "SELECT pg_current_wal_lsn() - '0/0'")?;
        text.parse().context("read the end of the log")
    };
    let before = (meter::cpu_s(vault.pid())?, log_end()?, Instant::now());
    let lag_ms_max = std::thread::scope(|scope| -> Result<f64> {
        let working = scope.spawn(work);
        let mut longest = 0.0_f64;
        while !working.is_finished() {
            let lag = cluster::ask(&server.url(), LAG)?;
            longest = longest.max(lag.parse().unwrap_or(0.0));
            std::thread::sleep(LOOK_EVERY);
        }
        match working.join() {
            Ok(done) => done.map(|()| longest),
            Err(_) => anyhow::bail!("the work ended by a defect"),
        }
    })?;
    let seconds = before.2.elapsed().as_secs_f64();
    Ok(Stretch {
        sources,
        what,
        log_bytes_s: (log_end()? - before.1) / seconds,
        cpu_share: (meter::cpu_s(vault.pid())? - before.0) / seconds,
        resident_bytes: meter::memory(vault.pid(), "VmRSS:"),
        threads: meter::memory(vault.pid(), "Threads:") / 1024,
        lag_ms_max,
    })
}

fn table(stretches: &[Stretch]) -> String {
    let mut table = Table::new(&[
        "sources",
        "",
        "log KB/s each",
        "CPU % of a core",
        "each",
        "resident MB",
        "each more MB",
        "threads",
        "flush lag ms, at most",
    ]);
    for one in stretches {
        let alone = stretches
            .iter()
            .find(|other| other.sources == 1 && other.what == one.what);
        let more = alone
            .filter(|alone| alone.sources < one.sources)
            .map(|alone| {
                let bytes = as_f64(one.resident_bytes) - as_f64(alone.resident_bytes);
                format!(
                    "{:.2}",
                    bytes / 1e6 / f64::from(one.sources - alone.sources)
                )
            });
        table.row(vec![
            one.sources.to_string(),
            one.what.to_owned(),
            format!("{:.0}", one.log_bytes_s / 1e3),
            format!("{:.1}", one.cpu_share * 100.0),
            format!("{:.2}", one.cpu_share * 100.0 / f64::from(one.sources)),
            format!("{:.0}", as_f64(one.resident_bytes) / 1e6),
            more.unwrap_or_default(),
            one.threads.to_string(),
            format!("{:.0}", one.lag_ms_max),
        ]);
    }
    table.text()
}

const LAG: &str =
    "SELECT coalesce(extract(epoch FROM max(flush_lag)) * 1000, 0) FROM pg_stat_replication";
const SOURCE: &str = "sources-source";
const HOME: &str = "sources";
const STATE: &str = "sources/state";
const REPOSITORY: &str = "sources/repository";
const LOOK_EVERY: Duration = Duration::from_secs(1);
