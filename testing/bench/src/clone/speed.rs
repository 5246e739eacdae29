//! pgbench on a clone: just opened, warm, and with everything fetched; beside an ordinary directory.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use holdfast_testing::ports::ReservedPort;
use holdfast_testing::postgres::Server;
use serde::Serialize;
use serde_json::{Value, json};

use super::bars::{Bar, Side};
use super::desk::{Desk, text};
use super::ended::end_all;
use super::stock::{self, Repository, Stock};
use super::{Scene, loss};
use crate::cluster;
use crate::limits;
use crate::meter::Measured;
use crate::table::{Spread, Table};

/// One run of pgbench.
#[derive(Clone, Debug, Serialize)]
struct Run {
    work: &'static str,
    on: &'static str,
    tps: f64,
}

const COLD: &str = "clone, just opened";
const WARM: &str = "clone, warm";
const HYDRATED: &str = "clone, all fetched";
const NATIVE: &str = "directory";
/// The same server through a process that passes bytes, as a clone's door does.
const PASSED: &str = "directory, through a forwarder";
const WORKS: [(&str, &[&str]); 2] = [("-S", &["-S"]), ("TPC-B", &[])];
const BARS: [(&str, f64); 2] = [(WARM, 60.0), (HYDRATED, 95.0)];

/// Runs both works on a clone of its own each time, and on the directory.
pub fn run(scene: &Scene<'_>) -> Result<Value> {
    let size = scene.small()?;
    let stock = stock::take(scene, &loss::wanted(scene, size))?;
    let room = stock.facts.source_bytes * 2;
    scene
        .work
        .need(room, "a directory and a clone beside each other")?;
    let desk = stock.desk(scene, (HOME, false), &Repository::Local)?;
    let done = on_desk(scene, &stock, &desk);
    end_all(&desk.folder);
    scene.run.ground.clear(HOME)?;
    let (form, runs) = done?;
    scene.say(&table(&runs));
    for (work, _) in WORKS {
        let of = |on| median(&runs, (work, on));
        for ((on, bar), beside) in BARS
            .into_iter()
            .flat_map(|one| [(one, NATIVE), (one, PASSED)])
        {
            scene.bars.borrow_mut().0.push(Bar {
                what: format!("{work} on a {on} ({form}), % of a {beside}"),
                measured: of(on) * 100.0 / of(beside).max(1e-9),
                bar,
                side: Side::AtLeast,
                peer: None,
            });
        }
    }
    Ok(json!({"size": size.to_string(), "form": form, "runs": runs}))
}

/// The ordinary directory, and the process before it.
struct Native {
    server: Server,
    forwarder: Measured,
    passed: String,
}

fn on_desk(scene: &Scene<'_>, stock: &Stock, desk: &Desk) -> Result<(String, Vec<Run>)> {
    let mut runs = Vec::new();
    let mut form = String::new();
    let native = native(scene, stock, desk)?;
    for repetition in 0..scene.repetitions() {
        for (work, arguments) in WORKS {
            let mut once = |on: &'static str, url: &str| -> Result<()> {
                let tps = pgbench(scene, url, arguments).with_context(|| on)?;
                scene.say(&format!("speed: {work} on a {on}: {tps:.0} TPS"));
                runs.push(Run { work, on, tps });
                Ok(())
            };
            let told = desk.json(&["clone", "open", "prod"])?;
            let (id, url) = (text(&told, "/id")?, text(&told, "/url")?);
            text(&told, "/form")?.clone_into(&mut form);
            once(COLD, url)?;
            once(WARM, url)?;
            hydrate(desk, id)?;
            let direct = native.server.url();
            let mut order = [(HYDRATED, url), (NATIVE, &direct), (PASSED, &native.passed)];
            if repetition % 2 == 1 {
                order.reverse();
            }
            for (on, url) in order {
                once(on, url)?;
            }
            desk.json(&["clone", "close", id])?;
        }
    }
    native.forwarder.stop()?;
    Ok((form, runs))
}

/// Restores the same point to a directory, and starts a server with a clone's settings on it.
fn native(scene: &Scene<'_>, stock: &Stock, desk: &Desk) -> Result<Native> {
    let told = desk.json(&["clone", "open", "prod"])?;
    let url = text(&told, "/url")?;
    let setting = |name: &str| cluster::ask(url, &format!("SHOW {name}"));
    let into = desk.folder.join("native");
    let path = into.to_str().context("a strange folder")?;
    desk.json(&["restore", "prod", "--into", path])?;
    let mut builder = Server::builder(&scene.work.postgres)
        .existing(&into, &stock.facts.password)
        .start_limit(limits::ANSWER)
        .setting("archive_mode", "off");
    for name in SETTINGS {
        builder = builder.setting(name, &setting(name)?);
    }
    desk.json(&["clone", "close", text(&told, "/id")?])?;
    let server = builder.start()?;
    let wait = Instant::now();
    while cluster::ask(&server.url(), "SELECT 1").is_err() {
        ensure!(wait.elapsed() < limits::ANSWER, "it is not promoted");
        std::thread::sleep(limits::POLL);
    }
    let reserved = ReservedPort::take()?;
    let passed = server.url().replace(
        &format!(":{}/", server.port()),
        &format!(":{}/", reserved.number()),
    );
    let listen = format!("127.0.0.1:{}", reserved.number());
    let to = format!("127.0.0.1:{}", server.port());
    let command = desk.command(&["recover", "forward", "--listen", &listen, "--to", &to]);
    drop(reserved);
    let forwarder = Measured::start(command, &desk.folder.join("forward.log"), None)?;
    super::write::first_write(&passed)?;
    Ok(Native {
        server,
        forwarder,
        passed,
    })
}

/// Asks for everything that a clone does not have yet, and waits until it has.
fn hydrate(desk: &Desk, id: &str) -> Result<()> {
    desk.json(&["clone", "hydrate", id])?;
    let began = Instant::now();
    loop {
        let shown = desk.json(&["clone", "show", id])?;
        if is_whole(&shown) {
            return Ok(());
        }
        ensure!(
            began.elapsed() < limits::COMMAND,
            "it does not come to have everything: {shown}"
        );
        std::thread::sleep(limits::STAND_POLL);
    }
}

/// Tells whether a clone has everything: a restored one always does.
fn is_whole(shown: &Value) -> bool {
    let says = |pointer: &str| shown.pointer(pointer);
    says("/form") == Some(&json!("restored")) || says("/hydration/complete") == Some(&json!(true))
}

fn pgbench(scene: &Scene<'_>, url: &str, arguments: &[&str]) -> Result<f64> {
    let seconds = scene.seconds().to_string();
    let load = ["-n", "-c", "4", "-j", "2", "-T", &seconds];
    let said = cluster::pgbench(&scene.run.ground, url, &[&load, arguments].concat())?;
    tps(&said)
}

/// The figure that pgbench prints.
pub fn tps(said: &str) -> Result<f64> {
    let line = said.lines().find_map(|line| line.strip_prefix("tps = "));
    let word = line.and_then(|rest| rest.split(' ').next());
    let tps = word.context("pgbench printed no figure")?.parse();
    tps.context("pgbench printed a strange figure")
}

fn median(runs: &[Run], (work, on): (&str, &str)) -> f64 {
    let of = runs.iter().filter(|run| run.work == work && run.on == on);
    Spread::of(of.map(|run| run.tps)).median
}

fn table(runs: &[Run]) -> String {
    let mut table = Table::new(&["pgbench -c 4", "on", "TPS", "of the directory"]);
    for (work, _) in WORKS {
        for on in [COLD, WARM, HYDRATED, PASSED, NATIVE] {
            let of = runs.iter().filter(|run| run.work == work && run.on == on);
            let tps = Spread::of(of.map(|run| run.tps));
            table.row(vec![
                work.to_owned(),
                on.to_owned(),
                format!("{:.0} ({:.0}-{:.0})", tps.median, tps.min, tps.max),
                format!("{:.2}", tps.median / median(runs, (work, NATIVE)).max(1e-9)),
            ]);
        }
    }
    table.text()
}

const HOME: &str = "speed";
/// What a clone sets differently from its source and a server's speed depends on.
const SETTINGS: [&str; 4] = [
    "shared_buffers",
    "max_connections",
    "huge_pages",
    "autovacuum",
];
