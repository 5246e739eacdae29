//! A database of a wanted size that nobody protects yet, kept for later runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Scene;
use super::size::Size;
use crate::cluster::Cluster;
use crate::ground::{Ground, files};

/// A source that runs.
pub struct Source {
    /// The server.
    pub cluster: Cluster,
}

#[derive(Serialize, Deserialize)]
struct Note {
    password: String,
}

/// Starts the source of a size, and makes it first when there is none.
pub fn take(scene: &Scene<'_>, size: Size) -> Result<Source> {
    let ground = scene.work.kept(&format!("source-{size}"))?;
    let note = ground.path(NOTE);
    if let Some(note) = read(&note) {
        let cluster = Cluster::open(&ground, &note.password)?;
        // Slots of vaults that are no more would keep all log.
        crate::engine::drop_slots(&cluster)?;
        return Ok(Source { cluster });
    }
    ground.clear("")?;
    let ground = scene.work.kept(&format!("source-{size}"))?;
    scene.work.need(size.dense() / 2 * 3, "making the source")?;
    scene.say(&format!("making a source of {size}, once"));
    let mut cluster = Cluster::make(&ground, size.dense_gigabytes())?;
    cluster.server.stop_fast()?;
    drop_spare_log(&ground)?;
    cluster.server.start()?;
    if size.is_sparse() {
        widen(&mut cluster, size)?;
    }
    let password = cluster.server.password().to_owned();
    let text = serde_json::to_string(&Note { password })?;
    fs::write(&note, text).context("note that the source is complete")?;
    Ok(Source { cluster })
}

/// Removes log that a stopped server keeps for reuse: as much as the database, after it was filled.
fn drop_spare_log(ground: &Ground) -> Result<()> {
    let told = Command::new(ground.postgres.program("pg_controldata"))
        .arg(ground.path("source"))
        .env("LC_ALL", "C")
        .output()
        .context("run pg_controldata")?;
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("REDO WAL file"));
    let needed = line.and_then(|line| line.split_whitespace().last());
    let needed = needed.context("pg_controldata names no log file")?;
    for file in files(&ground.path("source/pg_wal"))? {
        let name = file.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.len() == needed.len() && name != needed) {
            fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        }
    }
    Ok(())
}

/// Adds a relation of empty pages, which take no room on the disk.
fn widen(cluster: &mut Cluster, size: Size) -> Result<()> {
    cluster.execute("CREATE TABLE empty_pages (n int)")?;
    let path = cluster.ask("SELECT pg_relation_filepath('empty_pages')")?;
    cluster.server.stop_fast()?;
    let first = cluster.server.data_dir().join(path);
    let segments = (size.0 - size.dense()).div_ceil(SEGMENT_BYTES);
    for number in 0..segments {
        let path = match number {
            0 => first.clone(),
            number => first.with_extension(number.to_string()),
        };
        let file = fs::File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("make {}", path.display()))?;
        file.set_len(SEGMENT_BYTES)?;
        holdfast_testing::postgres::ServerUser::current()?.own(&path)?;
    }
    cluster.server.start()?;
    cluster.settle()
}

fn read(path: &Path) -> Option<Note> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

const NOTE: &str = "source.json";
/// SOURCE: PostgreSQL, RELSEG_SIZE: files of a relation are 1 GiB.
const SEGMENT_BYTES: u64 = 1 << 30;
