//! Digests that bind approvals, permits and proofs to exact bytes.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::unit::text_serde;

/// A SHA-256 digest. Text form: 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Returns the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

/// A digest over several fields that cannot be confused by moving bytes from one into the next.
///
/// Each field enters with its length as eight big-endian bytes; the first field names what is
/// digested, so that two kinds of things never share a digest.
pub struct DigestBuilder(Sha256);

impl DigestBuilder {
    /// Begins a digest of the things called `domain`.
    pub fn new(domain: &str) -> Self {
        Self(Sha256::new()).field(domain.as_bytes())
    }

    /// Adds one field.
    #[must_use]
    pub fn field(mut self, bytes: &[u8]) -> Self {
        self.0
            .update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        self.0.update(bytes);
        self
    }

    /// Returns the digest of all fields so far.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let bytes = HEXLOWER
            .decode(text.as_bytes())
            .map_err(|_| "not lower-case hexadecimal")?;
        bytes.try_into().map(Self).map_err(|_| "not 32 bytes")
    }
}

text_serde!(Digest);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn moving_bytes_between_fields_changes_the_digest(a: Vec<u8>, b: Vec<u8>, cut in 0_usize..64) {
            let whole: Vec<u8> = a.iter().chain(&b).copied().collect();
            let cut = cut.min(whole.len());
            let (left, right) = whole.split_at(cut);
            let one = DigestBuilder::new("t").field(&a).field(&b).finish();
            let two = DigestBuilder::new("t").field(left).field(right).finish();
            prop_assert_eq!(one == two, left == a.as_slice());
        }

        #[test]
        fn a_digest_survives_its_text_form(bytes: [u8; 32]) {
            prop_assert_eq!(Digest(bytes).to_string().parse::<Digest>(), Ok(Digest(bytes)));
        }
    }
}
