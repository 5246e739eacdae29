//! Changed blocks against a plain set, and records against what they must mean.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::reader::{WalReader, WalShape};
use super::super::sample::{Draft, SEGMENT, SYSTEM, Writer, draft, with_data};
use super::*;

fn relation(file: u32) -> Relation {
    Relation {
        tablespace: 1663,
        database: 5,
        file,
    }
}

fn one(range: Range<u32>) -> Vec<Range<u32>> {
    std::iter::once(range).collect()
}

/// Reads all of a log.
fn changes(log: &Writer) -> Result<Changes, WalError> {
    let mut reader = WalReader::new(WalShape {
        segment_bytes: SEGMENT,
        system_identifier: Some(SYSTEM),
    });
    let mut changes = Changes::default();
    reader.feed(log.start, &log.bytes, &mut |record| changes.apply(record))?;
    Ok(changes)
}

fn log(version: WalVersion, drafts: &[Draft]) -> Writer {
    let mut log = Writer::at(version, u64::from(SEGMENT));
    for draft in drafts {
        log.record(draft);
    }
    log
}

/// A record that touches these blocks of one relation and says nothing about them.
fn touches(rmgr: u8, relation: Relation, fork: u8, blocks: &[u32]) -> Draft {
    let mut body = Vec::new();
    for (id, block) in (0_u8..).zip(blocks) {
        let same = if id == 0 { 0 } else { 0x80 };
        body.extend([id, fork | same, 0, 0]);
        if id == 0 {
            body.extend(words(&[
                relation.tablespace,
                relation.database,
                relation.file,
            ]));
        }
        body.extend(block.to_le_bytes());
    }
    Draft {
        xid: 1,
        rmgr,
        info: 0,
        body,
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Cut(u32),
    Mark(u32),
    Run(u32, u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let block = || prop_oneof![0_u32..100, 65_000_u32..66_000, 0_u32..400_000];
    let step = prop_oneof![
        8 => block().prop_map(Step::Mark),
        2 => (block(), 1_u32..6_000).prop_map(|(from, count)| Step::Run(from, count)),
        1 => block().prop_map(Step::Cut),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn blocks_are_those_of_a_plain_set(steps in steps(), from in 0_u32..200_000, length in 0_u32..200_000) {
        let mut blocks = Blocks::default();
        let mut plain = BTreeSet::new();
        let mut limit = u32::MAX;
        let mut bytes = 0_usize;
        for step in steps {
            match step {
                Step::Mark(block) => {
                    bytes += blocks.insert(block);
                    plain.insert(block);
                }
                Step::Run(from, count) => {
                    for block in from..from + count {
                        bytes += blocks.insert(block);
                        plain.insert(block);
                    }
                }
                Step::Cut(at) => {
                    bytes -= blocks.cut(at);
                    limit = limit.min(at);
                }
            }
        }
        prop_assert_eq!(bytes, blocks.bytes());
        let within = from..from + length;
        let expected: Vec<u32> = within
            .clone()
            .filter(|block| *block >= limit || plain.contains(block))
            .collect();
        let ranges = blocks.ranges(within.clone());
        for pair in ranges.windows(2) {
            prop_assert!(pair[0].end < pair[1].start, "neighbours are together");
        }
        let found: Vec<u32> = ranges.into_iter().flatten().collect();
        prop_assert_eq!(found, expected);
        for block in within.step_by(97) {
            prop_assert_eq!(blocks.contains(block), block >= limit || plain.contains(&block));
        }
    }
}

#[test]
fn every_block_that_a_record_names_is_changed_and_no_other() {
    let touched = log(
        WalVersion::V16,
        &[
            touches(10, relation(1), 0, &[3, 4, 70_000]),
            touches(200, relation(2), 0, &[9]),
            touches(10, relation(3), 1, &[5]),
            touches(10, relation(3), 2, &[6]),
        ],
    );
    let changes = changes(&touched).unwrap();
    assert_eq!(
        changes.ranges(relation(1), 0..u32::MAX),
        [3..5, 70_000..70_001]
    );
    assert_eq!(changes.ranges(relation(1), 4..70_000), one(4..5));
    assert_eq!(changes.ranges(relation(2), 0..100), one(9..10));
    assert!(changes.contains(relation(1), 4) && !changes.contains(relation(1), 5));
    // Free space and visibility maps are never told, because the log does not say all of it.
    assert_eq!(changes.forks().count(), 2);
    assert_eq!(changes.ranges(relation(3), 0..100), []);
    assert_eq!(changes.ranges(relation(1), 4..4), []);
}

#[test]
fn new_and_cut_files_are_changed_from_there_on() {
    let all = |file: u32| [1663, 5, file];
    let create =
        |file: u32, fork: u32| with_data(1, 2, 0x10, &words(&[&all(file)[..], &[fork]].concat()));
    let cut = |file: u32, blocks: u32, what: u32| {
        with_data(
            1,
            2,
            0x20,
            &words(&[&[blocks][..], &all(file), &[what]].concat()),
        )
    };
    let log = log(
        WalVersion::V17,
        &[
            touches(10, relation(1), 0, &[1, 50]),
            create(1, 0),
            create(2, 2),
            touches(10, relation(3), 0, &[1, 50]),
            cut(3, 40, 7),
            touches(10, relation(3), 0, &[45]),
            cut(4, 10, 6),
            create(5, 3),
        ],
    );
    let changes = changes(&log).unwrap();
    assert!(changes.is_whole(relation(1)));
    assert_eq!(changes.ranges(relation(1), 0..99), one(0..99));
    assert!(!changes.is_whole(relation(2)));
    assert_eq!(changes.ranges(relation(3), 0..99), [1..2, 40..99]);
    // Only its maps were cut.
    assert_eq!(changes.ranges(relation(4), 0..99), []);
    assert_eq!(
        changes.blocks(relation(5), Fork::Init).unwrap().limit(),
        Some(0)
    );
}

#[test]
fn databases_that_come_and_go_are_changed_whole_in_every_version() {
    let of = |database: u32, tablespace: u32| Relation {
        tablespace,
        database,
        file: 1259,
    };
    for (version, create, drop) in [
        (WalVersion::V13, &[0x00][..], 0x10),
        (WalVersion::V14, &[0x00], 0x10),
        (WalVersion::V15, &[0x00, 0x10], 0x20),
        (WalVersion::V18, &[0x00, 0x10], 0x20),
    ] {
        for info in create {
            let made = with_data(1, 4, *info, &words(&[16_400, 1663, 4, 1663]));
            let changes = changes(&log(version, &[made])).unwrap();
            assert!(changes.is_whole(of(16_400, 1663)), "{version:?} {info}");
            assert!(!changes.is_whole(of(4, 1663)));
            assert!(!changes.is_whole(of(16_400, 1700)));
        }
        let gone = with_data(1, 4, drop, &words(&[16_400, 2, 1663, 1700]));
        let gone = changes(&log(version, &[gone])).unwrap();
        assert!(gone.is_whole(of(16_400, 1663)) && gone.is_whole(of(16_400, 1700)));
        // What no version writes may mean anything.
        let unknown = with_data(1, 4, 0x70, &words(&[16_400, 1663]));
        let refused = changes(&log(version, &[unknown]));
        assert!(
            matches!(refused, Err(WalError::Record { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn a_removed_relation_is_changed_whole() {
    let mut data = 5_i64.to_le_bytes().to_vec();
    data.extend(words(&[4, 2, 1663, 5, 100, 1663, 5, 101]));
    let log = log(WalVersion::V15, &[with_data(7, 1, 0x80, &data)]);
    let changes = changes(&log).unwrap();
    assert!(changes.is_whole(relation(100)) && changes.is_whole(relation(101)));
    assert!(!changes.is_whole(relation(102)));
}

#[test]
fn while_the_log_is_minimal_everything_counts_as_changed() {
    let parameters = |level: u32| with_data(0, 0, 0x60, &words(&[100, 8, 10, 0, 64, level, 0]));
    for level in [1, 2] {
        let full = changes(&log(WalVersion::V18, &[parameters(level)])).unwrap();
        assert_eq!(full.everything(), None);
    }
    let minimal = log(WalVersion::V13, &[parameters(0), parameters(1)]);
    let minimal = changes(&minimal).unwrap();
    assert_eq!(minimal.everything(), Some(Everything::MinimalLog));
    assert_eq!(minimal.ranges(relation(9), 3..8), one(3..8));
    assert!(minimal.contains(relation(9), 3));
    let cut = changes(&log(WalVersion::V13, &[with_data(0, 0, 0x60, &[0; 22])]));
    assert!(matches!(cut, Err(WalError::Record { .. })));
}

#[test]
fn memory_stays_within_its_limit_and_what_is_forgotten_counts_as_changed() {
    let mut changes = Changes::default();
    // Blocks far from each other in a few large relations: more than the limit holds.
    for file in 0..16_u32 {
        for chunk in 0..=u32::from(u16::MAX) {
            changes.mark((relation(file), Fork::Main), chunk << 16);
        }
        assert!(changes.bytes <= limits::CHANGED_BITMAP_BYTES);
    }
    assert!((0..16).any(|file| changes.is_whole(relation(file))));
    assert!((0..16).any(|file| !changes.is_whole(relation(file))));
    assert!((0..16).all(|file| changes.contains(relation(file), 7 << 16)));

    let mut many = Changes::default();
    for file in 0..u32::try_from(limits::CHANGED_FORKS).unwrap() {
        many.mark((relation(file), Fork::Main), 7);
    }
    assert_eq!(many.everything(), None);
    assert!(!many.contains(relation(5), 8));
    many.mark((relation(u32::MAX), Fork::Main), 7);
    assert_eq!(many.everything(), Some(Everything::TooMany));
    assert!(many.contains(relation(5), 8));
}

#[test]
fn any_changes_of_files_are_read_or_refused_without_a_panic() {
    for rmgr in [0_u8, 1, 2, 4] {
        for info in (0..16_u8).map(|high| high << 4) {
            for length in 0..40_usize {
                let _ = changes(&log(WalVersion::V18, &[draft(1, rmgr, info, length)]));
            }
        }
    }
}

#[test]
fn what_replay_writes_as_a_whole_it_need_not_read() {
    let whole = |fork: u8, block: u32| {
        let mut draft = touches(10, relation(7), fork, &[block]);
        // The page is made anew.
        draft.body[1] |= 0x40;
        draft
    };
    let of = |blocks: &[u32]| touches(10, relation(7), 0, blocks);
    let drafts = [
        whole(0, 3),
        of(&[3, 9, 10]),
        of(&[9]),
        whole(0, 9),
        of(&[200_000]),
    ];
    let log = log(WalVersion::V17, &drafts);
    let read = |max: usize| {
        let mut reader = WalReader::new(WalShape {
            segment_bytes: SEGMENT,
            system_identifier: Some(SYSTEM),
        });
        let mut reads = Reads::up_to(max);
        let fed = reader.feed(log.start, &log.bytes, &mut |record| reads.apply(record));
        fed.unwrap();
        reads
    };
    let reads = read(100);
    let found: Vec<_> = reads.forks().collect();
    let ranges = vec![9..11, 200_000..200_001];
    assert_eq!(found, [(relation(7), Fork::Main, ranges)]);
    assert!(!reads.is_full());
    let few = read(1);
    assert!(few.is_full());
    // A record is taken whole.
    assert_eq!(
        few.forks().map(|(_, _, ranges)| ranges).collect::<Vec<_>>(),
        [one(9..11)]
    );
    assert_eq!(read(0).forks().count(), 0);
}
