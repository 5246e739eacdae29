//! Random histories, planned and performed: whatever stays has all that it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_core::{ByteCount, Lsn, PointId, Timestamp};
use holdfast_store::object::ObjectKey;
use proptest::prelude::*;

use super::points::{PointLog, judge};
use super::rules::Rule;
use super::*;
use crate::retention::objects::{Begun, Known};

const SEGMENT: u64 = 16 << 20;
const BEGIN: Timestamp = Timestamp(1_767_225_600_000_000);

/// Numbers from a seed, the same on every machine (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }
}

/// A repository in memory: its objects, its points, and what each point really needs.
#[derive(Clone)]
struct World {
    now: Timestamp,
    system: u64,
    timeline: u32,
    position: Lsn,
    points: Vec<PointFacts>,
    needs: BTreeMap<PointId, BTreeSet<ObjectKey>>,
    objects: BTreeMap<ObjectKey, Kind>,
    /// When each object was stored: the lock window is checked against it.
    stored: BTreeMap<ObjectKey, Timestamp>,
}

impl World {
    fn new() -> Self {
        Self {
            now: BEGIN,
            system: 1,
            timeline: 1,
            position: Lsn(SEGMENT),
            points: Vec::new(),
            needs: BTreeMap::new(),
            objects: BTreeMap::new(),
            stored: BTreeMap::new(),
        }
    }

    fn store(&mut self, name: String, kind: Kind) -> ObjectKey {
        let key: ObjectKey = name.parse().unwrap();
        self.objects.insert(key.clone(), kind);
        self.stored.insert(key.clone(), self.now);
        key
    }

    fn wal(&self, start: Lsn, end: Lsn) -> WalFacts {
        WalFacts {
            system_identifier: self.system,
            timeline: self.timeline,
            span: Some((start, end)),
        }
    }

    /// Time passes, and log is written: tails first, then the whole segment.
    fn stream(&mut self, dice: &mut Dice) {
        for _ in 0..dice.roll(4) {
            self.now = self.now.plus(Duration::from_secs(60 * dice.roll(400)));
            let (start, end) = (self.position, Lsn(self.position.0 + SEGMENT));
            let at = format!("{}/{}", self.system, self.timeline);
            let middle = Lsn(start.0 + SEGMENT / 2);
            for (from, to) in [(start, middle), (middle, end)] {
                let name = format!("p/tail/{at}/{:016X}/{:016X}-{:016X}", start.0, from.0, to.0);
                self.store(name, Kind::Tail(self.wal(from, to)));
            }
            // The last one of a timeline may never become whole.
            if dice.roll(20) != 0 {
                let name = format!("p/wal/{at}/{:016X}", start.0);
                self.store(name, Kind::Segment(self.wal(start, end)));
            }
            self.position = end;
        }
    }

    fn switch(&mut self, dice: &mut Dice) {
        match dice.roll(30) {
            0 => {
                self.system += 1;
                self.timeline = 1;
                self.position = Lsn(SEGMENT * (1 + dice.roll(5)));
            }
            1 | 2 => {
                self.timeline += 1;
                let name = format!("p/history/{}/{}", self.system, self.timeline);
                self.store(name, Kind::History(self.system));
            }
            _ => {}
        }
    }

    /// A point is made that shares a part of what the newest one needs; it may be given up half-way.
    fn point(&mut self, dice: &mut Dice) {
        let random: Vec<u8> = (0..10)
            .map(|_| u8::try_from(dice.roll(256)).unwrap())
            .collect();
        let point = PointId::from_random(random.try_into().unwrap());
        let began = self.now;
        // Whatever ends before a point's start is in the repository when the point is finished.
        let start = Lsn(self.position.0 + dice.roll(SEGMENT / 2));
        let mut needs: BTreeSet<ObjectKey> = BTreeSet::new();
        if let Some(parent) = self.points.last()
            && dice.roll(8) != 0
        {
            let of_parent = self.needs[&parent.point].iter();
            needs.extend(of_parent.filter(|_| dice.roll(3) != 0).cloned());
        }
        for number in 0..=dice.roll(3) {
            let part = Kind::Part {
                point: point.clone(),
                began,
            };
            needs.insert(self.store(format!("p/point/{point}/bundle-{number}"), part));
        }
        self.stream(dice);
        self.now = self.now.plus(Duration::from_secs(60 + 60 * dice.roll(300)));
        if dice.roll(15) == 0 {
            return;
        }
        let stop = Lsn(self.position.0.max(start.0) + dice.roll(SEGMENT));
        self.store(
            format!("p/point/{point}/manifest"),
            Kind::Manifest(point.clone()),
        );
        let proven = (dice.roll(3) == 0).then_some(self.now);
        for number in 0..dice.roll(3) * u64::from(proven.is_some()) {
            let at = self.now.plus(Duration::from_secs(number));
            let proof = Kind::Proof {
                point: point.clone(),
                at,
            };
            self.store(format!("p/proof/{}-{point}", at.0), proof);
        }
        self.needs.insert(point.clone(), needs);
        self.points.push(PointFacts {
            point,
            began,
            ended: self.now,
            log: Some(PointLog {
                system_identifier: self.system,
                timeline: self.timeline,
                segment_bytes: u32::try_from(SEGMENT).unwrap(),
                start,
                stop,
            }),
            proven,
            marked: (dice.roll(25) == 0).then_some(Timestamp(i64::MAX)),
            locked_until: None,
        });
    }

    fn unfinished(&self) -> Vec<Timestamp> {
        let known: BTreeSet<_> = self.points.iter().map(|point| &point.point).collect();
        let began = self.objects.values().filter_map(|kind| match kind {
            Kind::Part { point, began } if !known.contains(point) => Some(*began),
            _ => None,
        });
        began.collect()
    }

    fn plan(
        &self,
        rules: &KeepRules,
        lock_for: Duration,
        now: Timestamp,
    ) -> (Vec<PointFate>, ObjectPlan) {
        let now = ClockFacts {
            local: now,
            storage: now,
            before: None,
            records: vec![now],
        };
        let now = now.agree().unwrap();
        let fates = judge(
            self.points.clone(),
            &self.unfinished(),
            rules,
            lock_for,
            now,
        );
        let mut needed = BTreeMap::new();
        for fate in fates.iter().filter(|fate| fate.stays()) {
            for key in &self.needs[&fate.facts.point] {
                needed.insert(key.clone(), fate.facts.point.clone());
            }
        }
        let objects = self.objects.iter().map(|(key, kind)| ObjectFacts {
            key: key.clone(),
            bytes: ByteCount(1),
            kind: kind.clone(),
        });
        let known = Known {
            fates: &fates,
            needed: &needed,
            begun: &Begun::default(),
            lock_for,
            now,
        };
        let plan = ObjectPlan::of(objects.collect(), known);
        (fates, plan)
    }

    fn perform(&mut self, fates: &[PointFate], plan: &ObjectPlan) {
        for going in &plan.goes {
            self.objects.remove(&going.key).unwrap();
        }
        let stays: BTreeSet<_> = fates
            .iter()
            .filter(|fate| fate.stays())
            .map(|fate| &fate.facts.point)
            .collect();
        self.points.retain(|point| stays.contains(&point.point));
    }

    /// Everything that a point needs, told without the code under test.
    fn check(&self, before: &Self, rules: &KeepRules) {
        for point in &self.points {
            let id = &point.point;
            let manifest: ObjectKey = format!("p/point/{id}/manifest").parse().unwrap();
            assert!(self.objects.contains_key(&manifest), "{id} has no manifest");
            for key in &self.needs[id] {
                assert!(self.objects.contains_key(key), "{id} needs {key}");
            }
            let log = point.log.unwrap();
            let all =
                rules.log == LogKeep::Continuous || self.now.since(point.ended) < rules.all_for.0;
            for (key, kind) in &before.objects {
                let is_read = match kind {
                    Kind::Segment(wal) | Kind::Tail(wal) => {
                        let (start, end) = wal.span.unwrap();
                        let (is_tail, after) = (matches!(kind, Kind::Tail(_)), end > log.start);
                        let is_one = wal.system_identifier == log.system_identifier;
                        let within =
                            wal.timeline == log.timeline && after && (all || start <= log.stop);
                        let later = all && wal.timeline > log.timeline && after;
                        // A tail is needed only where the whole segment is not there.
                        is_one && (within || later) && !(is_tail && before.is_whole(wal))
                    }
                    Kind::History(system) => *system == log.system_identifier,
                    _ => false,
                };
                assert!(
                    !is_read || self.objects.contains_key(key),
                    "{id} reads {key}"
                );
            }
        }
    }

    fn is_whole(&self, wal: &WalFacts) -> bool {
        let (start, _) = wal.span.unwrap();
        let first = start.0 - start.0 % SEGMENT;
        let at = format!("{}/{}", wal.system_identifier, wal.timeline);
        let key: ObjectKey = format!("p/wal/{at}/{first:016X}").parse().unwrap();
        self.objects.contains_key(&key)
    }
}

fn rules(dice: &mut Dice) -> KeepRules {
    KeepRules {
        all_for: Span::hours(dice.roll(72)),
        hourly_for: Span::hours(dice.roll(96)),
        daily_for: Span::days(dice.roll(10)),
        weekly_for: Span::days(dice.roll(40)),
        log: [LogKeep::Continuous, LogKeep::Points][usize::try_from(dice.roll(2)).unwrap()],
    }
}

fn history(dice: &mut Dice, points: u64) -> World {
    let mut world = World::new();
    for _ in 0..points {
        world.switch(dice);
        world.stream(dice);
        world.point(dice);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_history_every_kept_point_keeps_all_that_it_needs(seed: u64) {
        let mut dice = Dice(seed);
        let rules = rules(&mut dice);
        let lock_for = Duration::from_secs(3_600 * dice.roll(100));
        let mut world = World::new();
        let rounds = 3 + dice.roll(5);
        for _ in 0..rounds {
            for _ in 0..dice.roll(12) {
                world.switch(&mut dice);
                world.stream(&mut dice);
                world.point(&mut dice);
            }
            world.now = world.now.plus(Duration::from_secs(3_600 * dice.roll(200)));
            let before = world.clone();
            let (fates, plan) = world.plan(&rules, lock_for, world.now);
            world.perform(&fates, &plan);
            world.check(&before, &rules);
            for point in &before.points {
                let is_newest = before.points.last() == Some(point);
                let age = world.now.since(point.ended);
                let must = point.marked.is_some() || is_newest || age < lock_for || age < rules.all_for.0;
                prop_assert!(!must || world.points.contains(point));
            }
            let proven = before.points.iter().rfind(|point| point.proven.is_some());
            prop_assert!(proven.is_none_or(|point| world.points.contains(point)));
            for (key, at) in &before.stored {
                let is_young = world.now.since(*at) < lock_for;
                let went = before.objects.contains_key(key) && !world.objects.contains_key(key);
                prop_assert!(!(is_young && went), "{} went within the lock window", key);
            }
            // Once performed, there is nothing left to do at the same time.
            let (_, again) = world.plan(&rules, lock_for, world.now);
            prop_assert!(again.goes.iter().all(|going| going.why == WhyGoes::OldLog), "{:?}", again.goes);
        }
    }

    #[test]
    fn time_that_passes_only_shrinks_what_is_kept(seed: u64) {
        let mut dice = Dice(seed);
        let rules = rules(&mut dice);
        let lock_for = Duration::from_secs(3_600 * dice.roll(100));
        let points = 1 + dice.roll(30);
        let world = history(&mut dice, points);
        let mut now = world.now;
        let gone = |now: Timestamp| {
            let (fates, plan) = world.plan(&rules, lock_for, now);
            let points = fates.into_iter().filter(|fate| !fate.stays());
            let points: BTreeSet<PointId> = points.map(|fate| fate.facts.point).collect();
            let objects: BTreeSet<ObjectKey> = plan.goes.into_iter().map(|going| going.key).collect();
            (points, objects)
        };
        let mut before = gone(now);
        for _ in 0..12 {
            now = now.plus(Duration::from_secs(60 * dice.roll(60 * 24 * 10)));
            let after = gone(now);
            prop_assert!(before.0.is_subset(&after.0));
            prop_assert!(before.1.is_subset(&after.1));
            before = after;
        }
    }

    #[test]
    fn what_was_interrupted_anywhere_leaves_every_kept_point_whole(seed: u64) {
        let mut dice = Dice(seed);
        let rules = rules(&mut dice);
        let points = 2 + dice.roll(25);
        let mut world = history(&mut dice, points);
        world.now = world.now.plus(Duration::from_secs(3_600 * dice.roll(2_000)));
        let (fates, plan) = world.plan(&rules, Duration::ZERO, world.now);
        let mut done = plan.clone();
        let sides = u64::try_from(plan.goes.len()).unwrap() + 1;
        done.goes.truncate(usize::try_from(dice.roll(sides)).unwrap());
        let before = world.clone();
        // Every point whose manifest is still there must be whole, also those that were to go.
        for going in &done.goes {
            world.objects.remove(&going.key).unwrap();
        }
        world.points.retain(|point| {
            let manifest: ObjectKey = format!("p/point/{}/manifest", point.point).parse().unwrap();
            world.objects.contains_key(&manifest)
        });
        let is_planned = |point: &PointFacts| fates.iter().any(|fate| fate.facts == *point && fate.stays());
        if world.points.iter().all(is_planned) {
            world.check(&before, &rules);
        } else {
            prop_assert!(done.goes.iter().all(|going| going.why == WhyGoes::PointExpired));
        }
    }
}

#[test]
fn of_each_stretch_the_first_point_stays_until_the_whole_stretch_is_old() {
    let rules = KeepRules {
        all_for: Span::hours(6),
        hourly_for: Span::ZERO,
        daily_for: Span::days(7),
        weekly_for: Span::days(28),
        log: LogKeep::Continuous,
    };
    let mut world = World::new();
    // Every four hours for sixty days; 2026-01-01 was a Thursday.
    for number in 0..360_u64 {
        world.now = BEGIN.plus(Duration::from_secs(4 * 3_600 * number));
        let mut random = [0; 10];
        random[..8].copy_from_slice(&number.to_le_bytes());
        random[1] = u8::try_from(number / 32).unwrap();
        world.points.push(PointFacts {
            point: PointId::from_random(random),
            began: world.now,
            ended: world.now,
            log: None,
            proven: None,
            marked: None,
            locked_until: None,
        });
        let point = &world.points.last().unwrap().point;
        world.needs.insert(point.clone(), BTreeSet::new());
    }
    let (fates, _) = world.plan(&rules, Duration::ZERO, world.now);
    let of = |fate: Fate| fates.iter().filter(|one| one.fate == fate).count();
    assert_eq!(of(Fate::Newest), 1);
    assert_eq!(
        of(Fate::Rule(Rule::All)),
        1,
        "20:00 is the newest, 16:00 younger than six hours"
    );
    assert_eq!(
        of(Fate::Rule(Rule::Daily)),
        8,
        "today and the seven days before"
    );
    assert_eq!(
        of(Fate::Rule(Rule::Weekly)),
        4,
        "weeks that are not kept by their day"
    );
    let goes = of(Fate::Goes);
    assert_eq!(goes, 360 - 14);
}
