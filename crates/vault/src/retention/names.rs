//! What the name of an object says: of both formats, without reading anything.

use std::collections::BTreeMap;

use holdfast_core::{Lsn, PointId, Timestamp};
use holdfast_store::object::ObjectKey;

use super::objects::{Kind, WalFacts};

/// The size of a segment of each system that a point tells of.
pub(crate) type SegmentSizes = BTreeMap<u64, u32>;

/// Tells what an object of a source is.
pub(crate) fn kind(key: &ObjectKey, sizes: &SegmentSizes) -> Kind {
    let parts: Vec<&str> = key.as_str().split('/').skip(1).collect();
    let found = match parts.as_slice() {
        ["base" | "point", folder, name] => part(folder, stem(name)),
        ["history", system, name] => history(system, stem(name)),
        ["keep", name] => mark(stem(name)),
        ["proof", name] => proof(stem(name)),
        ["tail", system, timeline, segment, name] => tail((system, timeline), segment, stem(name)),
        ["wal", system, timeline, name] => segment((system, timeline), stem(name), sizes),
        _ => None,
    };
    found.unwrap_or(Kind::Unknown)
}

/// Returns the name without the endings that say how it is packed.
fn stem(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".age").unwrap_or(name);
    name.strip_suffix(".zst")
}

fn part(folder: &str, name: Option<&str>) -> Option<Kind> {
    let (time, point) = folder.split_once('-')?;
    let point: PointId = point.parse().ok()?;
    match name? {
        "manifest" => Some(Kind::Manifest(point)),
        name if is_numbered(name, "bundle-") || is_numbered(name, "map-") => Some(Kind::Part {
            point,
            began: folder_time(time)?,
        }),
        _ => None,
    }
}

fn is_numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Reads `YYYYMMDDTHHMMSSZ`.
fn folder_time(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes.get(8) != Some(&b'T') || bytes.last() != Some(&b'Z') {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        let is_plain = digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|_| is_plain)
    };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_date || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days_from_civil(year, month, day)
        .checked_mul(86_400)?
        .checked_add(hour * 3_600 + minute * 60 + second)?;
    Some(Timestamp(seconds.checked_mul(1_000_000)?))
}

/// Returns days since 1970-01-01 of a date of the Gregorian calendar.
///
/// # Source
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let shifted = (month + 9) % 12;
    let of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    era * 146_097 + day_of_era - 719_468
}

fn history(system: &str, name: Option<&str>) -> Option<Kind> {
    let timeline = name?.strip_suffix(".history")?;
    hex(timeline, 8)?;
    Some(Kind::History(hex(system, 16)?))
}

fn mark(name: Option<&str>) -> Option<Kind> {
    let point = name?.get(..PointId::RANDOM_BYTES.saturating_add("point-".len()))?;
    Some(Kind::Mark(point.parse().ok()?))
}

fn proof(name: Option<&str>) -> Option<Kind> {
    let (micros, point) = name?.split_once('-')?;
    Some(Kind::Proof {
        point: point.parse().ok()?,
        at: Timestamp(micros.parse().ok()?),
    })
}

fn segment(
    (system, timeline): (&str, &str),
    name: Option<&str>,
    sizes: &SegmentSizes,
) -> Option<Kind> {
    let name = name?;
    let system_identifier = hex(system, 16)?;
    let line = u32::try_from(hex(timeline, 8)?).ok()?;
    if name.len() != 24 || hex(name.get(..8)?, 8)? != u64::from(line) {
        return None;
    }
    let (high, low) = (hex(name.get(8..16)?, 8)?, hex(name.get(16..24)?, 8)?);
    let span = sizes.get(&system_identifier).and_then(|bytes| {
        let bytes = u64::from(*bytes);
        let start = low.checked_mul(bytes).filter(|start| *start < 1 << 32)?;
        let start = (high << 32) | start;
        Some((Lsn(start), Lsn(start.checked_add(bytes)?)))
    });
    Some(Kind::Segment(WalFacts {
        system_identifier,
        timeline: line,
        span,
    }))
}

fn tail((system, timeline): (&str, &str), segment: &str, name: Option<&str>) -> Option<Kind> {
    let (start, end) = name?.split_once('-')?;
    let (start, end) = (Lsn(hex(start, 16)?), Lsn(hex(end, 16)?));
    let timeline = u32::try_from(hex(timeline, 8)?).ok()?;
    if start >= end || segment.len() != 24 || hex(segment.get(..8)?, 8)? != u64::from(timeline) {
        return None;
    }
    Some(Kind::Tail(WalFacts {
        system_identifier: hex(system, 16)?,
        timeline,
        span: Some((start, end)),
    }))
}

fn hex(text: &str, digits: usize) -> Option<u64> {
    let is_hex = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rows: &[(&str, Kind)]) {
        let sizes = SegmentSizes::from([(0xABC, 16 << 20)]);
        for end in ["zst", "zst.age"] {
            for (name, expected) in rows {
                let key: ObjectKey = format!("prod/{name}.{end}").parse().unwrap();
                assert_eq!(kind(&key, &sizes), *expected, "{key}");
            }
        }
    }

    fn point() -> PointId {
        "point-0123456789".parse().unwrap()
    }

    #[test]
    fn names_of_both_formats_say_what_they_are() {
        let at = Timestamp(1_777_000_000_000_000);
        let manifest = Kind::Manifest(point());
        let part = Kind::Part {
            point: point(),
            began: at,
        };
        let proof = Kind::Proof { point: point(), at };
        check(&[
            (
                "point/20260424T030640Z-point-0123456789/manifest",
                manifest.clone(),
            ),
            ("base/20260424T030640Z-point-0123456789/manifest", manifest),
            (
                "point/20260424T030640Z-point-0123456789/bundle-000001",
                part.clone(),
            ),
            ("point/20260424T030640Z-point-0123456789/map-000002", part),
            (
                "history/0000000000000abc/00000003.history",
                Kind::History(0xABC),
            ),
            ("proof/00001777000000000000-point-0123456789", proof),
            ("keep/point-0123456789-000001-keep", Kind::Mark(point())),
        ]);
    }

    #[test]
    fn names_of_the_log_say_what_they_cover() {
        let wal = |system_identifier, span| WalFacts {
            system_identifier,
            timeline: 3,
            span,
        };
        let whole = Some((Lsn(0xA_F300_0000), Lsn(0xA_F400_0000)));
        let part = Some((Lsn(0xA_F300_0000), Lsn(0xA_F300_0100)));
        check(&[
            (
                "wal/0000000000000abc/00000003/000000030000000A000000F3",
                Kind::Segment(wal(0xABC, whole)),
            ),
            (
                "wal/0000000000000abd/00000003/000000030000000A000000F3",
                Kind::Segment(wal(0xABD, None)),
            ),
            (
                "tail/0000000000000abc/00000003/000000030000000A000000F3/0000000AF3000000-0000000AF3000100",
                Kind::Tail(wal(0xABC, part)),
            ),
        ]);
    }

    #[test]
    fn what_has_no_known_name_is_unknown() {
        let unknown = |name| (name, Kind::Unknown);
        check(&[
            unknown("point/20260424T030640Z-point-0123456789/other-000002"),
            unknown("point/20261324T030640Z-point-0123456789/map-000002"),
            unknown("point/20260424T030640Z/manifest"),
            unknown("wal/0000000000000abc/00000004/000000030000000A000000F3"),
            unknown(
                "tail/0000000000000abc/00000003/000000030000000A000000F3/0000000AF3000100-0000000AF3000100",
            ),
            unknown("history/0000000000000abc/00000003"),
            unknown("whatever"),
        ]);
    }

    #[test]
    fn folder_times_are_those_that_were_written() {
        for micros in [
            0,
            951_782_400_000_000,
            1_709_164_800_000_000,
            4_102_444_799_000_000,
        ] {
            let at = Timestamp(micros);
            let text: String = at
                .to_string()
                .chars()
                .take_while(|c| *c != '.')
                .filter(|c| !matches!(c, '-' | ':'))
                .collect();
            assert_eq!(folder_time(&format!("{text}Z")), Some(at), "{text}");
        }
        for text in [
            "",
            "20260424T030640",
            "20260424 030640Z",
            "2026O424T030640Z",
            "20260024T030640Z",
        ] {
            assert_eq!(folder_time(text), None, "{text}");
        }
    }
}
