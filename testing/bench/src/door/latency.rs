//! What one read and one gated write take longer, by one client that waits for each.

use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls, Statement};

use super::Scene;
use super::target::{DIRECT, DOOR, POOLER, Target};
use crate::table::Table;

/// Every answer's time of one kind through one target, in microseconds, ascending.
#[derive(Clone, Debug, Serialize)]
struct Times {
    kind: &'static str,
    target: &'static str,
    #[serde(skip)]
    all: Vec<f64>,
    p50_us: f64,
    p99_us: f64,
}

const READ: &str = "read";
const WRITE: &str = "gated write";
/// So many in one turn of a target.
const TURN: u32 = 500;
const TURNS: u32 = 4;

pub fn run(scene: &Scene<'_>) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let times = runtime.block_on(measure(scene))?;
    scene.options.say(&table(&times));
    Ok(json!(times))
}

struct Asking {
    target: &'static str,
    client: Client,
    read: Statement,
    write: Statement,
}

async fn measure(scene: &Scene<'_>) -> Result<Vec<Times>> {
    let mut asking = Vec::new();
    for target in scene.targets {
        asking.push(connect(target).await?);
    }
    let mut times: Vec<Times> = Vec::new();
    for repetition in 0..scene.options.repetitions * TURNS {
        let mut order: Vec<&Asking> = asking.iter().collect();
        if repetition % 2 == 1 {
            order.reverse();
        }
        for one in order {
            for kind in [READ, WRITE] {
                let taken = turn(one, kind).await?;
                // The first turn fills caches on both sides.
                if repetition > 0 {
                    keep(&mut times, (kind, one.target), taken);
                }
            }
        }
    }
    for one in &mut times {
        one.all.sort_by(f64::total_cmp);
        one.p50_us = one.at(50);
        one.p99_us = one.at(99);
    }
    Ok(times)
}

async fn connect(target: &Target) -> Result<Asking> {
    let (client, connection) = tokio_postgres::connect(&target.url, NoTls)
        .await
        .with_context(|| format!("connect through {}", target.name))?;
    tokio::spawn(connection);
    let read = client
        .prepare("SELECT abalance FROM pgbench_accounts WHERE aid = $1")
        .await?;
    let write = client
        .prepare("UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = $1")
        .await?;
    Ok(Asking {
        target: target.name,
        client,
        read,
        write,
    })
}

async fn turn(asking: &Asking, kind: &str) -> Result<Vec<f64>> {
    let mut taken = Vec::new();
    for number in 0..TURN {
        let account = i32::try_from(number * 97 % 90_000)? + 1;
        let begun = Instant::now();
        if kind == READ {
            asking.client.query(&asking.read, &[&account]).await?;
        } else {
            asking.client.execute(&asking.write, &[&account]).await?;
        }
        taken.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(taken)
}

fn keep(times: &mut Vec<Times>, (kind, target): (&'static str, &'static str), taken: Vec<f64>) {
    let known = times
        .iter_mut()
        .find(|one| one.kind == kind && one.target == target);
    match known {
        Some(one) => one.all.extend(taken),
        None => times.push(Times {
            kind,
            target,
            all: taken,
            p50_us: 0.0,
            p99_us: 0.0,
        }),
    }
}

impl Times {
    fn at(&self, percent: usize) -> f64 {
        let index = self.all.len() * percent / 100;
        self.all.get(index).copied().unwrap_or(0.0)
    }
}

fn table(times: &[Times]) -> String {
    let mut table = Table::new(&[
        "one client",
        "through",
        "p50 us",
        "added",
        "p99 us",
        "added",
    ]);
    for kind in [READ, WRITE] {
        let of = |target: &str| {
            let mut found = times.iter();
            found.find(|one| one.kind == kind && one.target == target)
        };
        let direct = of(DIRECT);
        for target in [DIRECT, POOLER, DOOR] {
            let (Some(one), Some(direct)) = (of(target), direct) else {
                continue;
            };
            table.row(vec![
                kind.to_owned(),
                target.to_owned(),
                format!("{:.0}", one.p50_us),
                format!("{:.0}", one.p50_us - direct.p50_us),
                format!("{:.0}", one.p99_us),
                format!("{:.0}", one.p99_us - direct.p99_us),
            ]);
        }
    }
    table.text()
}
