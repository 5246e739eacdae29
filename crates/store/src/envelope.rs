//! Envelopes: bytes that only the holders of certain keys can read, in the age v1 file format.
//!
//! The format is age's, so that `age -d` opens every object without Holdfast; the primitives (X25519,
//! HKDF-SHA256, HMAC-SHA256, ChaCha20-Poly1305) are aws-lc's. Here are only the framing and its checks.
//!
//! # Shape
//! A text header with one stanza for each recipient and a MAC, 16 random bytes, then chunks of 64 KiB that
//! are 16 bytes longer encrypted; the last one is marked as the last.
//!
//! # Source
//! <https://age-encryption.org/v1>, read on 2026-11-27.

mod bech32;
mod header;
mod key;
mod payload;

use std::ops::Range;

use aws_lc_rs::{hkdf, rand};
use holdfast_core::{Code, Coded, Secret};

pub use key::{Identity, KeyTextError, Recipient};

use header::Header;
use payload::{Layout, NONCE_BYTES, PayloadKey};

/// Bytes of the content that are encrypted together; what is read of an envelope is a number of these.
pub const CHUNK_BYTES: u64 = payload::CHUNK;

/// The bytes of the key that is made for one envelope alone.
const FILE_KEY_BYTES: usize = 16;

/// Why an envelope cannot be opened or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The bytes end too early.
    #[error("the envelope ends within its {0}")]
    Cut(&'static str),
    /// The bytes are not what was sealed, or never were an envelope.
    #[error("the envelope is damaged: {0}")]
    Damaged(&'static str),
    /// It was sealed to other keys.
    #[error("none of the {0} keys at hand opens the envelope")]
    NoKey(usize),
    /// Nobody could ever open it.
    #[error("there is no recipient to seal to")]
    NoRecipient,
    /// A primitive failed, such as the system's randomness.
    #[error("cannot {0}")]
    Primitive(&'static str),
}

impl Coded for EnvelopeError {
    fn code(&self) -> Code {
        match self {
            Self::Cut(_) | Self::Damaged(_) => Code::ZI270,
            Self::NoKey(_) => Code::ZL270,
            Self::NoRecipient | Self::Primitive(_) => Code::ZS270,
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Cut(_) | Self::Damaged(_) => {
                "keep the repository as it is; restore another point, or copy the object back from a replica"
            }
            Self::NoKey(_) => {
                "give the key it was sealed to: the vault's own from before a rotation, or the recovery key with --recovery-key; if it was one of these, the object is damaged"
            }
            Self::NoRecipient | Self::Primitive(_) => {
                "nothing was stored; mend the system's randomness or the keys in the state folder, then start again"
            }
        };
        Some(text.to_owned())
    }
}

/// Seals `plain` so that any one of `recipients` can open it.
///
/// # Errors
/// [`EnvelopeError::NoRecipient`], [`EnvelopeError::Primitive`].
pub fn seal(plain: &[u8], recipients: &[Recipient]) -> Result<Vec<u8>, EnvelopeError> {
    if recipients.is_empty() {
        return Err(EnvelopeError::NoRecipient);
    }
    let file_key = Secret::from_bytes(random::<FILE_KEY_BYTES>()?.to_vec());
    let nonce = random::<NONCE_BYTES>()?;
    let mut sealed = header::write(&file_key, recipients)?;
    sealed.reserve_exact(NONCE_BYTES.saturating_add(payload::stored_bytes(plain.len())));
    sealed.extend_from_slice(&nonce);
    PayloadKey::derive(&file_key, &nonce)?.seal(plain, &mut sealed)?;
    Ok(sealed)
}

/// Opens a whole envelope.
///
/// # Errors
/// [`EnvelopeError::Cut`], [`EnvelopeError::Damaged`], [`EnvelopeError::NoKey`]. Nothing of it is then returned.
pub fn open(sealed: &[u8], identities: &[Identity]) -> Result<Vec<u8>, EnvelopeError> {
    let total = u64::try_from(sealed.len()).unwrap_or(u64::MAX);
    let envelope = Envelope::open(sealed, total, identities)?;
    let begin = usize::try_from(envelope.begin).unwrap_or(usize::MAX);
    let stored = sealed.get(begin..).unwrap_or_default();
    envelope.decrypt(0, stored)
}

/// Returns how many bytes an envelope of `plain` bytes may have at most.
pub fn sealed_bytes_max(plain: u64) -> u64 {
    let chunks = plain.div_ceil(CHUNK_BYTES).max(1);
    let header = u64::try_from(crate::limits::ENVELOPE_HEADER_BYTES_MAX).unwrap_or(u64::MAX);
    plain
        .saturating_add(chunks.saturating_mul(payload::TAG))
        .saturating_add(header)
        .saturating_add(payload::NONCE)
}

/// An envelope whose header was opened: any of its chunks can now be decrypted without a key.
#[derive(Debug)]
pub struct Envelope {
    key: PayloadKey,
    begin: u64,
    layout: Layout,
}

impl Envelope {
    /// Opens the header of an envelope of `total` bytes that begins with `prefix`.
    ///
    /// # Errors
    /// [`EnvelopeError::Cut`] also when only `prefix` is too short to hold the header.
    pub fn open(prefix: &[u8], total: u64, identities: &[Identity]) -> Result<Self, EnvelopeError> {
        let header = Header::parse(prefix)?;
        let file_key = header.unwrap(identities)?;
        header.verify(&file_key)?;
        let rest = prefix.get(header.bytes..).unwrap_or_default();
        let nonce = rest
            .first_chunk::<NONCE_BYTES>()
            .ok_or(EnvelopeError::Cut("nonce"))?;
        let begin = u64::try_from(header.bytes.saturating_add(NONCE_BYTES)).unwrap_or(u64::MAX);
        let stored = total.checked_sub(begin).and_then(Layout::of);
        Ok(Self {
            key: PayloadKey::derive(&file_key, nonce)?,
            begin,
            layout: stored.ok_or(EnvelopeError::Cut("last chunk"))?,
        })
    }

    /// Returns the size of the content, as far as the size of the envelope tells; reading proves it.
    pub fn plain_bytes(&self) -> u64 {
        self.layout.plain
    }

    /// Returns the number of chunks; an empty content has one.
    pub fn chunks(&self) -> u64 {
        self.layout.chunks
    }

    /// Returns the chunks that hold `plain`, a range of the content, or `None` when that ends earlier.
    pub fn chunks_of(&self, plain: &Range<u64>) -> Option<Range<u64>> {
        if plain.end > self.layout.plain || plain.start > plain.end {
            return None;
        }
        let first = plain.start.checked_div(CHUNK_BYTES)?;
        Some(first..plain.end.div_ceil(CHUNK_BYTES).max(first))
    }

    /// Returns where in the envelope these chunks are stored.
    pub fn stored(&self, chunks: &Range<u64>) -> Range<u64> {
        let end = self.begin.saturating_add(self.layout.stored);
        let at = |chunk: u64| {
            let offset = chunk.saturating_mul(payload::STORED_CHUNK);
            self.begin.saturating_add(offset).min(end)
        };
        at(chunks.start)..at(chunks.end)
    }

    /// Decrypts the stored bytes of whole chunks, of which the first has the number `first`.
    ///
    /// # Errors
    /// [`EnvelopeError::Damaged`] when they are not these chunks of this envelope.
    pub fn decrypt(&self, first: u64, stored: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        self.key.open(&self.layout, first, stored)
    }
}

/// Draws random bytes from the system.
fn random<const N: usize>() -> Result<[u8; N], EnvelopeError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| EnvelopeError::Primitive("draw random bytes"))?;
    Ok(bytes)
}

/// Derives 32 bytes by HKDF-SHA256.
fn derive(input: &[u8], salt: &[u8], purpose: &[u8]) -> Result<Secret, EnvelopeError> {
    let mut key = vec![0; 32];
    let filled = hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(input)
        .expand(&[purpose], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key));
    let key = Secret::from_bytes(key);
    filled.map_err(|_| EnvelopeError::Primitive("derive a key"))?;
    Ok(key)
}

#[cfg(test)]
mod tests;
