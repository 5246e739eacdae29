//! The one process that removes: it plans, records the plan, and performs it object by object.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use ed25519_dalek::VerifyingKey;
use holdfast_core::ledger::{Draft, Entry};
use holdfast_core::{ByteCount, Principal, SourceName};
use holdfast_store::ledger::{self, Ledger};
use holdfast_store::object::expire::{Expire, Expired};
use holdfast_store::object::fence::{FENCE_FOLDER, beat_time};
use holdfast_store::object::{Backend, ObjectKey};

use super::clock::{AgreedTime, ClockFacts, ClockPair};
use super::error::ExpiryError;
use super::inventory::Inventory;
use super::objects::{Begun, WhyGoes};
use super::plan::{Amount, ExpirePlan, Planner, SourcePlan, going};
use super::rules::{KeepRules, Span};
use super::window;
use crate::config::Clock;
use crate::limits;
use crate::repository::Reader;

/// What expires, and by whose word. It reads the repository and writes its own ledger; only
/// [`Expiry::apply`] is handed what removes.
pub struct Expiry {
    /// The repository as it lies there: heartbeats and windows are not encrypted.
    pub backend: std::sync::Arc<dyn Backend>,
    /// The repository's points.
    pub reader: Reader,
    /// The rules of every source that has any.
    pub rules: BTreeMap<SourceName, KeepRules>,
    /// The lock window.
    pub lock_for: Span,
    /// The ledger of this process alone.
    pub ledger: Ledger,
    /// Where the vault's ledger lies, with the key that verifies it: it tells the time too.
    pub vault_ledger: Option<(PathBuf, VerifyingKey)>,
    /// This machine's clock.
    pub clock: Clock,
}

/// What was done of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ExpireReport {
    /// What was removed.
    pub removed: Amount,
    /// What an earlier run had removed already.
    pub absent: u64,
    /// What the storage keeps for now; a later plan has it again.
    pub locked: u64,
}

/// What the ledger knows of runs before.
#[derive(Default)]
struct Before {
    clocks: Option<ClockPair>,
    planned: BTreeSet<String>,
    begun: BTreeSet<String>,
}

impl Expiry {
    /// Plans what may go, and records the plan; nothing is removed.
    ///
    /// # Errors
    /// [`ExpiryError`]: clocks that disagree, a smaller lock window than before, anything that cannot be
    /// read.
    pub fn plan(&self) -> Result<ExpirePlan, ExpiryError> {
        window::check(self.backend.as_ref(), self.lock_for)?;
        let inventories = self.inventories()?;
        let (made, now) = self.agree(&inventories)?;
        let planner = self.planner(now);
        let mut sources = Vec::new();
        for (source, inventory) in inventories {
            let rules = self.rules.get(&source).copied();
            sources.push(planner.source(&source, rules, inventory, &Begun::default())?);
        }
        let plan = ExpirePlan {
            format: 1,
            repository: self.backend.marker().id.clone(),
            made,
            agreed: now.at(),
            lock_for: self.lock_for,
            sources,
            heartbeats: planner.heartbeats(self.backend.as_ref())?,
        };
        let goes = plan.goes();
        let points: Vec<String> = plan
            .points()
            .map(|(_, point)| point.point.to_string())
            .collect();
        self.record("expire.planned", &plan, made, |draft| {
            draft
                .with("objects", goes.objects)
                .with("bytes", goes.bytes.0)
                .with("points", points)
                .with("summary", format!("{} objects may go", goes.objects))
        })?;
        Ok(plan)
    }

    /// Performs a plan that was recorded, object by object, each looked at again; continues one that was
    /// interrupted.
    ///
    /// # Errors
    /// [`ExpiryError`]; what had been removed by then was in the plan, and a further run goes on.
    pub fn apply(
        &self,
        plan: &ExpirePlan,
        expire: &dyn Expire,
    ) -> Result<ExpireReport, ExpiryError> {
        if plan.format != 1 || plan.repository != self.backend.marker().id {
            let why = "it is of another repository".to_owned();
            return Err(ExpiryError::Changed { why });
        }
        window::check(self.backend.as_ref(), self.lock_for)?;
        let before = self.before()?;
        let digest = plan.digest().to_string();
        if !before.planned.contains(&digest) {
            return Err(ExpiryError::Unrecorded);
        }
        let inventories = self.inventories()?;
        let (made, now) = self.agree(&inventories)?;
        let is_continued = before.begun.contains(&digest);
        if !is_continued && now.at().since(plan.agreed) > limits::PLAN_AGE {
            return Err(ExpiryError::Old {
                made: plan.agreed,
                limit_s: limits::PLAN_AGE.as_secs(),
            });
        }
        let mut checked = BTreeMap::new();
        for (source, inventory) in inventories {
            let decisive = inventory.decisive();
            self.fits(plan, &source, inventory, now)?;
            checked.insert(source, decisive);
        }
        self.record("expire.begun", plan, made, |draft| draft)?;
        let mut performing = Performing {
            expiry: self,
            plan,
            expire,
            now,
            checked,
            looked: Instant::now(),
            report: ExpireReport::default(),
        };
        let performed = performing.run();
        let report = performing.report;
        let kind = match &performed {
            Ok(()) => "expire.ended",
            Err(_) => "expire.interrupted",
        };
        self.record(kind, plan, made, |draft| {
            draft
                .with("removed", report.removed.objects)
                .with("bytes", report.removed.bytes.0)
                .with("locked", report.locked)
                .with(
                    "summary",
                    format!("{} objects removed", report.removed.objects),
                )
        })?;
        performed.map(|()| report)
    }

    fn planner(&self, now: AgreedTime) -> Planner<'_> {
        Planner {
            reader: &self.reader,
            lock_for: self.lock_for,
            now,
        }
    }

    fn inventories(&self) -> Result<Vec<(SourceName, Inventory)>, ExpiryError> {
        let mut found = Vec::new();
        for source in self.reader.sources()? {
            let inventory = self.inventory(&source)?;
            found.push((source, inventory));
        }
        Ok(found)
    }

    fn inventory(&self, source: &SourceName) -> Result<Inventory, ExpiryError> {
        Ok(Inventory::read(&self.reader, source)?)
    }

    /// Asks every clock and every record for the time.
    fn agree(
        &self,
        inventories: &[(SourceName, Inventory)],
    ) -> Result<(ClockPair, AgreedTime), ExpiryError> {
        let before = self.before()?;
        let mut records = Vec::new();
        for (_, inventory) in inventories {
            records.extend(inventory.times());
        }
        let listed = self.backend.list(FENCE_FOLDER)?;
        records.extend(listed.iter().filter_map(|(key, _)| beat_time(key.name())));
        if let Some((folder, key)) = &self.vault_ledger {
            ledger::verify(folder, key, |entry| records.push(entry.draft.at))?;
        }
        let pair = ClockPair {
            local: (self.clock)(),
            storage: self.backend.now()?,
        };
        let facts = ClockFacts {
            local: pair.local,
            storage: pair.storage,
            before: before.clocks,
            records,
        };
        Ok((pair, facts.agree()?))
    }

    /// Reads what this ledger has of plans. Its entries are no witnesses of the time: they were made by
    /// the very clock that is to be judged.
    fn before(&self) -> Result<Before, ExpiryError> {
        let mut before = Before::default();
        let each = |entry: &Entry| {
            let body = &entry.draft.body;
            let text = |key: &str| body.get(key).and_then(serde_json::Value::as_str);
            let digest = text("plan").unwrap_or_default().to_owned();
            match entry.draft.kind.as_str() {
                "expire.planned" => before.planned.insert(digest),
                "expire.begun" => before.begun.insert(digest),
                _ => false,
            };
            if let Some(pair) = body.get("clocks") {
                before.clocks = serde_json::from_value(pair.clone()).ok().or(before.clocks);
            }
        };
        ledger::verify(self.ledger.folder(), &self.ledger.public_key(), each)?;
        Ok(before)
    }

    fn record(
        &self,
        kind: &str,
        plan: &ExpirePlan,
        clocks: ClockPair,
        more: impl FnOnce(Draft) -> Draft,
    ) -> Result<(), ExpiryError> {
        let clocks = serde_json::json!(clocks);
        let draft = Draft::new(kind, Principal::service("retention"), (self.clock)())
            .with("plan", plan.digest().to_string())
            .with("clocks", clocks);
        self.ledger.append(more(draft))?;
        Ok(())
    }

    /// Checks that everything of the plan that is still there would be planned again now.
    fn fits(
        &self,
        plan: &ExpirePlan,
        source: &SourceName,
        inventory: Inventory,
        now: AgreedTime,
    ) -> Result<(), ExpiryError> {
        let Some(planned) = plan.sources.iter().find(|one| one.source == *source) else {
            return Ok(());
        };
        let there: BTreeSet<ObjectKey> = inventory
            .objects
            .iter()
            .map(|object| object.key.clone())
            .collect();
        let rules = self.rules.get(source).copied();
        let again = self
            .planner(now)
            .source(source, rules, inventory, &planned.begun())?;
        let again = going(&again);
        let stays = planned
            .goes
            .iter()
            .find(|going| there.contains(&going.key) && !again.contains_key(&going.key));
        match stays {
            None => Ok(()),
            Some(going) => Err(ExpiryError::Changed {
                why: format!("`{}` stays", going.key),
            }),
        }
    }
}

/// A plan while it is performed.
struct Performing<'a> {
    expiry: &'a Expiry,
    plan: &'a ExpirePlan,
    expire: &'a dyn Expire,
    now: AgreedTime,
    /// The manifests and marks that were there when the plan was last checked against the source.
    checked: BTreeMap<SourceName, BTreeSet<ObjectKey>>,
    looked: Instant,
    report: ExpireReport,
}

impl Performing<'_> {
    fn run(&mut self) -> Result<(), ExpiryError> {
        for source in &self.plan.sources {
            self.source(source)?;
        }
        for key in &self.plan.heartbeats {
            self.remove(key, ByteCount(0))?;
        }
        Ok(())
    }

    fn source(&mut self, source: &SourcePlan) -> Result<(), ExpiryError> {
        let mut folders: BTreeSet<&str> = BTreeSet::new();
        for (number, going) in source.goes.iter().enumerate() {
            if number.is_multiple_of(limits::RECHECK_OBJECTS)
                || self.looked.elapsed() > limits::RECHECK_EVERY
            {
                self.recheck(source)?;
            }
            if going.why == WhyGoes::PointExpired {
                self.announce(source, &going.key)?;
            }
            match self.remove(&going.key, going.bytes)? {
                // A point must not lose its parts while its manifest stays.
                Expired::Locked(until) if going.why == WhyGoes::PointExpired => {
                    let key = going.key.clone();
                    return Err(ExpiryError::Locked { key, until });
                }
                Expired::Absent | Expired::Locked(_) | Expired::Removed => {}
            }
            let is_folder_of_its_own = matches!(
                going.why,
                WhyGoes::PointExpired
                    | WhyGoes::Unneeded
                    | WhyGoes::Orphan
                    | WhyGoes::SegmentIsWhole
            );
            if is_folder_of_its_own && let Some((folder, _)) = going.key.as_str().rsplit_once('/') {
                folders.insert(folder);
            }
        }
        for folder in folders {
            self.expire.fold(folder)?;
        }
        Ok(())
    }

    /// Looks whether a point was made or marked since; if so, the plan must fit that too.
    fn recheck(&mut self, source: &SourcePlan) -> Result<(), ExpiryError> {
        self.looked = Instant::now();
        let name = &source.source;
        let inventory = self.expiry.inventory(name)?;
        let decisive = inventory.decisive();
        let known = self.checked.entry(name.clone()).or_default();
        if !decisive.is_subset(known) {
            self.expiry.fits(self.plan, name, inventory, self.now)?;
            known.extend(decisive);
        }
        Ok(())
    }

    /// Writes down that a point goes, before its manifest does.
    fn announce(&self, source: &SourcePlan, manifest: &ObjectKey) -> Result<(), ExpiryError> {
        let expiry = self.expiry;
        let at = (expiry.clock)();
        let draft = Draft::new("point.expired", Principal::service("retention"), at)
            .source(source.source.clone())
            .with("plan", self.plan.digest().to_string())
            .with("manifest", manifest.to_string())
            .with("summary", format!("{manifest} goes"));
        expiry.ledger.append(draft)?;
        Ok(())
    }

    fn remove(&mut self, key: &ObjectKey, bytes: ByteCount) -> Result<Expired, ExpiryError> {
        let expired = self.expire.expire(key)?;
        match expired {
            Expired::Absent => self.report.absent = self.report.absent.saturating_add(1),
            Expired::Locked(_) => self.report.locked = self.report.locked.saturating_add(1),
            Expired::Removed => self.report.removed.add(bytes),
        }
        Ok(expired)
    }
}
