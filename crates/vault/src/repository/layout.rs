//! The names of objects, and the names of PostgreSQL's log files.

use holdfast_core::{Lsn, PointId, SourceName, Timestamp};
use holdfast_store::object::ObjectKey;

use super::{RepositoryError, WalPlace};

/// Returns the folder of a base: its time first, so that names sort by age.
pub(crate) fn base_folder(source: &SourceName, began: Timestamp, point: &PointId) -> String {
    let time: String = began
        .to_string()
        .chars()
        .take_while(|c| *c != '.')
        .filter(|c| !matches!(c, '-' | ':'))
        .collect();
    format!("{source}/base/{time}Z-{point}")
}

/// Returns the folder that all bases of a source are in.
pub(crate) fn bases(source: &SourceName) -> String {
    format!("{source}/base")
}

/// Returns the name of the manifest in a base's folder.
pub(crate) fn manifest(folder: &str) -> Result<ObjectKey, RepositoryError> {
    key(format!("{folder}/{MANIFEST}"))
}

/// Returns the name of a bundle in a base's folder.
pub(crate) fn bundle(folder: &str, number: u32) -> Result<ObjectKey, RepositoryError> {
    key(format!("{folder}/bundle-{number:06}.zst"))
}

/// Returns the folder of a manifest, or `None` when the object is not one.
pub(crate) fn folder_of_manifest(key: &ObjectKey) -> Option<&str> {
    key.as_str().strip_suffix(MANIFEST)?.strip_suffix('/')
}

/// Returns the folder of a timeline's whole segments.
pub(crate) fn segments(at: &WalPlace) -> String {
    format!(
        "{}/wal/{:016x}/{:08X}",
        at.source, at.system_identifier, at.timeline
    )
}

/// Returns the name of a whole segment.
pub(crate) fn segment(at: &WalPlace, start: Lsn) -> Result<ObjectKey, RepositoryError> {
    key(format!("{}/{}.zst", segments(at), segment_name(at, start)))
}

/// Returns the folder of a timeline's tails.
pub(crate) fn tails(at: &WalPlace) -> String {
    format!(
        "{}/tail/{:016x}/{:08X}",
        at.source, at.system_identifier, at.timeline
    )
}

/// Returns the name of a tail.
pub(crate) fn tail(at: &WalPlace, start: Lsn, end: Lsn) -> Result<ObjectKey, RepositoryError> {
    let name = segment_name(at, start);
    key(format!(
        "{}/{name}/{:016X}-{:016X}.zst",
        tails(at),
        start.0,
        end.0
    ))
}

/// Returns the folder of the histories of a cluster's timelines.
pub(crate) fn histories(at: &WalPlace) -> String {
    format!("{}/history/{:016x}", at.source, at.system_identifier)
}

/// Returns the name of a timeline's history.
pub(crate) fn history(at: &WalPlace) -> Result<ObjectKey, RepositoryError> {
    key(format!("{}/{:08X}.history.zst", histories(at), at.timeline))
}

/// Returns the folder of a source's proofs.
pub(crate) fn proofs(source: &SourceName) -> String {
    format!("{source}/proof")
}

/// Returns the name of a proof.
pub(crate) fn proof(
    source: &SourceName,
    drilled_at: Timestamp,
    point: &PointId,
) -> Result<ObjectKey, RepositoryError> {
    let micros = drilled_at.0;
    key(format!("{source}/proof/{micros:020}-{point}.zst"))
}

/// Returns PostgreSQL's name of the segment that contains `position`.
///
/// # Source
/// PostgreSQL 18, `access/xlog_internal.h`, `XLogFileName`
pub(crate) fn segment_name(at: &WalPlace, position: Lsn) -> String {
    let bytes = u64::from(at.segment_bytes.max(1));
    let number = position.0 / bytes;
    let per_log = (1_u64 << 32) / bytes;
    let (high, low) = (number / per_log.max(1), number % per_log.max(1));
    format!("{:08X}{high:08X}{low:08X}", at.timeline)
}

/// Reads a segment's name back: timeline and first position.
pub(crate) fn read_segment_name(name: &str, segment_bytes: u32) -> Option<(u32, Lsn)> {
    let digits = |c: char| c.is_ascii_digit() || ('A'..='F').contains(&c);
    if name.len() != 24 || !name.chars().all(digits) {
        return None;
    }
    let part = |range: std::ops::Range<usize>| u32::from_str_radix(name.get(range)?, 16).ok();
    let (timeline, high, low) = (part(0..8)?, part(8..16)?, part(16..24)?);
    let start = u64::from(low).checked_mul(u64::from(segment_bytes))?;
    let within = start < 1 << 32;
    within.then_some((timeline, Lsn((u64::from(high) << 32) | start)))
}

/// Reads a tail's name back: first position and the one after its last.
pub(crate) fn read_tail_name(key: &ObjectKey) -> Option<(Lsn, Lsn)> {
    let (start, end) = key.name().strip_suffix(".zst")?.split_once('-')?;
    let number = |text: &str| {
        let whole = text.len() == 16;
        u64::from_str_radix(text, 16)
            .ok()
            .filter(|_| whole)
            .map(Lsn)
    };
    let (start, end) = (number(start)?, number(end)?);
    (start < end).then_some((start, end))
}

fn key(text: String) -> Result<ObjectKey, RepositoryError> {
    text.parse().map_err(|error| RepositoryError::Misuse {
        what: format!("{error}"),
    })
}

/// The last part of the name of every manifest.
const MANIFEST: &str = "manifest.zst";

#[cfg(test)]
mod tests {
    use super::*;

    fn place(segment_bytes: u32) -> WalPlace {
        WalPlace {
            source: "prod".parse().unwrap(),
            system_identifier: 0xABC,
            timeline: 3,
            segment_bytes,
        }
    }

    #[test]
    fn segments_have_the_names_that_postgresql_gives_them() {
        let at = place(16 << 20);
        assert_eq!(
            segment_name(&at, Lsn(0xA_F300_0028)),
            "000000030000000A000000F3"
        );
        assert_eq!(
            segment_name(&at, Lsn(0xFFFF_FFFF)),
            "0000000300000000000000FF"
        );
        assert_eq!(
            segment_name(&place(1 << 20), Lsn(0x1_0010_0000)),
            "000000030000000100000001"
        );
        for position in [0, 1 << 24, 0xA_F300_0000] {
            let name = segment_name(&at, Lsn(position));
            assert_eq!(read_segment_name(&name, 16 << 20), Some((3, Lsn(position))));
        }
        for name in [
            "",
            "00000003.history",
            "000000030000000A0000F300",
            "000000030000000a000000F3",
        ] {
            assert_eq!(read_segment_name(name, 16 << 20), None, "{name}");
        }
    }

    #[test]
    fn names_of_bases_sort_by_age_and_tails_say_what_they_cover() {
        let point = PointId::from_random([1; 10]);
        let source = "prod".parse().unwrap();
        let folder = base_folder(&source, Timestamp(1_777_000_000_000_000), &point);
        assert_eq!(folder, format!("prod/base/20260424T030640Z-{point}"));
        let key = manifest(&folder).unwrap();
        assert_eq!(folder_of_manifest(&key), Some(folder.as_str()));
        let key = tail(&place(16 << 20), Lsn(0x0100_0028), Lsn(0x0100_2000)).unwrap();
        assert_eq!(
            read_tail_name(&key),
            Some((Lsn(0x0100_0028), Lsn(0x0100_2000)))
        );
    }
}
