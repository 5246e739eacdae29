//! pgbench: reads in its three protocols, its own transactions, and connections.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use super::Scene;
use super::target::{DIRECT, DOOR, POOLER, Target};
use crate::meter;
use crate::table::{Spread, Table};

/// One run of pgbench through one target.
#[derive(Clone, Debug, Serialize)]
struct Run {
    row: &'static str,
    target: &'static str,
    tps: f64,
    latency_ms: f64,
    /// Microseconds of the process in between, for one transaction.
    cpu_us: f64,
}

/// What pgbench does, by the name of its row.
const ROWS: &[(&str, &[&str])] = &[
    ("-S simple c=1", &["-S", "-M", "simple", "-c", "1"]),
    ("-S extended c=1", &["-S", "-M", "extended", "-c", "1"]),
    ("-S prepared c=1", &["-S", "-M", "prepared", "-c", "1"]),
    ("-S simple c=8", &["-S", "-M", "simple", "-c", "8"]),
    ("-S extended c=8", &["-S", "-M", "extended", "-c", "8"]),
    ("-S prepared c=8", &["-S", "-M", "prepared", "-c", "8"]),
    ("-S simple c=64", &["-S", "-M", "simple", "-c", "64"]),
    ("-S extended c=64", &["-S", "-M", "extended", "-c", "64"]),
    ("-S prepared c=64", &["-S", "-M", "prepared", "-c", "64"]),
    ("TPC-B c=1", &["-M", "simple", "-c", "1"]),
    ("TPC-B c=8", &["-M", "simple", "-c", "8"]),
    ("connect c=1", &["-S", "-C", "-c", "1"]),
    ("connect c=4", &["-S", "-C", "-c", "4"]),
];

pub fn run(scene: &Scene<'_>) -> Result<Value> {
    let mut runs = Vec::new();
    for (row, arguments) in ROWS {
        for repetition in 0..scene.options.repetitions {
            for target in scene.turn(repetition) {
                let run = once(scene, target, (row, arguments))
                    .with_context(|| format!("{row} through {}", target.name))?;
                runs.push(run);
            }
        }
    }
    scene.options.say(&table(&runs));
    Ok(json!(runs))
}

fn once(
    scene: &Scene<'_>,
    target: &Target,
    (row, arguments): (&'static str, &[&str]),
) -> Result<Run> {
    let before = target.cpu_s();
    let mut pgbench = scene
        .ground
        .command(&scene.ground.postgres.program("pgbench"));
    pgbench
        .args(["-n", "-j", "1", "-T", &scene.options.seconds.to_string()])
        .args(arguments)
        .arg(&target.url);
    let log = scene.ground.path("pgbench.log");
    meter::run(pgbench, &log, None)?;
    let cpu_s = target.cpu_s() - before;
    let said = std::fs::read_to_string(&log).context("read what pgbench said")?;
    let number = |begin: &str| -> Result<f64> {
        let line = said.lines().find_map(|line| line.strip_prefix(begin));
        let word = line.and_then(|rest| rest.split_whitespace().next());
        word.context("pgbench printed no figure")?
            .parse()
            .context("pgbench printed a strange figure")
    };
    let done = number("number of transactions actually processed: ")?;
    Ok(Run {
        row,
        target: target.name,
        tps: number("tps = ")?,
        latency_ms: number("latency average = ")?,
        cpu_us: cpu_s * 1e6 / done.max(1.0),
    })
}

fn table(runs: &[Run]) -> String {
    let mut table = Table::new(&[
        "pgbench",
        "through",
        "TPS",
        "of direct",
        "latency ms",
        "CPU us/transaction",
        "of PgBouncer's",
    ]);
    for (row, _) in ROWS {
        let spread = |target: &str, value: fn(&Run) -> f64| {
            let of = runs
                .iter()
                .filter(|run| run.row == *row && run.target == target);
            Spread::of(of.map(value))
        };
        let direct = spread(DIRECT, |run| run.tps).median;
        let peer = spread(POOLER, |run| run.cpu_us).median;
        for target in [DIRECT, POOLER, DOOR] {
            let tps = spread(target, |run| run.tps);
            let cpu = spread(target, |run| run.cpu_us);
            let is_between = target != DIRECT;
            let between = |text: String| if is_between { text } else { String::new() };
            table.row(vec![
                (*row).to_owned(),
                target.to_owned(),
                format!("{:.0} ({:.0}-{:.0})", tps.median, tps.min, tps.max),
                format!("{:.2}", tps.median / direct),
                format!("{:.3}", spread(target, |run| run.latency_ms).median),
                between(cpu.text()),
                between(format!("{:.2}", cpu.median / peer)),
            ]);
        }
    }
    table.text()
}
