//! PostgreSQL's names and bounds of WAL segments.

use holdfast_core::Lsn;
use serde::{Deserialize, Serialize};

/// The size of a cluster's WAL segments: a power of two from 1 MiB to 1 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub(crate) struct SegmentBytes(u32);

impl SegmentBytes {
    /// Accepts a size that PostgreSQL can have.
    pub(crate) fn new(bytes: u32) -> Option<Self> {
        let known = bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes);
        known.then_some(Self(bytes))
    }

    /// Returns the size in bytes.
    pub(crate) fn get(self) -> u64 {
        u64::from(self.0)
    }

    /// Returns the size in bytes.
    pub(crate) fn get_u32(self) -> u32 {
        self.0
    }

    /// Returns where the segment that contains `at` begins.
    pub(crate) fn floor(self, at: Lsn) -> Lsn {
        Lsn(at.0 & !self.get().wrapping_sub(1))
    }
}

impl TryFrom<u32> for SegmentBytes {
    type Error = &'static str;

    fn try_from(bytes: u32) -> Result<Self, Self::Error> {
        Self::new(bytes).ok_or("not a size of WAL segments")
    }
}

impl From<SegmentBytes> for u32 {
    fn from(size: SegmentBytes) -> Self {
        size.0
    }
}

/// One segment of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Segment {
    pub(crate) timeline: u32,
    /// Its first position.
    pub(crate) start: Lsn,
}

impl Segment {
    /// Returns the segment of `timeline` that contains `at`.
    pub(crate) fn containing(timeline: u32, at: Lsn, size: SegmentBytes) -> Self {
        Self {
            timeline,
            start: size.floor(at),
        }
    }

    /// Returns the position after it.
    pub(crate) fn end(self, size: SegmentBytes) -> Lsn {
        Lsn(self.start.0.saturating_add(size.get()))
    }

    /// Returns PostgreSQL's name of it.
    ///
    /// # Shape
    /// Three times eight upper-case hexadecimal digits: timeline, then the segment's number split so
    /// that the last part counts the segments of 4 GiB.
    ///
    /// # Source
    /// PostgreSQL 18, `src/include/access/xlog_internal.h`, `XLogFileName`
    pub(crate) fn name(self, size: SegmentBytes) -> String {
        let number = self.start.0 / size.get();
        let each = PER_ID_BYTES / size.get();
        format!(
            "{:08X}{:08X}{:08X}",
            self.timeline,
            number / each,
            number % each
        )
    }

    /// Reads a name.
    pub(crate) fn parse(name: &str, size: SegmentBytes) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
        if name.len() != 24 || !name.bytes().all(plain) {
            return None;
        }
        let part = |from: usize| {
            let digits = name.get(from..from.checked_add(8)?)?;
            u32::from_str_radix(digits, 16).ok()
        };
        let (timeline, high, low) = (part(0)?, part(8)?, part(16)?);
        let each = PER_ID_BYTES / size.get();
        if timeline == 0 || u64::from(low) >= each {
            return None;
        }
        let number = u64::from(high)
            .checked_mul(each)?
            .checked_add(u64::from(low))?;
        Some(Self {
            timeline,
            start: Lsn(number.checked_mul(size.get())?),
        })
    }
}

const PER_ID_BYTES: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_postgresql() {
        let cases = [
            (16, 1, 0x0100_0000, "000000010000000000000001"),
            (16, 2, 0x1_FF00_0000, "0000000200000001000000FF"),
            (1, 1, 0x1_0010_0000, "000000010000000100000001"),
            (1024, 0xA, 0x2_C000_0000, "0000000A0000000200000003"),
        ];
        for (mebibytes, timeline, start, name) in cases {
            let size = SegmentBytes::new(mebibytes << 20).unwrap();
            let segment = Segment {
                timeline,
                start: Lsn(start),
            };
            assert_eq!(segment.name(size), name);
            assert_eq!(Segment::parse(name, size), Some(segment));
        }
    }

    #[test]
    fn other_names_and_sizes_are_refused() {
        let size = SegmentBytes::new(16 << 20).unwrap();
        for name in [
            "00000001000000000000000",
            "00000001000000000000000g",
            "00000001000000000000000a",
            "000000010000000000000100",
            "000000000000000000000001",
            "000000010000000000000001.partial",
            "00000002.history",
            "+0000001000000000000001",
        ] {
            assert_eq!(Segment::parse(name, size), None, "{name}");
        }
        for bytes in [0, 1, 1 << 19, 3 << 20, 1 << 31] {
            assert_eq!(SegmentBytes::new(bytes), None, "{bytes}");
        }
    }
}
