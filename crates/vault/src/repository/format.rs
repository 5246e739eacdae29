//! The outer form of every object: a header that zstd skips, then zstd frames.
//!
//! `zstd -dc` gives the content of any object; `docs/formats/repository-v2.md` has the details.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use holdfast_core::ByteCount;
use holdfast_store::object::ObjectKey;
use sha2::{Digest as _, Sha256};
use zstd::zstd_safe::CParameter;

use super::RepositoryError;
use crate::limits;

/// Bytes of the header, the eight of zstd's skippable frame included.
pub(crate) const HEADER_BYTES: usize = 100;
/// Bytes of the part of a header that each kind uses for itself.
pub(crate) const DETAIL_BYTES: usize = 24;
/// Begins the skippable frame of the header.
///
/// SOURCE: RFC 8878, section 3.1.2: any of 0x184D2A50 to 0x184D2A5F.
const HEADER_FRAME: u32 = 0x184D_2A5E;
/// Begins the skippable frame of a bundle's index.
pub(crate) const INDEX_FRAME: u32 = 0x184D_2A5D;
/// Begins the skippable frame of a signature.
pub(crate) const SIGNATURE_FRAME: u32 = 0x184D_2A5C;
/// Begins every header of ours.
const MAGIC: &[u8; 8] = b"HOLDFAST";
/// Bytes of a signature with the eight of its frame.
const SIGNED_BYTES: u64 = 72;
/// What every signature of format 2 covers first.
const DOMAIN: &[u8] = b"holdfast object 2\n";

/// The version of a repository and of everything in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Not encrypted; manifests alone are signed. It is read and no longer written.
    V1,
    /// Block maps, everything signed or bound to something signed.
    V2,
}

impl Format {
    /// Returns the format that a repository's marker states.
    pub(crate) fn of_marker(number: u32) -> Self {
        if number <= 1 { Self::V1 } else { Self::V2 }
    }

    fn version(self) -> u16 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

/// By what an object is judged: its format, and the vault's key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judge<'a> {
    pub(crate) format: Format,
    pub(crate) vault: &'a VerifyingKey,
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Frames of files.
    Bundle,
    /// A timeline's history file.
    History,
    /// A restore point's signed manifest.
    Manifest,
    /// Nodes of block maps.
    Map,
    /// A drill's signed proof.
    Proof,
    /// A whole segment of the log.
    Segment,
    /// A part of a segment of the log.
    Tail,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Bundle => 1,
            Self::Manifest => 2,
            Self::Segment => 3,
            Self::Tail => 4,
            Self::History => 5,
            Self::Proof => 6,
            Self::Map => 7,
        }
    }
}

/// What the first 100 bytes of an object say.
///
/// # Shape
/// Little-endian. The frame's length counts what follows it.
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 4 | skippable frame, `5E 2A 4D 18` |
/// | 4 | 4 | its length, 92 |
/// | 8 | 8 | `HOLDFAST` |
/// | 16 | 2 | version, 1 or 2 |
/// | 18 | 1 | kind |
/// | 19 | 1 | zero |
/// | 20 | 8 | bytes of the content, decompressed |
/// | 28 | 8 | bytes of the object after the header |
/// | 36 | 32 | SHA-256 of the content; in a bundle and a map of the entries of its index |
/// | 68 | 24 | what the kind says of itself |
/// | 92 | 4 | CRC-32C of everything after the header; in a bundle and a map of its index frame |
/// | 96 | 4 | CRC-32C of the 96 bytes before |
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) format: Format,
    pub(crate) kind: Kind,
    pub(crate) raw_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) sum: [u8; 32],
    pub(crate) detail: [u8; DETAIL_BYTES],
    pub(crate) stored_sum: u32,
}

impl Header {
    /// Returns the bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&HEADER_FRAME.to_le_bytes());
        out.extend_from_slice(&92_u32.to_le_bytes());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.format.version().to_le_bytes());
        out.extend_from_slice(&[self.kind.number(), 0]);
        out.extend_from_slice(&self.raw_bytes.to_le_bytes());
        out.extend_from_slice(&self.stored_bytes.to_le_bytes());
        out.extend_from_slice(&self.sum);
        out.extend_from_slice(&self.detail);
        out.extend_from_slice(&self.stored_sum.to_le_bytes());
        let sum = crc32c::crc32c(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads the header of an object of this kind.
    pub(crate) fn decode(
        key: &ObjectKey,
        (format, kind): (Format, Kind),
        bytes: &[u8],
    ) -> Result<Self, RepositoryError> {
        let bad = |what: &str| damaged(key, what);
        let header = bytes
            .get(..HEADER_BYTES)
            .ok_or_else(|| bad("it is cut short"))?;
        let mut fields = Fields(header);
        let frame = fields.u32().zip(fields.u32());
        if frame != Some((HEADER_FRAME, 92)) || fields.take(8) != Some(MAGIC.as_slice()) {
            return Err(bad("it does not begin as an object of this format"));
        }
        let (before, sum) = header
            .split_at_checked(96)
            .ok_or_else(|| bad("it is cut short"))?;
        if crc32c::crc32c(before).to_le_bytes() != sum {
            return Err(bad("its header does not match its checksum"));
        }
        if fields.array::<2>() != Some(format.version().to_le_bytes()) {
            return Err(bad("it has another version"));
        }
        if fields.array::<2>() != Some([kind.number(), 0]) {
            return Err(bad("it is of another kind than its name says"));
        }
        let (raw_bytes, stored_bytes) = fields
            .u64()
            .zip(fields.u64())
            .ok_or_else(|| bad("it is cut short"))?;
        let (sum, detail) = fields
            .array()
            .zip(fields.array())
            .ok_or_else(|| bad("it is cut short"))?;
        let stored_sum = fields.u32().ok_or_else(|| bad("it is cut short"))?;
        Ok(Self {
            format,
            kind,
            raw_bytes,
            stored_bytes,
            sum,
            detail,
            stored_sum,
        })
    }
}

/// Little-endian fields from the front of some bytes.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    /// Returns the next bytes, or `None` when there are fewer.
    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Returns the next bytes as an array.
    pub(crate) fn array<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        self.take(LENGTH)?.try_into().ok()
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Makes a signed object of one zstd frame.
///
/// The signature binds the content to the object's name, its kind and its detail.
pub(crate) fn seal(
    signer: &SigningKey,
    key: &ObjectKey,
    (kind, detail): (Kind, [u8; DETAIL_BYTES]),
    content: &[u8],
) -> Result<Vec<u8>, RepositoryError> {
    let frame = compressor()?
        .compress(content)
        .map_err(|error| compressing(&error))?;
    let mut header = Header {
        format: Format::V2,
        kind,
        raw_bytes: length(content),
        stored_bytes: SIGNED_BYTES.saturating_add(length(&frame)),
        sum: Sha256::digest(content).into(),
        detail,
        stored_sum: 0,
    };
    let signature = signer.sign(&signed_bytes(key, &header));
    let before = skippable(SIGNATURE_FRAME, &signature.to_bytes());
    header.stored_sum = crc32c::crc32c_append(crc32c::crc32c(&before), &frame);
    let mut out = header.encode();
    out.extend_from_slice(&before);
    out.extend_from_slice(&frame);
    Ok(out)
}

/// What a signature covers: a fixed text, name, kind, detail, length and SHA-256 of the content.
fn signed_bytes(key: &ObjectKey, header: &Header) -> Vec<u8> {
    let mut bytes = DOMAIN.to_vec();
    bytes.extend_from_slice(key.as_str().as_bytes());
    bytes.extend_from_slice(&[b'\n', header.kind.number()]);
    bytes.extend_from_slice(&header.detail);
    bytes.extend_from_slice(&header.raw_bytes.to_le_bytes());
    bytes.extend_from_slice(&header.sum);
    bytes
}

/// Opens an object of one zstd frame: header, length, checksum and signature are right, or it is
/// refused.
pub(crate) fn unseal(
    key: &ObjectKey,
    judge: Judge<'_>,
    kind: Kind,
    bytes: &[u8],
    limit: ByteCount,
) -> Result<(Header, Vec<u8>), RepositoryError> {
    let header = Header::decode(key, (judge.format, kind), bytes)?;
    let stored = bytes.get(HEADER_BYTES..).unwrap_or_default();
    if length(stored) != header.stored_bytes {
        return Err(damaged(
            key,
            "it does not have the length that its header says",
        ));
    }
    if crc32c::crc32c(stored) != header.stored_sum {
        return Err(damaged(key, "it does not match its checksum"));
    }
    if judge.format == Format::V2 {
        check_signature(key, judge.vault, &header, stored)?;
    }
    if header.raw_bytes > limit.0 {
        return Err(damaged(key, "its content is larger than it may be"));
    }
    let capacity = usize::try_from(header.raw_bytes).unwrap_or(usize::MAX);
    let content = zstd::bulk::decompress(stored, capacity)
        .map_err(|error| damaged(key, &format!("zstd refuses it: {error}")))?;
    if length(&content) != header.raw_bytes || Sha256::digest(&content).as_slice() != header.sum {
        return Err(damaged(key, "its content does not match its checksum"));
    }
    Ok((header, content))
}

fn check_signature(
    key: &ObjectKey,
    vault: &VerifyingKey,
    header: &Header,
    stored: &[u8],
) -> Result<(), RepositoryError> {
    let signature = signature(key, stored)?;
    vault
        .verify_strict(&signed_bytes(key, header), &signature)
        .map_err(|_| RepositoryError::Signature { key: key.clone() })
}

/// Returns the signature that stands before the content.
pub(crate) fn signature(key: &ObjectKey, stored: &[u8]) -> Result<Signature, RepositoryError> {
    let mut fields = Fields(stored);
    let bytes = match fields.u32().zip(fields.u32()) {
        Some((SIGNATURE_FRAME, 64)) => fields.array::<64>(),
        _ => None,
    };
    let bytes = bytes.ok_or_else(|| damaged(key, "it has no signature"))?;
    Ok(Signature::from_bytes(&bytes))
}

/// Wraps bytes into a frame that zstd skips.
pub(crate) fn skippable(magic: u32, content: &[u8]) -> Vec<u8> {
    let mut out = magic.to_le_bytes().to_vec();
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(content);
    out
}

/// Returns what compresses: frames with their own checksum and size.
pub(crate) fn compressor() -> Result<zstd::bulk::Compressor<'static>, RepositoryError> {
    let made = zstd::bulk::Compressor::new(limits::ZSTD_LEVEL).and_then(|mut compressor| {
        compressor.include_checksum(true)?;
        Ok(compressor)
    });
    made.map_err(|error| compressing(&error))
}

/// Returns what compresses frames: as [`compressor`], with tables that fit a processor's cache.
///
/// Smaller tables make frames of pages smaller and faster at once (decision 12 has the figures).
pub(crate) fn frame_compressor() -> Result<zstd::bulk::Compressor<'static>, RepositoryError> {
    let mut compressor = compressor()?;
    let tables = [
        CParameter::HashLog(limits::ZSTD_LONG_TABLE_LOG),
        CParameter::ChainLog(limits::ZSTD_SHORT_TABLE_LOG),
    ];
    for table in tables {
        compressor
            .set_parameter(table)
            .map_err(|error| compressing(&error))?;
    }
    Ok(compressor)
}

/// Turns what zstd says while compressing into an error of ours.
pub(crate) fn compressing(error: &std::io::Error) -> RepositoryError {
    RepositoryError::System {
        step: "compress",
        what: error.to_string(),
    }
}

/// Returns an error that names a damaged object.
pub(crate) fn damaged(key: &ObjectKey, what: &str) -> RepositoryError {
    RepositoryError::Damaged {
        key: key.clone(),
        what: what.to_owned(),
    }
}

/// Returns a length as the format counts it.
pub(crate) fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> ObjectKey {
        "prod/proof/a.zst.age".parse().unwrap()
    }

    fn signer() -> SigningKey {
        SigningKey::from_bytes(&[1; 32])
    }

    fn open(kind: Kind, bytes: &[u8], limit: u64) -> Result<(Header, Vec<u8>), RepositoryError> {
        let judge = Judge {
            format: Format::V2,
            vault: &signer().verifying_key(),
        };
        unseal(&key(), judge, kind, bytes, ByteCount(limit))
    }

    #[test]
    fn what_is_sealed_is_read_by_zstd_alone() {
        let sealed = seal(&signer(), &key(), (Kind::Proof, [7; 24]), b"content").unwrap();
        assert_eq!(zstd::bulk::decompress(&sealed, 100).unwrap(), b"content");
        let (header, content) = open(Kind::Proof, &sealed, 100).unwrap();
        assert_eq!(
            (header.detail, content.as_slice()),
            ([7; 24], b"content".as_slice())
        );
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let sealed = seal(&signer(), &key(), (Kind::Tail, [0; 24]), &[5; 3000]).unwrap();
        for at in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(open(Kind::Tail, &bad, 4000).is_err(), "bit {at}");
        }
        for cut in 0..sealed.len() {
            assert!(open(Kind::Tail, &sealed[..cut], 4000).is_err(), "{cut}");
        }
        assert!(open(Kind::Proof, &sealed, 4000).is_err());
        assert!(open(Kind::Tail, &sealed, 2999).is_err());
    }

    #[test]
    fn what_another_signed_or_what_stands_under_another_name_is_refused() {
        let other = SigningKey::from_bytes(&[2; 32]);
        let forged = seal(&other, &key(), (Kind::Tail, [0; 24]), b"log").unwrap();
        let refused = open(Kind::Tail, &forged, 100).unwrap_err();
        assert!(matches!(refused, RepositoryError::Signature { .. }));
        let elsewhere = "prod/proof/b.zst.age".parse().unwrap();
        let moved = seal(&signer(), &elsewhere, (Kind::Tail, [0; 24]), b"log").unwrap();
        let refused = open(Kind::Tail, &moved, 100).unwrap_err();
        assert!(matches!(refused, RepositoryError::Signature { .. }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>, kind in 0_usize..2) {
            let kind = [Kind::Bundle, Kind::Segment][kind];
            let _ = open(kind, &bytes, 1 << 20);
            let sealed = seal(&signer(), &key(), (kind, [0; 24]), b"x").unwrap();
            let mut begun = sealed[..HEADER_BYTES].to_vec();
            begun.extend(bytes);
            let _ = open(kind, &begun, 1 << 20);
        }
    }
}
