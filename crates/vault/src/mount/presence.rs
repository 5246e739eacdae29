//! Which blocks of a file are in the overlay; the others come from the restore point.

use std::ops::Range;

/// Bytes of a block: PostgreSQL's page, which is written whole.
pub(crate) const BLOCK_BYTES: u64 = 8192;

/// The blocks of one file. Only what the file still shows of the restore point can be absent: what
/// lies behind `visible` is the overlay's alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Presence {
    /// How many bytes of the restore point's file are still seen, from its beginning.
    visible: u64,
    words: Vec<u64>,
    absent: u64,
}

impl Presence {
    /// Of a file of which nothing is in the overlay yet.
    pub(crate) fn absent(visible: u64) -> Self {
        let blocks = visible.div_ceil(BLOCK_BYTES);
        let words = usize::try_from(blocks.div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            visible,
            words: vec![0; words],
            absent: blocks,
        }
    }

    /// Of a file whose words were read back; `None` when they are not as many as the size needs.
    pub(crate) fn of_words(size: u64, visible: u64, words: Vec<u64>) -> Option<Self> {
        let mut presence = Self::absent(size);
        if words.len() != presence.words.len() || visible > size {
            return None;
        }
        presence.words = words;
        presence.shrink(visible);
        Some(presence)
    }

    /// How much of the restore point's file is still seen.
    pub(crate) fn visible(&self) -> u64 {
        self.visible
    }

    /// One bit for each block of the restore point's file.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// How many blocks still come from the restore point.
    #[cfg(test)]
    pub(crate) fn missing(&self) -> u64 {
        self.absent
    }

    /// Whether the overlay has everything.
    pub(crate) fn is_whole(&self) -> bool {
        self.absent == 0
    }

    /// Whether the overlay has this block.
    pub(crate) fn has(&self, block: u64) -> bool {
        block.saturating_mul(BLOCK_BYTES) >= self.visible
            || usize::try_from(block / 64)
                .ok()
                .and_then(|at| self.words.get(at))
                .is_none_or(|word| word & (1 << (block % 64)) != 0)
    }

    /// The first block with a byte in `range` that the overlay does not have.
    pub(crate) fn first_absent(&self, range: &Range<u64>) -> Option<u64> {
        if self.is_whole() {
            return None;
        }
        let end = range.end.min(self.visible).div_ceil(BLOCK_BYTES);
        (range.start / BLOCK_BYTES..end).find(|block| !self.has(*block))
    }

    /// Says that the overlay has a block now.
    pub(crate) fn put(&mut self, block: u64) {
        if self.has(block) {
            return;
        }
        let at = usize::try_from(block / 64).unwrap_or(usize::MAX);
        if let Some(word) = self.words.get_mut(at) {
            *word |= 1 << (block % 64);
            self.absent = self.absent.saturating_sub(1);
        }
    }

    /// Says that less of the restore point's file is seen from now on.
    pub(crate) fn shrink(&mut self, visible: u64) {
        self.visible = self.visible.min(visible);
        let blocks = self.visible.div_ceil(BLOCK_BYTES);
        let absent = (0..blocks).filter(|block| !self.has(*block)).count();
        self.absent = u64::try_from(absent).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_there_and_what_lies_behind_is_there_anyway() {
        let mut presence = Presence::absent(3 * BLOCK_BYTES + 1);
        assert_eq!(presence.missing(), 4);
        assert_eq!(presence.first_absent(&(0..1)), Some(0));
        presence.put(0);
        presence.put(0);
        presence.put(2);
        assert_eq!(presence.missing(), 2);
        assert_eq!(presence.first_absent(&(0..u64::MAX)), Some(1));
        assert_eq!(
            presence.first_absent(&(2 * BLOCK_BYTES..3 * BLOCK_BYTES)),
            None
        );
        assert!(presence.has(4) && presence.has(u64::MAX / BLOCK_BYTES));
        presence.shrink(BLOCK_BYTES + 5);
        assert_eq!(presence.missing(), 1);
        presence.put(1);
        assert!(presence.is_whole());
        // What was cut off does not come back.
        presence.shrink(100 * BLOCK_BYTES);
        assert_eq!(presence.visible(), BLOCK_BYTES + 5);
    }
}
