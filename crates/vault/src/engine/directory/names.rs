//! Names of files as texts that a restore point can have, and back.
//!
//! # Shape
//! A name is kept as it is, but a byte that is not part of valid UTF-8, of a control character, of a
//! backslash or of one of our own signs becomes the character U+10FF00 plus that byte.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// The first of the 256 characters that stand for bytes; they lie in a private plane of Unicode.
const FIRST: u32 = 0x10_FF00;

/// Returns the text that a name, or the target of a link, is kept as.
pub(super) fn encode(name: &OsStr) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.as_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || character == '\\' || u32::from(character) >= FIRST {
                let mut buffer = [0; 4];
                text.extend(character.encode_utf8(&mut buffer).bytes().map(sign));
            } else {
                text.push(character);
            }
        }
        text.extend(chunk.invalid().iter().copied().map(sign));
    }
    text
}

/// Returns the path that is kept as this text.
pub(crate) fn decode(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match u32::from(character).checked_sub(FIRST).map(u8::try_from) {
            Some(Ok(byte)) => bytes.push(byte),
            _ => {
                let mut buffer = [0; 4];
                bytes.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn sign(byte: u8) -> char {
    char::from_u32(FIRST.saturating_add(u32::from(byte))).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_name_comes_back_and_is_plain_text(bytes in proptest::collection::vec(1_u8.., 1..64)) {
            let name = OsString::from_vec(bytes);
            let text = encode(&name);
            prop_assert_eq!(decode(&text).into_os_string(), name);
            prop_assert!(!text.chars().any(|c| c.is_control() || c == '\\'));
        }
    }

    #[test]
    fn plain_names_stay_as_they_are_and_our_own_signs_are_told_apart() {
        assert_eq!(encode(OsStr::new("Grüße 2026.txt")), "Grüße 2026.txt");
        let name = OsStr::from_bytes(b"latin-\xE9\n\\");
        assert_eq!(encode(name), "latin-\u{10FFE9}\u{10FF0A}\u{10FF5C}");
        let twice = encode(OsStr::new(&encode(name)));
        assert_eq!(decode(&twice).into_os_string(), *encode(name));
    }
}
