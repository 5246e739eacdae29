//! What receiving the log costs the source, and what is lost when the source vanishes under load.

mod load;
mod receiver;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_testing::postgres::Server;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cluster;
use crate::ground::Ground;
use crate::limits;
use crate::meter;
use crate::table::{Spread, Table};
use crate::vault::Options;
use load::{Load, Loss};
use receiver::{RECEIVERS, Receiver};

/// One run under load with one receiver.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    receiver: &'static str,
    tps: f64,
    /// Processor milliseconds of the whole primary for a thousand commits.
    primary_ms: f64,
    /// Of its process that sends the log.
    sender_ms: f64,
    /// Of the receiver.
    receiver_ms: f64,
    /// How far the receiver's disk was behind, in milliseconds, whenever it was looked at.
    lag_ms: Vec<f64>,
    /// What became of the commits, when the primary was killed.
    loss: Option<Loss>,
}

/// Every receiver takes its turn on a fresh copy of the same cluster.
pub fn run(options: &Options, ground: &Ground) -> Result<Value> {
    let password = make_template(ground)?;
    let mut trials = Vec::new();
    for repetition in 0..options.repetitions.max(3) {
        let mut order: Vec<&Receiver> = RECEIVERS.iter().collect();
        if repetition % 2 == 1 {
            order.reverse();
        }
        for receiver in order {
            let trial = trial(ground, &password, receiver)
                .with_context(|| format!("measure {}", receiver.name))?;
            trials.push(trial);
        }
    }
    options.say(&table(&trials));
    Ok(json!(trials))
}

/// A cluster that is copied for every trial, because every trial destroys it.
fn make_template(ground: &Ground) -> Result<String> {
    let mut server = Server::builder(&ground.postgres)
        .data_dir(&ground.path(TEMPLATE))
        .setting("shared_buffers", "256MB")
        .setting("max_wal_size", "4GB")
        .setting("autovacuum", "off")
        .start()?;
    cluster::pgbench(ground, &server.url(), &["-i", "-q", "-s", "20"])?;
    cluster::ask(&server.url(), load::TABLE)?;
    let password = server.password().to_owned();
    server.stop_fast()?;
    Ok(password)
}

fn trial(ground: &Ground, password: &str, receiver: &Receiver) -> Result<Trial> {
    for name in [SOURCE, receiver::HOME, "restored"] {
        ground.clear(name)?;
    }
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([ground.path(TEMPLATE), ground.path(SOURCE)])
        .status()?;
    ensure!(copied.success(), "copy the cluster: {copied}");
    let mut server = Server::builder(&ground.postgres)
        .existing(&ground.path(SOURCE), password)
        .log_file(&ground.path("wal-source.log"))
        .start()?;
    let receiving = receiver.start(ground, &server)?;
    cluster::ask(&server.url(), "CHECKPOINT")?;
    let (primary, sender) = (server.pid().context("no primary")?, sender(&server)?);
    let before = (
        meter::tree_cpu_s(primary)?,
        sender.map_or(0.0, |pid| meter::cpu_s(pid).unwrap_or(0.0)),
        receiving.cpu_s(),
    );
    let load = Load::start(ground, &server)?;
    let lag_ms = watch_lag(&server)?;
    let after = (
        meter::tree_cpu_s(primary)? - before.0,
        sender.map_or(0.0, |pid| meter::cpu_s(pid).unwrap_or(0.0)) - before.1,
        receiving.cpu_s() - before.2,
    );
    let commits = load.commits_so_far()?;
    server.kill_9()?;
    ground.clear(SOURCE)?;
    let acknowledged = load.finish()?;
    let kept = receiving.recover(ground, &server, password)?;
    let per_thousand = |seconds: f64| seconds * 1e6 / commits.max(1.0);
    Ok(Trial {
        receiver: receiver.name,
        tps: acknowledged.tps(),
        primary_ms: per_thousand(after.0),
        sender_ms: per_thousand(after.1),
        receiver_ms: per_thousand(after.2),
        lag_ms,
        loss: kept.map(|kept| acknowledged.lost(&kept)),
    })
}

/// The process that sends the log, if one does.
fn sender(server: &Server) -> Result<Option<u32>> {
    let pid = cluster::ask(
        &server.url(),
        "SELECT pid FROM pg_stat_replication ORDER BY backend_start LIMIT 1",
    )?;
    Ok(pid.parse().ok())
}

/// Lets the load run, and looks at how far behind the receiver's disk is.
fn watch_lag(server: &Server) -> Result<Vec<f64>> {
    let began = std::time::Instant::now();
    let mut lags = Vec::new();
    while began.elapsed() < limits::LOAD {
        std::thread::sleep(LOOK_EVERY);
        let lag = cluster::ask(
            &server.url(),
            "SELECT extract(epoch FROM max(coalesce(flush_lag, '0'))) * 1000 FROM pg_stat_replication",
        )?;
        lags.extend(lag.parse::<f64>());
    }
    Ok(lags)
}

fn table(trials: &[Trial]) -> String {
    let mut table = Table::new(&[
        "receiver",
        "TPS",
        "of none",
        "primary CPU ms/1000",
        "sender",
        "receiver",
        "flush lag ms",
        "acknowledged",
        "lost",
        "lost s",
    ]);
    let column = |name: &str, value: fn(&Trial) -> f64| {
        let of = trials.iter().filter(|trial| trial.receiver == name);
        Spread::of(of.map(value))
    };
    let none = column(receiver::NONE, |trial| trial.tps).median;
    for receiver in RECEIVERS {
        let of = || {
            trials
                .iter()
                .filter(|trial| trial.receiver == receiver.name)
        };
        let tps = column(receiver.name, |trial| trial.tps);
        let milliseconds = |value| format!("{:.1}", column(receiver.name, value).median);
        let lag = Spread::of(of().flat_map(|trial| trial.lag_ms.iter().copied()));
        let losses: Vec<&Loss> = of().filter_map(|trial| trial.loss.as_ref()).collect();
        let sum = |value: fn(&Loss) -> u64| losses.iter().map(|loss| value(loss)).sum::<u64>();
        let longest = losses.iter().map(|loss| loss.seconds).fold(0.0, f64::max);
        let or_none = |text: String| {
            if losses.is_empty() {
                String::new()
            } else {
                text
            }
        };
        table.row(vec![
            receiver.name.to_owned(),
            format!("{:.0} ({:.0}-{:.0})", tps.median, tps.min, tps.max),
            format!("{:.2}", tps.median / none),
            milliseconds(|trial: &Trial| trial.primary_ms),
            milliseconds(|trial: &Trial| trial.sender_ms),
            milliseconds(|trial: &Trial| trial.receiver_ms),
            or_none(format!("{:.1}, at most {:.1}", lag.median, lag.max)),
            or_none(sum(|loss| loss.acknowledged).to_string()),
            or_none(sum(|loss| loss.lost).to_string()),
            or_none(format!("{longest:.3}")),
        ]);
    }
    table.text()
}

const TEMPLATE: &str = "wal-template";
const SOURCE: &str = "wal-source";
const LOOK_EVERY: Duration = Duration::from_millis(250);
