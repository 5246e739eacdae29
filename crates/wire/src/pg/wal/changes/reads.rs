//! Which blocks replay of the log reads before it writes them.
//!
//! After a checkpoint the first change of a block brings the whole page as a rule, and such a block
//! need not be there. What is told here is a hint: a block that is missing in it is read all the same.

use std::collections::BTreeMap;
use std::ops::Range;

use super::super::WalError;
use super::super::record::{Fork, Record, Redo, Relation};
use super::blocks::Blocks;
use crate::limits;

/// The blocks that replay of a stretch of the log reads, in the order of their relations, up to a bound.
#[derive(Clone, Debug, Default)]
pub struct Reads {
    forks: BTreeMap<(Relation, Fork), Known>,
    bytes: usize,
    found: usize,
    max: usize,
}

#[derive(Clone, Debug, Default)]
struct Known {
    seen: Blocks,
    read: Blocks,
}

impl Reads {
    /// Begins with nothing; behind `max` blocks no more are noted.
    pub fn up_to(max: usize) -> Self {
        Self {
            max,
            ..Self::default()
        }
    }

    /// Adds what replay of the next record reads; records come in order.
    ///
    /// # Errors
    /// [`WalError::Record`] when its headers contradict its length.
    pub fn apply(&mut self, record: &Record<'_>) -> Result<(), WalError> {
        if self.is_full() {
            return Ok(());
        }
        record.each_redo(|(relation, fork, block), redo| {
            let known = self.forks.entry((relation, fork)).or_default();
            if known.seen.contains(block) {
                return;
            }
            self.bytes = self.bytes.saturating_add(known.seen.insert(block));
            if redo == Redo::Reads {
                self.bytes = self.bytes.saturating_add(known.read.insert(block));
                self.found = self.found.saturating_add(1);
            }
        })
    }

    /// Tells whether no more is noted.
    pub fn is_full(&self) -> bool {
        self.found >= self.max
            || self.bytes > limits::CHANGED_BITMAP_BYTES
            || self.forks.len() > limits::CHANGED_FORKS
    }

    /// Returns the blocks of each fork that has any, neighbours together.
    pub fn forks(&self) -> impl Iterator<Item = (Relation, Fork, Vec<Range<u32>>)> {
        let all = self.forks.iter();
        all.filter_map(|((relation, fork), known)| {
            let ranges = known.read.ranges(0..u32::MAX);
            (!ranges.is_empty()).then_some((*relation, *fork, ranges))
        })
    }
}
