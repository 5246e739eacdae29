//! The content of an envelope: chunks of 64 KiB, each encrypted and bound to its place.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use holdfast_core::Secret;

use super::{EnvelopeError, derive};

/// Bytes of a whole chunk of the content.
pub const CHUNK: u64 = 64 * 1024;
/// What encryption adds to a chunk.
pub const TAG: u64 = 16;
/// Bytes of a whole chunk, encrypted.
pub const STORED_CHUNK: u64 = CHUNK + TAG;
/// Bytes of the nonce before the first chunk.
pub const NONCE: u64 = 16;
/// The same, as a length in memory.
pub const NONCE_BYTES: usize = 16;

const CHUNK_BYTES: usize = 64 * 1024;
const TAG_BYTES: usize = 16;
const STORED_CHUNK_BYTES: usize = CHUNK_BYTES + TAG_BYTES;

/// How many bytes the chunks of `plain` bytes have, encrypted.
pub fn stored_bytes(plain: usize) -> usize {
    let chunks = plain.div_ceil(CHUNK_BYTES).max(1);
    plain.saturating_add(chunks.saturating_mul(TAG_BYTES))
}

/// How a content is cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the content.
    pub plain: u64,
    /// Number of chunks.
    pub chunks: u64,
    /// Bytes of all chunks, encrypted.
    pub stored: u64,
}

impl Layout {
    /// Tells it from the bytes after the nonce; there is none if no content is stored in so many bytes.
    pub fn of(stored: u64) -> Option<Self> {
        let chunks = stored.div_ceil(STORED_CHUNK);
        let whole = chunks.checked_sub(1)?;
        let last = stored.checked_sub(whole.checked_mul(STORED_CHUNK)?)?;
        // The last chunk is empty only if it is the only one.
        if last < TAG || (last == TAG && whole > 0) {
            return None;
        }
        Some(Self {
            plain: stored.checked_sub(chunks.checked_mul(TAG)?)?,
            chunks,
            stored,
        })
    }
}

/// The key of one envelope's content.
#[derive(Debug)]
pub struct PayloadKey(LessSafeKey);

impl PayloadKey {
    /// Derives it from the file key and the envelope's nonce.
    pub fn derive(file_key: &Secret, nonce: &[u8; NONCE_BYTES]) -> Result<Self, EnvelopeError> {
        let key = derive(file_key.expose_bytes(), nonce, b"payload")?;
        UnboundKey::new(&CHACHA20_POLY1305, key.expose_bytes())
            .map(|key| Self(LessSafeKey::new(key)))
            .map_err(|_| EnvelopeError::Primitive("make a key"))
    }

    /// Encrypts the whole content and appends it to `out`.
    pub fn seal(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        let mut rest = plain;
        for number in 0_u64.. {
            let (chunk, after) = rest.split_at_checked(CHUNK_BYTES).unwrap_or((rest, &[]));
            let at = out.len();
            out.extend_from_slice(chunk);
            let place = place(number, after.is_empty());
            let tag = self.0.seal_in_place_separate_tag(
                place,
                Aad::empty(),
                out.get_mut(at..).unwrap_or_default(),
            );
            let tag = tag.map_err(|_| EnvelopeError::Primitive("encrypt"))?;
            out.extend_from_slice(tag.as_ref());
            if after.is_empty() {
                break;
            }
            rest = after;
        }
        Ok(())
    }

    /// Decrypts whole chunks, the first of which has the number `first`.
    pub fn open(
        &self,
        layout: &Layout,
        first: u64,
        stored: &[u8],
    ) -> Result<Vec<u8>, EnvelopeError> {
        let chunks = stored.len().div_ceil(STORED_CHUNK_BYTES);
        let tags = chunks.saturating_mul(TAG_BYTES);
        let mut plain = vec![0; stored.len().saturating_sub(tags)];
        let pieces = plain.chunks_mut(CHUNK_BYTES);
        // An empty content has a chunk without bytes.
        let empty: &mut [u8] = &mut [];
        let pieces = pieces.chain(std::iter::once(empty));
        for ((number, chunk), piece) in (first..).zip(stored.chunks(STORED_CHUNK_BYTES)).zip(pieces)
        {
            let (body, tag) = chunk
                .len()
                .checked_sub(TAG_BYTES)
                .and_then(|length| chunk.split_at_checked(length))
                .ok_or(EnvelopeError::Cut("last chunk"))?;
            let is_last = number.saturating_add(1) == layout.chunks;
            if (chunk.len() < STORED_CHUNK_BYTES && !is_last) || body.len() != piece.len() {
                return Err(EnvelopeError::Cut("chunk"));
            }
            self.0
                .open_separate_gather(place(number, is_last), Aad::empty(), body, tag, piece)
                .map_err(|_| EnvelopeError::Damaged("a chunk is not what was sealed there"))?;
        }
        Ok(plain)
    }
}

/// Returns the nonce of a chunk: its number in 11 bytes, big-endian, and whether it is the last.
fn place(number: u64, is_last: bool) -> Nonce {
    let mut nonce = [0; 12];
    for (byte, value) in nonce.iter_mut().skip(3).zip(number.to_be_bytes()) {
        *byte = value;
    }
    if let Some(last) = nonce.last_mut() {
        *last = u8::from(is_last);
    }
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_an_envelope_tells_the_size_of_its_content() {
        for plain in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 9 * CHUNK + 7] {
            let chunks = plain.div_ceil(CHUNK).max(1);
            let stored = plain + chunks * TAG;
            let layout = Layout::of(stored).unwrap();
            assert_eq!((layout.plain, layout.chunks), (plain, chunks));
            assert_eq!(
                stored_bytes(usize::try_from(plain).unwrap()),
                usize::try_from(stored).unwrap()
            );
        }
        for none in [
            0,
            1,
            TAG - 1,
            STORED_CHUNK + 1,
            STORED_CHUNK + TAG,
            2 * STORED_CHUNK + TAG,
        ] {
            assert_eq!(Layout::of(none), None, "{none}");
        }
    }
}
