//! Lengthening locks: as long as an unexpired point needs an object, its lock never runs out.
//!
//! A lock is lengthened when less than half of the window is left of it, to a whole window from now; so
//! an object is locked twice a window, however many points need it, and what no point needs any more
//! runs out by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_core::{ErrorChain, SourceName, Timestamp};
use holdfast_store::object::{MARKER, ObjectError, ObjectKey, ObjectStore, Promise};
use serde::{Deserialize, Serialize};

use super::clock::AgreedTime;
use super::inventory::{Inventory, needed};
use super::objects::{Begun, Known, ObjectPlan, WhyStays};
use super::points::judge;
use super::rules::{KeepRules, Span};
use super::window::WINDOW_FOLDER;
use crate::limits;
use crate::repository::{Reader, RepositoryError};

/// Keeps the locks of what is needed long enough.
pub struct LockKeeper {
    reader: Reader,
    rules: BTreeMap<SourceName, KeepRules>,
    lock_for: Span,
    /// What belongs to no source and must stay as well, such as the claim of the writer.
    beside: BTreeSet<ObjectKey>,
    /// Until when objects are locked, as far as it was asked or set.
    known: BTreeMap<ObjectKey, Timestamp>,
}

/// What one look at the locks found and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LockReport {
    /// When it ended, by the storage's clock.
    pub at: Option<Timestamp>,
    /// Objects that unexpired points need.
    pub objects: u64,
    /// Requests that asked for a lock; each object is asked for once in the life of a process.
    pub asked: u64,
    /// Requests that lengthened one.
    pub lengthened: u64,
    /// Objects whose lock is left for the next look.
    pub left: u64,
    /// Objects that refused, or whose source could not be read.
    pub failed: u64,
    /// Requests a month to keep this many objects locked: one that looks and one that locks, each time.
    pub requests_per_month: u64,
    /// What they cost in dollars at the list price of the most used storage, 0 for a directory.
    pub dollars_per_month: f64,
}

/// Dollars for the request that lengthens a lock.
///
/// # Source
/// <https://aws.amazon.com/s3/pricing/>, S3 Standard, us-east-1: $0.005 per 1000 PUT, COPY, POST, LIST.
const DOLLARS_TO_LOCK: f64 = 0.000_005;
/// Dollars for the look at it before; same source, $0.0004 per 1000 GET, SELECT and all others.
const DOLLARS_TO_LOOK: f64 = 0.000_000_4;
/// A month, for what is told per month.
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl LockKeeper {
    /// Begins without knowing any lock.
    #[must_use]
    pub fn new(reader: Reader, rules: BTreeMap<SourceName, KeepRules>, lock_for: Span) -> Self {
        Self {
            reader,
            rules,
            lock_for,
            beside: BTreeSet::new(),
            known: BTreeMap::new(),
        }
    }

    /// Keeps this object's lock as well, as long as it looks.
    #[must_use]
    pub fn beside(mut self, key: ObjectKey) -> Self {
        self.beside.insert(key);
        self
    }

    /// Returns the time to the next look: several fall into half a window, more if one left something.
    pub fn wait(&self, left: Option<&LockReport>) -> Duration {
        let most = match left {
            Some(report) if report.left == 0 && report.failed == 0 => limits::LOCKS_EVERY,
            Some(_) | None => limits::LOCKS_AGAIN,
        };
        most.min(self.lock_for.0 / 8).max(Duration::from_secs(1))
    }

    /// Looks at every object that an unexpired point needs, and lengthens the locks that need it.
    ///
    /// `store` is what writes: the locks of a vault that was fenced off are not its business any more.
    ///
    /// # Errors
    /// When the storage tells no time or no sources. Trouble with one source or object is counted and
    /// logged, and the others go on.
    pub fn look(&mut self, store: &dyn ObjectStore) -> Result<LockReport, RepositoryError> {
        let mut report = LockReport::default();
        if self.lock_for == Span::ZERO {
            return Ok(report);
        }
        let now = store.now()?;
        let mut needed = self.beside.clone();
        // Without the marker nothing is a repository, and without the windows one could shrink.
        needed.extend(MARKER.parse::<ObjectKey>());
        needed.extend(store.list(WINDOW_FOLDER)?.into_iter().map(|(key, _)| key));
        for source in self.reader.sources()? {
            match self.needed(&source, now) {
                Ok(keys) => needed.extend(keys),
                Err(error) => {
                    report.failed = report.failed.saturating_add(1);
                    tracing::error!(%source, what = %ErrorChain(&error), "locks are not lengthened");
                }
            }
        }
        self.known.retain(|key, _| needed.contains(key));
        report.objects = u64::try_from(needed.len()).unwrap_or(u64::MAX);
        for key in needed {
            if let Err(error) = self.lengthen(store, &key, now, &mut report) {
                if let ObjectError::Fenced { .. } = error {
                    return Err(error.into());
                }
                report.failed = report.failed.saturating_add(1);
                tracing::error!(object = %key, what = %ErrorChain(&error), "the lock is not lengthened");
            }
        }
        report.at = Some(now);
        self.tell_cost(store, &mut report);
        Ok(report)
    }

    fn lengthen(
        &mut self,
        store: &dyn ObjectStore,
        key: &ObjectKey,
        now: Timestamp,
        report: &mut LockReport,
    ) -> Result<(), ObjectError> {
        let until = match self.known.get(key) {
            Some(until) => *until,
            None => {
                report.asked = report.asked.saturating_add(1);
                let head = store.head(key)?;
                // What went meanwhile, such as the tail of a closed segment, needs no lock.
                let Some(head) = head else { return Ok(()) };
                head.locked_until.unwrap_or(Timestamp(0))
            }
        };
        self.known.insert(key.clone(), until);
        if until > now.plus(self.lock_for.0 / 2) {
            return Ok(());
        }
        let limit = u64::try_from(limits::LOCKS_AT_ONCE).unwrap_or(u64::MAX);
        if report.lengthened >= limit {
            report.left = report.left.saturating_add(1);
            return Ok(());
        }
        let until = now.plus(self.lock_for.0);
        report.lengthened = report.lengthened.saturating_add(1);
        store.lock_until(key, until)?;
        self.known.insert(key.clone(), until);
        Ok(())
    }

    /// Returns every object that must not lose its lock: all that staying points need or are.
    fn needed(
        &self,
        source: &SourceName,
        now: Timestamp,
    ) -> Result<Vec<ObjectKey>, RepositoryError> {
        let inventory = Inventory::read(&self.reader, source)?;
        let Some(rules) = self.rules.get(source) else {
            return Ok(inventory
                .objects
                .into_iter()
                .map(|object| object.key)
                .collect());
        };
        let now = AgreedTime::to_lengthen(now);
        let unfinished: Vec<Timestamp> = inventory.unfinished.values().copied().collect();
        let fates = judge(inventory.points, &unfinished, rules, self.lock_for.0, now);
        let needed = needed(&self.reader, source, &fates)?;
        let known = Known {
            fates: &fates,
            needed: &needed,
            begun: &Begun::default(),
            lock_for: self.lock_for.0,
            now,
        };
        let plan = ObjectPlan::of(inventory.objects, known);
        let must = |why: WhyStays| match why {
            WhyStays::History
            | WhyStays::Log
            | WhyStays::Needed
            | WhyStays::NoRules
            | WhyStays::Point
            | WhyStays::Unfinished => true,
            WhyStays::Locked | WhyStays::Unknown | WhyStays::Young => false,
        };
        let stays = plan.stays.into_iter().filter(|staying| must(staying.why));
        Ok(stays.map(|staying| staying.key).collect())
    }

    fn tell_cost(&self, store: &dyn ObjectStore, report: &mut LockReport) {
        let half_windows = (2 * MONTH.as_secs() / self.lock_for.0.as_secs().max(1)).max(1);
        let lengthened = report.objects.saturating_mul(half_windows);
        report.requests_per_month = lengthened.saturating_mul(2);
        if let Promise::Compliance = store.promise() {
            let lengthened = u32::try_from(lengthened).unwrap_or(u32::MAX);
            report.dollars_per_month = f64::from(lengthened) * (DOLLARS_TO_LOCK + DOLLARS_TO_LOOK);
        }
    }
}
