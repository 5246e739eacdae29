//! What the user says about keeping: for how long, how densely, and with how much of the log.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use holdfast_core::{Timestamp, Untrusted};
use serde::{Deserialize, Serialize};

/// A stretch of time as people write it: `90m`, `48h`, `35d`, `13w`, or `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

impl Span {
    /// Nothing.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// Returns a number of days.
    pub const fn days(days: u64) -> Self {
        Self(Duration::from_secs(days.saturating_mul(DAY_S)))
    }

    /// Returns a number of hours.
    pub const fn hours(hours: u64) -> Self {
        Self(Duration::from_secs(hours.saturating_mul(HOUR_S)))
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let bad = || SpanError(text.chars().take(40).collect());
        if text == "0" {
            return Ok(Self::ZERO);
        }
        let (unit, seconds) = UNITS
            .iter()
            .find(|(unit, _)| text.ends_with(*unit))
            .ok_or_else(bad)?;
        let number = text.strip_suffix(*unit).unwrap_or_default();
        let is_plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = number.parse().ok().filter(|_| is_plain).ok_or_else(bad)?;
        let seconds = number.checked_mul(*seconds).ok_or_else(bad)?;
        if seconds > LIMIT_SPAN_S {
            return Err(bad());
        }
        Ok(Self(Duration::from_secs(seconds)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.as_secs();
        let whole = UNITS
            .iter()
            .find(|(_, seconds)| all > 0 && all.is_multiple_of(*seconds));
        match whole {
            Some((unit, seconds)) => write!(f, "{}{unit}", all / seconds),
            None => f.write_str("0"),
        }
    }
}

impl TryFrom<String> for Span {
    type Error = SpanError;

    fn try_from(text: String) -> Result<Self, SpanError> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

/// A text that is not a stretch of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanError(String);

impl fmt::Display for SpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a stretch of time such as `90m`, `48h`, `35d` or `13w`, at most 100 years",
            Untrusted(&self.0)
        )
    }
}

impl std::error::Error for SpanError {}

/// How much of the log is kept besides what each point needs for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogKeep {
    /// All of it, from the oldest kept point on: every moment since then can be brought back.
    #[default]
    Continuous,
    /// All of it for `all_for`; an older point keeps only what makes it consistent.
    Points,
}

/// What of a source is kept, and for how long.
///
/// Of every hour, day and week the first point is kept until the whole of that hour, day or week is
/// older than its span; weeks begin on Monday, everything is UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeepRules {
    /// Every point.
    pub all_for: Span,
    /// One point of each hour.
    pub hourly_for: Span,
    /// One point of each day.
    pub daily_for: Span,
    /// One point of each week.
    pub weekly_for: Span,
    /// How much of the log.
    pub log: LogKeep,
}

impl Default for KeepRules {
    fn default() -> Self {
        Self {
            all_for: Span::days(3),
            hourly_for: Span::days(7),
            daily_for: Span::days(35),
            weekly_for: Span::days(91),
            log: LogKeep::Continuous,
        }
    }
}

/// The rule that keeps a point, from the densest to the sparsest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Every point.
    All,
    /// One of each hour.
    Hourly,
    /// One of each day.
    Daily,
    /// One of each week.
    Weekly,
}

impl Rule {
    /// The rules that keep one point of each stretch.
    pub const THINNING: [Self; 3] = [Self::Hourly, Self::Daily, Self::Weekly];

    /// Returns the number of the hour, day or week that `at` is in; [`Rule::All`] has one a microsecond.
    pub fn bucket(self, at: Timestamp) -> i64 {
        at.0.saturating_add(self.shift()).div_euclid(self.length())
    }

    /// Returns the first instant after the hour, day or week that `at` is in.
    pub fn bucket_end(self, at: Timestamp) -> Timestamp {
        let next = self.bucket(at).saturating_add(1);
        Timestamp(
            next.saturating_mul(self.length())
                .saturating_sub(self.shift()),
        )
    }

    /// Returns how long this rule keeps.
    pub fn span(self, rules: &KeepRules) -> Duration {
        match self {
            Self::All => rules.all_for.0,
            Self::Hourly => rules.hourly_for.0,
            Self::Daily => rules.daily_for.0,
            Self::Weekly => rules.weekly_for.0,
        }
    }

    fn length(self) -> i64 {
        match self {
            Self::All => 1,
            Self::Hourly => HOUR_MICROS,
            Self::Daily => DAY_MICROS,
            Self::Weekly => 7 * DAY_MICROS,
        }
    }

    /// 1970 began on a Thursday; weeks begin on Monday.
    fn shift(self) -> i64 {
        match self {
            Self::All | Self::Hourly | Self::Daily => 0,
            Self::Weekly => 3 * DAY_MICROS,
        }
    }
}

const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 86_400;
const HOUR_MICROS: i64 = 3_600_000_000;
const DAY_MICROS: i64 = 24 * HOUR_MICROS;
/// The longest span, 100 years.
const LIMIT_SPAN_S: u64 = 100 * 366 * DAY_S;

/// The units, longest first.
const UNITS: &[(&str, u64)] = &[
    ("w", 7 * DAY_S),
    ("d", DAY_S),
    ("h", HOUR_S),
    ("m", 60),
    ("s", 1),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_as_people_write_it() {
        for (text, seconds, shown) in [
            ("0", 0, "0"),
            ("90m", 5_400, "90m"),
            ("48h", 172_800, "2d"),
            ("35d", 3_024_000, "5w"),
            ("13w", 7_862_400, "13w"),
            ("1s", 1, "1s"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0.as_secs(), seconds, "{text}");
            assert_eq!(span.to_string(), shown);
            assert_eq!(shown.parse::<Span>().unwrap(), span);
        }
        for text in [
            "",
            "5",
            "d",
            "-1d",
            "+1d",
            "1.5h",
            "1 d",
            "1y",
            "99999999999999999999d",
            "6000w",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn weeks_begin_on_monday_and_stretches_do_not_overlap() {
        // 2026-04-24 was a Friday.
        let friday = Timestamp(1_776_988_800_000_000);
        let end = Rule::Weekly.bucket_end(friday);
        assert_eq!(end.to_string(), "2026-04-27T00:00:00.000000Z");
        for rule in Rule::THINNING {
            for at in [
                friday,
                Timestamp(0),
                Timestamp(-1),
                Timestamp(i64::from(u32::MAX)),
            ] {
                let end = rule.bucket_end(at);
                assert!(end > at);
                assert_eq!(rule.bucket(end), rule.bucket(at) + 1);
                assert_eq!(rule.bucket(Timestamp(end.0 - 1)), rule.bucket(at));
            }
        }
    }
}
