//! Restore points of format 1: one signed list of files over one stream of frames. Read only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use holdfast_core::{ByteCount, Digest, Lsn, PointId, SourceName, Timestamp};
use holdfast_store::object::ObjectKey;
use holdfast_wire::pg::basebackup::relative_path;
use serde::Deserialize;

use super::bundle::{Frames, FramesSize, Stated};
use super::format::{self, Format, HEADER_BYTES, Judge, Kind, damaged};
use super::manifest::text_number;
use super::shelf::Shelf;
use super::types::{Extent, FileMeta, FileRecord, FramePlace, RecordKind};
use super::{PointSummary, PostgresPoint, RepositoryError, Tablespace, layout};
use crate::limits;

/// What the signature covers before the text.
const DOMAIN: &str = "holdfast manifest 1\n";

/// A base: everything that is needed to write its data directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BaseManifest {
    /// Always 1.
    format: u32,
    point: PointId,
    source: SourceName,
    #[serde(with = "text_number")]
    system_identifier: u64,
    major: u32,
    timeline: u32,
    segment_bytes: u32,
    start_lsn: Lsn,
    stop_lsn: Lsn,
    began: Timestamp,
    ended: Timestamp,
    tablespaces: Vec<Tablespace>,
    /// In order; their contents together are the stream that `start` counts in.
    bundles: Vec<BundleEntry>,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct BundleEntry {
    number: u32,
    bytes: u64,
    frames: u32,
    raw_bytes: u64,
    index_sha256: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Entry {
    path: String,
    mode: u32,
    #[serde(flatten)]
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum What {
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

/// What a base of format 1 has, in the words of today.
pub(crate) struct Contents {
    pub(crate) files: BTreeMap<String, (FileRecord, Vec<Extent>)>,
    pub(crate) bundles: BTreeMap<u32, Stated>,
}

impl BaseManifest {
    /// Reads an object back: checksum, signature and contents are right, or it is refused.
    pub(crate) fn unseal(
        key: &ObjectKey,
        bytes: &[u8],
        vault: &VerifyingKey,
    ) -> Result<Self, RepositoryError> {
        let judge = Judge {
            format: Format::V1,
            vault,
        };
        let limit = ByteCount(limits::MANIFEST_V1_BYTES);
        let (_, text) = format::unseal(key, judge, Kind::Manifest, bytes, limit)?;
        let signature = format::signature(key, bytes.get(HEADER_BYTES..).unwrap_or_default())?;
        let mut signed = DOMAIN.as_bytes().to_vec();
        signed.extend_from_slice(&text);
        vault
            .verify_strict(&signed, &signature)
            .map_err(|_| RepositoryError::Signature { key: key.clone() })?;
        let manifest: Self = serde_json::from_slice(&text)
            .map_err(|error| damaged(key, &format!("its text is not readable: {error}")))?;
        if manifest.format != 1 {
            return Err(damaged(key, "its text has another version"));
        }
        manifest.check(key)?;
        Ok(manifest)
    }

    /// Returns the source and the last part of the folder that it must be in.
    pub(crate) fn place(&self) -> (&SourceName, String) {
        (&self.source, layout::folder(self.began, &self.point))
    }

    /// Returns the base in few words.
    pub(crate) fn summary(&self) -> PointSummary {
        let sizes = self.entries.iter().filter_map(|entry| match entry.what {
            What::File { size, .. } => Some(size),
            What::Directory | What::Symlink { .. } => None,
        });
        let bytes = sizes.clone().fold(0, u64::saturating_add);
        let stored = self.bundles.iter().map(|bundle| bundle.bytes);
        PointSummary {
            point: self.point.clone(),
            parent: None,
            source: self.source.clone(),
            postgres: Some(PostgresPoint {
                system_identifier: self.system_identifier,
                major: self.major,
                timeline: self.timeline,
                segment_bytes: self.segment_bytes,
                start_lsn: self.start_lsn,
                stop_lsn: self.stop_lsn,
                tablespaces: self.tablespaces.clone(),
            }),
            began: self.began,
            at: self.ended,
            files: u64::try_from(sizes.count()).unwrap_or(u64::MAX),
            bytes: ByteCount(bytes),
            stored: ByteCount(stored.fold(0, u64::saturating_add)),
        }
    }

    /// Checks what a restore relies on: paths stay inside, files lie within the stream.
    fn check(&self, key: &ObjectKey) -> Result<(), RepositoryError> {
        let raw = self
            .bundles
            .iter()
            .try_fold(0_u64, |sum, bundle| sum.checked_add(bundle.raw_bytes));
        let raw = raw.ok_or_else(|| damaged(key, "its bundles have impossible sizes"))?;
        let is_segment = (limits::SEGMENT_BYTES_MIN..=limits::SEGMENT_BYTES_MAX)
            .contains(&self.segment_bytes)
            && self.segment_bytes.is_power_of_two();
        if !is_segment || self.timeline == 0 || self.stop_lsn < self.start_lsn {
            return Err(damaged(
                key,
                "it has an impossible position or segment size",
            ));
        }
        let mut seen = BTreeSet::new();
        for entry in &self.entries {
            let clean = relative_path(entry.path.as_bytes());
            let is_clean = clean.as_deref() == Ok(entry.path.as_str()) && !entry.path.is_empty();
            if !is_clean || !seen.insert(entry.path.as_str()) {
                return Err(damaged(key, "it names a path that is refused"));
            }
            if let What::File { size, start, .. } = entry.what
                && start.checked_add(size).is_none_or(|end| end > raw)
            {
                return Err(damaged(key, "it has a file outside of its bundles"));
            }
        }
        Ok(())
    }

    /// Finds the frames of every file, for which all indexes are read.
    pub(crate) fn contents(&self, shelf: &Shelf) -> Result<Contents, RepositoryError> {
        let (source, folder) = self.place();
        let mut bundles = BTreeMap::new();
        let mut stream = Vec::new();
        let mut begin = 0_u64;
        for record in &self.bundles {
            let stated = Stated {
                key: layout::bundle(Format::V1, source, &folder, record.number)?,
                format: Format::V1,
                kind: Kind::Bundle,
                letters: self.point.as_str().to_owned(),
                number: record.number,
                size: FramesSize {
                    bytes: record.bytes,
                    frames: record.frames,
                    raw_bytes: record.raw_bytes,
                    index_sha256: record.index_sha256,
                },
                frame_bytes: limits::FRAME_V1_BYTES,
            };
            stream.push(InStream {
                number: record.number,
                begin,
                frames: shelf.frames(&stated)?,
            });
            begin = begin.saturating_add(record.raw_bytes);
            bundles.insert(record.number, stated);
        }
        let mut files = BTreeMap::new();
        for entry in &self.entries {
            let (record, range) = entry.record();
            let extents = extents(&stream, range);
            files.insert(entry.path.clone(), (record, extents));
        }
        Ok(Contents { files, bundles })
    }
}

impl Entry {
    /// Returns the record of today, and which part of the stream the file is.
    fn record(&self) -> (FileRecord, (u64, u64)) {
        let (kind, size, sha256, target, start) = match &self.what {
            What::Directory => (RecordKind::Directory, 0, None, None, 0),
            What::File {
                size,
                start,
                sha256,
            } => (RecordKind::File, *size, Some(*sha256), None, *start),
            What::Symlink { target } => {
                let target = Some(target.clone());
                (RecordKind::Symlink, 0, None, target, 0)
            }
        };
        let record = FileRecord {
            kind,
            mode: self.mode,
            size,
            sha256,
            target,
            meta: FileMeta::default(),
        };
        (record, (start, start.saturating_add(size)))
    }
}

/// A bundle and where it begins in the stream.
struct InStream {
    number: u32,
    begin: u64,
    frames: Arc<Frames>,
}

/// Returns a part of the stream as runs of frames; a run ends where a frame is not full.
fn extents(stream: &[InStream], (start, end): (u64, u64)) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    let first = stream.partition_point(|bundle| bundle.begin <= start);
    for bundle in stream.iter().skip(first.saturating_sub(1)) {
        let mut at = bundle.begin;
        for (frame, record) in (0_u32..).zip(&bundle.frames.records) {
            let next = at.saturating_add(u64::from(record.raw_bytes));
            let (from, to) = (at.max(start), next.min(end));
            if from < to {
                let within = from.saturating_sub(at);
                let continues = extents.last().is_some_and(|last| {
                    let covered = u64::from(last.place.within).saturating_add(last.length);
                    let full = u64::from(limits::FRAME_V1_BYTES);
                    let frames = u64::from(frame.saturating_sub(last.place.frame));
                    last.place.bundle == bundle.number
                        && within == 0
                        && covered == frames.saturating_mul(full)
                });
                match extents.last_mut().filter(|_| continues) {
                    Some(last) => last.length = last.length.saturating_add(to.saturating_sub(from)),
                    None => extents.push(Extent {
                        offset: from.saturating_sub(start),
                        length: to.saturating_sub(from),
                        place: FramePlace {
                            bundle: bundle.number,
                            frame,
                            within: u32::try_from(within).unwrap_or(u32::MAX),
                        },
                    }),
                }
            }
            at = next;
        }
        if at >= end {
            break;
        }
    }
    extents
}
