//! Names and identifiers. Each kind is a type of its own, so that one cannot be passed for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::unit::text_serde;

/// Crockford's base 32, lower case: no `i`, `l`, `o`, `u`, so that an id survives being read aloud.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $random_bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// How many random bytes make one.
            pub const RANDOM_BYTES: usize = $random_bytes;

            /// Makes an id from random bytes, which the caller draws.
            pub fn from_random(random: [u8; $random_bytes]) -> Self {
                let letters = random.iter().map(|byte| {
                    char::from(ALPHABET.get(usize::from(*byte & 31)).copied().unwrap_or(b'0'))
                });
                Self(format!(concat!($prefix, "{}"), letters.collect::<String>()))
            }

            /// Returns the text form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Reads the id with or without its prefix, in either case.
            fn from_str(text: &str) -> Result<Self, IdError> {
                let lower = text.to_ascii_lowercase();
                let letters = lower.strip_prefix($prefix).unwrap_or(&lower);
                let known = letters.bytes().all(|letter| ALPHABET.contains(&letter));
                if known && letters.len() == $random_bytes {
                    Ok(Self(format!(concat!($prefix, "{}"), letters)))
                } else {
                    Err(IdError { kind: stringify!($name), text: text.chars().take(40).collect() })
                }
            }
        }

        text_serde!($name);
    };
}

random_id!(
    /// One thing asked for at a door. Text form `act-` and 12 letters.
    ActionId, "act-", 12
);
random_id!(
    /// An action that waits for a human. Text form `hold-` and 8 letters.
    HoldId, "hold-", 8
);
random_id!(
    /// A lease. Text form `lease-` and 8 letters; it is not the token.
    LeaseId, "lease-", 8
);
random_id!(
    /// A base of restore points. Text form `point-` and 10 letters.
    PointId, "point-", 10
);

/// The name of a source, as the user chose it: 1 to 40 of `a-z`, `0-9`, `-`, beginning with a letter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName(String);

impl SourceName {
    /// Returns the text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SourceName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let letter = text
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_lowercase());
        let known = text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if letter && known && text.len() <= 40 {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError {
                kind: "SourceName",
                text: text.chars().take(40).collect(),
            })
        }
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_serde!(SourceName);

/// A text that is not an id or name of this kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdError {
    kind: &'static str,
    text: String,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, shape) = match self.kind {
            "ActionId" => ("an action id", "`act-` and 12 letters or digits"),
            "HoldId" => ("a hold id", "`hold-` and 8 letters or digits"),
            "LeaseId" => ("a lease id", "`lease-` and 8 letters or digits"),
            "PointId" => ("a restore point id", "`point-` and 10 letters or digits"),
            _ => (
                "a source name",
                "1 to 40 of a-z, 0-9 and `-`, beginning with a letter",
            ),
        };
        write!(
            f,
            "`{}` is not {what}: expected {shape}",
            crate::Untrusted(&self.text)
        )
    }
}

impl std::error::Error for IdError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_survives_its_text_form(random: [u8; 8]) {
            let id = HoldId::from_random(random);
            prop_assert_eq!(id.to_string().parse::<HoldId>().unwrap(), id.clone());
            prop_assert_eq!(id.to_string().to_uppercase().parse::<HoldId>().unwrap(), id);
        }
    }

    #[test]
    fn names_that_could_leave_a_folder_are_refused() {
        for text in [
            "",
            "..",
            "a/b",
            "Prod",
            "-a",
            "1a",
            "a b",
            "a\0",
            "ä",
            &"a".repeat(41),
        ] {
            assert!(text.parse::<SourceName>().is_err(), "{text:?}");
        }
        assert!("prod-2".parse::<SourceName>().is_ok());
    }

    #[test]
    fn one_kind_of_id_is_not_another() {
        assert!("lease-00000000".parse::<HoldId>().is_err());
        assert!("hold-0000000".parse::<HoldId>().is_err());
        assert!("hold-0000000l".parse::<HoldId>().is_err());
    }
}
