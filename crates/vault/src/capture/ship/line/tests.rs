use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

const MIB: u64 = 1 << 20;
const SEED: u64 = 310;

fn size() -> SegmentBytes {
    SegmentBytes::new(1 << 20).unwrap()
}

fn take(line: &mut Line<Cut>, durable: u64, now: Instant) -> Option<Cut> {
    let reach = Reach {
        durable: Lsn(durable),
        ended: false,
        now,
    };
    match line.next(reach) {
        Next::Cut(cut) => {
            line.begun(cut, cut, now);
            Some(cut)
        }
        Next::At(_) | Next::Wait => None,
    }
}

fn tail(start: u64, end: u64) -> Option<Cut> {
    Some(Cut {
        timeline: 1,
        start: Lsn(start),
        end: Lsn(end),
        kind: CutKind::Tail,
    })
}

#[test]
fn a_slow_store_does_not_keep_the_next_tail_waiting() {
    let mut line = Line::new(1, Lsn(0), size(), AckAt::Spool);
    let began = Instant::now();
    assert_eq!(take(&mut line, 100, began), tail(0, 100));
    assert_eq!(take(&mut line, 200, began), None, "not before its time");
    let later = began + limits::SHIP_EVERY;
    assert_eq!(take(&mut line, 200, later), tail(100, 200));
    // The second is stored first: nothing is safe yet.
    assert!(line.stored(tail(100, 200).unwrap()).is_empty());
    assert_eq!(line.done(), Lsn(0));
    assert_eq!(line.stored(tail(0, 100).unwrap()).len(), 2);
    assert_eq!(line.done(), Lsn(200));
}

#[test]
fn commits_that_wait_go_at_once_and_gather_while_others_are_stored() {
    let mut line = Line::new(1, Lsn(0), size(), AckAt::Repository);
    let now = Instant::now();
    let mut at = 0;
    for number in 0..limits::TAILS_WAITED_FOR {
        let next = u64::try_from(number).unwrap() * 10 + 100;
        assert_eq!(take(&mut line, next, now), tail(at, next));
        at = next;
    }
    assert_eq!(
        take(&mut line, at + 1, now),
        None,
        "enough are on their way"
    );
    line.stored(tail(0, 100).unwrap());
    assert_eq!(
        take(&mut line, 900, now),
        tail(at, 900),
        "all that gathered"
    );
}

#[test]
fn the_rest_of_a_segment_is_a_tail_where_somebody_waits() {
    let now = Instant::now();
    for (ack, kind) in [
        (AckAt::Repository, CutKind::Tail),
        (AckAt::Spool, CutKind::Segment),
    ] {
        let mut line = Line::new(1, Lsn(0), size(), ack);
        let first = take(&mut line, 100, now).unwrap();
        line.stored(first);
        let rest = take(&mut line, MIB + 5, now).unwrap();
        assert_eq!(
            (rest.start, rest.end, rest.kind),
            (Lsn(100), Lsn(MIB), kind)
        );
        line.stored(rest);
        assert_eq!(line.done(), Lsn(MIB));
        let whole_until = match ack {
            AckAt::Repository => Lsn(0),
            AckAt::Spool => Lsn(MIB),
        };
        assert_eq!(line.whole_until(), whole_until);
    }
}

#[test]
fn what_is_far_behind_goes_as_whole_segments() {
    for ack in [AckAt::Repository, AckAt::Spool] {
        let mut line = Line::new(1, Lsn(0), size(), ack);
        let now = Instant::now();
        let cuts: Vec<Cut> = std::iter::from_fn(|| take(&mut line, 9 * MIB, now)).collect();
        assert_eq!(cuts.len(), limits::SEGMENTS_ON_THEIR_WAY);
        assert!(cuts.iter().all(|cut| cut.kind == CutKind::Segment));
    }
}

/// One thing that happens to a line.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Fail(usize),
    Grow(u64),
    Store(usize),
    Time(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        1 => (0_usize..8).prop_map(Happens::Fail),
        4 => (1_u64..700_000).prop_map(Happens::Grow),
        6 => (0_usize..8).prop_map(Happens::Store),
        2 => (1_u64..900).prop_map(Happens::Time),
    ]
}

/// A line, a store that may fail, and what is known of both.
struct World {
    line: Line<Cut>,
    durable: u64,
    now: Instant,
    away: Vec<Cut>,
    stored: Vec<(Lsn, Lsn)>,
    safe: Lsn,
}

impl World {
    fn take_away(&mut self, which: usize) -> Option<Cut> {
        let count = self.away.len();
        (count > 0).then(|| self.away.remove(which % count))
    }

    fn happen(&mut self, event: Happens) {
        match event {
            Happens::Grow(bytes) => self.durable += bytes,
            Happens::Time(millis) => self.now += Duration::from_millis(millis),
            Happens::Store(which) => {
                let Some(cut) = self.take_away(which) else {
                    return;
                };
                let start = match cut.kind {
                    CutKind::Tail => cut.start,
                    CutKind::Segment | CutKind::Whole => size().floor(cut.start),
                };
                self.stored.push((start, cut.end));
                for cut in self.line.stored(cut) {
                    assert_eq!(cut.start, self.safe, "handed over in order");
                    self.safe = cut.end;
                }
            }
            Happens::Fail(which) => {
                if let Some(cut) = self.take_away(which) {
                    self.line.lost(cut);
                }
            }
        }
        self.line.recover();
        while let Some(cut) = take(&mut self.line, self.durable, self.now) {
            assert!(cut.start < cut.end && cut.end <= Lsn(self.durable));
            self.away.push(cut);
        }
    }

    fn check(&mut self) {
        assert_eq!(self.line.done(), self.safe);
        assert!(self.line.whole_until() <= self.safe);
        self.stored.sort_unstable();
        let reached = self.stored.iter().fold(Lsn(0), |reached, (start, end)| {
            if *start <= reached {
                reached.max(*end)
            } else {
                reached
            }
        });
        assert!(self.safe <= reached, "stored only up to {reached}");
    }

    fn is_over(&self) -> bool {
        self.away.is_empty()
            && self.safe == Lsn(self.durable)
            && self.line.whole_until() == size().floor(self.safe)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(SEED), ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_called_safe_before_everything_before_it_is_stored(
        repository: bool, events in proptest::collection::vec(happens(), 1..200)
    ) {
        let ack = if repository { AckAt::Repository } else { AckAt::Spool };
        let mut world = World {
            line: Line::new(1, Lsn(0), size(), ack),
            durable: 0,
            now: Instant::now(),
            away: Vec::new(),
            stored: Vec::new(),
            safe: Lsn(0),
        };
        for event in events {
            world.happen(event);
            world.check();
        }
        // Then the store is well again, and everything ends.
        for _ in 0..10_000 {
            if world.is_over() {
                return Ok(());
            }
            world.happen(Happens::Store(0));
            world.happen(Happens::Time(1_000));
            world.check();
        }
        prop_assert!(false, "it never ends");
    }
}
