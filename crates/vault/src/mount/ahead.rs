//! Noticing who reads a file from its beginning to its end, before it is asked for what follows.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::limits;

/// The reads of one file that follow each other; several may go on at once.
#[derive(Default)]
pub(super) struct Reads(Mutex<Vec<Run>>);

/// Reads that follow each other.
struct Run {
    /// Where the last one ended.
    end: u64,
    /// How many there were.
    count: u32,
    /// How far ahead is looked.
    window: u64,
    /// What was asked for ends here.
    asked: u64,
}

impl Reads {
    /// Notes a read; returns what should be brought ahead of the next.
    pub(super) fn note(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let follows = |run: &Run| {
            let gap = range.start.checked_sub(run.end);
            gap.is_some_and(|gap| gap <= limits::MOUNT_AHEAD_GAP)
        };
        let Some(at) = runs.iter().position(follows) else {
            if runs.len() >= limits::MOUNT_AHEAD_RUNS {
                runs.remove(0);
            }
            runs.push(Run {
                end: range.end,
                count: 1,
                window: limits::MOUNT_AHEAD_LEAST,
                asked: 0,
            });
            return None;
        };
        // The one that was used last is forgotten last.
        let mut run = runs.remove(at);
        run.end = range.end;
        run.count = run.count.saturating_add(1);
        let left = run.asked.saturating_sub(run.end);
        let wanted =
            (run.count >= limits::MOUNT_AHEAD_AFTER && left <= run.window / 2).then(|| {
                let from = run.asked.max(run.end);
                run.asked = from.saturating_add(run.window);
                run.window = run.window.saturating_mul(2).min(limits::MOUNT_AHEAD_MOST);
                from..run.asked
            });
        runs.push(run);
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 8192;

    fn read(reads: &Reads, block: u64) -> Option<Range<u64>> {
        reads.note(&(block * BLOCK..(block + 1) * BLOCK))
    }

    #[test]
    fn what_is_read_in_order_is_brought_ahead_in_windows_that_grow_to_a_bound() {
        let reads = Reads::default();
        let mut asked = Vec::new();
        for block in 0..20_000 {
            asked.extend(read(&reads, block).map(|range| (block, range)));
        }
        let (block, first) = asked.first().unwrap().clone();
        assert_eq!(block + 1, u64::from(limits::MOUNT_AHEAD_AFTER));
        assert_eq!(first.end - first.start, limits::MOUNT_AHEAD_LEAST);
        let mut end = first.start;
        let mut length = 0;
        for (block, range) in &asked {
            assert_eq!(range.start, end, "each part is asked for once");
            end = range.end;
            let here = range.end - range.start;
            assert!(
                here == (length * 2).max(limits::MOUNT_AHEAD_LEAST)
                    || here == limits::MOUNT_AHEAD_MOST
            );
            assert!(range.start >= (block + 1) * BLOCK, "it is ahead");
            assert!(
                range.end <= block * BLOCK + 2 * limits::MOUNT_AHEAD_MOST,
                "and not far"
            );
            length = here;
        }
        assert_eq!(length, limits::MOUNT_AHEAD_MOST);
    }

    #[test]
    fn two_that_read_the_same_file_in_order_are_told_apart_and_random_reads_bring_nothing() {
        let reads = Reads::default();
        let mut asked = 0;
        for block in 0..100 {
            asked += usize::from(read(&reads, block).is_some());
            asked += usize::from(read(&reads, 1_000_000 + block).is_some());
            read(&reads, block * 7919 % 500_000 + 1000);
        }
        assert!(asked >= 4, "{asked}");
        let reads = Reads::default();
        for number in 0..10_000_u64 {
            let block = number.wrapping_mul(6_364_136_223_846_793_005) >> 20;
            assert_eq!(read(&reads, block), None);
        }
    }
}
