//! What is told of restore points: holes, lines, the spool, lag.

use holdfast_core::{ByteCount, Lsn};
use holdfast_testing::postgres;
use holdfast_vault::{
    AckAt, AckMode, CaptureState, LagAgainst, PointSpan, ProofState, ProofStatus, RestoreTarget,
    Running, SourceStatus, points, system_clock,
};

use crate::kept::Kept;

fn spans(kept: &Kept, running: &Running) -> Vec<PointSpan> {
    points(&kept.place(), running, system_clock()()).unwrap()
}

/// What a vault would say that has everything up to `flushed`, of a source that wrote `lag` more.
fn says(kept: &Kept, state: CaptureState, (flushed, lag): (Lsn, u64)) -> Running {
    let status = SourceStatus {
        source: kept.at.source.clone(),
        state,
        trouble: None,
        mode: AckMode::Asynchronous,
        ack: AckAt::Spool,
        system_identifier: Some(kept.at.system_identifier),
        timeline: 1,
        flushed,
        shipped: flushed,
        lag: ByteCount(lag),
        lag_s: 1.5,
        newest_commit: None,
        point: None,
        reading: None,
        proof: ProofStatus::default(),
        failed_points: Vec::new(),
        mirror: None,
        moved_to: None,
        busy: None,
    };
    Running {
        sources: vec![status],
        directories: Vec::new(),
    }
}

#[test]
fn a_hole_ends_a_span_and_is_told_with_its_size() {
    let installation = postgres::newest().unwrap();
    let mut kept = Kept::start(&installation, &[]);
    kept.sql("CREATE TABLE t (n int PRIMARY KEY)");
    let first = kept.base();
    kept.sql("INSERT INTO t VALUES (1)");
    let end = kept.ship();
    kept.skip();
    let resumed = kept.at.segment_start(kept.flushed());
    // Log behind a hole without a base behind it brings nothing back.
    kept.ship();
    let found = spans(&kept, &Running::default());
    let [cut] = found.as_slice() else {
        panic!("{found:#?}");
    };
    let hole = cut.log.as_ref().unwrap().hole.as_ref().unwrap();
    assert_eq!((hole.from_lsn, hole.to_lsn), (end, resumed));
    assert_eq!(hole.bytes, resumed.since(end));

    let second = kept.base();
    kept.sql("INSERT INTO t VALUES (2)");
    let shipped = kept.ship();
    kept.sql("INSERT INTO t VALUES (3)");
    let spooled = kept.spool();
    let found = spans(&kept, &Running::default());
    let [cut, newest] = found.as_slice() else {
        panic!("{found:#?}");
    };
    assert_eq!(cut.points[0].point, first);
    assert_eq!(cut.log.as_ref().unwrap().hole.as_ref(), Some(hole));
    assert_eq!((cut.lag.as_ref(), cut.lag_s), (None, None));
    assert!(cut.to < newest.from && newest.from <= newest.to);
    let log = newest.log.as_ref().unwrap();
    assert_eq!(
        (newest.points[0].point.clone(), log.hole.clone()),
        (second, None)
    );
    assert_eq!((log.to_lsn, log.spooled), (spooled, spooled.since(shipped)));
    assert!(newest.restored > newest.points[0].stored && newest.bytes >= newest.points[0].stored);
    assert_eq!(newest.proof.state, ProofState::None);

    // The lag is that of what can be brought back, and says what it was measured against.
    let lag = |running: &Running| spans(&kept, running).pop().unwrap().lag.unwrap();
    let unknown = lag(&Running::default());
    assert_eq!(
        (unknown.against, unknown.bytes),
        (LagAgainst::Unknown, None)
    );
    let live = lag(&says(&kept, CaptureState::Streaming, (spooled, 1000)));
    assert_eq!(
        (live.against, live.bytes, live.seconds),
        (LagAgainst::Source, Some(ByteCount(1000)), Some(1.5))
    );
    let none = lag(&says(&kept, CaptureState::Streaming, (spooled, 0)));
    assert_eq!((none.bytes, none.seconds), (Some(ByteCount(0)), Some(0.0)));
    let heard = lag(&says(&kept, CaptureState::Disconnected, (spooled, 0)));
    assert_eq!(
        (heard.against, heard.seconds),
        (LagAgainst::LastHeard, Some(1.5))
    );
    let mut other = says(&kept, CaptureState::Streaming, (spooled, 0));
    other.sources[0].timeline = 2;
    assert_eq!(lag(&other).against, LagAgainst::Unknown);
}

#[test]
fn a_span_goes_on_over_a_promotion_and_what_was_left_is_a_span_of_its_own() {
    let installation = postgres::newest().unwrap();
    let mut kept = Kept::start(&installation, &[]);
    kept.sql("CREATE TABLE t (n int PRIMARY KEY)");
    let base = kept.base();
    kept.sql("INSERT INTO t VALUES (1)");
    let left = kept.flushed();
    kept.sql("INSERT INTO t VALUES (2)");
    let end = kept.ship();
    let promoted = kept.restore(RestoreTarget::BeforeLsn(left)).unwrap();
    promoted.sql("INSERT INTO t VALUES (3)");
    kept.ship_descendant(&promoted, 2);
    drop(promoted);
    let found = spans(&kept, &Running::default());
    let said: Vec<_> = found
        .iter()
        .map(|span| {
            let log = span.log.as_ref().unwrap();
            let points: Vec<_> = span.points.iter().map(|point| &point.point).collect();
            assert_eq!((points, log.hole.as_ref()), (vec![&base], None));
            (log.timeline, log.is_left, span.lag.is_some())
        })
        .collect();
    assert_eq!(said, [(2, false, true), (1, true, false)]);
    assert_eq!(found[1].log.as_ref().unwrap().to_lsn, end);
    assert!(found[0].to > found[1].to);
}
