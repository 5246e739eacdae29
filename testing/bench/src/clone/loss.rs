//! Total loss: from the command to the first committed write, by every way, at every size.

use anyhow::Result;
use serde_json::{Value, json};

use super::Scene;
use super::bars::{Bar, Side};
use super::size::Size;
use super::stock::{self, End, Stock, Wanted};
use super::trial::{self, Trial, Way};
use crate::machine::as_f64;
use crate::table::{Spread, Table};

/// Everything must be back sooner than it was destroyed.
const BAR_S: f64 = 9.0;

/// What it is measured on.
pub fn wanted(scene: &Scene<'_>, size: Size) -> Wanted {
    Wanted {
        size,
        log_mib: scene.log_mib(),
        end: End::Loss,
    }
}

/// Measures all sizes and prints how they stand to each other.
pub fn run(scene: &Scene<'_>) -> Result<Value> {
    let mut found = Vec::new();
    for size in scene.sizes() {
        let stock = stock::take(scene, &wanted(scene, size))?;
        say_stock(scene, (size, &stock));
        let trials = all_ways(scene, &stock, (&format!("loss {size}"), "latest"))?;
        let facts = json!({"size": size.to_string(), "stock": stock.facts, "trials": trials});
        scene.say(&table(&trials));
        keep_bars(scene, &format!("loss {size}"), &trials);
        found.push(facts);
    }
    Ok(json!(found))
}

fn say_stock(scene: &Scene<'_>, (size, stock): (Size, &Stock)) {
    let facts = &stock.facts;
    let empty = match size.is_sparse() {
        true => ", all but 2 GB of it empty pages",
        false => "",
    };
    scene.say(&format!(
        "source of {:.2} GB{empty}, stored in {:.1} MB, base in {:.1} s, {:.0} MB of log since",
        as_f64(facts.source_bytes) / 1e9,
        as_f64(facts.stored_bytes) / 1e6,
        facts.base_s,
        as_f64(facts.log_bytes) / 1e6,
    ));
}

/// Takes every way in turn; every other repetition turns their order round.
pub fn all_ways(scene: &Scene<'_>, stock: &Stock, (what, at): (&str, &str)) -> Result<Vec<Trial>> {
    let mut trials = Vec::new();
    for repetition in 0..scene.repetitions() {
        let mut ways = Way::ALL;
        if repetition % 2 == 1 {
            ways.reverse();
        }
        for way in ways {
            let trial = match trial::run(scene, stock, (way, at)) {
                Ok(Some(trial)) => trial,
                Ok(None) => continue,
                // One way that leads nowhere is a finding, and no reason to know nothing of the others.
                Err(error) => {
                    scene.failed(format!("{what}: {error:#}"));
                    continue;
                }
            };
            scene.say(&format!(
                "{what}: {} {:.2} s ({}) {}",
                way.name(),
                trial.seconds,
                trial.form,
                trial.told
            ));
            trials.push(trial);
        }
    }
    Ok(trials)
}

fn spread(trials: &[Trial], way: Way) -> Option<(Spread, &str)> {
    let of = || trials.iter().filter(|trial| trial.way == way);
    let first = of().next()?;
    Some((Spread::of(of().map(|trial| trial.seconds)), &first.form))
}

/// Prints each way beside the peer.
pub fn table(trials: &[Trial]) -> String {
    let mut table = Table::new(&["way", "form", "s to the first write", "of pgBackRest"]);
    let peer = spread(trials, Way::Peer).map(|(peer, _)| peer.median);
    for way in Way::ALL {
        let Some((seconds, form)) = spread(trials, way) else {
            continue;
        };
        let ratio = peer.map(|peer| format!("{:.2}", seconds.median / peer));
        table.row(vec![
            way.name().to_owned(),
            form.to_owned(),
            seconds.text(),
            ratio.unwrap_or_default(),
        ]);
    }
    table.text()
}

/// Keeps each way's median beside the bar.
pub fn keep_bars(scene: &Scene<'_>, what: &str, trials: &[Trial]) {
    let peer = spread(trials, Way::Peer).map(|(peer, _)| peer.median);
    for way in Way::ALL.into_iter().filter(|way| *way != Way::Peer) {
        if let Some((seconds, form)) = spread(trials, way) {
            scene.bars.borrow_mut().0.push(Bar {
                what: format!("{what}: {} ({form}), s", way.name()),
                measured: seconds.median,
                bar: BAR_S,
                side: Side::Below,
                peer,
            });
        }
    }
}
