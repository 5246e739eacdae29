use super::*;

const MIB: u64 = 1 << 20;

fn size() -> SegmentBytes {
    SegmentBytes::new(1 << 20).unwrap()
}

fn pattern(from: Lsn, length: u64) -> Vec<u8> {
    (from.0..from.0 + length)
        .map(|at| u8::try_from((at / 7 + at / 8192) % 251).unwrap())
        .collect()
}

fn fresh() -> (tempfile::TempDir, Spool) {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), &"prod".parse().unwrap()).unwrap();
    (state, spool)
}

fn begin(spool: &Spool, at: Lsn, kept: Lsn) -> SpoolWriter {
    SpoolWriter::begin(spool, Segment::containing(1, at, size()), size(), kept)
}

fn all(spool: &Spool) -> Vec<u8> {
    let stored = spool.stored(size()).unwrap();
    let read = |s: &Stored| {
        spool
            .read(s.segment, size(), s.segment.start, u64::MAX)
            .unwrap()
    };
    stored.iter().flat_map(read).collect()
}

#[test]
fn files_are_as_long_as_what_was_received() {
    let (_state, spool) = fresh();
    let start = Lsn(3 * MIB);
    let mut writer = begin(&spool, start, Lsn::ZERO);
    let mut at = start;
    for length in [1, 8192, MIB, 700_000, 3] {
        writer.write(at, &pattern(at, length)).unwrap();
        at = Lsn(at.0 + length);
        assert_eq!(writer.sync().unwrap(), at);
    }
    let stored = spool.stored(size()).unwrap();
    let lengths: Vec<u64> = stored.iter().map(|stored| stored.bytes).collect();
    assert_eq!(lengths, [MIB, at.0 - start.0 - MIB]);
    assert_eq!(stored.last().unwrap().end(), at);
    assert_eq!(all(&spool), pattern(start, at.0 - start.0));
}

#[test]
fn a_gap_and_a_repetition_are_refused_and_nothing_is_written() {
    let (_state, spool) = fresh();
    let mut writer = begin(&spool, Lsn(MIB), Lsn::ZERO);
    writer.write(Lsn(MIB), b"abc").unwrap();
    for found in [Lsn(MIB), Lsn(MIB + 4)] {
        let refused = writer.write(found, b"x");
        assert!(matches!(refused, Err(SpoolError::Gap { .. })));
    }
    assert_eq!(all(&spool), b"abc");
}

#[test]
fn beginning_again_compares_and_repeats_nothing() {
    let (_state, spool) = fresh();
    let start = Lsn(MIB);
    let bytes = pattern(start, 300_000);
    let mut writer = begin(&spool, start, Lsn::ZERO);
    writer.write(start, &bytes).unwrap();
    drop(writer);
    let mut again = begin(&spool, Lsn(start.0 + 5), Lsn(start.0 + 100));
    assert_eq!(again.next(), start);
    again.write(start, &bytes[..200_000]).unwrap();
    assert_eq!(again.sync().unwrap(), Lsn(start.0 + 200_000));
    assert_eq!(all(&spool), bytes, "what was not compared yet stays");
    again
        .write(again.next(), &pattern(again.next(), 200_000))
        .unwrap();
    assert_eq!(all(&spool), pattern(start, 400_000));
}

#[test]
fn a_torn_end_is_replaced_and_kept_as_evidence() {
    let (state, spool) = fresh();
    let start = Lsn(MIB);
    let good = pattern(start, 100_000);
    let mut torn = good.clone();
    torn[60_000..].fill(0x5A);
    let mut writer = begin(&spool, start, Lsn::ZERO);
    writer.write(start, &torn).unwrap();
    drop(writer);
    let mut again = begin(&spool, start, Lsn(start.0 + 60_000));
    for (index, chunk) in good.chunks(9_000).enumerate() {
        let at = start.0 + u64::try_from(index * 9_000).unwrap();
        again.write(Lsn(at), chunk).unwrap();
    }
    again.sync().unwrap();
    assert_eq!(all(&spool), good);
    let aside = state
        .path()
        .join("spool/prod/000000010000000000000001.torn-1");
    assert_eq!(fs::read(aside).unwrap(), torn);
}

#[test]
fn other_bytes_than_the_repository_has_are_refused() {
    let (_state, spool) = fresh();
    let start = Lsn(MIB);
    let good = pattern(start, 1_000);
    begin(&spool, start, Lsn::ZERO).write(start, &good).unwrap();
    let mut other = good.clone();
    other[499] ^= 1;
    let refused = begin(&spool, start, Lsn(start.0 + 500)).write(start, &other);
    assert!(matches!(refused, Err(SpoolError::Diverged { at }) if at == Lsn(start.0 + 499)));
    assert_eq!(all(&spool), good);
}

#[test]
fn only_whole_shipped_segments_that_are_not_the_newest_are_removed() {
    let (_state, spool) = fresh();
    let mut writer = begin(&spool, Lsn(MIB), Lsn::ZERO);
    writer.write(Lsn(MIB), &pattern(Lsn(MIB), 3 * MIB)).unwrap();
    let starts = |shipped| {
        let plan = spool.plan_removal(1, shipped, size()).unwrap();
        let starts: Vec<u64> = plan.segments.iter().map(|s| s.start.0 / MIB).collect();
        (plan, starts)
    };
    assert_eq!(starts(Lsn(2 * MIB - 1)).1, [0_u64; 0]);
    assert_eq!(starts(Lsn(2 * MIB)).1, [1]);
    let (plan, all) = starts(Lsn(9 * MIB));
    assert_eq!(all, [1, 2]);
    spool.perform_removal(&plan, size()).unwrap();
    let left = spool.stored(size()).unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].segment.start, Lsn(3 * MIB));
    assert!(
        spool
            .plan_removal(2, Lsn(9 * MIB), size())
            .unwrap()
            .segments
            .is_empty()
    );
}

#[test]
fn the_cluster_is_noted_and_read_back() {
    let (state, spool) = fresh();
    assert_eq!(spool.cluster().unwrap(), None);
    let cluster = Cluster {
        system_identifier: u64::MAX,
        segment_bytes: size(),
    };
    spool.bind(&cluster).unwrap();
    assert_eq!(spool.cluster().unwrap(), Some(cluster));
    fs::write(state.path().join("spool/prod/cluster.json"), b"{}").unwrap();
    assert!(matches!(
        spool.cluster(),
        Err(SpoolError::Unreadable { .. })
    ));
}

/// How long the file of the first segment is.
fn file_bytes(state: &tempfile::TempDir) -> u64 {
    let path = state.path().join("spool/prod/000000010000000000000001");
    fs::metadata(path).unwrap().len()
}

#[test]
fn room_is_made_for_what_commits_wait_for_and_is_never_taken_for_log() {
    let size = SegmentBytes::new(4 << 20).unwrap();
    let (state, spool) = fresh();
    let start = Lsn(4 * MIB);
    let bytes: Vec<u8> = pattern(start, 4 * MIB)
        .iter()
        .map(|byte| byte | 1)
        .collect();
    let begin = |at| SpoolWriter::begin(&spool, Segment::containing(1, at, size), size, Lsn::ZERO);
    let mut writer = begin(start).with_room();
    writer.write(start, &bytes[..100_000]).unwrap();
    assert_eq!(writer.sync().unwrap(), Lsn(start.0 + 100_000));
    assert!(file_bytes(&state) > MIB, "room was made");
    let stored = spool.stored(size).unwrap()[0];
    assert_eq!(stored.bytes, 13 * 8192, "up to the end of a page");
    // Killed, and begun again: nothing is torn, and what comes fills the room.
    std::mem::forget(writer);
    let mut again = begin(start).with_room();
    again.write(start, &bytes[..300_000]).unwrap();
    drop(again);
    assert_eq!(file_bytes(&state), 300_000, "the room was given back");
    let mut again = begin(start).with_room();
    for (index, part) in bytes[..4 << 20].chunks(7_000).enumerate() {
        let at = start.0 + u64::try_from(index * 7_000).unwrap();
        again.write(Lsn(at), part).unwrap();
        let is_whole = at + u64::try_from(part.len()).unwrap() == start.0 + 4 * MIB;
        assert_eq!(file_bytes(&state) == 4 * MIB, is_whole, "whole when it is");
    }
    drop(again);
    let read = spool.read(Segment::containing(1, start, size), size, start, u64::MAX);
    assert_eq!(read.unwrap(), bytes);
    let folder = fs::read_dir(state.path().join("spool/prod")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.contains("torn")).count(), 0);
}
