//! COPY of many megabytes, out and in.

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::Scene;
use super::target::{DIRECT, DOOR, POOLER, Target};
use crate::cluster;
use crate::meter;
use crate::table::{Spread, Table};

/// One copy through one target.
#[derive(Clone, Debug, Serialize)]
struct Copied {
    way: &'static str,
    target: &'static str,
    bytes: f64,
    wall_s: f64,
    /// Of the process in between.
    cpu_s: f64,
}

const OUT: &str = "COPY out";
const IN: &str = "COPY in";
/// Bytes of a row as text, so that a number of rows makes the megabytes that were asked for.
const ROW_BYTES: u64 = 101;

pub fn run(scene: &Scene<'_>) -> Result<Value> {
    let rows = u64::from(scene.options.copy_mb) * 1_000_000 / ROW_BYTES;
    let url = scene.server.url();
    cluster::ask(
        &url,
        &format!(
            "CREATE UNLOGGED TABLE copied AS SELECT n, repeat('x', 90) AS text
             FROM generate_series({}, {}) n",
            1_000_000_000_u64,
            999_999_999 + rows
        ),
    )?;
    cluster::ask(&url, "CREATE UNLOGGED TABLE taken (n bigint, text text)")?;
    let file = scene.ground.folder("copy")?.join("rows");
    let mut copied = Vec::new();
    for repetition in 0..scene.options.repetitions.min(2) {
        for target in scene.turn(repetition) {
            let into = format!("\\copy copied to '{}'", file.display());
            let out = once(scene, target, (OUT, &into))?;
            let bytes = std::fs::metadata(&file).context("look at the copy")?.len();
            let from = format!("\\copy taken from '{}'", file.display());
            let back = once(scene, target, (IN, &from))?;
            let taken = cluster::ask(&url, "SELECT count(*) FROM taken")?;
            ensure!(taken == rows.to_string(), "{taken} of {rows} rows came");
            cluster::ask(&url, "TRUNCATE taken")?;
            for mut one in [out, back] {
                one.bytes = crate::machine::as_f64(bytes);
                copied.push(one);
            }
        }
    }
    scene.options.say(&table(&copied));
    Ok(json!(copied))
}

fn once(scene: &Scene<'_>, target: &Target, (way, text): (&'static str, &str)) -> Result<Copied> {
    let before = target.cpu_s();
    let mut psql = scene.ground.command(&scene.ground.postgres.program("psql"));
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", text, &target.url]);
    let used = meter::run(psql, &scene.ground.path("psql.log"), None)
        .with_context(|| format!("{way} through {}", target.name))?;
    Ok(Copied {
        way,
        target: target.name,
        bytes: 0.0,
        wall_s: used.wall_s,
        cpu_s: target.cpu_s() - before,
    })
}

fn table(copied: &[Copied]) -> String {
    let mut table = Table::new(&["work", "through", "wall s", "of direct", "CPU s", "ns/byte"]);
    for way in [OUT, IN] {
        let spread = |target: &str, value: fn(&Copied) -> f64| {
            let of = copied
                .iter()
                .filter(|one| one.way == way && one.target == target);
            Spread::of(of.map(value))
        };
        let direct = spread(DIRECT, |one| one.wall_s).median;
        for target in [DIRECT, POOLER, DOOR] {
            let wall = spread(target, |one| one.wall_s);
            let is_between = target != DIRECT;
            let between = |text: String| if is_between { text } else { String::new() };
            table.row(vec![
                way.to_owned(),
                target.to_owned(),
                wall.text(),
                format!("{:.2}", wall.median / direct),
                between(spread(target, |one| one.cpu_s).text()),
                between(format!(
                    "{:.2}",
                    spread(target, |one| one.cpu_s * 1e9 / one.bytes).median
                )),
            ]);
        }
    }
    table.text()
}
