//! The signed manifest of a restore point: what it is of, and the root of its block map.

use data_encoding::HEXLOWER;
use ed25519_dalek::{SigningKey, VerifyingKey};
use holdfast_core::{ByteCount, Digest, Lsn, PointId, SourceName, Timestamp};
use holdfast_store::object::ObjectKey;
use serde::{Deserialize, Serialize};

use super::format::{self, Format, Judge, Kind, damaged};
use super::map::{MapRecord, NodeRef};
use super::{PointSummary, PostgresPoint, RepositoryError, Tablespace};
use crate::limits;

/// The version of the text.
const FORMAT: u32 = 2;

/// A restore point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// Always 2.
    pub(crate) format: u32,
    pub(crate) point: PointId,
    pub(crate) parent: Option<PointId>,
    pub(crate) source: SourceName,
    pub(crate) engine: EngineName,
    /// Of a PostgreSQL cluster only.
    pub(crate) postgres: Option<Postgres>,
    pub(crate) began: Timestamp,
    pub(crate) ended: Timestamp,
    /// The root of the block map; a point of nothing has none.
    pub(crate) root: Option<Root>,
    /// The objects that the map's nodes are in, in order of their serial numbers.
    pub(crate) maps: Vec<MapRecord>,
    pub(crate) totals: Totals,
}

/// What kind of source a restore point is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EngineName {
    /// A directory.
    Directory,
    /// A PostgreSQL cluster.
    Postgres,
}

/// What a manifest knows of a PostgreSQL cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Postgres {
    /// As text, because many readers of JSON keep only 53 bits of a number.
    #[serde(with = "text_number")]
    pub(crate) system_identifier: u64,
    pub(crate) major: u32,
    pub(crate) timeline: u32,
    pub(crate) segment_bytes: u32,
    pub(crate) start_lsn: Lsn,
    pub(crate) stop_lsn: Lsn,
    pub(crate) tablespaces: Vec<Tablespace>,
}

/// Where the root of a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Root {
    /// The serial number of the object.
    pub(crate) map: u32,
    pub(crate) frame: u32,
    pub(crate) sha256: Digest,
}

/// What a restore point adds up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Totals {
    /// Files.
    pub(crate) files: u64,
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Bytes of the bundles and map objects that were written for it.
    pub(crate) stored: u64,
    /// The first serial number that no bundle of its line has had.
    pub(crate) next_bundle: u32,
    /// The first serial number that no map object of its line has had.
    pub(crate) next_map: u32,
}

impl From<NodeRef> for Root {
    fn from(place: NodeRef) -> Self {
        Self {
            map: place.map,
            frame: place.frame,
            sha256: place.sum,
        }
    }
}

impl From<Root> for NodeRef {
    fn from(root: Root) -> Self {
        Self {
            map: root.map,
            frame: root.frame,
            sum: root.sha256,
        }
    }
}

impl Manifest {
    /// Returns the object: header, signature, text.
    pub(crate) fn seal(
        &self,
        signer: &SigningKey,
        key: &ObjectKey,
    ) -> Result<Vec<u8>, RepositoryError> {
        let text = serde_json::to_vec(self).map_err(|error| RepositoryError::Misuse {
            what: error.to_string(),
        })?;
        format::seal(signer, key, (Kind::Manifest, [0; 24]), &text)
    }

    /// Reads an object back: checksum, signature and contents are right, or it is refused.
    pub(crate) fn unseal(
        key: &ObjectKey,
        bytes: &[u8],
        vault: &VerifyingKey,
    ) -> Result<Self, RepositoryError> {
        let judge = Judge {
            format: Format::V2,
            vault,
        };
        let limit = ByteCount(limits::NOTE_BYTES);
        let (_, text) = format::unseal(key, judge, Kind::Manifest, bytes, limit)?;
        let manifest: Self = serde_json::from_slice(&text)
            .map_err(|error| damaged(key, &format!("its text is not readable: {error}")))?;
        if manifest.format != FORMAT {
            return Err(damaged(key, "its text has another version"));
        }
        manifest.check(key)?;
        Ok(manifest)
    }

    /// Returns the restore point in few words.
    pub(crate) fn summary(&self) -> PointSummary {
        PointSummary {
            point: self.point.clone(),
            parent: self.parent.clone(),
            source: self.source.clone(),
            postgres: self.postgres.as_ref().map(|postgres| PostgresPoint {
                system_identifier: postgres.system_identifier,
                major: postgres.major,
                timeline: postgres.timeline,
                segment_bytes: postgres.segment_bytes,
                start_lsn: postgres.start_lsn,
                stop_lsn: postgres.stop_lsn,
                tablespaces: postgres.tablespaces.clone(),
            }),
            began: self.began,
            at: self.ended,
            files: self.totals.files,
            bytes: ByteCount(self.totals.bytes),
            stored: ByteCount(self.totals.stored),
        }
    }

    /// Checks what a restore relies on.
    fn check(&self, key: &ObjectKey) -> Result<(), RepositoryError> {
        let is_of_engine = match self.engine {
            EngineName::Directory => self.postgres.is_none(),
            EngineName::Postgres => self.postgres.as_ref().is_some_and(Postgres::is_possible),
        };
        if !is_of_engine {
            return Err(damaged(
                key,
                "it has an impossible position or segment size",
            ));
        }
        let serials: Vec<u32> = self.maps.iter().map(|map| map.serial).collect();
        let ascends = serials.is_sorted_by(|left, right| left < right);
        let below = serials.iter().all(|serial| *serial < self.totals.next_map);
        let has_root = self.root.is_none_or(|root| serials.contains(&root.map));
        if !ascends || !below || !has_root {
            return Err(damaged(key, "its block map contradicts itself"));
        }
        Ok(())
    }
}

impl Postgres {
    /// Says whether positions, timeline and the size of a segment are ones that PostgreSQL can have.
    fn is_possible(&self) -> bool {
        let sizes = limits::SEGMENT_BYTES_MIN..=limits::SEGMENT_BYTES_MAX;
        sizes.contains(&self.segment_bytes)
            && self.segment_bytes.is_power_of_two()
            && self.timeline > 0
            && self.start_lsn <= self.stop_lsn
    }
}

/// Returns the public key that a repository's marker states.
pub(crate) fn marker_key(text: &str) -> Option<VerifyingKey> {
    let bytes = HEXLOWER.decode(text.as_bytes()).ok()?;
    VerifyingKey::from_bytes(&bytes.try_into().ok()?).ok()
}

/// Numbers of 64 bits as text.
pub(super) mod text_number {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ObjectKey {
        "prod/point/x/manifest.zst.age".parse().unwrap()
    }

    fn map(serial: u32) -> MapRecord {
        MapRecord {
            serial,
            folder: "x".to_owned(),
            number: 1,
            bytes: 500,
            frames: 3,
            raw_bytes: 700,
            index_sha256: Digest::of(b""),
            live: 3,
        }
    }

    fn manifest() -> Manifest {
        Manifest {
            format: 2,
            point: PointId::from_random([3; 10]),
            parent: None,
            source: "prod".parse().unwrap(),
            engine: EngineName::Postgres,
            postgres: Some(Postgres {
                system_identifier: u64::MAX,
                major: 18,
                timeline: 1,
                segment_bytes: 16 << 20,
                start_lsn: Lsn(0x0200_0028),
                stop_lsn: Lsn(0x0200_0100),
                tablespaces: Vec::new(),
            }),
            began: Timestamp(1),
            ended: Timestamp(2),
            root: Some(Root {
                map: 5,
                frame: 2,
                sha256: Digest::of(b"root"),
            }),
            maps: vec![map(2), map(5)],
            totals: Totals {
                files: 1,
                bytes: 10,
                stored: 1000,
                next_bundle: 2,
                next_map: 6,
            },
        }
    }

    fn signer() -> SigningKey {
        SigningKey::from_bytes(&[1; 32])
    }

    fn read(sealed: &[u8]) -> Result<Manifest, RepositoryError> {
        Manifest::unseal(&key(), sealed, &signer().verifying_key())
    }

    #[test]
    fn a_manifest_is_read_back_with_its_vaults_key_only() {
        let sealed = manifest().seal(&signer(), &key()).unwrap();
        assert_eq!(read(&sealed).unwrap(), manifest());
        let other = SigningKey::from_bytes(&[2; 32]).verifying_key();
        let refused = Manifest::unseal(&key(), &sealed, &other);
        assert!(matches!(refused, Err(RepositoryError::Signature { .. })));
    }

    #[test]
    fn a_signed_manifest_that_contradicts_itself_is_refused() {
        let change = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            read(&manifest.seal(&signer(), &key()).unwrap()).is_err()
        };
        assert!(!change(&|_| {}));
        assert!(change(&|manifest| manifest.format = 3));
        assert!(change(&|manifest| manifest.postgres = None));
        assert!(change(&|manifest| manifest.engine = EngineName::Directory));
        assert!(change(&|manifest| manifest.maps.reverse()));
        assert!(change(&|manifest| manifest.totals.next_map = 5));
        assert!(change(&|manifest| manifest.maps.truncate(1)));
        let postgres = |change: fn(&mut Postgres)| {
            manifest().postgres.map(|mut postgres| {
                change(&mut postgres);
                postgres
            })
        };
        for bad in [
            postgres(|postgres| postgres.timeline = 0),
            postgres(|postgres| postgres.segment_bytes = 3 << 20),
            postgres(|postgres| postgres.stop_lsn = Lsn(0)),
        ] {
            assert!(change(&|manifest| manifest.postgres = bad.clone()));
        }
    }
}
