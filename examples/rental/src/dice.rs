//! Repeatable random numbers: the same seed gives the same rental office on every machine and with
//! every version of every library.

/// A SplitMix64 generator.
///
/// # Source
/// Steele, Lea, Flood: *Fast splittable pseudorandom number generators*, OOPSLA 2014.
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// A generator for one `subject` of a seed, independent of how many numbers others have drawn.
    pub fn new(seed: u64, subject: &str, number: u64) -> Self {
        let mut state = mix(seed ^ 0x9e37_79b9_7f4a_7c15);
        for byte in subject.bytes() {
            state = mix(state ^ u64::from(byte));
        }
        Self {
            state: mix(state ^ mix(number)),
        }
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number from `low` to `high`, both included; `low` when the range is empty.
    pub fn between(&mut self, low: u32, high: u32) -> u32 {
        let span = u64::from(high.saturating_sub(low)) + 1;
        let offset = (u128::from(self.draw()) * u128::from(span)) >> 64;
        low.saturating_add(u32::try_from(offset).unwrap_or(0))
    }

    /// Whether something happens that happens `percent` times in a hundred.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.between(1, 100) <= percent
    }

    /// One of `all`, or `None` when there is none.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.index(all.len())?)
    }

    /// One of `all`, or the empty text when there is none.
    pub fn word(&mut self, all: &'static [&'static str]) -> &'static str {
        self.pick(all).copied().unwrap_or("")
    }

    /// An index below `length`, or `None` when `length` is zero.
    pub fn index(&mut self, length: usize) -> Option<usize> {
        let last = u32::try_from(length.checked_sub(1)?).unwrap_or(u32::MAX);
        usize::try_from(self.between(0, last)).ok()
    }

    /// A UUID of version 4.
    pub fn uuid(&mut self) -> String {
        uuid_v4((u128::from(self.draw()) << 64) | u128::from(self.draw()))
    }
}

/// Writes 128 random bits as a UUID of version 4.
///
/// # Source
/// RFC 9562, section 5.4.
pub fn uuid_v4(bits: u128) -> String {
    let bits = bits & !(0xf000_u128 << 64) & !(0xc000_u128 << 48);
    let bits = bits | (0x4000_u128 << 64) | (0x8000_u128 << 48);
    let low = |shift: u32, mask: u128| (bits >> shift) & mask;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        low(96, 0xffff_ffff),
        low(80, 0xffff),
        low(64, 0xffff),
        low(48, 0xffff),
        low(0, 0xffff_ffff_ffff)
    )
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Dice, uuid_v4};

    #[test]
    fn the_same_seed_subject_and_number_repeat() {
        let draw = |seed, subject, number| Dice::new(seed, subject, number).draw();
        assert_eq!(draw(7, "vehicle", 3), draw(7, "vehicle", 3));
        assert_ne!(draw(7, "vehicle", 3), draw(8, "vehicle", 3));
        assert_ne!(draw(7, "vehicle", 3), draw(7, "customer", 3));
        assert_ne!(draw(7, "vehicle", 3), draw(7, "vehicle", 4));
    }

    #[test]
    fn the_numbers_do_not_change_between_versions() {
        let mut dice = Dice::new(1, "golden", 0);
        let drawn: Vec<u32> = (0..6).map(|_| dice.between(0, 99)).collect();
        assert_eq!(drawn, GOLDEN);
    }

    #[test]
    fn the_generator_is_splitmix64() {
        // SOURCE: the test vector of Rosetta Code, task "Pseudo-random numbers/Splitmix64".
        let mut dice = Dice { state: 1_234_567 };
        let drawn: Vec<u64> = (0..3).map(|_| dice.draw()).collect();
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(drawn, expected);
    }

    const GOLDEN: [u32; 6] = [13, 26, 62, 67, 47, 45];

    #[test]
    fn between_stays_in_its_range_and_reaches_both_ends() {
        let mut dice = Dice::new(1, "range", 0);
        let drawn: Vec<u32> = (0..1_000).map(|_| dice.between(3, 5)).collect();
        assert!(drawn.iter().all(|n| (3..=5).contains(n)));
        assert!(drawn.contains(&3) && drawn.contains(&5));
    }

    #[test]
    fn an_empty_range_gives_its_low_end_and_an_empty_list_nothing() {
        let mut dice = Dice::new(1, "empty", 0);
        assert_eq!(dice.between(9, 2), 9);
        assert_eq!(dice.pick::<u8>(&[]), None);
        assert_eq!(dice.word(&[]), "");
    }

    #[test]
    fn uuids_are_version_4() {
        assert_eq!(uuid_v4(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid_v4(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
