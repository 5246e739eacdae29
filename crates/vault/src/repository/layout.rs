//! The names of objects, and the names of PostgreSQL's log files.

use holdfast_core::{Lsn, PointId, SourceName, Timestamp};
use holdfast_store::object::ObjectKey;

use super::format::Format;
use super::{RepositoryError, WalPlace};

/// Returns the last part of a restore point's folder: its time first, so that names sort by age.
pub(crate) fn folder(began: Timestamp, point: &PointId) -> String {
    let time: String = began
        .to_string()
        .chars()
        .take_while(|c| *c != '.')
        .filter(|c| !matches!(c, '-' | ':'))
        .collect();
    format!("{time}Z-{point}")
}

/// Returns the letters of the point's id in the last part of its folder.
pub(crate) fn letters(folder: &str) -> &str {
    folder.split_once('-').map_or("", |(_, point)| point)
}

/// Returns the folder that all restore points of a source are in.
pub(crate) fn points(format: Format, source: &SourceName) -> String {
    match format {
        Format::V1 => format!("{source}/base"),
        Format::V2 => format!("{source}/point"),
    }
}

/// Returns the name of the manifest in a restore point's folder.
pub(crate) fn manifest(
    format: Format,
    source: &SourceName,
    folder: &str,
) -> Result<ObjectKey, RepositoryError> {
    let (points, end) = (points(format, source), end(format));
    key(format!("{points}/{folder}/manifest{end}"))
}

/// Returns the name of a bundle in a restore point's folder.
pub(crate) fn bundle(
    format: Format,
    source: &SourceName,
    folder: &str,
    number: u32,
) -> Result<ObjectKey, RepositoryError> {
    let (points, end) = (points(format, source), end(format));
    key(format!("{points}/{folder}/bundle-{number:06}{end}"))
}

/// Returns the name of a map object in a restore point's folder.
pub(crate) fn map(
    source: &SourceName,
    folder: &str,
    number: u32,
) -> Result<ObjectKey, RepositoryError> {
    let (points, end) = (points(Format::V2, source), end(Format::V2));
    key(format!("{points}/{folder}/map-{number:06}{end}"))
}

/// Returns the last part of the folder of a manifest, or `None` when the object is not one.
pub(crate) fn folder_of_manifest(format: Format, key: &ObjectKey) -> Option<&str> {
    let folder = key.as_str().strip_suffix(end(format))?;
    folder.strip_suffix("/manifest")?.rsplit('/').next()
}

/// Returns what the name of every object ends with.
pub(crate) fn end(format: Format) -> &'static str {
    match format {
        Format::V1 => ".zst",
        Format::V2 => ".zst.age",
    }
}

/// Returns the folder of a timeline's whole segments.
pub(crate) fn segments(at: &WalPlace) -> String {
    format!(
        "{}/wal/{:016x}/{:08X}",
        at.source, at.system_identifier, at.timeline
    )
}

/// Returns the name of a whole segment.
pub(crate) fn segment(
    format: Format,
    at: &WalPlace,
    start: Lsn,
) -> Result<ObjectKey, RepositoryError> {
    let (name, end) = (segment_name(at, start), end(format));
    key(format!("{}/{name}{end}", segments(at)))
}

/// Returns the folder of a timeline's tails.
pub(crate) fn tails(at: &WalPlace) -> String {
    format!(
        "{}/tail/{:016x}/{:08X}",
        at.source, at.system_identifier, at.timeline
    )
}

/// Returns the name of a tail.
pub(crate) fn tail(
    format: Format,
    at: &WalPlace,
    (start, end): (Lsn, Lsn),
) -> Result<ObjectKey, RepositoryError> {
    let name = segment_name(at, start);
    key(format!(
        "{}/{name}/{:016X}-{:016X}{}",
        tails(at),
        start.0,
        end.0,
        self::end(format)
    ))
}

/// Returns the folder of the histories of a cluster's timelines.
pub(crate) fn histories(at: &WalPlace) -> String {
    format!("{}/history/{:016x}", at.source, at.system_identifier)
}

/// Returns the name of a timeline's history.
pub(crate) fn history(format: Format, at: &WalPlace) -> Result<ObjectKey, RepositoryError> {
    let (folder, end) = (histories(at), end(format));
    key(format!("{folder}/{:08X}.history{end}", at.timeline))
}

/// Returns the folder of a source's proofs.
pub(crate) fn proofs(source: &SourceName) -> String {
    format!("{source}/proof")
}

/// Returns the name of a proof.
pub(crate) fn proof(
    format: Format,
    source: &SourceName,
    drilled_at: Timestamp,
    point: &PointId,
) -> Result<ObjectKey, RepositoryError> {
    let micros = drilled_at.0;
    let end = end(format);
    key(format!("{source}/proof/{micros:020}-{point}{end}"))
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
pub(crate) fn read_tail_name(format: Format, key: &ObjectKey) -> Option<(Lsn, Lsn)> {
    let (start, end) = key.name().strip_suffix(end(format))?.split_once('-')?;
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
    fn names_of_points_sort_by_age_and_tails_say_what_they_cover() {
        let point = PointId::from_random([1; 10]);
        let source = "prod".parse().unwrap();
        let folder = folder(Timestamp(1_777_000_000_000_000), &point);
        assert_eq!(folder, format!("20260424T030640Z-{point}"));
        for format in [Format::V1, Format::V2] {
            let key = manifest(format, &source, &folder).unwrap();
            assert_eq!(folder_of_manifest(format, &key), Some(folder.as_str()));
            let range = (Lsn(0x0100_0028), Lsn(0x0100_2000));
            let key = tail(format, &place(16 << 20), range).unwrap();
            assert_eq!(read_tail_name(format, &key), Some(range));
        }
        let key = map(&source, &folder, 1).unwrap();
        assert_eq!(folder_of_manifest(Format::V2, &key), None);
    }
}
