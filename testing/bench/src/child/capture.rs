//! A vault for one source, which tells what it does as lines of JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use holdfast_store::envelope::Identity;
use holdfast_store::keyring::Keyring;
use holdfast_store::{key, ledger::Ledger};
use holdfast_vault::{
    DrillConfig, PointsConfig, PostgresConfig, RetentionConfig, SourceConfig, SourceStatus, Vault,
    VaultConfig, system_clock,
};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::SOURCE;
use crate::limits;

/// Runs until SIGTERM; SIGUSR1 asks for a restore point.
pub fn run(state: PathBuf, repository: PathBuf) -> Result<()> {
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let vault = open(state, repository)?;
        let stop = CancellationToken::new();
        let told = stop.clone();
        let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
        tokio::spawn(async move {
            terminate.recv().await;
            told.cancel();
        });
        let mut wanted = signal(SignalKind::user_defined1()).context("wait for SIGUSR1")?;
        let (asked, source) = (vault.clone(), SOURCE.parse().context("name the source")?);
        tokio::spawn(async move {
            while wanted.recv().await.is_some() {
                asked.ask_for_point(&source);
            }
        });
        let (shown, until) = (vault.clone(), stop.clone());
        let watching = std::thread::spawn(move || match shown.status().len() {
            1 => watch(&shown, began, &until),
            _ => watch_many(&shown, &until),
        });
        vault.run(stop).await.map_err(|error| anyhow!(error))?;
        watching
            .join()
            .map_err(|_| anyhow!("the watching thread has ended"))
    })
}

fn open(state: PathBuf, repository: PathBuf) -> Result<Vault> {
    let url = std::env::var("SOURCE_URL").context("read SOURCE_URL")?;
    let said =
        |name: &str, otherwise: &str| std::env::var(name).unwrap_or_else(|_| otherwise.to_owned());
    let mode = said("SOURCE_MODE", "asynchronous");
    let ack = said("SOURCE_ACK", "spool");
    let source = SourceConfig {
        name: SOURCE.parse().context("name the source")?,
        url: url.parse().context("read the URL")?,
        mode: mode.parse().map_err(|text| anyhow!("{text}"))?,
        ack: ack.parse().map_err(|text| anyhow!("{text}"))?,
        assertions: Vec::new(),
    };
    let clock = system_clock();
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| anyhow!("draw random bytes: {error}"))?;
    std::fs::create_dir_all(&state).context("make the state directory")?;
    let key = key::load_or_create(&state.join("vault.key"), random)?;
    let ledger = Ledger::open(&state.join("ledger"), key.clone(), clock())?;
    let mut ring = Keyring::open(&state.join("keys"))?;
    if ring.machine.is_empty() {
        ring.add_machine(Identity::generate()?, clock())?;
        // Nobody keeps its secret: what is measured is thrown away.
        ring.add_recovery(Identity::generate()?.recipient(), clock())?;
    }
    let config = VaultConfig {
        directories: Vec::new(),
        state,
        repository: repository.into(),
        keys: ring.keys(),
        sources: sources(&source)?,
        postgres: PostgresConfig::default(),
        // Every point is drilled once: whoever measures waits for the end of that.
        drill: DrillConfig {
            every: Duration::from_secs(24 * 3600),
            ..DrillConfig::default()
        },
        points: PointsConfig::default(),
        retention: RetentionConfig::default(),
    };
    Ok(Vault::open(config, ledger, key, clock)?)
}

/// The source under as many names as `SOURCE_COUNT` says.
fn sources(one: &SourceConfig) -> Result<Vec<SourceConfig>> {
    let count = std::env::var("SOURCE_COUNT").unwrap_or_else(|_| "1".to_owned());
    let count: u32 = count.parse().context("read SOURCE_COUNT")?;
    let name = |number: u32| match number {
        0 => SOURCE.to_owned(),
        number => format!("{SOURCE}-{number:03}"),
    };
    let named = |number: u32| -> Result<SourceConfig> {
        Ok(SourceConfig {
            name: name(number).parse().context("name a source")?,
            ..one.clone()
        })
    };
    (0..count).map(named).collect()
}

/// Tells when every source has a point that was drilled, and looks seldom.
fn watch_many(vault: &Vault, stop: &CancellationToken) {
    let mut is_told = false;
    while !stop.is_cancelled() {
        let is_done = |status: &SourceStatus| {
            status.point.is_some() && status.proof.at.is_some() && status.busy.is_none()
        };
        if !is_told && vault.status().iter().all(is_done) {
            println!("{}", json!({ "event": "all drilled" }));
            is_told = true;
        }
        std::thread::sleep(LOOK_EVERY * 50);
    }
}

/// Tells each change of what the vault is doing, and which thread has used how much.
fn watch(vault: &Vault, began: Instant, stop: &CancellationToken) {
    let mut last = String::new();
    let mut threads = BTreeMap::new();
    let mut is_there = false;
    let mut drilled = None;
    let mut idle = None;
    while !stop.is_cancelled() {
        // Later the looking itself would be what is measured.
        if !is_there {
            note_threads(&mut threads);
        }
        for status in vault.status() {
            let busy = status.busy.as_deref().unwrap_or_default();
            let busy = busy.split(':').next().unwrap_or_default().to_owned()
                + if busy.contains("waiting") {
                    ": waiting"
                } else {
                    ""
                };
            is_there |= status.point.is_some();
            if status.point.is_some() && status.point != idle {
                let ended = status.proof.at.filter(|at| Some(*at) != drilled);
                if ended.is_some() && status.busy.is_none() {
                    println!("{}", json!({ "event": "drilled", "told": status.point }));
                    println!("{}", json!({ "event": "all drilled" }));
                    drilled = ended;
                    idle.clone_from(&status.point);
                }
            }
            let point = status.point.as_ref().map(ToString::to_string);
            let stage = format!("{:?} {busy} {point:?} {:?}", status.state, status.trouble);
            if stage == last {
                continue;
            }
            last = stage;
            let line = json!({
                "event": if point.is_some() { "point" } else { "stage" },
                "at_s": began.elapsed().as_secs_f64(),
                "state": status.state, "busy": busy, "point": point, "trouble": status.trouble,
                "threads_s": by_name(&threads),
            });
            println!("{line}");
        }
        std::thread::sleep(if is_there { LOOK_EVERY * 4 } else { LOOK_EVERY });
    }
}

/// Remembers the processor time of every thread, also of those that end later: own and the kernel's.
fn note_threads(threads: &mut BTreeMap<u32, (String, [f64; 2])>) {
    let tasks = std::fs::read_dir("/proc/self/task");
    for entry in tasks.into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let id = entry.file_name().to_string_lossy().parse::<u32>();
        let name = text.split(['(', ')']).nth(1).unwrap_or_default();
        let rest = text.rsplit(')').next().unwrap_or_default();
        // SOURCE: proc(5): utime and stime, counted from the field after the name.
        let mut spent = rest.split_whitespace().skip(11).map(|field| {
            let ticks = field.parse::<f64>().unwrap_or(0.0);
            ticks / limits::TICKS_PER_SECOND
        });
        if let (Ok(id), Some(own), Some(kernel)) = (id, spent.next(), spent.next()) {
            threads.insert(id, (name.to_owned(), [own, kernel]));
        }
    }
}

/// Sums by the name of the thread; what used nothing worth a word is left out.
fn by_name(threads: &BTreeMap<u32, (String, [f64; 2])>) -> BTreeMap<String, [f64; 2]> {
    let mut sums = BTreeMap::new();
    for (id, (name, spent)) in threads {
        if spent.iter().sum::<f64>() > 0.02 {
            sums.insert(format!("{name}/{id}"), *spent);
        }
    }
    sums
}

const LOOK_EVERY: Duration = Duration::from_millis(5);
