//! Which objects may go with the points that nobody keeps, and why every other one stays. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_core::{ByteCount, Lsn, PointId, Timestamp};
use holdfast_store::object::ObjectKey;
use serde::{Deserialize, Serialize};

use super::clock::AgreedTime;
use super::points::{PointFate, PointLog, is_older};
use crate::limits;

/// An object and what its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectFacts {
    /// Its name.
    pub key: ObjectKey,
    /// Its size.
    pub bytes: ByteCount,
    /// What it is.
    pub kind: Kind,
}

/// What an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The history of a timeline of this system.
    History(u64),
    /// The manifest of a point.
    Manifest(PointId),
    /// A person's word that a point is kept, or no longer.
    Mark(PointId),
    /// A bundle or a part of a block map, stored for a point.
    Part {
        /// Which point.
        point: PointId,
        /// When the point was begun.
        began: Timestamp,
    },
    /// The proof of a point.
    Proof {
        /// Which point.
        point: PointId,
        /// When the drill was.
        at: Timestamp,
    },
    /// A whole segment of the log.
    Segment(WalFacts),
    /// A part of a segment.
    Tail(WalFacts),
    /// Something else.
    Unknown,
}

/// Which part of which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalFacts {
    /// PostgreSQL's system identifier.
    pub system_identifier: u64,
    /// The timeline.
    pub timeline: u32,
    /// The first position and the one after the last; absent when no point tells how long a segment is.
    pub span: Option<(Lsn, Lsn)>,
}

/// Why an object may go. The order is the order of removal: a point ends with its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhyGoes {
    /// It is the manifest of a point that nothing keeps.
    PointExpired,
    /// It was stored for a point that is no more, and no other point needs it.
    Unneeded,
    /// It was stored for a point that never got a manifest, long ago.
    Orphan,
    /// It is a proof that a newer one replaces, or of a point that is no more.
    OldProof,
    /// It is a mark on a point that is no more.
    OldMark,
    /// The whole segment is there.
    SegmentIsWhole,
    /// No kept point reads this part of the log.
    OldLog,
    /// No kept point is of this system.
    OldHistory,
}

/// Why an object stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhyStays {
    /// A kept point of its system may need it.
    History,
    /// A kept point reads this part of the log.
    Log,
    /// The storage keeps it for now.
    Locked,
    /// A kept point refers to it.
    Needed,
    /// Its source has no rules.
    NoRules,
    /// It belongs to a point that is kept.
    Point,
    /// The point that it was stored for may not be finished yet.
    Unfinished,
    /// Its name says nothing to this version.
    Unknown,
    /// It is not certain that it is older than the lock window.
    Young,
}

/// An object that may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Going {
    /// Why.
    pub why: WhyGoes,
    /// Its name.
    pub key: ObjectKey,
    /// Its size.
    pub bytes: ByteCount,
}

/// An object that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staying {
    /// Why.
    pub why: WhyStays,
    /// Its name.
    pub key: ObjectKey,
    /// Its size.
    pub bytes: ByteCount,
}

/// What becomes of every object of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectPlan {
    /// What may go, in the order in which it must.
    pub goes: Vec<Going>,
    /// Everything else.
    pub stays: Vec<Staying>,
}

/// What a recorded plan has begun to remove: what is left of it has no manifest any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begun {
    /// Points.
    pub points: BTreeSet<PointId>,
    /// Systems of which no point was to remain.
    pub systems: BTreeSet<u64>,
}

/// What is needed besides the objects themselves.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Every point with a manifest, judged.
    pub fates: &'a [PointFate],
    /// Every bundle and part of a map that a staying point refers to, with one such point.
    pub needed: &'a BTreeMap<ObjectKey, PointId>,
    /// What a recorded plan has begun.
    pub begun: &'a Begun,
    /// The lock window.
    pub lock_for: Duration,
    /// The time.
    pub now: AgreedTime,
}

impl ObjectPlan {
    /// Judges every object of a source.
    #[must_use]
    pub fn of(objects: Vec<ObjectFacts>, known: Known<'_>) -> Self {
        let judge = Judge::of(&objects, known);
        let mut plan = Self::default();
        for ObjectFacts { key, bytes, kind } in objects {
            match judge.judge(&key, &kind) {
                Ok(why) => plan.stays.push(Staying { why, key, bytes }),
                Err(why) => plan.goes.push(Going { why, key, bytes }),
            }
        }
        plan.goes
            .sort_by(|a, b| (&a.why, &a.key).cmp(&(&b.why, &b.key)));
        plan
    }

    /// Moves what the storage still keeps from what goes to what stays.
    pub fn withhold(&mut self, mut is_locked: impl FnMut(&Going) -> bool) {
        let (locked, goes) = std::mem::take(&mut self.goes)
            .into_iter()
            .partition(|going| is_locked(going));
        self.goes = goes;
        let locked: Vec<Going> = locked;
        self.stays.extend(locked.into_iter().map(|going| Staying {
            why: WhyStays::Locked,
            key: going.key,
            bytes: going.bytes,
        }));
    }
}

/// A part of the log that a kept point reads.
struct Reads {
    system_identifier: u64,
    timeline: u32,
    from: Lsn,
    /// The last position; without one, everything after, on later timelines too.
    to: Option<Lsn>,
}

impl Reads {
    fn covers(&self, wal: &WalFacts, (start, end): (Lsn, Lsn)) -> bool {
        let is_line = match self.to {
            Some(_) => wal.timeline == self.timeline,
            None => wal.timeline >= self.timeline,
        };
        wal.system_identifier == self.system_identifier
            && is_line
            && end > self.from
            && self.to.is_none_or(|to| start <= to)
    }
}

struct Judge<'a> {
    known: Known<'a>,
    points: BTreeMap<&'a PointId, &'a PointFate>,
    reads: Vec<Reads>,
    /// Where the whole segments are: system, timeline, first position.
    whole: BTreeSet<(u64, u32, Lsn)>,
    proofs: BTreeMap<PointId, Timestamp>,
    /// A point may be in the making.
    unfinished: bool,
}

impl<'a> Judge<'a> {
    fn of(objects: &[ObjectFacts], known: Known<'a>) -> Self {
        let mut whole = BTreeSet::new();
        let mut proofs: BTreeMap<PointId, Timestamp> = BTreeMap::new();
        for object in objects {
            match &object.kind {
                Kind::Segment(wal) => {
                    let start = wal.span.map(|span| span.0);
                    whole.extend(start.map(|start| (wal.system_identifier, wal.timeline, start)));
                }
                Kind::Proof { point, at } => {
                    let newest = proofs.entry(point.clone()).or_insert(*at);
                    *newest = (*newest).max(*at);
                }
                Kind::History(_)
                | Kind::Manifest(_)
                | Kind::Mark(_)
                | Kind::Part { .. }
                | Kind::Tail(_)
                | Kind::Unknown => {}
            }
        }
        let points = known.fates.iter().map(|fate| (&fate.facts.point, fate));
        let mut judge = Self {
            known,
            points: points.collect(),
            reads: reads(known.fates),
            whole,
            proofs,
            unfinished: false,
        };
        judge.unfinished = objects.iter().any(|object| match &object.kind {
            Kind::Part { point, began } => {
                judge.part(&object.key, point, *began) == Ok(WhyStays::Unfinished)
            }
            _ => false,
        });
        judge
    }

    /// Returns why it stays, or else why it may go.
    fn judge(&self, key: &ObjectKey, kind: &Kind) -> Result<WhyStays, WhyGoes> {
        match kind {
            Kind::History(system) => self.history(*system),
            Kind::Manifest(point) => match self.points.get(point) {
                Some(fate) if !fate.stays() => Err(WhyGoes::PointExpired),
                Some(_) => Ok(WhyStays::Point),
                None => Ok(WhyStays::Unknown),
            },
            Kind::Mark(point) => match self.is_gone(point) {
                true => Err(WhyGoes::OldMark),
                false => Ok(WhyStays::Point),
            },
            Kind::Part { point, began } => self.part(key, point, *began),
            Kind::Proof { point, at } => self.proof(point, *at),
            Kind::Segment(wal) => self.log(wal),
            Kind::Tail(wal) => match self.log(wal) {
                Ok(WhyStays::Log) if self.is_whole(wal) && self.is_old(wal) => {
                    Err(WhyGoes::SegmentIsWhole)
                }
                judged => judged,
            },
            Kind::Unknown => Ok(WhyStays::Unknown),
        }
    }

    fn part(
        &self,
        key: &ObjectKey,
        point: &PointId,
        began: Timestamp,
    ) -> Result<WhyStays, WhyGoes> {
        if self.known.needed.contains_key(key) {
            return Ok(WhyStays::Needed);
        }
        match self.points.get(point) {
            Some(fate) if fate.stays() => Ok(WhyStays::Point),
            Some(_) => Err(WhyGoes::Unneeded),
            None if self.known.begun.points.contains(point) => Err(WhyGoes::Unneeded),
            None => {
                let age = limits::UNFINISHED_AGE.max(self.known.lock_for);
                match is_older(began, age, self.known.now.at()) {
                    true => Err(WhyGoes::Orphan),
                    false => Ok(WhyStays::Unfinished),
                }
            }
        }
    }

    fn proof(&self, point: &PointId, at: Timestamp) -> Result<WhyStays, WhyGoes> {
        let is_newest = self.proofs.get(point) == Some(&at);
        if is_newest && !self.is_gone(point) {
            return Ok(WhyStays::Point);
        }
        match is_older(at, self.known.lock_for, self.known.now.at()) {
            true => Err(WhyGoes::OldProof),
            false => Ok(WhyStays::Young),
        }
    }

    fn history(&self, system: u64) -> Result<WhyStays, WhyGoes> {
        let mut of_system = self.of_system(system);
        let Some((first, _)) = of_system.next() else {
            return match self.known.begun.systems.contains(&system) {
                true => Err(WhyGoes::OldHistory),
                false => Ok(WhyStays::History),
            };
        };
        match first.stays() || of_system.any(|(fate, _)| fate.stays()) {
            true => Ok(WhyStays::History),
            false => Err(WhyGoes::OldHistory),
        }
    }

    fn log(&self, wal: &WalFacts) -> Result<WhyStays, WhyGoes> {
        if self.of_system(wal.system_identifier).next().is_none() {
            // The log of a system without a point is that of its first point, which is being made.
            return match self.known.begun.systems.contains(&wal.system_identifier) {
                true => Err(WhyGoes::OldLog),
                false => Ok(WhyStays::Unfinished),
            };
        }
        let Some(span) = wal.span else {
            return Ok(WhyStays::Unknown);
        };
        if self.reads.iter().any(|reads| reads.covers(wal, span)) {
            Ok(WhyStays::Log)
        } else if self.is_old(wal) {
            Err(WhyGoes::OldLog)
        } else {
            Ok(WhyStays::Young)
        }
    }

    /// Tells whether a part of the log is certainly older than the lock window: a point that old, or
    /// one of a system that came later, was finished after it.
    fn is_old(&self, wal: &WalFacts) -> bool {
        let Some((_, end)) = wal.span else {
            return false;
        };
        let last_of_system = self
            .of_system(wal.system_identifier)
            .map(|(fate, _)| fate.facts.ended)
            .max();
        self.known.fates.iter().any(|fate| {
            let is_after = match fate.facts.log {
                None => false,
                Some(log) if log.system_identifier == wal.system_identifier => {
                    log.timeline >= wal.timeline && log.start >= end
                }
                Some(_) => !self.unfinished && Some(fate.facts.ended) > last_of_system,
            };
            is_after && is_older(fate.facts.ended, self.known.lock_for, self.known.now.at())
        })
    }

    fn is_whole(&self, wal: &WalFacts) -> bool {
        let mut of_system = self.of_system(wal.system_identifier);
        let (Some((start, _)), Some((_, log))) = (wal.span, of_system.next()) else {
            return false;
        };
        let bytes = u64::from(log.segment_bytes.max(1));
        let first = Lsn(start.0 - start.0 % bytes);
        self.whole
            .contains(&(wal.system_identifier, wal.timeline, first))
    }

    fn is_gone(&self, point: &PointId) -> bool {
        self.points.get(point).is_none_or(|fate| !fate.stays())
    }

    fn of_system(&self, system: u64) -> impl Iterator<Item = (&PointFate, PointLog)> {
        self.known.fates.iter().filter_map(move |fate| {
            let log = fate.facts.log?;
            (log.system_identifier == system).then_some((fate, log))
        })
    }
}

/// Returns what of the log the staying points read, without what others of them cover.
fn reads(fates: &[PointFate]) -> Vec<Reads> {
    let mut all: Vec<Reads> = Vec::new();
    for fate in fates.iter().filter(|fate| fate.stays()) {
        let Some(log) = fate.facts.log else { continue };
        let is_covered = all.iter().any(|one| {
            one.to.is_none()
                && one.system_identifier == log.system_identifier
                && one.timeline <= log.timeline
                && one.from <= log.start
        });
        if !is_covered {
            all.push(Reads {
                system_identifier: log.system_identifier,
                timeline: log.timeline,
                from: log.start,
                to: (!fate.log).then_some(log.stop),
            });
        }
    }
    all
}
