//! What the repository has of a source: read from names, manifests, proofs and marks.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::{ByteCount, PointId, Proof, SourceName, Timestamp};
use holdfast_store::object::ObjectKey;

use super::marks;
use super::names::{self, SegmentSizes};
use super::objects::{Kind, ObjectFacts};
use super::points::{PointFacts, PointFate};
use crate::repository::{Reader, RepositoryError};

/// Everything that is known of a source before anything is judged.
pub(crate) struct Inventory {
    pub(crate) points: Vec<PointFacts>,
    pub(crate) objects: Vec<ObjectFacts>,
    /// Points that have no manifest, and when they were begun.
    pub(crate) unfinished: BTreeMap<PointId, Timestamp>,
}

impl Inventory {
    /// Reads a source. A manifest that cannot be read is an error: nothing of the source may then go.
    ///
    /// Objects are listed before points are read, so that every listed manifest is among the points.
    pub(crate) fn read(reader: &Reader, source: &SourceName) -> Result<Self, RepositoryError> {
        let listed = reader.store().list(source.as_str())?;
        let proven = proven(reader, source)?;
        let marked = marks::marked(reader, source)?;
        let mut points = Vec::new();
        let mut sizes = SegmentSizes::new();
        for summary in reader.points(source)? {
            let log = summary.postgres.as_ref().map(|postgres| {
                sizes.insert(postgres.system_identifier, postgres.segment_bytes);
                super::points::PointLog {
                    system_identifier: postgres.system_identifier,
                    timeline: postgres.timeline,
                    segment_bytes: postgres.segment_bytes,
                    start: postgres.start_lsn,
                    stop: postgres.stop_lsn,
                }
            });
            points.push(PointFacts {
                proven: proven.get(&summary.point).copied(),
                marked: marked.get(&summary.point).copied(),
                point: summary.point,
                began: summary.began,
                ended: summary.at,
                log,
                locked_until: None,
            });
        }
        let objects = listed.into_iter().map(|(key, bytes)| ObjectFacts {
            kind: names::kind(&key, &sizes),
            key,
            bytes,
        });
        let objects: Vec<ObjectFacts> = objects.collect();
        let known: BTreeSet<&PointId> = points.iter().map(|point| &point.point).collect();
        let unfinished = objects.iter().filter_map(|object| match &object.kind {
            Kind::Part { point, began } if !known.contains(point) => Some((point.clone(), *began)),
            _ => None,
        });
        Ok(Self {
            unfinished: unfinished.collect(),
            points,
            objects,
        })
    }

    /// Returns the manifests that were listed.
    pub(crate) fn manifests(&self) -> BTreeMap<PointId, ObjectKey> {
        let manifests = self.objects.iter().filter_map(|object| match &object.kind {
            Kind::Manifest(point) => Some((point.clone(), object.key.clone())),
            _ => None,
        });
        manifests.collect()
    }

    /// Returns the manifests and marks that were listed: with another one another plan may be right.
    pub(crate) fn decisive(&self) -> BTreeSet<ObjectKey> {
        let is_decisive =
            |object: &&ObjectFacts| matches!(object.kind, Kind::Manifest(_) | Kind::Mark(_));
        let objects = self.objects.iter().filter(is_decisive);
        objects.map(|object| object.key.clone()).collect()
    }

    /// Returns everything that tells the time here.
    pub(crate) fn times(&self) -> impl Iterator<Item = Timestamp> {
        let points = self.points.iter().map(|point| point.ended);
        let objects = self.objects.iter().filter_map(|object| match &object.kind {
            Kind::Part { began, .. } => Some(*began),
            Kind::Proof { at, .. } => Some(*at),
            Kind::History(_)
            | Kind::Manifest(_)
            | Kind::Mark(_)
            | Kind::Segment(_)
            | Kind::Tail(_)
            | Kind::Unknown => None,
        });
        points.chain(objects)
    }

    /// Returns the sum of the sizes.
    pub(crate) fn bytes(&self) -> ByteCount {
        let bytes = self.objects.iter().map(|object| object.bytes.0);
        ByteCount(bytes.fold(0, u64::saturating_add))
    }
}

/// Returns every bundle and part of a map that a staying point refers to, with one such point.
pub(crate) fn needed(
    reader: &Reader,
    source: &SourceName,
    fates: &[PointFate],
) -> Result<BTreeMap<ObjectKey, PointId>, RepositoryError> {
    let mut needed = BTreeMap::new();
    for fate in fates.iter().filter(|fate| fate.stays()) {
        let point = &fate.facts.point;
        for key in reader.point(source, point)?.needs()? {
            needed.entry(key).or_insert_with(|| point.clone());
        }
    }
    Ok(needed)
}

/// Returns when each point was last proven.
fn proven(
    reader: &Reader,
    source: &SourceName,
) -> Result<BTreeMap<PointId, Timestamp>, RepositoryError> {
    let mut found = BTreeMap::new();
    for signed in reader.proofs(source)? {
        // A proof that does not verify proves nothing; it is no reason to keep or to remove a point.
        if let Ok(proof) = Proof::verify(&signed, reader.key()) {
            let report = proof.report();
            found.insert(report.point.clone(), report.drilled_at);
        }
    }
    Ok(found)
}
