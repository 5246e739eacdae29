//! First backup, what follows after changes, and a restore: the vault beside its peers.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::engine::{Bench, Engine, Holdfast, PgBackRest, Plain};
use crate::ground::{Ground, tree_bytes};
use crate::limits;
use crate::machine::{self, Rates, as_f64};
use crate::meter::Used;
use crate::table::{Sample, Spread, Table, names, of};
use crate::vault::Options;

const FIRST: &str = "first backup";
const CHANGES: [(&str, f64); 2] = [("1 % of pages", 0.01), ("10 % of pages", 0.10)];
const PAGE_BYTES: f64 = 8192.0;
const RESTORE: &str = "restore";

/// Makes the source, lets every engine do everything, and prints the table.
pub fn run(options: &Options, ground: &Ground) -> Result<Value> {
    let pgbackrest = PgBackRest::find()?;
    options.say(&format!("peers: {}, pg_basebackup", pgbackrest.version));
    let cluster = Cluster::make(ground, options.scale)?;
    let source_bytes = tree_bytes(&cluster.server.data_dir().join("base"))?;
    machine::touch_memory(source_bytes);
    let rates = machine::rates(cluster.server.data_dir(), &ground.path(""))?;
    options.say(&rates_text(source_bytes, &rates));
    let bench = Bench {
        ground,
        cluster: &cluster,
    };
    let mut holdfast = Holdfast::default();
    let (mut pgbackrest, mut plain) = (pgbackrest, Plain::default());
    let mut found = Found::default();
    for repetition in 0..options.repetitions {
        let mut engines: [&mut dyn Engine; 3] = [&mut holdfast, &mut pgbackrest, &mut plain];
        if repetition % 2 == 1 {
            engines.reverse();
        }
        repeat(&bench, &mut engines, &mut found)?;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let changed = found.changed.clone();
    let limit = |row: &str| {
        let pages = changed
            .iter()
            .find(|(of, _)| *of == row)
            .map(|(_, pages)| *pages);
        match (row, pages) {
            (RESTORE, _) => rates.restore_limit_s(as_f64(source_bytes), cores),
            (_, None) => rates.backup_limit_s(as_f64(source_bytes), cores),
            (_, Some(pages)) => rates.backup_limit_s(as_f64(pages) * PAGE_BYTES, cores),
        }
    };
    options.say(&table(&found.samples, &limit));
    options.say(&ratios(&found.samples));
    for (row, pages) in &found.changed {
        options.say(&format!(
            "{row} of pgbench_accounts: {pages} pages of all files really changed"
        ));
    }
    if std::env::var_os("HOLDFAST_BENCH_STAGES").is_some() {
        options.say(&holdfast.stages.join("\n"));
    }
    Ok(
        json!({"source_bytes": source_bytes, "rates": rates, "samples": found.samples, "changed": found.changed}),
    )
}

/// What was measured.
#[derive(Default)]
struct Found {
    samples: Vec<Sample>,
    /// For each change of the source, how many pages it has really changed.
    changed: Vec<(&'static str, u64)>,
}

/// One repetition: each step is taken by all engines before the next one.
fn repeat(bench: &Bench<'_>, engines: &mut [&mut dyn Engine], found: &mut Found) -> Result<()> {
    let Found { samples, changed } = found;
    for engine in engines.iter_mut() {
        engine.prepare(bench)?;
        bench.cluster.settle()?;
        let used = engine.first(bench)?;
        let stored = engine.stored(bench)?;
        samples.push(sample(FIRST, engine.name(), used, stored));
    }
    for (row, share) in CHANGES {
        changed.push((row, bench.cluster.change(share)?));
        for engine in engines.iter_mut() {
            bench.cluster.settle()?;
            let before = engine.stored(bench)?;
            if let Some(used) = engine.next(bench)? {
                let stored = engine.stored(bench)?.saturating_sub(before);
                samples.push(sample(row, engine.name(), used, stored));
            }
        }
    }
    let content = bench.cluster.content()?;
    for engine in engines.iter_mut() {
        bench.cluster.settle()?;
        std::thread::sleep(limits::QUIET);
        let (used, restored) = engine.restore(bench)?;
        ensure!(
            restored == content,
            "{} has restored something else: {} instead of {}",
            engine.name(),
            restored.sums,
            content.sums
        );
        samples.push(sample(RESTORE, engine.name(), used, 0));
    }
    for engine in engines.iter_mut() {
        engine.clear(bench)?;
    }
    Ok(())
}

fn sample(row: &str, engine: &str, used: Used, stored_bytes: u64) -> Sample {
    Sample {
        row: row.to_owned(),
        engine: engine.to_owned(),
        used,
        stored_bytes,
    }
}

fn rates_text(source_bytes: u64, rates: &Rates) -> String {
    let megabytes = |rate: f64| format!("{:.0} MB/s", rate / 1e6);
    format!(
        "source: {:.2} GB; one core: read {}, SHA-256 {}, zstd -{} {} ({:.2}x), unzstd {}, write {}, \
         write durably {}\n",
        as_f64(source_bytes) / 1e9,
        megabytes(rates.read),
        megabytes(rates.sha256),
        limits::ZSTD_LEVEL,
        megabytes(rates.zstd),
        rates.ratio,
        megabytes(rates.unzstd),
        megabytes(rates.write),
        megabytes(rates.write_durably),
    )
}

fn table(samples: &[Sample], limit: &dyn Fn(&str) -> f64) -> String {
    let mut table = Table::new(&[
        "work",
        "engine",
        "wall s",
        "CPU s",
        "server CPU s",
        "stored MB",
        "peak MB",
        "x limit",
    ]);
    for row in names(samples, |sample| &sample.row) {
        for engine in names(samples, |sample| &sample.engine) {
            if of(samples, row, engine).next().is_none() {
                continue;
            }
            let column =
                |value: fn(&Sample) -> f64| Spread::of(of(samples, row, engine).map(value));
            let wall = column(|sample| sample.used.wall_s);
            table.row(vec![
                row.to_owned(),
                engine.to_owned(),
                wall.text(),
                column(|sample| sample.used.cpu_s).text(),
                column(|sample| sample.used.server_cpu_s).text(),
                format!(
                    "{:.1}",
                    column(|sample| as_f64(sample.stored_bytes) / 1e6).median
                ),
                format!(
                    "{:.0}",
                    column(|sample| as_f64(sample.used.peak_bytes) / 1e6).max
                ),
                format!("{:.2}", wall.median / limit(row)),
            ]);
        }
    }
    table.text()
}

/// How the vault stands to each peer: below 1 it needs less.
fn ratios(samples: &[Sample]) -> String {
    let mut table = Table::new(&["work", "holdfast /", "wall", "CPU with server", "stored"]);
    let median = |row, engine, value: fn(&Sample) -> f64| {
        Spread::of(of(samples, row, engine).map(value)).median
    };
    for row in names(samples, |sample| &sample.row) {
        for peer in names(samples, |sample| &sample.engine) {
            let ratio = |value| median(row, "holdfast", value) / median(row, peer, value);
            if peer == "holdfast" || of(samples, row, "holdfast").next().is_none() {
                continue;
            }
            table.row(vec![
                row.to_owned(),
                peer.to_owned(),
                format!("{:.2}", ratio(|sample| sample.used.wall_s)),
                format!(
                    "{:.2}",
                    ratio(|sample| sample.used.cpu_s + sample.used.server_cpu_s)
                ),
                match row {
                    RESTORE => String::new(),
                    _ => format!("{:.2}", ratio(|sample| as_f64(sample.stored_bytes))),
                },
            ]);
        }
    }
    let peak = samples
        .iter()
        .filter(|sample| sample.engine == "holdfast")
        .map(|sample| sample.used.peak_bytes)
        .max();
    let peak = peak.unwrap_or(0);
    let verdict = if peak < limits::MEMORY_BAR_BYTES {
        "below"
    } else {
        "ABOVE"
    };
    format!(
        "{}\nholdfast's peak memory: {:.0} MB, {verdict} the bar of {:.0} MB",
        table.text(),
        as_f64(peak) / 1e6,
        as_f64(limits::MEMORY_BAR_BYTES) / 1e6
    )
}
