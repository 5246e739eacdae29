//! The moment before a dropped table, with much log since the last base.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Scene;
use super::loss;
use super::stock::{self, End, Wanted};

/// What it is measured on.
pub fn wanted(scene: &Scene<'_>) -> Result<Wanted> {
    Ok(Wanted {
        size: scene.small()?,
        log_mib: scene.before_mib(),
        end: End::Drop,
    })
}

/// Takes every way to that moment.
pub fn run(scene: &Scene<'_>) -> Result<Value> {
    let wanted = wanted(scene)?;
    let stock = stock::take(scene, &wanted)?;
    let (_, action) = stock.facts.before.as_ref().context("nothing was dropped")?;
    let what = format!(
        "before a drop, {} and {} MiB of log",
        wanted.size, wanted.log_mib
    );
    let at = format!("before:{action}");
    let trials = loss::all_ways(scene, &stock, (&what, &at))?;
    scene.say(&loss::table(&trials));
    loss::keep_bars(scene, &what, &trials);
    Ok(json!({"stock": stock.facts, "trials": trials}))
}
