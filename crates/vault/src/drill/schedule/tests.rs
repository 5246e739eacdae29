//! A source's drills over simulated weeks.

use std::collections::BTreeMap;

use holdfast_core::ledger::{Chain, Draft};
use holdfast_core::{
    ByteCount, Check, CheckOutcome, DRILL_FAILED, DRILL_PASSED, DrillDetails, DrillReport,
    Principal, SourceName,
};

use super::super::history::History;
use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn config() -> DrillConfig {
    DrillConfig {
        every: Duration::from_secs(300),
        unchanged_every: HOUR,
        older_every: HOUR,
        ..DrillConfig::default()
    }
}

fn source() -> SourceName {
    "prod".parse().unwrap()
}

struct World {
    chain: Chain,
    history: History,
    now: Timestamp,
    points: Vec<(PointId, Timestamp)>,
    end: Lsn,
    broken_off: Option<Timestamp>,
}

impl World {
    fn new() -> Self {
        Self {
            chain: Chain::default(),
            history: History::default(),
            now: Timestamp(1_000_000_000_000),
            points: Vec::new(),
            end: Lsn(1),
            broken_off: None,
        }
    }

    fn point(&mut self) {
        let mut random = [0; 10];
        // Each byte becomes one of 32 letters.
        let number = u8::try_from(self.points.len()).unwrap();
        (random[0], random[1]) = (number / 32, number % 32);
        self.points.push((PointId::from_random(random), self.now));
    }

    fn view(&self) -> View<'_> {
        View {
            known: self.history.of(&source()),
            newest: self.points.last().map(|(point, _)| point),
            end: self.end,
            broken_off: self.broken_off,
            now: self.now,
        }
    }

    fn newest(&self) -> Option<PointId> {
        self.view().newest_due(&config()).map(|due| due.point)
    }

    fn older(&self, random: u64) -> Option<PointId> {
        let due = self.view().older_due(&config(), &self.points, random);
        due.map(|due| due.point)
    }

    fn drilled(&mut self, of: DrillOf, point: PointId, outcome: CheckOutcome) {
        let report = DrillReport {
            source: source(),
            system_identifier: 7,
            point,
            timeline: 1,
            reached: self.end,
            covers_until: self.now,
            drilled_at: self.now,
            rto: Duration::from_secs(1),
            restored: ByteCount(1),
            checks: vec![Check {
                name: "server".to_owned(),
                outcome,
                detail: String::new(),
            }],
            details: DrillDetails::new(of, "latest"),
        };
        let kind = match report.passed() {
            true => DRILL_PASSED,
            false => DRILL_FAILED,
        };
        let draft = Draft::new(kind, Principal::service("vault"), self.now)
            .source(source())
            .with("report", serde_json::to_value(&report).unwrap());
        let (entry, _) = self.chain.append(draft).unwrap();
        self.history.take(&entry);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
    }
}

#[test]
fn the_newest_point_is_drilled_when_it_is_new_when_it_changed_and_now_and_then() {
    let mut world = World::new();
    assert_eq!(world.newest(), None, "there is no point");
    world.point();
    let first = world.newest().unwrap();
    world.drilled(DrillOf::Newest, first.clone(), CheckOutcome::Passed);
    world.pass(config().every);
    assert_eq!(world.newest(), None, "nothing changed");
    world.end = Lsn(2);
    assert_eq!(world.newest(), Some(first.clone()));
    world.drilled(DrillOf::Newest, first.clone(), CheckOutcome::Passed);
    world.end = Lsn(3);
    assert_eq!(world.newest(), None, "it is not time yet");
    world.point();
    assert!(world.newest().is_some_and(|point| point != first));
    let second = world.newest().unwrap();
    world.drilled(DrillOf::Newest, second.clone(), CheckOutcome::Passed);
    world.pass(HOUR);
    assert_eq!(world.newest(), Some(second), "a proof must not grow old");
}

#[test]
fn what_failed_is_drilled_again_soon_and_what_could_not_be_run_sooner() {
    let mut world = World::new();
    world.point();
    let point = world.newest().unwrap();
    world.drilled(DrillOf::Newest, point.clone(), CheckOutcome::Failed);
    assert_eq!(world.newest(), None);
    world.pass(limits::DRILL_FAILED_AGAIN);
    assert_eq!(world.newest(), Some(point.clone()));
    world.drilled(DrillOf::Newest, point.clone(), CheckOutcome::Failed);
    world.pass(limits::DRILL_FAILED_AGAIN);
    assert_eq!(world.newest(), None, "not so soon the second time");
    world.pass(limits::DRILL_FAILED_AGAIN);
    assert_eq!(world.newest(), Some(point.clone()));
    for _ in 0..40 {
        world.drilled(DrillOf::Newest, point.clone(), CheckOutcome::Failed);
    }
    world.pass(config().every);
    assert_eq!(
        world.newest(),
        Some(point.clone()),
        "never later than others"
    );
    world.broken_off = Some(world.now);
    assert_eq!(world.newest(), None);
    world.pass(limits::DRILL_AGAIN);
    assert!(world.newest().is_some());
    // A clock that was set back does not stop drills.
    world.broken_off = Some(world.now.plus(HOUR * 999));
    assert!(world.newest().is_some());
}

#[test]
fn over_weeks_every_point_of_every_age_is_drilled_and_again_after_a_restart() {
    let mut world = World::new();
    let mut counts: BTreeMap<PointId, u32> = BTreeMap::new();
    // A point every six hours for three weeks, before drills were switched on.
    for _ in 0..84 {
        world.point();
        world.pass(HOUR * 6);
    }
    let newest = world.newest().unwrap();
    assert_eq!(world.older(0), None, "the newest comes first");
    world.drilled(DrillOf::Newest, newest, CheckOutcome::Passed);
    assert_eq!(world.older(0), None, "first things first");
    world.pass(HOUR);
    let mut classes_seen = [0_u32; 4];
    for hour in 0..84_u64 {
        let Some(point) = world.older(hour.wrapping_mul(7_919)) else {
            break;
        };
        let at = world.points.iter().find(|(id, _)| *id == point).unwrap().1;
        let age = world.now.since(at);
        let class = limits::DRILL_AGES.iter().filter(|limit| age >= **limit);
        classes_seen[class.count()] += 1;
        *counts.entry(point.clone()).or_default() += 1;
        world.drilled(DrillOf::Older, point, CheckOutcome::Passed);
        assert_eq!(world.older(hour), None, "one in an hour");
        world.pass(HOUR);
    }
    assert_eq!(counts.len(), 83, "every point but the newest");
    assert!(
        counts.values().all(|count| *count == 1),
        "each once before any again"
    );
    assert_eq!(world.older(0), None, "all were drilled within a week");
    world.pass(limits::DRILL_SAME);
    assert!(world.older(0).is_some(), "and then again");
    assert!(
        classes_seen[1] >= 5 && classes_seen[2] >= 20,
        "{classes_seen:?}"
    );
}
