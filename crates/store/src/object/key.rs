//! Names of objects, which can never leave the store.

use std::fmt;
use std::str::FromStr;

use holdfast_core::Untrusted;
use serde::{Deserialize, Serialize};

/// The longest key, in bytes.
const LIMIT_KEY_BYTES: usize = 512;
/// The longest segment of a key, in bytes.
const LIMIT_SEGMENT_BYTES: usize = 200;

/// The name of an object: segments of `A-Za-z0-9._-` joined by `/`, none beginning with a dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Returns the text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the last segment.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ObjectKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let segment = |segment: &str| {
            !segment.is_empty()
                && segment.len() <= LIMIT_SEGMENT_BYTES
                && !segment.starts_with('.')
                && segment
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if text.len() <= LIMIT_KEY_BYTES && text.split('/').all(segment) {
            Ok(Self(text.to_owned()))
        } else {
            Err(KeyError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for ObjectKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<ObjectKey> for String {
    fn from(key: ObjectKey) -> Self {
        key.0
    }
}

/// A text that is not the name of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyError(String);

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not the name of an object", Untrusted(&self.0))
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_store_are_refused() {
        for text in [
            "", "/", "a//b", "../a", "a/..", "a/.b", "/a", "a/", "a b", "a\\b", "ä", "a\0",
        ] {
            assert!(text.parse::<ObjectKey>().is_err(), "{text:?}");
        }
        let key: ObjectKey = "prod/wal/00000001/000000010000000000000001.zst"
            .parse()
            .unwrap();
        assert_eq!(key.name(), "000000010000000000000001.zst");
    }
}
