//! Reads the numbers of tests out of the runners' closing lines.

use std::fmt;
use std::ops::AddAssign;

/// Numbers of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that passed.
    pub passed: u64,
    /// Those that failed, timed out or could not be started.
    pub failed: u64,
    /// Those that were left out.
    pub skipped: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        match self.skipped {
            0 => Ok(()),
            skipped => write!(f, ", {skipped} skipped"),
        }
    }
}

/// Reads nextest's summary: `Summary [ 0.2s] 5 tests run: 3 passed (1 slow), 2 failed, 1 skipped`.
pub fn nextest(output: &str) -> Counts {
    let is_summary = |line: &&str| line.trim_start().starts_with("Summary [");
    let summary = output.lines().rev().find(is_summary);
    let Some((_, numbers)) = summary.and_then(|line| line.split_once("run:")) else {
        return Counts::default();
    };
    parts(&without_parentheses(numbers), ',')
}

/// Sums the lines of cargo's own runner: `test result: ok. 3 passed; 0 failed; 0 ignored; ...`.
pub fn cargo_test(output: &str) -> Counts {
    let mut sum = Counts::default();
    for line in output.lines() {
        if let Some((_, numbers)) = line.split_once("test result: ") {
            let numbers = numbers.split_once(". ").map_or(numbers, |(_, rest)| rest);
            sum += parts(numbers, ';');
        }
    }
    sum
}

fn parts(numbers: &str, separator: char) -> Counts {
    let mut counts = Counts::default();
    for part in numbers.split(separator) {
        let Some((number, word)) = part.trim().split_once(' ') else {
            continue;
        };
        let number: u64 = number.parse().unwrap_or_default();
        match word.trim() {
            "passed" => counts.passed += number,
            "failed" | "timed out" | "exec failed" => counts.failed += number,
            "skipped" | "ignored" => counts.skipped += number,
            _ => {}
        }
    }
    counts
}

fn without_parentheses(text: &str) -> String {
    let mut depth = 0_u32;
    let keep = |c: &char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => return depth == 0,
        }
        false
    };
    text.chars().filter(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: u64, failed: u64, skipped: u64) -> Counts {
        Counts {
            passed,
            failed,
            skipped,
        }
    }

    #[test]
    fn nextest_summaries_are_read() {
        let rows = [
            (
                "     Summary [   0.012s] 3 tests run: 3 passed, 0 skipped",
                counts(3, 0, 0),
            ),
            (
                "Summary [ 1s] 1 test run: 1 passed, 2 skipped",
                counts(1, 0, 2),
            ),
            (
                "Summary [ 9s] 9 tests run: 5 passed (1 slow, 2 leaky), 2 failed, 1 timed out, 1 exec failed, 4 skipped",
                counts(5, 4, 4),
            ),
            (
                "Summary [ 9s] 2/9 tests run: 1 passed, 1 failed, 0 skipped\nerror: test run failed",
                counts(1, 1, 0),
            ),
            ("error: could not compile", counts(0, 0, 0)),
        ];
        for (text, expected) in rows {
            assert_eq!(nextest(text), expected, "{text}");
        }
    }

    #[test]
    fn results_of_cargo_test_are_summed() {
        let text = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                    test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(cargo_test(text), counts(4, 2, 1));
    }
}
