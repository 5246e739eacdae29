//! What a clone is called.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use holdfast_core::SourceName;
use serde::{Deserialize, Serialize};

/// What a clone is called: its source's name and six hexadecimal digits.
///
/// It is the name of the clone's folder, and therefore never anything else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CloneId(String);

/// Hexadecimal digits of an id.
const DIGITS: usize = 6;

impl CloneId {
    /// Makes one from random bytes.
    pub(super) fn new(source: &SourceName, random: [u8; 3]) -> Self {
        Self(format!("{source}-{}", HEXLOWER.encode(&random)))
    }

    /// Returns it as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the digits alone.
    pub(super) fn digits(&self) -> &str {
        self.0.rsplit('-').next().unwrap_or_default()
    }
}

impl fmt::Display for CloneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<CloneId> for String {
    fn from(id: CloneId) -> Self {
        id.0
    }
}

impl TryFrom<String> for CloneId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for CloneId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || "a clone is called SOURCE-XXXXXX".to_owned();
        let (source, digits) = text.rsplit_once('-').ok_or_else(refused)?;
        let is_hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        let fits = digits.len() == DIGITS && digits.chars().all(is_hex);
        match source.parse::<SourceName>() {
            Ok(_) if fits => Ok(Self(text.to_owned())),
            _ => Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_folder_and_nothing_else() {
        let source: SourceName = "my-prod".parse().unwrap();
        let id = CloneId::new(&source, [0xab, 0, 9]);
        assert_eq!(id.as_str(), "my-prod-ab0009");
        assert_eq!(id.as_str().parse::<CloneId>().unwrap(), id);
        assert_eq!(id.digits(), "ab0009");
        for text in [
            "",
            "prod",
            "prod-",
            "prod-12345",
            "prod-1234567",
            "prod-12345g",
            "prod-ABCDEF",
            "../prod-123456",
            "a/b-123456",
            "-123456",
            ".-123456",
            "prod-123456/..",
        ] {
            assert!(text.parse::<CloneId>().is_err(), "{text}");
        }
    }
}
