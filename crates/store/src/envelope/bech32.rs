//! Bech32, the writing of keys: a name, the digit 1, letters for 5 bits each, a checksum of 6 letters.
//!
//! # Source
//! BIP 173. Its limit of 90 characters and its segwit versions do not apply to age.

/// The 32 letters, by value.
const LETTERS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
/// Letters of the checksum.
const CHECKSUM: usize = 6;

/// Writes `bytes` under `name`, in lower case.
pub fn encode(name: &str, bytes: &[u8]) -> String {
    let mut values = to_fives(bytes);
    let sum = checksum(name, &values);
    values.extend(sum);
    let letters = values.iter().map(|value| {
        let letter = LETTERS.get(usize::from(*value)).copied();
        char::from(letter.unwrap_or_default())
    });
    let mut text = format!("{name}1");
    text.extend(letters);
    text
}

/// Reads 32 bytes under exactly `name`; `text` is in lower case.
pub fn decode(name: &str, text: &str) -> Option<[u8; 32]> {
    let letters = text.strip_prefix(name)?.strip_prefix('1')?;
    let value = |letter: u8| {
        let at = LETTERS.iter().position(|known| *known == letter)?;
        u8::try_from(at).ok()
    };
    let values: Option<Vec<u8>> = letters.bytes().map(value).collect();
    let values = values?;
    let (data, sum) = values.split_at_checked(values.len().checked_sub(CHECKSUM)?)?;
    if sum != checksum(name, data) {
        return None;
    }
    from_fives(data)?.try_into().ok()
}

fn to_fives(bytes: &[u8]) -> Vec<u8> {
    let (mut held, mut bits) = (0_u16, 0_u32);
    let mut values = Vec::new();
    let low = |word: u16| u8::try_from(word & 31).unwrap_or_default();
    for byte in bytes {
        held = (held << 8) | u16::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            values.push(low(held >> bits));
        }
        held &= 31;
    }
    if bits > 0 {
        values.push(low(held << (5 - bits)));
    }
    values
}

/// Joins 5 bits each to bytes; the bits that are left over must be fewer than 5 and zero.
fn from_fives(values: &[u8]) -> Option<Vec<u8>> {
    let (mut held, mut bits) = (0_u16, 0_u32);
    let mut bytes = Vec::new();
    for value in values {
        held = (held << 5) | u16::from(*value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((held >> bits) & 255).ok()?);
        }
        held &= 255;
    }
    let left = held & ((1_u16 << bits) - 1);
    (bits < 5 && left == 0).then_some(bytes)
}

/// Returns the checksum: the remainder of a BCH code that finds up to four wrong letters.
fn checksum(name: &str, values: &[u8]) -> [u8; CHECKSUM] {
    let high = name.bytes().map(|byte| byte >> 5);
    let low = name.bytes().map(|byte| byte & 31);
    let before = high.chain(std::iter::once(0)).chain(low);
    let all = before.chain(values.iter().copied()).chain([0; CHECKSUM]);
    let sum = all.fold(1, step) ^ 1;
    let mut letters = [0; CHECKSUM];
    for (shift, letter) in (0..6_u32).rev().zip(&mut letters) {
        *letter = u8::try_from((sum >> (5 * shift)) & 31).unwrap_or_default();
    }
    letters
}

fn step(sum: u32, value: u8) -> u32 {
    let top = sum >> 25;
    let mut sum = ((sum & 0x01ff_ffff) << 5) ^ u32::from(value);
    for (bit, generator) in GENERATOR.iter().enumerate() {
        if (top >> bit) & 1 == 1 {
            sum ^= generator;
        }
    }
    sum
}

/// The generator of the code.
const GENERATOR: [u32; 5] = [
    0x3b6a_57b2,
    0x2650_8e6d,
    0x1ea1_19fa,
    0x3d42_33dd,
    0x2a14_62b3,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_every_changed_letter_is_noticed() {
        let text = encode("age", &[0x5a; 32]);
        assert_eq!(decode("age", &text), Some([0x5a; 32]));
        for at in 0..text.len() {
            for letter in LETTERS.iter().chain(b"1bio- ") {
                let mut changed = text.clone().into_bytes();
                changed[at] = *letter;
                let changed = String::from_utf8(changed).unwrap();
                assert!(
                    changed == text || decode("age", &changed).is_none(),
                    "{changed}"
                );
            }
        }
        for cut in 0..text.len() {
            assert_eq!(decode("age", &text[..cut]), None);
        }
        assert_eq!(decode("ag", &text), None);
    }

    #[test]
    fn only_32_bytes_with_zero_padding_are_a_key() {
        for length in [0, 31, 33] {
            assert_eq!(decode("age", &encode("age", &vec![1; length])), None);
        }
        let mut values = to_fives(&[7; 32]);
        *values.last_mut().unwrap() |= 1;
        assert_eq!(from_fives(&values), None, "a bit of the padding is set");
    }
}
