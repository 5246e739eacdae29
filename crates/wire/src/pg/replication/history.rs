//! Timeline history files: where one timeline left another.

use holdfast_core::Lsn;

/// The largest history file that is read, in bytes.
const LIMIT_HISTORY_BYTES: usize = 1 << 20;

/// One line of a history: `timeline` was left at `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// The older timeline.
    pub timeline: u32,
    /// The first position that belongs to the next timeline.
    pub at: Lsn,
}

/// The ancestry of one timeline, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TimelineHistory {
    /// The older timelines and where they were left.
    pub switches: Vec<Switch>,
}

/// Why a text is not a timeline history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Not the format, or timelines or positions run backwards.
    #[error("line {line} of the timeline history is not readable")]
    Malformed {
        /// Which line, from 1.
        line: usize,
    },
    /// Longer than any real history.
    #[error("the timeline history is too long")]
    TooLong,
}

impl TimelineHistory {
    /// Reads a history file.
    ///
    /// # Shape
    /// Text lines `timeline<TAB>switch point<TAB>reason`; empty lines and `#` comments are skipped.
    ///
    /// # Errors
    /// [`HistoryError`] names the line.
    ///
    /// # Source
    /// PostgreSQL 18, `src/backend/access/transam/timeline.c`, `readTimeLineHistory`
    pub fn parse(text: &[u8]) -> Result<Self, HistoryError> {
        if text.len() > LIMIT_HISTORY_BYTES {
            return Err(HistoryError::TooLong);
        }
        let text = String::from_utf8_lossy(text);
        let mut switches: Vec<Switch> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = || HistoryError::Malformed { line: index + 1 };
            let mut fields = line.split_ascii_whitespace();
            let timeline = fields.next().and_then(|t| t.parse().ok()).ok_or_else(bad)?;
            let at = fields.next().and_then(|t| t.parse().ok()).ok_or_else(bad)?;
            if switches
                .last()
                .is_some_and(|last| last.timeline >= timeline || last.at > at)
            {
                return Err(bad());
            }
            switches.push(Switch { timeline, at });
        }
        Ok(Self { switches })
    }

    /// Returns where `timeline` was left, or `None` when it is not an ancestor.
    pub fn left_at(&self, timeline: u32) -> Option<Lsn> {
        self.switches
            .iter()
            .find(|switch| switch.timeline == timeline)
            .map(|switch| switch.at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_history_tells_where_a_timeline_was_left() {
        let text = b"1\t0/3000148\tno recovery target specified\n\n# x\n2\t0/5000000\tbefore\n";
        let history = TimelineHistory::parse(text).unwrap();
        assert_eq!(history.left_at(1), Some(Lsn(0x0300_0148)));
        assert_eq!(history.left_at(2), Some(Lsn(0x0500_0000)));
        assert_eq!(history.left_at(3), None);
    }

    #[test]
    fn histories_that_run_backwards_are_refused() {
        for text in [
            "2\t0/1\tx\n1\t0/2\tx",
            "1\t0/2\tx\n2\t0/1\tx",
            "x",
            "1",
            "1\tx",
        ] {
            assert!(TimelineHistory::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = TimelineHistory::parse(&bytes);
        }
    }
}
