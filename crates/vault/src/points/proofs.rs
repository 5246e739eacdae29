//! What drills have said of each restore point.

use std::collections::BTreeMap;

use holdfast_core::{DrillReport, ErrorChain, Lsn, PointId, SourceName};

use super::shown::PointProof;
use crate::drill::{self, DrillRecord};
use crate::repository::Reader;
use crate::restore::Place;
use crate::status::ProofState;

/// The newest drill of every point.
pub(super) struct Proofs {
    known: BTreeMap<(SourceName, PointId), PointProof>,
    /// Why nothing is known of any drill.
    unknown: Option<String>,
}

impl Proofs {
    /// Reads them from the vault's ledger and the repository.
    ///
    /// What can be brought back is told also when that fails: then nothing counts as proven.
    pub(super) fn read(place: &Place, reader: &Reader) -> Self {
        let mut known = BTreeMap::new();
        let place = Place {
            vault_key: Some(*reader.key()),
            ..place.clone()
        };
        match drill::drills(&place, None) {
            Ok(records) => {
                for record in records {
                    note(&mut known, &record);
                }
                Self {
                    known,
                    unknown: None,
                }
            }
            Err(error) => Self {
                known,
                unknown: Some(ErrorChain(&error).to_string()),
            },
        }
    }

    /// Returns what is known of a point.
    pub(super) fn of(&self, source: &SourceName, point: &PointId) -> PointProof {
        let known = self.known.get(&(source.clone(), point.clone()));
        known.cloned().unwrap_or_else(|| PointProof {
            why: self.unknown.clone(),
            ..PointProof::default()
        })
    }
}

/// Notes a drill; they come oldest first.
fn note(known: &mut BTreeMap<(SourceName, PointId), PointProof>, record: &DrillRecord) {
    let report = &record.report;
    let key = (report.source.clone(), report.point.clone());
    let before = known.get(&key).map_or(0, |proof| proof.drills);
    let proof = PointProof {
        state: match report.passed() {
            true => ProofState::Verified,
            false => ProofState::Failed,
        },
        at: Some(report.drilled_at),
        rto_s: Some(report.rto.as_secs_f64()),
        reached: Some(report.reached).filter(|reached| *reached != Lsn::ZERO),
        drills: before.saturating_add(1),
        why: why(report),
        alarm: report.alarm(),
    };
    known.insert(key, proof);
}

/// Returns what a drill found wrong.
fn why(report: &DrillReport) -> Option<String> {
    match report.passed() {
        true => None,
        false => Some(
            report
                .failure()
                .unwrap_or_else(|| "nothing was checked".to_owned()),
        ),
    }
}
