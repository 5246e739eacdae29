//! What is remembered of drills: entries of the ledger, proofs of the repository.

use std::collections::BTreeMap;
use std::path::Path;

use ed25519_dalek::VerifyingKey;
use holdfast_core::ledger::{Draft, Entry};
use holdfast_core::{
    DRILL_FAILED, DRILL_PASSED, DrillOf, DrillReport, Principal, Proof, SignedProof, SourceName,
    Timestamp,
};
use holdfast_store::ledger::{self, Ledger, LedgerError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::DrillError;
use super::rows::Rows;
use crate::repository::{Reader, RepositoryError};
use crate::restore::Place;
use crate::status::{ProofState, ProofStatus};

/// The ledger's folder in the vault's state directory.
const LEDGER: &str = "ledger";
/// Says in an entry that the proof was kept in the repository too.
pub(super) const IN_REPOSITORY: &str = "in_repository";
/// Bytes of row counts that one entry may carry; an entry as a whole may have 256 KiB.
const ROWS_BYTES: usize = 96 * 1024;

/// One drill that was run to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrillRecord {
    /// When it ended.
    pub at: Timestamp,
    /// Everything that was checked was right.
    pub passed: bool,
    /// What it did and found.
    pub report: DrillReport,
}

impl From<DrillReport> for DrillRecord {
    fn from(report: DrillReport) -> Self {
        Self {
            at: report.drilled_at,
            passed: report.passed(),
            report,
        }
    }
}

/// What a vault knows of a source's drills when it starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remembered {
    /// The newest proof of the newest point that verifies.
    pub(crate) proof: Option<Proof>,
    /// How the newest drill ended.
    pub(crate) status: ProofStatus,
}

/// Returns as many of the row counts as an entry may carry.
pub(super) fn kept(rows: Rows) -> Rows {
    let mut room = ROWS_BYTES;
    rows.into_iter()
        .take_while(|(table, _)| {
            // Quotes, colon, comma and a number of up to twenty digits.
            let cost = table.len().saturating_mul(2).saturating_add(24);
            let fits = cost <= room;
            room = room.saturating_sub(cost);
            fits
        })
        .collect()
}

/// Writes a drill into the ledger, with the rows that it counted and the proof that it left.
pub(super) fn record(
    ledger: &Ledger,
    report: &DrillReport,
    rows: &Rows,
    (proof, is_stored): (Option<&Proof>, bool),
) -> Result<Entry, DrillError> {
    let kind = match report.passed() {
        true => DRILL_PASSED,
        false => DRILL_FAILED,
    };
    let json = |value| serde_json::to_value(value).unwrap_or(Value::Null);
    let counts: serde_json::Map<String, Value> = rows
        .iter()
        .map(|(table, count)| (table.clone(), Value::from(*count)))
        .collect();
    let mut draft = Draft::new(kind, Principal::service("vault"), report.drilled_at)
        .source(report.source.clone())
        .with("report", json(report))
        .with("rows", Value::Object(counts));
    if let Some(alarm) = report.alarm() {
        draft = draft.with("summary", format!("ALARM: {alarm}"));
    }
    if let Some(proof) = proof {
        let signed = serde_json::to_value(proof.signed()).unwrap_or(Value::Null);
        draft = draft.with("proof", signed).with(IN_REPOSITORY, is_stored);
    }
    ledger.append(draft).map_err(DrillError::Ledger)
}

/// Returns what is known of the drills of `source`, from `newest` of the ledger and the repository.
///
/// # Errors
/// When the repository cannot be read; a single proof that does not verify is passed over, because an
/// older one may still be good.
pub(crate) fn recall(
    reader: &Reader,
    (newest, signed): (Option<DrillReport>, Option<SignedProof>),
    source: &SourceName,
    key: &VerifyingKey,
) -> Result<Remembered, DrillError> {
    let of_ledger = signed.and_then(|signed| Proof::verify(&signed, key).ok());
    let proof = proofs(reader, source, key)
        .map_err(DrillError::Repository)?
        .into_iter()
        .chain(of_ledger.filter(|proof| proof.report().source == *source))
        .filter(|proof| proof.report().details.of == DrillOf::Newest)
        .max_by_key(|proof| proof.report().drilled_at);
    let proven = proof.as_ref().map(|proof| proof.report().clone());
    let newest = match (newest, proven) {
        (Some(newest), Some(proven)) if proven.drilled_at > newest.drilled_at => Some(proven),
        (newest, proven) => newest.or(proven),
    };
    let status = newest.as_ref().map(status).unwrap_or_default();
    Ok(Remembered { proof, status })
}

/// Returns what `status` shows about a drill.
pub(crate) fn status(report: &DrillReport) -> ProofStatus {
    ProofStatus {
        state: if report.passed() {
            ProofState::Verified
        } else {
            ProofState::Failed
        },
        at: Some(report.drilled_at),
        rto_s: Some(report.rto.as_secs_f64()),
        alarm: report.alarm(),
    }
}

/// Lists the drills of one source or of all, oldest first, beside a running vault.
///
/// Failed drills are in the vault's ledger only; where that is lost, the proofs of the repository
/// tell of those that passed. Without the vault's key nothing can be verified, and nothing is listed.
///
/// # Errors
/// When the ledger does not verify or the repository cannot be read.
pub fn drills(place: &Place, source: Option<&SourceName>) -> Result<Vec<DrillRecord>, DrillError> {
    let Some(key) = place.vault_key else {
        return Ok(Vec::new());
    };
    let is_wanted = |name: &SourceName| source.is_none_or(|source| source == name);
    let mut list: Vec<DrillRecord> = Vec::new();
    let folder = place.state.join(LEDGER);
    if folder.is_dir() {
        each(&folder, &key, &mut |_, report| {
            if is_wanted(&report.source) {
                list.push(report.into());
            }
        })
        .map_err(DrillError::Ledger)?;
    }
    let known: BTreeMap<(SourceName, Timestamp), usize> = list
        .iter()
        .enumerate()
        .map(|(index, record)| ((record.report.source.clone(), record.at), index))
        .collect();
    let reader =
        Reader::open(&place.repository, Some(key), &place.keys).map_err(DrillError::Repository)?;
    for name in reader.sources().map_err(DrillError::Repository)? {
        if !is_wanted(&name) {
            continue;
        }
        for proof in proofs(&reader, &name, &key).map_err(DrillError::Repository)? {
            let report = proof.report();
            let same = known.get(&(report.source.clone(), report.drilled_at));
            let same = same.and_then(|index| list.get(*index));
            if same.is_none_or(|record| record.report != *report) {
                list.push(report.clone().into());
            }
        }
    }
    list.sort_by_key(|record| record.at);
    Ok(list)
}

/// Returns the proofs of `source` that verify and are about it.
fn proofs(
    reader: &Reader,
    source: &SourceName,
    key: &VerifyingKey,
) -> Result<Vec<Proof>, RepositoryError> {
    let signed = reader.proofs(source)?;
    let verified = signed
        .iter()
        .filter_map(|signed| match Proof::verify(signed, key) {
            Ok(proof) if proof.report().source == *source => Some(proof),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(source = source.as_str(), %error, "a proof is passed over");
                None
            }
        });
    Ok(verified.collect())
}

/// Verifies the ledger and hands every drill to `each`.
fn each(
    folder: &Path,
    key: &VerifyingKey,
    each: &mut dyn FnMut(&Entry, DrillReport),
) -> Result<(), LedgerError> {
    ledger::verify(folder, key, |entry| {
        if let Some(report) = report(entry) {
            each(entry, report);
        }
    })
    .map(|_| ())
}

/// Returns what an entry says of a drill.
pub(super) fn report(entry: &Entry) -> Option<DrillReport> {
    let is_drill = [DRILL_PASSED, DRILL_FAILED].contains(&entry.draft.kind.as_str());
    let report = entry.draft.body.get("report").filter(|_| is_drill)?;
    serde_json::from_value(report.clone()).ok()
}
