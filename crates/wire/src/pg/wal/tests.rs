//! The reader against a log that is written here, whole, cut and damaged.

use proptest::prelude::*;

use super::sample::{Draft, SEGMENT, SYSTEM, Writer, draft, with_data};
use super::*;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    start: Lsn,
    end: Lsn,
    draft: Draft,
}

fn reader() -> WalReader {
    WalReader::new(WalShape {
        segment_bytes: SEGMENT,
        system_identifier: Some(SYSTEM),
    })
}

/// Feeds `bytes` in pieces of the given lengths, over and over.
fn feed(start: Lsn, bytes: &[u8], pieces: &[usize]) -> (Vec<Seen>, Result<(), WalError>) {
    let mut reader = reader();
    let mut seen = Vec::new();
    let mut at = 0_usize;
    for piece in pieces.iter().cycle() {
        let to = (at + piece.max(&1)).min(bytes.len());
        let lsn = Lsn(start.0 + u64::try_from(at).unwrap());
        let done = reader.feed(lsn, &bytes[at..to], &mut |record| {
            let _ = (record.event(), record.row_change(), record.blocks());
            seen.push(Seen {
                start: record.start,
                end: record.end,
                draft: Draft {
                    xid: record.xid,
                    rmgr: record.rmgr.0,
                    info: record.info,
                    body: record.body.to_vec(),
                },
            });
            Ok(())
        });
        if done.is_err() {
            return (seen, done);
        }
        at = to;
        if at == bytes.len() {
            break;
        }
    }
    (seen, Ok(()))
}

/// A log of some records that begins two pages before the end of a segment.
fn log(lengths: &[usize]) -> Writer {
    let mut log = Writer::at(WalVersion::V17, u64::from(SEGMENT) * 3 - 2 * PAGE_BYTES);
    for (number, length) in lengths.iter().enumerate() {
        let xid = u32::try_from(number).unwrap();
        log.record(&draft(xid, 10, 0, *length));
    }
    log
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![0_usize..300, 0_usize..20_000], 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_pieces_give_the_same_records(
        lengths in lengths(),
        pieces in prop::collection::vec(1_usize..9_000, 1..5),
    ) {
        let log = log(&lengths);
        let (whole, done) = feed(log.start, &log.bytes, &[log.bytes.len()]);
        prop_assert_eq!(done, Ok(()));
        prop_assert_eq!(whole.len(), lengths.len());
        for (number, (seen, length)) in whole.iter().zip(&lengths).enumerate() {
            let expected = draft(u32::try_from(number).unwrap(), 10, 0, *length);
            prop_assert_eq!(&seen.draft, &expected);
        }
        let (pieced, done) = feed(log.start, &log.bytes, &pieces);
        prop_assert_eq!(done, Ok(()));
        prop_assert_eq!(pieced, whole);
    }

    #[test]
    fn whoever_begins_anywhere_sees_what_follows(lengths in lengths(), from in 0_usize..100_000) {
        let log = log(&lengths);
        let from = from % log.bytes.len();
        let (whole, _) = feed(log.start, &log.bytes, &[log.bytes.len()]);
        let at = Lsn(log.start.0 + u64::try_from(from).unwrap());
        let (rest, done) = feed(at, &log.bytes[from..], &[1000]);
        prop_assert_eq!(done, Ok(()));
        prop_assert!(whole.ends_with(&rest));
        // Nothing is missed that begins on a page after the first boundary.
        let boundary = at.0.next_multiple_of(PAGE_BYTES);
        let expected = whole.iter().filter(|seen| seen.start.0 >= boundary).count();
        prop_assert_eq!(rest.len(), expected);
    }

    #[test]
    fn a_damaged_log_gives_an_error_or_the_records_before(
        lengths in lengths(),
        at in 0_usize..100_000,
        bit in 0_u8..8,
    ) {
        let mut log = log(&lengths);
        let (whole, _) = feed(log.start, &log.bytes, &[4096]);
        let at = at % log.bytes.len();
        log.bytes[at] ^= 1 << bit;
        let (seen, _) = feed(log.start, &log.bytes, &[4096]);
        prop_assert!(whole.starts_with(&seen), "byte {at}");
    }

    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>, at: u64, page: bool) {
        let at = Lsn(if page { at - at % PAGE_BYTES } else { at } >> 1);
        let _ = feed(at, &bytes, &[7, 100]);
    }

    #[test]
    fn any_body_behind_a_right_checksum_is_read_or_refused_without_a_panic(
        body in prop::collection::vec(any::<u8>(), 0..200),
        rmgr in 0_u8..12,
        info: u8,
    ) {
        let mut log = Writer::at(WalVersion::V15, u64::from(SEGMENT));
        log.record(&Draft { xid: 1, rmgr, info, body: body.clone() });
        log.record(&with_data(1, rmgr, info, &body));
        let (seen, _) = feed(log.start, &log.bytes, &[log.bytes.len()]);
        prop_assert_eq!(seen.len() + usize::from(rmgr == 0 && info & 0xF0 == 0x40), 2);
    }
}

#[test]
fn a_switch_leaves_the_rest_of_its_segment_unread() {
    let mut log = Writer::at(WalVersion::V18, u64::from(SEGMENT));
    log.record(&draft(1, 10, 0, 10));
    log.switch();
    log.record(&draft(2, 10, 0, 10));
    // What stands there is not looked at.
    log.bytes[100_000] = 7;
    let (seen, done) = feed(log.start, &log.bytes, &[5000]);
    assert_eq!(done, Ok(()));
    let xids: Vec<u32> = seen.iter().map(|seen| seen.draft.xid).collect();
    assert_eq!(xids, [1, 0, 2]);
    assert_eq!(seen[1].end, Lsn(2 * u64::from(SEGMENT)));
}

#[test]
fn a_record_that_a_crash_broke_is_forgotten_when_the_next_page_says_so() {
    let mut log = Writer::at(WalVersion::V16, u64::from(SEGMENT));
    log.record(&draft(1, 10, 0, 100));
    let mut broken = Writer::at(WalVersion::V16, u64::from(SEGMENT));
    broken.record(&draft(1, 10, 0, 100));
    broken.record(&draft(9, 10, 0, 20_000));
    let page = usize::try_from(PAGE_BYTES).unwrap();
    log.bytes
        .extend_from_slice(&broken.bytes[log.bytes.len()..page]);
    log.page_header(8, 0);
    log.record(&draft(2, 0, 0xD0, 16));
    let (seen, done) = feed(log.start, &log.bytes, &[333]);
    assert_eq!(done, Ok(()));
    let xids: Vec<u32> = seen.iter().map(|seen| seen.draft.xid).collect();
    assert_eq!(xids, [1, 2]);
    // Without the flag it is damage.
    log.bytes[page + 2] = 0;
    let (_, done) = feed(log.start, &log.bytes, &[333]);
    assert!(
        matches!(done, Err(WalError::Continuation { .. })),
        "{done:?}"
    );
}

#[test]
fn gaps_foreign_pages_and_zeros_are_told_apart() {
    let log = log(&[100, 200, 9000]);
    let mut gap = reader();
    gap.feed(log.start, &log.bytes[..100], &mut |_| Ok(()))
        .unwrap();
    assert!(matches!(
        gap.feed(Lsn(log.start.0 + 101), &log.bytes[101..], &mut |_| Ok(())),
        Err(WalError::Gap { .. })
    ));
    // Bytes that come again are passed over.
    gap.feed(log.start, &log.bytes, &mut |_| Ok(())).unwrap();
    assert_eq!(gap.position(), Some(Lsn(log.end())));

    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Writer::at(WalVersion::V13, u64::from(SEGMENT));
        bytes.record(&draft(1, 10, 0, 9000));
        let mut changed = bytes.bytes.clone();
        change(&mut changed);
        feed(bytes.start, &changed, &[100]).1
    };
    assert_eq!(refused(&|_| ()), Ok(()));
    for (what, at) in [
        ("magic", 0),
        ("address", 8),
        ("system", 24),
        ("segment", 34),
        ("block", 36),
    ] {
        let error = refused(&|bytes| bytes[at] ^= 0x40);
        assert!(
            matches!(error, Err(WalError::Page { .. })),
            "{what}: {error:?}"
        );
    }
    let error = refused(&|bytes| bytes[60] ^= 1);
    assert!(matches!(
        error,
        Err(WalError::Record { .. } | WalError::Checksum { .. })
    ));
    let error = refused(&|bytes| bytes[200] ^= 1);
    assert!(matches!(error, Err(WalError::Checksum { .. })), "{error:?}");
    let error = refused(&|bytes| bytes.extend([0; 64]));
    assert!(matches!(error, Err(WalError::End { .. })), "{error:?}");
}

#[test]
fn a_record_above_the_limit_is_checked_and_only_its_front_is_kept() {
    let mut log = Writer::at(WalVersion::V17, u64::from(SEGMENT));
    let relations = 2_000_000_u32;
    let mut data = Vec::new();
    data.extend(5_i64.to_le_bytes());
    data.extend(4_u32.to_le_bytes());
    data.extend(relations.to_le_bytes());
    for file in 0..relations {
        data.extend(1663_u32.to_le_bytes());
        data.extend(5_u32.to_le_bytes());
        data.extend(file.to_le_bytes());
    }
    log.record(&with_data(7, 1, 0x80, &data));
    log.record(&draft(8, 10, 0, 1));
    let mut commits = Vec::new();
    let mut count = 0;
    let mut pieces = reader();
    pieces
        .feed(log.start, &log.bytes, &mut |record| {
            count += 1;
            assert!(record.body.len() <= crate::limits::WAL_RECORD_BYTES_KEPT);
            if let Some(Event::Commit(commit)) = record.event()? {
                commits.push(commit);
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(count, 2);
    assert_eq!(commits[0].dropped_count, 2_000_000);
    assert!(commits[0].dropped.len() > 1_000_000);
    let at = log.bytes.len() / 2;
    log.bytes[at] ^= 1;
    let (_, done) = feed(log.start, &log.bytes, &[1 << 16]);
    assert!(matches!(done, Err(WalError::Checksum { .. })), "{done:?}");
}

/// Fixed, so that a failure comes again.
const SEED: u64 = 311;

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: proptest::test_runner::RngSeed::Fixed(SEED),
        ..ProptestConfig::with_cases(300)
    })]

    #[test]
    fn pages_of_the_log_pass_and_anything_else_does_not(
        lengths in lengths(), from: prop::sample::Index, noise in prop::collection::vec(any::<u8>(), 16_384)
    ) {
        let log = log(&lengths);
        let from = from.index(log.bytes.len());
        let at = Lsn(log.start.0 + u64::try_from(from).unwrap());
        prop_assert_eq!(check_pages(at, &log.bytes[from..]), Ok(()));
        prop_assert!(check_pages(at, &noise).is_err());
        prop_assert_eq!(check_pages(at, &vec![0; 16_384]), Ok(()));
    }
}
