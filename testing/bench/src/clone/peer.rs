//! pgBackRest's way back from the same loss.

use std::time::Instant;

use anyhow::{Context, Result};
use holdfast_testing::postgres::Server;
use serde_json::json;

use super::stock::Stock;
use super::trial::{Trial, Way};
use super::{Scene, write};
use crate::limits;
use crate::meter;

/// Restores, starts a server and writes.
pub fn run(scene: &Scene<'_>, stock: &Stock) -> Result<Trial> {
    let ground = &scene.run.ground;
    let peer = scene.peer.as_ref().context("pgBackRest is not installed")?;
    scene
        .work
        .need(stock.facts.source_bytes, "pgBackRest's restore")?;
    let into = ground.folder(RESTORED)?;
    scene.drop_caches()?;
    let began = Instant::now();
    let path = format!("--pg1-path={}", into.display());
    let mut command = peer.command(&stock.ground, &[&path, "--archive-mode=off"]);
    if let Some((before, _)) = &stock.facts.before {
        command
            .args([
                "--type=lsn",
                "--target-exclusive",
                "--target-action=promote",
            ])
            .arg(format!("--target={before}"));
    }
    command.arg("restore");
    let files = meter::run(command, &ground.path("pgbackrest.log"), None)?;
    let server = Server::builder(&ground.postgres)
        .existing(&into, &stock.facts.password)
        .log_file(&ground.path("restored.log"))
        .setting("recovery_init_sync_method", "syncfs")
        .setting("hot_standby", "off")
        .setting("archive_mode", "off")
        .start_limit(limits::ANSWER)
        .start()?;
    write::first_write(&server.url())?;
    let seconds = began.elapsed().as_secs_f64();
    stock.check(&server.url())?;
    drop(server);
    ground.clear(RESTORED)?;
    Ok(Trial {
        way: Way::Peer,
        seconds,
        form: "restored".to_owned(),
        told: json!({"files_s": files.wall_s}),
    })
}

const RESTORED: &str = "restored";
