//! What a mirror costs while pgbench runs: processor time, lag, and bytes of each restore point.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use super::desk::{Desk, SOURCE, Told};
use super::ended::{end_all, naming};
use super::source::{self, Source};
use super::{Scene, speed};
use crate::cluster;
use crate::ground::{Ground, tree_bytes};
use crate::limits;
use crate::machine::as_f64;
use crate::meter::{self, Measured};
use crate::table::{Spread, Table};

/// One stretch under load.
#[derive(Clone, Debug, Default, Serialize)]
struct Stretch {
    with: &'static str,
    tps: f64,
    /// Processor milliseconds for a thousand transactions: of the source, the vault, the mirror.
    source_ms: f64,
    vault_ms: f64,
    mirror_ms: f64,
    /// Whenever it was looked at: what was durable here and not replayed yet.
    lag_ms: Vec<f64>,
    lag_kb: Vec<f64>,
    /// Of each restore point that was sealed meanwhile.
    point_bytes: Vec<u64>,
}

const NONE: &str = "no vault";
const VAULT: &str = "vault";
const MIRROR: &str = "vault and mirror";
const WITH: [&str; 3] = [NONE, VAULT, MIRROR];

/// Every stretch begins with a new vault on the same source.
pub fn run(scene: &Scene<'_>) -> Result<Value> {
    let size = scene.small()?;
    let source = source::take(scene, size)?;
    scene.work.need(size.dense() * 2, "the mirror")?;
    let mut stretches = Vec::new();
    for repetition in 0..scene.repetitions() {
        let mut order = WITH;
        if repetition % 2 == 1 {
            order.reverse();
        }
        for with in order {
            let stretch = measure(scene, &source, with).with_context(|| with)?;
            scene.say(&format!("mirror: {with}: {:.0} TPS", stretch.tps));
            stretches.push(stretch);
        }
    }
    scene.say(&table(&stretches));
    Ok(json!({"size": size.to_string(), "stretches": stretches}))
}

fn measure(scene: &Scene<'_>, source: &Source, with: &'static str) -> Result<Stretch> {
    if with == NONE {
        source.cluster.settle()?;
        return stretch(scene, source, (with, None));
    }
    let folder = scene.run.ground.folder(HOME)?;
    let desk = protect(scene, source, (&folder, with == MIRROR))?;
    let done = follow(scene, source, (&desk, with));
    end_all(&folder);
    crate::engine::drop_slots(&source.cluster)?;
    scene.run.ground.clear(HOME)?;
    done
}

fn protect(scene: &Scene<'_>, source: &Source, (folder, mirror): (&PathBuf, bool)) -> Result<Desk> {
    let told = Told {
        repository: &format!("repository = \"{}\"\n", folder.join(REPOSITORY).display()),
        source_url: &source.cluster.server.url(),
        mirror,
        programs: &scene.work.postgres.bin_dir,
    };
    Desk::init(scene, folder, &told)
}

fn follow(
    scene: &Scene<'_>,
    source: &Source,
    (desk, with): (&Desk, &'static str),
) -> Result<Stretch> {
    let vault = desk.vault()?;
    desk.wait(limits::COMMAND, |stands| {
        let follows = with == VAULT || stands.pointer("/mirror/state") == Some(&json!("following"));
        stands["point"].is_string() && stands["busy"].is_null() && follows
    })?;
    source.cluster.settle()?;
    let done = stretch(scene, source, (with, Some((desk, &vault))));
    vault.stop()?;
    done
}

type Running<'a> = Option<(&'a Desk, &'a Measured)>;

fn stretch(
    scene: &Scene<'_>,
    source: &Source,
    (with, running): (&'static str, Running<'_>),
) -> Result<Stretch> {
    let server = &source.cluster.server;
    let primary = server.pid().context("the source has ended")?;
    let mirror = running.and_then(|(desk, _)| naming(&desk.folder.join("state/vault")).pop());
    let mirror = mirror.filter(|_| with == MIRROR);
    let cpu = || -> Result<[f64; 3]> {
        let of = |pid: Option<u32>| pid.map_or(Ok(0.0), meter::tree_cpu_s);
        let vault = running.map(|(_, vault)| meter::cpu_s(vault.pid()));
        Ok([
            of(Some(primary))?,
            vault.transpose()?.unwrap_or(0.0),
            of(mirror)?,
        ])
    };
    let (before, points) = (
        cpu()?,
        running.map_or_else(Vec::new, |(desk, _)| folders(desk)),
    );
    let mut found = Stretch {
        with,
        ..Stretch::default()
    };
    let load = Load::start(scene, &server.url())?;
    let mut settled = Instant::now();
    while !load.is_over() {
        std::thread::sleep(limits::STAND_POLL);
        if settled.elapsed() > CHECKPOINT_EVERY {
            source.cluster.execute("CHECKPOINT")?;
            settled = Instant::now();
        }
        if let (MIRROR, Some((desk, _))) = (with, running) {
            let stands = desk.stands()?;
            let number = |name: &str| stands.pointer(&format!("/mirror/{name}"))?.as_f64();
            found.lag_ms.extend(number("lag_s").map(|s| s * 1e3));
            found.lag_kb.extend(number("lag").map(|bytes| bytes / 1e3));
        }
    }
    let said = load.said()?;
    let after = cpu()?;
    found.tps = speed::tps(&said)?;
    let done = found.tps * f64::from(seconds(scene));
    let each = |at: fn(&[f64; 3]) -> f64| (at(&after) - at(&before)) * 1e6 / done.max(1.0);
    found.source_ms = each(|[source, _, _]| *source);
    found.vault_ms = each(|[_, vault, _]| *vault);
    found.mirror_ms = each(|[_, _, mirror]| *mirror);
    if let Some((desk, _)) = running {
        let new = folders(desk)
            .into_iter()
            .filter(|one| !points.contains(one));
        found.point_bytes = new.map(|one| tree_bytes(&one)).collect::<Result<_>>()?;
    }
    Ok(found)
}

fn seconds(scene: &Scene<'_>) -> u32 {
    scene.seconds().saturating_mul(3)
}

/// The folders of restore points.
fn folders(desk: &Desk) -> Vec<PathBuf> {
    let points = desk.folder.join(REPOSITORY).join(SOURCE).join("point");
    let entries = std::fs::read_dir(points).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// pgbench in a thread of its own.
struct Load(std::thread::JoinHandle<Result<String>>);

impl Load {
    fn start(scene: &Scene<'_>, url: &str) -> Result<Self> {
        let ground = Ground::kept(scene.run.ground.path(""), scene.work.postgres.clone())?;
        let (url, seconds) = (url.to_owned(), seconds(scene).to_string());
        Ok(Self(std::thread::spawn(move || {
            let load = ["-n", "-c", "8", "-j", "2", "-T", &seconds];
            cluster::pgbench(&ground, &url, &load)
        })))
    }

    fn is_over(&self) -> bool {
        self.0.is_finished()
    }

    fn said(self) -> Result<String> {
        match self.0.join() {
            Ok(said) => said,
            Err(_) => bail!("the load has ended by a defect"),
        }
    }
}

fn table(stretches: &[Stretch]) -> String {
    let mut table = Table::new(&[
        "pgbench -c 8",
        "TPS",
        "of none",
        "source CPU ms/1000",
        "vault",
        "mirror",
        "lag ms",
        "lag KB",
        "points",
        "KB each",
    ]);
    for with in WITH {
        let of = || stretches.iter().filter(move |one| one.with == with);
        let median = |value: fn(&Stretch) -> f64| Spread::of(of().map(value)).median;
        let tps = Spread::of(of().map(|one| one.tps));
        let none = stretches.iter().filter(|one| one.with == NONE);
        let none = Spread::of(none.map(|one| one.tps)).median;
        let lag = |value: fn(&Stretch) -> &Vec<f64>| match with {
            MIRROR => highest(of().flat_map(|one| value(one).iter().copied())),
            _ => String::new(),
        };
        let points: Vec<f64> = of()
            .flat_map(|one| one.point_bytes.iter().map(|bytes| as_f64(*bytes) / 1e3))
            .collect();
        table.row(vec![
            with.to_owned(),
            format!("{:.0} ({:.0}-{:.0})", tps.median, tps.min, tps.max),
            format!("{:.2}", tps.median / none.max(1e-9)),
            format!("{:.0}", median(|one| one.source_ms)),
            format!("{:.0}", median(|one| one.vault_ms)),
            format!("{:.0}", median(|one| one.mirror_ms)),
            lag(|one| &one.lag_ms),
            lag(|one| &one.lag_kb),
            points.len().to_string(),
            match points.is_empty() {
                true => String::new(),
                false => Spread::of(points).text(),
            },
        ]);
    }
    table.text()
}

/// Median, the figure that 19 of 20 are below, and the largest.
fn highest(numbers: impl Iterator<Item = f64>) -> String {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let index = sorted.len().saturating_sub(1) * percent / 100;
        sorted.get(index).copied().unwrap_or(0.0)
    };
    format!("{:.1}, p95 {:.1}, max {:.1}", at(50), at(95), at(100))
}

const HOME: &str = "mirror";
const REPOSITORY: &str = "repository";
/// A restore point can begin only where the source has made a checkpoint.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);
