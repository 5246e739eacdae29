//! The signed manifest of a base: what files it has and in which frames they are.

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use holdfast_core::{ByteCount, Digest, Lsn, PointId, SourceName, Timestamp};
use holdfast_store::object::ObjectKey;
use serde::{Deserialize, Serialize};

use super::format::{self, Fields, HEADER_BYTES, Kind, SIGNATURE_FRAME, damaged};
use super::{BaseSummary, RepositoryError, Tablespace};
use crate::limits;

/// What the signature covers before the text.
const DOMAIN: &str = "holdfast manifest 1\n";
/// The version of the text.
const FORMAT: u32 = 1;

/// A base: everything that is needed to write its data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// Always 1.
    pub(crate) format: u32,
    pub(crate) point: PointId,
    pub(crate) source: SourceName,
    /// As text, because many readers of JSON keep only 53 bits of a number.
    #[serde(with = "text_number")]
    pub(crate) system_identifier: u64,
    pub(crate) major: u32,
    pub(crate) timeline: u32,
    pub(crate) segment_bytes: u32,
    pub(crate) start_lsn: Lsn,
    pub(crate) stop_lsn: Lsn,
    pub(crate) began: Timestamp,
    pub(crate) ended: Timestamp,
    pub(crate) tablespaces: Vec<Tablespace>,
    /// In order; their contents together are the stream that `start` counts in.
    pub(crate) bundles: Vec<BundleRecord>,
    /// In the order in which they are to be made.
    pub(crate) entries: Vec<Entry>,
}

/// One bundle of a base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BundleRecord {
    /// From 1.
    pub(crate) number: u32,
    /// Bytes of the object.
    pub(crate) bytes: u64,
    pub(crate) frames: u32,
    /// Bytes of its frames, decompressed.
    pub(crate) raw_bytes: u64,
    /// SHA-256 of its index.
    pub(crate) index_sha256: Digest,
}

/// One file, folder or link of the data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) mode: u32,
    #[serde(flatten)]
    pub(crate) what: What,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum What {
    Directory,
    File {
        size: u64,
        /// Position of its first byte in the stream of all bundles.
        start: u64,
        sha256: Digest,
    },
    Symlink {
        target: String,
    },
}

impl Manifest {
    /// Returns the object: header, signature, text.
    pub(crate) fn seal(&self, key: &SigningKey) -> Result<Vec<u8>, RepositoryError> {
        let text = serde_json::to_vec(self).map_err(|error| RepositoryError::Misuse {
            what: error.to_string(),
        })?;
        let signature = key.sign(&signed_bytes(&text));
        let before = format::skippable(SIGNATURE_FRAME, &signature.to_bytes());
        format::seal_signed(Kind::Manifest, [0; 24], &text, &before)
    }

    /// Reads an object back: checksum, signature and contents are right, or it is refused.
    pub(crate) fn unseal(
        object: &ObjectKey,
        bytes: &[u8],
        key: &VerifyingKey,
    ) -> Result<Self, RepositoryError> {
        let limit = ByteCount(limits::MANIFEST_BYTES);
        let (_, text) = format::unseal(object, Kind::Manifest, bytes, limit)?;
        let mut fields = Fields(bytes.get(HEADER_BYTES..).unwrap_or_default());
        let signature = match fields.u32().zip(fields.u32()) {
            Some((SIGNATURE_FRAME, 64)) => fields.array::<64>(),
            _ => None,
        };
        let signature = signature.ok_or_else(|| damaged(object, "it has no signature"))?;
        key.verify_strict(&signed_bytes(&text), &Signature::from_bytes(&signature))
            .map_err(|_| RepositoryError::Signature {
                key: object.clone(),
            })?;
        let manifest: Self = serde_json::from_slice(&text)
            .map_err(|error| damaged(object, &format!("its text is not readable: {error}")))?;
        if manifest.format != FORMAT {
            return Err(damaged(object, "its text has another version"));
        }
        manifest.check(object)?;
        Ok(manifest)
    }

    /// Returns the base in few words.
    pub(crate) fn summary(&self) -> BaseSummary {
        BaseSummary {
            point: self.point.clone(),
            system_identifier: self.system_identifier,
            major: self.major,
            timeline: self.timeline,
            segment_bytes: self.segment_bytes,
            start_lsn: self.start_lsn,
            stop_lsn: self.stop_lsn,
            at: self.ended,
            bytes: ByteCount(self.files_bytes()),
            stored: ByteCount(self.bundles.iter().map(|bundle| bundle.bytes).sum()),
        }
    }

    /// Returns the bytes of all files together.
    pub(crate) fn files_bytes(&self) -> u64 {
        let size = |entry: &Entry| match entry.what {
            What::File { size, .. } => size,
            What::Directory | What::Symlink { .. } => 0,
        };
        self.entries.iter().map(size).fold(0, u64::saturating_add)
    }

    /// Checks what a restore relies on: paths stay inside, files lie within the stream.
    fn check(&self, object: &ObjectKey) -> Result<(), RepositoryError> {
        let raw = self
            .bundles
            .iter()
            .try_fold(0_u64, |sum, bundle| sum.checked_add(bundle.raw_bytes));
        let raw = raw.ok_or_else(|| damaged(object, "its bundles have impossible sizes"))?;
        let is_segment = (limits::SEGMENT_BYTES_MIN..=limits::SEGMENT_BYTES_MAX)
            .contains(&self.segment_bytes)
            && self.segment_bytes.is_power_of_two();
        if !is_segment || self.timeline == 0 || self.stop_lsn < self.start_lsn {
            return Err(damaged(
                object,
                "it has an impossible position or segment size",
            ));
        }
        let mut seen = std::collections::BTreeSet::new();
        for entry in &self.entries {
            let clean = holdfast_wire::pg::basebackup::relative_path(entry.path.as_bytes());
            let is_clean = clean.as_deref() == Ok(entry.path.as_str()) && !entry.path.is_empty();
            if !is_clean || !seen.insert(entry.path.as_str()) {
                return Err(damaged(object, "it names a path that is refused"));
            }
            if let What::File { size, start, .. } = entry.what
                && start.checked_add(size).is_none_or(|end| end > raw)
            {
                return Err(damaged(object, "it has a file outside of its bundles"));
            }
        }
        Ok(())
    }
}

fn signed_bytes(text: &[u8]) -> Vec<u8> {
    let mut bytes = DOMAIN.as_bytes().to_vec();
    bytes.extend_from_slice(text);
    bytes
}

/// Returns the public key that a repository's marker states.
pub(crate) fn marker_key(text: &str) -> Option<VerifyingKey> {
    let bytes = HEXLOWER.decode(text.as_bytes()).ok()?;
    VerifyingKey::from_bytes(&bytes.try_into().ok()?).ok()
}

/// Numbers of 64 bits as text.
mod text_number {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ObjectKey {
        "prod/base/x/manifest.zst".parse().unwrap()
    }

    fn manifest() -> Manifest {
        Manifest {
            format: 1,
            point: PointId::from_random([3; 10]),
            source: "prod".parse().unwrap(),
            system_identifier: u64::MAX,
            major: 18,
            timeline: 1,
            segment_bytes: 16 << 20,
            start_lsn: Lsn(0x0200_0028),
            stop_lsn: Lsn(0x0200_0100),
            began: Timestamp(1),
            ended: Timestamp(2),
            tablespaces: Vec::new(),
            bundles: vec![BundleRecord {
                number: 1,
                bytes: 500,
                frames: 1,
                raw_bytes: 10,
                index_sha256: Digest::of(b""),
            }],
            entries: vec![file("PG_VERSION", 0, 3)],
        }
    }

    fn file(path: &str, start: u64, size: u64) -> Entry {
        Entry {
            path: path.to_owned(),
            mode: 0o600,
            what: What::File {
                size,
                start,
                sha256: Digest::of(b""),
            },
        }
    }

    #[test]
    fn a_manifest_is_read_back_with_its_vaults_key_only() {
        let signing = SigningKey::from_bytes(&[1; 32]);
        let sealed = manifest().seal(&signing).unwrap();
        let read = Manifest::unseal(&key(), &sealed, &signing.verifying_key()).unwrap();
        assert_eq!(read, manifest());
        let other = SigningKey::from_bytes(&[2; 32]).verifying_key();
        let refused = Manifest::unseal(&key(), &sealed, &other);
        assert!(matches!(refused, Err(RepositoryError::Signature { .. })));
    }

    #[test]
    fn every_flipped_bit_of_a_manifest_is_found() {
        let signing = SigningKey::from_bytes(&[1; 32]);
        let sealed = manifest().seal(&signing).unwrap();
        for at in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[at / 8] ^= 1 << (at % 8);
            let read = Manifest::unseal(&key(), &bad, &signing.verifying_key());
            assert!(read.is_err(), "bit {at}");
        }
    }

    #[test]
    fn a_signed_manifest_with_a_path_outside_or_a_file_beyond_is_refused() {
        let signing = SigningKey::from_bytes(&[1; 32]);
        let refuses = |entries: Vec<Entry>| {
            let sealed = Manifest {
                entries,
                ..manifest()
            }
            .seal(&signing)
            .unwrap();
            Manifest::unseal(&key(), &sealed, &signing.verifying_key()).is_err()
        };
        for path in ["", "..", "../x", "/etc/passwd", "a/../../x", "a//b", "a\0"] {
            assert!(refuses(vec![file(path, 0, 1)]), "{path}");
        }
        assert!(refuses(vec![file("a", 0, 11)]));
        assert!(refuses(vec![file("a", u64::MAX, 1)]));
        assert!(refuses(vec![file("a", 0, 1), file("a", 1, 1)]));
        assert!(!refuses(vec![file("a", 0, 10)]));
    }
}
