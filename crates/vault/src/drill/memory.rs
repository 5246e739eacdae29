//! What is remembered of drills: entries of the ledger, proofs of the repository.

use std::path::Path;

use ed25519_dalek::VerifyingKey;
use holdfast_core::ledger::{Draft, Entry};
use holdfast_core::{DrillReport, Principal, Proof, SourceName, Timestamp};
use holdfast_store::ledger::{self, Ledger, LedgerError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::checks::Rows;
use super::error::DrillError;
use crate::repository::{Reader, RepositoryError};
use crate::restore::Place;
use crate::status::{ProofState, ProofStatus};

const PASSED: &str = "drill.passed";
const FAILED: &str = "drill.failed";
/// The ledger's folder in the vault's state directory.
const LEDGER: &str = "ledger";
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

/// What a vault knows of a source's drills when it starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remembered {
    /// The newest proof that verifies.
    pub(crate) proof: Option<Proof>,
    /// How the newest drill ended.
    pub(crate) status: ProofStatus,
}

/// Writes a drill into the ledger, with the rows that it counted.
pub(super) fn record(ledger: &Ledger, report: &DrillReport, rows: &Rows) -> Result<(), DrillError> {
    let kind = if report.passed() { PASSED } else { FAILED };
    let mut room = ROWS_BYTES;
    let mut kept = serde_json::Map::new();
    for (table, count) in rows {
        // Quotes, colon, comma and a number of up to twenty digits.
        let cost = table.len().saturating_mul(2).saturating_add(24);
        if cost > room {
            break;
        }
        room = room.saturating_sub(cost);
        kept.insert(table.clone(), Value::from(*count));
    }
    let text = serde_json::to_value(report).unwrap_or(Value::Null);
    let draft = Draft::new(kind, Principal::service("vault"), report.drilled_at)
        .source(report.source.clone())
        .with("report", text)
        .with("rows", Value::Object(kept));
    ledger.append(draft).map(|_| ()).map_err(DrillError::Ledger)
}

/// Returns the rows that the newest drill of the same cluster counted, if there was one.
pub(super) fn rows_before(
    ledger: &Ledger,
    source: &SourceName,
    system_identifier: u64,
) -> Result<Option<Rows>, DrillError> {
    let mut found = None;
    each(
        ledger.folder(),
        &ledger.public_key(),
        &mut |entry, record| {
            if record.report.source != *source
                || record.report.system_identifier != system_identifier
            {
                return;
            }
            let rows = entry.draft.body.get("rows").and_then(Value::as_object);
            let rows: Option<Rows> = rows.map(|rows| {
                let pair =
                    |(table, count): (&String, &Value)| Some((table.clone(), count.as_u64()?));
                rows.iter().filter_map(pair).collect()
            });
            // A drill that did not come as far as counting leaves what was known before.
            if let Some(rows) = rows.filter(|rows| !rows.is_empty()) {
                found = Some(rows);
            }
        },
    )
    .map_err(DrillError::Ledger)?;
    Ok(found)
}

/// Returns what is known of the drills of `source`, from the ledger and the repository.
///
/// # Errors
/// When the ledger does not verify or the repository cannot be read; a single proof that does not
/// verify is passed over, because an older one may still be good.
pub(crate) fn recall(
    reader: &Reader,
    ledger: &Ledger,
    source: &SourceName,
) -> Result<Remembered, DrillError> {
    let key = ledger.public_key();
    let mut newest: Option<DrillRecord> = None;
    each(ledger.folder(), &key, &mut |_, record| {
        if record.report.source == *source {
            newest = Some(record);
        }
    })
    .map_err(DrillError::Ledger)?;
    let proof = proofs(reader, source, &key)
        .map_err(DrillError::Repository)?
        .into_iter()
        .max_by_key(|proof| proof.report().drilled_at);
    let proven = proof.as_ref().map(|proof| DrillRecord {
        at: proof.report().drilled_at,
        passed: true,
        report: proof.report().clone(),
    });
    let newest = match (newest, proven) {
        (Some(newest), Some(proven)) if proven.at > newest.at => Some(proven),
        (newest, proven) => newest.or(proven),
    };
    let status = newest.map_or_else(ProofStatus::default, |record| status(&record.report));
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
        each(&folder, &key, &mut |_, record| {
            if is_wanted(&record.report.source) {
                list.push(record);
            }
        })
        .map_err(DrillError::Ledger)?;
    }
    let reader =
        Reader::open(&place.repository, Some(key), &place.keys).map_err(DrillError::Repository)?;
    for name in reader.sources().map_err(DrillError::Repository)? {
        if !is_wanted(&name) {
            continue;
        }
        for proof in proofs(&reader, &name, &key).map_err(DrillError::Repository)? {
            let report = proof.report();
            if !list.iter().any(|record| record.report == *report) {
                list.push(DrillRecord {
                    at: report.drilled_at,
                    passed: true,
                    report: report.clone(),
                });
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
    each: &mut dyn FnMut(&Entry, DrillRecord),
) -> Result<(), LedgerError> {
    ledger::verify(folder, key, |entry| {
        if entry.draft.kind != PASSED && entry.draft.kind != FAILED {
            return;
        }
        let report = entry.draft.body.get("report").cloned();
        let report: Option<DrillReport> = report.and_then(|r| serde_json::from_value(r).ok());
        if let Some(report) = report {
            let record = DrillRecord {
                at: report.drilled_at,
                passed: report.passed(),
                report,
            };
            each(entry, record);
        }
    })
    .map(|_| ())
}
