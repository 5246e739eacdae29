//! Many clones of one database at once: until all take writes, and what they occupy.

use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use serde_json::{Value, json};

use super::desk::{Desk, text};
use super::ended::{end_all, naming};
use super::stock::{self, Repository, Stock};
use super::{Scene, loss, write};
use crate::machine::as_f64;
use crate::meter;
use crate::table::{Spread, Table};

/// What became of all of them.
#[derive(Clone, Debug, Serialize)]
struct Opened {
    size: String,
    form: String,
    clones: u32,
    /// Seconds until each has committed a first write.
    seconds: Vec<f64>,
    /// Bytes that they take of the disk together.
    disk_bytes: u64,
    /// Bytes of memory of all their processes, with what they share counted once.
    memory_bytes: u64,
}

/// Opens them, each by a call of its own.
pub fn run(scene: &Scene<'_>) -> Result<Value> {
    let size = scene.large()?;
    let stock = stock::take(scene, &loss::wanted(scene, size))?;
    let desk = stock.desk(scene, (HOME, false), &Repository::Local)?;
    desk.without_hydration()?;
    let opened = open_all(scene, &stock, &desk);
    end_all(&desk.folder);
    scene.run.ground.clear(HOME)?;
    let opened = opened?;
    let clones = f64::from(opened.clones);
    let each = Spread::of(opened.seconds.iter().copied());
    let mut table = Table::new(&[
        "clones",
        "of",
        "form",
        "s until all write",
        "s of one, median",
        "disk MB",
        "each",
        "memory MB",
        "each",
    ]);
    let megabytes = |bytes: u64, by: f64| format!("{:.1}", as_f64(bytes) / 1e6 / by);
    table.row(vec![
        opened.clones.to_string(),
        opened.size.clone(),
        opened.form.clone(),
        format!("{:.2}", each.max),
        format!("{:.2}", each.median),
        megabytes(opened.disk_bytes, 1.0),
        megabytes(opened.disk_bytes, clones),
        megabytes(opened.memory_bytes, 1.0),
        megabytes(opened.memory_bytes, clones),
    ]);
    scene.say(&table.text());
    Ok(json!(opened))
}

fn open_all(scene: &Scene<'_>, stock: &Stock, desk: &Desk) -> Result<Opened> {
    // One alone says in which form they come, and whether that many fit.
    let first = desk.json(&["clone", "open", "prod"])?;
    let form = text(&first, "/form")?.to_owned();
    desk.json(&["clone", "close", text(&first, "/id")?])?;
    let clones = scene.clones();
    if form == "restored" {
        let room = stock.facts.source_bytes.saturating_mul(u64::from(clones));
        scene.work.need(room, "so many restored clones")?;
    }
    scene.drop_caches()?;
    let before = scene.work.free_bytes()?;
    let began = Instant::now();
    let open = || -> Result<f64> {
        let told = desk.json(&["clone", "open", "prod"])?;
        write::first_write(text(&told, "/url")?)?;
        Ok(began.elapsed().as_secs_f64())
    };
    let seconds = std::thread::scope(|scope| -> Result<Vec<f64>> {
        let threads: Vec<_> = (0..clones).map(|_| scope.spawn(open)).collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        let ended = ended.map(|done| done.map_err(|_| anyhow!("a thread has ended"))?);
        ended.collect()
    })
    .context("open all of them")?;
    let memory_bytes = meter::shared_memory(&naming(&desk.folder));
    let disk_bytes = before.saturating_sub(scene.work.free_bytes()?);
    let listed = desk.json(&["clone", "list"])?;
    for one in listed.as_array().into_iter().flatten() {
        desk.json(&["clone", "close", text(one, "/id")?])?;
    }
    Ok(Opened {
        size: stock.facts.size.clone(),
        form,
        clones,
        seconds,
        disk_bytes,
        memory_bytes,
    })
}

const HOME: &str = "many";
