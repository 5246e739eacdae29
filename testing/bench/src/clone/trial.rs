//! One way back from one stock, from the command to the first committed write.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::desk::{Desk, lsn};
use super::ended::end_all;
use super::stock::{Repository, Stock};
use super::{Scene, peer, write};
use crate::limits;
use crate::meter::Measured;

/// A way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// `clone open`, from the bucket.
    BucketClone,
    /// `recover`, from the bucket.
    BucketRecover,
    /// `clone open`, from the directory.
    LocalClone,
    /// `recover`, from the directory.
    LocalRecover,
    /// `recover`, by the mirror.
    Mirror,
    /// pgBackRest's restore and a start.
    Peer,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Mirror,
        Self::LocalRecover,
        Self::LocalClone,
        Self::BucketRecover,
        Self::BucketClone,
        Self::Peer,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::BucketClone => "clone, bucket",
            Self::BucketRecover => "recover, bucket",
            Self::LocalClone => "clone, directory",
            Self::LocalRecover => "recover, directory",
            Self::Mirror => "recover, mirror",
            Self::Peer => "pgBackRest",
        }
    }

    fn is_clone(self) -> bool {
        matches!(self, Self::BucketClone | Self::LocalClone)
    }

    fn is_bucket(self) -> bool {
        matches!(self, Self::BucketClone | Self::BucketRecover)
    }
}

/// What one trial took.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// Which way.
    pub way: Way,
    /// Seconds from the command to the first committed write.
    pub seconds: f64,
    /// In which form it came, as the program says: `mirror`, `restore`, `mounted`, `restored`.
    pub form: String,
    /// What else the program told.
    pub told: Value,
}

/// Goes one way back; `None` when that is not possible here, which is said.
pub fn run(scene: &Scene<'_>, stock: &Stock, (way, at): (Way, &str)) -> Result<Option<Trial>> {
    if way == Way::Peer {
        return match stock.facts.has_peer {
            true => peer::run(scene, stock).map(Some),
            false => Ok(None),
        };
    }
    let bucket = match way.is_bucket() {
        true => Some(scene.bucket(stock)?),
        false => None,
    };
    let repository = bucket
        .as_deref()
        .map_or(Repository::Local, Repository::Bucket);
    if way == Way::Mirror {
        let room = stock.facts.source_bytes;
        if let Err(why) = scene.work.need(room, "the mirror") {
            scene.say(&format!("no mirror: {why}"));
            return Ok(None);
        }
    }
    let desk = stock.desk(scene, (TRIAL, way == Way::Mirror), &repository)?;
    let done = measure(scene, stock, &desk, (way, at));
    end_all(&desk.folder);
    scene.run.ground.clear(TRIAL)?;
    done.with_context(|| way.name()).map(Some)
}

fn measure(scene: &Scene<'_>, stock: &Stock, desk: &Desk, (way, at): (Way, &str)) -> Result<Trial> {
    let vault = match way {
        Way::Mirror => Some(follow(stock, desk)?),
        _ => None,
    };
    scene.drop_caches()?;
    let began = Instant::now();
    let told = match way.is_clone() {
        true => desk.json(&["clone", "open", "prod", "--at", at])?,
        false => desk.json(&["recover", "prod", "--at", at])?,
    };
    let url = stock.told_url(&told)?;
    write::first_write(&url)?;
    let seconds = began.elapsed().as_secs_f64();
    stock.check(&url)?;
    drop(vault);
    let form = told.get("form").or_else(|| told.get("way"));
    let form = form.and_then(Value::as_str).unwrap_or_default().to_owned();
    ensure!(
        way != Way::Mirror || form == "mirror" || stock.facts.before.is_some(),
        "the mirror did not take over: {told}"
    );
    Ok(Trial {
        way,
        seconds,
        form,
        told: phases(&told),
    })
}

/// Starts the vault, which makes its mirror, and waits until that has replayed everything.
fn follow(stock: &Stock, desk: &Desk) -> Result<Measured> {
    let vault = desk.vault()?;
    let end = lsn(&stock.facts.end).context("read the position")?;
    desk.wait(limits::COMMAND, |stands| {
        let mirror = &stands["mirror"];
        let state = mirror["state"].as_str().unwrap_or_default();
        let replayed = mirror["replayed"].as_str().and_then(lsn);
        let is_there = stock.facts.before.is_some() || replayed >= Some(end);
        matches!(state, "following" | "holding") && is_there
    })?;
    Ok(vault)
}

/// What the program said about its own time.
fn phases(told: &Value) -> Value {
    let pick = |name: &str| told.get(name).cloned().unwrap_or_default();
    json!({"took": pick("took"), "files_s": pick("files_s"), "promoted_s": pick("promoted_s")})
}

const TRIAL: &str = "trial";
