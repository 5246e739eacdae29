//! The plan of what expires: made from what is there, shown, recorded, and only then performed.

use std::collections::BTreeMap;

use holdfast_core::{ByteCount, Digest, PointId, SourceName, Timestamp};
use holdfast_store::object::fence::{FENCE_FOLDER, beat_time};
use holdfast_store::object::{Backend, ObjectKey, ObjectStore};
use serde::{Deserialize, Serialize};

use super::clock::{AgreedTime, ClockPair};
use super::error::ExpiryError;
use super::inventory::{Inventory, needed};
use super::objects::{Begun, Going, Known, ObjectPlan, WhyGoes, WhyStays};
use super::points::{Fate, PointFate, is_older, judge};
use super::rules::{KeepRules, Span};
use crate::limits;
use crate::repository::Reader;

/// What may go, why, and why everything else stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpirePlan {
    /// Always 1.
    pub format: u32,
    /// The repository's id.
    pub repository: String,
    /// What the clocks showed.
    pub made: ClockPair,
    /// The time on which everything agreed.
    pub agreed: Timestamp,
    /// The lock window.
    pub lock_for: Span,
    /// Every source of the repository.
    pub sources: Vec<SourcePlan>,
    /// Old heartbeats of writers.
    pub heartbeats: Vec<ObjectKey>,
}

/// What becomes of a source's points and objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcePlan {
    /// Which source.
    pub source: SourceName,
    /// The rules; without any, nothing of the source expires.
    pub rules: Option<KeepRules>,
    /// Every point, oldest first.
    pub points: Vec<PlannedPoint>,
    /// What may go, in the order in which it must.
    pub goes: Vec<Going>,
    /// How much stays, by reason.
    pub stays: BTreeMap<WhyStays, Amount>,
}

/// A point and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedPoint {
    /// The point.
    pub point: PointId,
    /// When it was finished.
    pub ended: Timestamp,
    /// The system of its log.
    pub system_identifier: Option<String>,
    /// What becomes of it.
    pub fate: Fate,
}

/// A number of objects and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    /// How many.
    pub objects: u64,
    /// How large together.
    pub bytes: ByteCount,
}

impl Amount {
    /// Adds one object.
    pub fn add(&mut self, bytes: ByteCount) {
        self.objects = self.objects.saturating_add(1);
        self.bytes = ByteCount(self.bytes.0.saturating_add(bytes.0));
    }
}

impl ExpirePlan {
    /// Returns the digest that the ledger records.
    pub fn digest(&self) -> Digest {
        // Text of our own types always can be written; without it no digest of a record fits.
        Digest::of(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// Returns how much goes.
    pub fn goes(&self) -> Amount {
        let mut amount = Amount::default();
        for going in self.sources.iter().flat_map(|source| &source.goes) {
            amount.add(going.bytes);
        }
        amount
    }

    /// Returns the points that go.
    pub fn points(&self) -> impl Iterator<Item = (&SourceName, &PlannedPoint)> {
        self.sources.iter().flat_map(|source| {
            let points = source.points.iter();
            let goes = points.filter(|point| point.fate == Fate::Goes);
            goes.map(move |point| (&source.source, point))
        })
    }
}

impl SourcePlan {
    /// Returns what this plan removes of points and systems, for what is left when it is interrupted.
    pub(super) fn begun(&self) -> Begun {
        let goes = |point: &&PlannedPoint| point.fate == Fate::Goes;
        let points = self.points.iter().filter(goes);
        let systems: Vec<u64> = points.clone().filter_map(PlannedPoint::system).collect();
        let stays = |system: &u64| {
            self.points
                .iter()
                .any(|point| point.fate != Fate::Goes && point.system() == Some(*system))
        };
        Begun {
            points: points.map(|point| point.point.clone()).collect(),
            systems: systems
                .into_iter()
                .filter(|system| !stays(system))
                .collect(),
        }
    }
}

impl PlannedPoint {
    fn system(&self) -> Option<u64> {
        self.system_identifier.as_ref()?.parse().ok()
    }
}

/// What a plan is made from.
pub(super) struct Planner<'a> {
    pub(super) reader: &'a Reader,
    pub(super) lock_for: Span,
    pub(super) now: AgreedTime,
}

impl Planner<'_> {
    /// Plans one source.
    pub(super) fn source(
        &self,
        source: &SourceName,
        rules: Option<KeepRules>,
        inventory: Inventory,
        begun: &Begun,
    ) -> Result<SourcePlan, ExpiryError> {
        let Some(rules) = rules else {
            return Ok(without_rules(source, &inventory));
        };
        let fates = self.fates(&rules, &inventory, begun)?;
        let needed = needed(self.reader, source, &fates)?;
        let known = Known {
            fates: &fates,
            needed: &needed,
            begun,
            lock_for: self.lock_for.0,
            now: self.now,
        };
        let mut plan = ObjectPlan::of(inventory.objects, known);
        let mut locked = Vec::new();
        for going in &plan.goes {
            locked.push(is_locked(
                self.reader.store().as_ref(),
                &going.key,
                self.now,
            )?);
        }
        let mut locked = locked.into_iter();
        plan.withhold(|_| locked.next().unwrap_or(true));
        let mut stays: BTreeMap<WhyStays, Amount> = BTreeMap::new();
        for staying in plan.stays {
            stays.entry(staying.why).or_default().add(staying.bytes);
        }
        Ok(SourcePlan {
            source: source.clone(),
            rules: Some(rules),
            points: fates.iter().map(planned).collect(),
            goes: plan.goes,
            stays,
        })
    }

    /// Judges the points; one whose manifest the storage still keeps stays whole.
    fn fates(
        &self,
        rules: &KeepRules,
        inventory: &Inventory,
        begun: &Begun,
    ) -> Result<Vec<PointFate>, ExpiryError> {
        let unfinished = inventory.unfinished.iter();
        let unfinished: Vec<Timestamp> = unfinished
            .filter(|(point, _)| !begun.points.contains(point))
            .map(|(_, began)| *began)
            .collect();
        let judge = |points| judge(points, &unfinished, rules, self.lock_for.0, self.now);
        let fates = judge(inventory.points.clone());
        let manifests = inventory.manifests();
        let mut points = Vec::new();
        for fate in fates {
            let mut facts = fate.facts;
            if fate.fate == Fate::Goes
                && let Some(key) = manifests.get(&facts.point)
            {
                let head = self.reader.store().head(key)?;
                facts.locked_until = head.and_then(|head| head.locked_until);
            }
            points.push(facts);
        }
        Ok(judge(points))
    }

    /// Returns the heartbeats that nobody looks at any more: all but the newest of each epoch, once
    /// they are older than the lock window and than the clock guard looks back.
    pub(super) fn heartbeats(&self, backend: &dyn Backend) -> Result<Vec<ObjectKey>, ExpiryError> {
        let age = self.lock_for.0.max(limits::HEARTBEATS_KEPT);
        let mut epochs: BTreeMap<String, BTreeMap<Timestamp, ObjectKey>> = BTreeMap::new();
        for (key, _) in backend.list(FENCE_FOLDER)? {
            let folder = key
                .as_str()
                .rsplit_once('/')
                .unwrap_or_default()
                .0
                .to_owned();
            if let Some(at) = beat_time(key.name()) {
                epochs.entry(folder).or_default().insert(at, key);
            }
        }
        let mut old = Vec::new();
        for mut beats in epochs.into_values() {
            beats.pop_last();
            for (at, key) in beats {
                if is_older(at, age, self.now.at()) && !is_locked(backend, &key, self.now)? {
                    old.push(key);
                }
            }
        }
        Ok(old)
    }
}

fn is_locked(
    store: &dyn ObjectStore,
    key: &ObjectKey,
    now: AgreedTime,
) -> Result<bool, ExpiryError> {
    let until = store.head(key)?.and_then(|head| head.locked_until);
    Ok(until.is_some_and(|until| until > now.at()))
}

fn planned(fate: &PointFate) -> PlannedPoint {
    PlannedPoint {
        point: fate.facts.point.clone(),
        ended: fate.facts.ended,
        system_identifier: fate.facts.log.map(|log| log.system_identifier.to_string()),
        fate: fate.fate,
    }
}

fn without_rules(source: &SourceName, inventory: &Inventory) -> SourcePlan {
    let amount = Amount {
        objects: u64::try_from(inventory.objects.len()).unwrap_or(u64::MAX),
        bytes: inventory.bytes(),
    };
    let points = inventory.points.iter().map(|point| PlannedPoint {
        point: point.point.clone(),
        ended: point.ended,
        system_identifier: point.log.map(|log| log.system_identifier.to_string()),
        fate: Fate::NoRules,
    });
    SourcePlan {
        source: source.clone(),
        rules: None,
        points: points.collect(),
        goes: Vec::new(),
        stays: BTreeMap::from([(WhyStays::NoRules, amount)]),
    }
}

/// Returns the keys of everything that goes, with the reason.
pub(super) fn going(plan: &SourcePlan) -> BTreeMap<&ObjectKey, &WhyGoes> {
    plan.goes
        .iter()
        .map(|going| (&going.key, &going.why))
        .collect()
}
