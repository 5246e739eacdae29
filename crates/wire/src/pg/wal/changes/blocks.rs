//! A set of block numbers that takes at most one bit a block.

use std::collections::BTreeMap;
use std::ops::Range;

/// Numbers of a chunk above which a bitmap is smaller.
const SPARSE_MAX: usize = 2048;
/// Words of a chunk's bitmap.
const WORDS: usize = 1024;
/// Bytes of a chunk's bitmap.
const BITMAP_BYTES: usize = WORDS * 8;
/// Bytes that a chunk takes besides.
const CHUNK_BYTES: usize = 64;
/// Blocks of a chunk.
const CHUNK_BLOCKS: u32 = 1 << 16;

/// Block numbers of one fork: single ones, and all from a limit on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    limit: Option<u32>,
    chunks: BTreeMap<u16, Chunk>,
    bytes: usize,
}

/// 65536 block numbers of which some are set.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Chunk {
    Bitmap(Box<[u64; WORDS]>),
    /// In order.
    Sparse(Vec<u16>),
}

impl Blocks {
    /// Returns the number from which on every block counts as changed, if there is one.
    pub fn limit(&self) -> Option<u32> {
        self.limit
    }

    /// Tells whether a block counts as changed.
    pub fn contains(&self, block: u32) -> bool {
        if self.limit.is_some_and(|limit| block >= limit) {
            return true;
        }
        let (high, low) = split(block);
        self.chunks
            .get(&high)
            .is_some_and(|chunk| chunk.contains(low))
    }

    /// Returns the blocks in `within`, in order, neighbours together.
    pub fn ranges(&self, within: Range<u32>) -> Vec<Range<u32>> {
        let mut found: Vec<Range<u32>> = Vec::new();
        let mut add = |from: u32, to: u32| {
            let (from, to) = (from.max(within.start), to.min(within.end));
            match found.last_mut() {
                _ if from >= to => {}
                Some(last) if last.end >= from => last.end = last.end.max(to),
                _ => found.push(from..to),
            }
        };
        let (first, _) = split(within.start);
        let (last, _) = split(within.end.saturating_sub(1));
        for (high, chunk) in self.chunks.range(first..=last) {
            let base = u32::from(*high).saturating_mul(CHUNK_BLOCKS);
            chunk.each(|low| {
                let block = base.saturating_add(u32::from(low));
                add(block, block.saturating_add(1));
            });
        }
        if let Some(limit) = self.limit {
            add(limit, within.end);
        }
        found
    }

    /// Returns about how many bytes of memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a block and returns how many bytes of memory that took.
    pub(super) fn insert(&mut self, block: u32) -> usize {
        if self.limit.is_some_and(|limit| block >= limit) {
            return 0;
        }
        let (high, low) = split(block);
        let mut fresh = 0;
        let chunk = self.chunks.entry(high).or_insert_with(|| {
            fresh = CHUNK_BYTES;
            Chunk::Sparse(Vec::new())
        });
        let before = chunk.bytes();
        chunk.insert(low);
        let more = chunk.bytes().saturating_sub(before).saturating_add(fresh);
        self.bytes = self.bytes.saturating_add(more);
        more
    }

    /// Lets every block from `limit` on count as changed and returns how many bytes that freed.
    pub(super) fn cut(&mut self, limit: u32) -> usize {
        if self.limit.is_some_and(|old| old <= limit) {
            return 0;
        }
        self.limit = Some(limit);
        let before = self.bytes;
        let (high, low) = split(limit);
        self.chunks.retain(|chunk, _| *chunk <= high);
        if let Some(chunk) = self.chunks.get_mut(&high) {
            chunk.cut(low);
            if chunk.is_empty() {
                self.chunks.remove(&high);
            }
        }
        let each = |chunk: &Chunk| chunk.bytes().saturating_add(CHUNK_BYTES);
        self.bytes = self.chunks.values().map(each).sum();
        before.saturating_sub(self.bytes)
    }
}

impl Chunk {
    fn contains(&self, low: u16) -> bool {
        match self {
            Self::Bitmap(words) => {
                let (word, bit) = place(low);
                words.get(word).is_some_and(|word| word & bit != 0)
            }
            Self::Sparse(numbers) => numbers.binary_search(&low).is_ok(),
        }
    }

    fn insert(&mut self, low: u16) {
        match self {
            Self::Bitmap(words) => {
                let (word, bit) = place(low);
                if let Some(word) = words.get_mut(word) {
                    *word |= bit;
                }
            }
            Self::Sparse(numbers) => {
                // What grows, grows at its end.
                let at = match numbers.last() {
                    Some(last) if *last == low => return,
                    Some(last) if *last < low => Err(numbers.len()),
                    _ => numbers.binary_search(&low),
                };
                let Err(at) = at else { return };
                numbers.insert(at, low);
                if numbers.len() > SPARSE_MAX {
                    let mut bitmap = Self::Bitmap(Box::new([0; WORDS]));
                    for number in numbers.iter() {
                        bitmap.insert(*number);
                    }
                    *self = bitmap;
                }
            }
        }
    }

    /// Takes away what is not below `low`.
    fn cut(&mut self, low: u16) {
        match self {
            Self::Bitmap(words) => {
                let (at, bit) = place(low);
                for (number, word) in words.iter_mut().enumerate() {
                    if number == at {
                        *word &= bit.wrapping_sub(1);
                    } else if number > at {
                        *word = 0;
                    }
                }
            }
            Self::Sparse(numbers) => numbers.truncate(numbers.partition_point(|one| *one < low)),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Bitmap(words) => words.iter().all(|word| *word == 0),
            Self::Sparse(numbers) => numbers.is_empty(),
        }
    }

    fn each(&self, mut each: impl FnMut(u16)) {
        match self {
            Self::Bitmap(words) => {
                for (at, word) in (0_u16..).zip(words.iter()) {
                    let mut left = *word;
                    while left != 0 {
                        let bit = u16::try_from(left.trailing_zeros()).unwrap_or(0);
                        each(at.wrapping_mul(64) | bit);
                        left &= left.wrapping_sub(1);
                    }
                }
            }
            Self::Sparse(numbers) => numbers.iter().copied().for_each(each),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Bitmap(_) => BITMAP_BYTES,
            Self::Sparse(numbers) => numbers.capacity().saturating_mul(2),
        }
    }
}

/// Splits a block number into that of its chunk and that within.
fn split(block: u32) -> (u16, u16) {
    let [a, b, c, d] = block.to_be_bytes();
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

/// Returns the word of a bitmap and the bit in it.
fn place(low: u16) -> (usize, u64) {
    (usize::from(low >> 6), 1_u64 << (low & 63))
}
