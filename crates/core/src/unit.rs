//! Units as types: log positions, instants, sizes and row counts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A position in PostgreSQL's write-ahead log, in bytes since the cluster's log began.
///
/// # Shape
/// Text form `X/Y`, two hexadecimal halves of 32 bits, as PostgreSQL prints it.
///
/// # Source
/// <https://www.postgresql.org/docs/18/datatype-pg-lsn.html>
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position before any record; PostgreSQL's `InvalidXLogRecPtr`.
    pub const ZERO: Self = Self(0);

    /// Returns the number of bytes from `earlier` to this position, or zero if it is not earlier.
    pub fn since(self, earlier: Self) -> ByteCount {
        ByteCount(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Lsn {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let bad = || UnitError::Lsn(text.chars().take(32).collect());
        let (high, low) = text.split_once('/').ok_or_else(bad)?;
        let half = |part: &str| {
            if part.is_empty() || part.len() > 8 || part.starts_with('+') {
                return Err(bad());
            }
            u32::from_str_radix(part, 16).map_err(|_| bad())
        };
        Ok(Self((u64::from(half(high)?) << 32) | u64::from(half(low)?)))
    }
}

/// An instant, in microseconds since 1970-01-01 00:00 UTC.
///
/// # Shape
/// Text form RFC 3339 in UTC with six decimals, `2026-04-24T15:04:05.000009Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Microseconds from the Unix epoch to PostgreSQL's epoch, 2000-01-01 00:00 UTC.
    pub const POSTGRES_EPOCH: Self = Self(946_684_800_000_000);

    /// Converts PostgreSQL's microseconds since 2000-01-01, saturating at the ends.
    pub fn from_postgres(micros: i64) -> Self {
        Self(micros.saturating_add(Self::POSTGRES_EPOCH.0))
    }

    /// Returns microseconds since 2000-01-01, as PostgreSQL sends them, saturating at the ends.
    pub fn to_postgres(self) -> i64 {
        self.0.saturating_sub(Self::POSTGRES_EPOCH.0)
    }

    /// Returns the time from `earlier` to this instant, or zero if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Returns this instant moved later by `by`, saturating at the end of time.
    pub fn plus(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)),
        )
    }

    /// Returns this instant moved earlier by `by`, saturating at the beginning of time.
    pub fn minus(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)),
        )
    }
}

impl From<std::time::SystemTime> for Timestamp {
    fn from(time: std::time::SystemTime) -> Self {
        match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => Self(0).plus(after),
            Err(before) => Self(0).minus(before.duration()),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(time) => write!(f, "{time:.6}"),
            Err(_) => write!(f, "out-of-range({})", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = UnitError;

    /// Reads RFC 3339 (`2026-04-24T15:04:05Z`, a blank instead of `T`, any numeric offset).
    fn from_str(text: &str) -> Result<Self, UnitError> {
        text.parse::<jiff::Timestamp>()
            .map(|time| Self(time.as_microsecond()))
            .map_err(|_| UnitError::Timestamp(text.chars().take(64).collect()))
    }
}

macro_rules! text_serde {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use text_serde;

text_serde!(Lsn);
text_serde!(Timestamp);

/// A number of bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ByteCount(pub u64);

impl fmt::Display for ByteCount {
    /// Writes a rounded size with a binary unit: `512 B`, `1.5 KiB`, `16.0 MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
        let mut whole = self.0;
        let mut tenths = 0;
        let mut unit = 0;
        while whole >= 1024 && unit + 1 < units.len() {
            tenths = (whole % 1024) * 10 / 1024;
            whole /= 1024;
            unit += 1;
        }
        match (unit, units.get(unit)) {
            (0, _) => write!(f, "{whole} B"),
            (_, Some(name)) => write!(f, "{whole}.{tenths} {name}"),
            (_, None) => write!(f, "{} B", self.0),
        }
    }
}

/// A number of table rows.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct RowCount(pub u64);

impl fmt::Display for RowCount {
    /// Writes the number with `_` between groups of three digits: `12_403_118`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_str("_")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// Why a text is not a unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not `X/Y` in hexadecimal.
    #[error("`{0}` is not a log position; write it as PostgreSQL does, such as `0/16B3748`")]
    Lsn(String),
    /// Not RFC 3339.
    #[error(
        "`{0}` is not a time; write it as `2026-04-24T15:04:05Z` or with an offset such as `+02:00`"
    )]
    Timestamp(String),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_lsn_survives_its_text_form(value: u64) {
            prop_assert_eq!(Lsn(value).to_string().parse::<Lsn>(), Ok(Lsn(value)));
        }

        #[test]
        fn a_timestamp_survives_its_text_form(micros in -62_135_596_800_000_000_i64..=253_402_207_200_000_000) {
            prop_assert_eq!(Timestamp(micros).to_string().parse::<Timestamp>(), Ok(Timestamp(micros)));
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,40}") {
            let _ = text.parse::<Lsn>();
            let _ = text.parse::<Timestamp>();
        }
    }

    #[test]
    fn malformed_positions_are_refused() {
        for text in [
            "",
            "/",
            "0",
            "0/",
            "/0",
            "0/0/0",
            "+1/2",
            "1/123456789",
            "g/0",
            " 0/0",
            "-1/0",
        ] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_and_counts_read_well() {
        assert_eq!(ByteCount(1023).to_string(), "1023 B");
        assert_eq!(ByteCount(16 << 20).to_string(), "16.0 MiB");
        assert_eq!(ByteCount(u64::MAX).to_string(), "16383.9 PiB");
        assert_eq!(RowCount(12_403_118).to_string(), "12_403_118");
        assert_eq!(RowCount(7).to_string(), "7");
    }

    #[test]
    fn an_instant_after_the_end_of_time_is_the_end_of_time() {
        assert_eq!(
            Timestamp(i64::MAX).plus(Duration::from_secs(1)),
            Timestamp(i64::MAX)
        );
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
    }
}
