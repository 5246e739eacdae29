//! A drill's entry in the ledger, and whether it agrees with the proof that it carries.

use std::collections::BTreeMap;

use ed25519_dalek::VerifyingKey;
use serde_json::Value;

use super::{DrillReport, Proof, ProofError, SignedProof, rows_digest};
use crate::ledger::Entry;
use crate::{Code, Coded};

/// The kind of the entry of a drill that found nothing wrong.
pub const DRILL_PASSED: &str = "drill.passed";
/// The kind of the entry of a drill that found something wrong.
pub const DRILL_FAILED: &str = "drill.failed";
/// The kind of the entry by which a human accepts that rows are gone.
pub const LOSS_ACCEPTED: &str = "drill.loss_accepted";

/// What an entry says of a drill.
#[derive(Clone, Debug, PartialEq)]
pub enum Recorded {
    /// It failed, and proves nothing.
    Failed(Box<DrillReport>),
    /// It is about something else.
    Other,
    /// It passed, and the proof with it is the vault's.
    Proven(Box<Proof>),
    /// It passed, by a holdfast that kept the proof in the repository alone.
    Unsigned(Box<DrillReport>),
}

/// Why an entry and its proof do not agree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordedError {
    /// What the entry states is not what was signed.
    #[error("entry {seq} of a drill does not agree with its proof: {what}")]
    Differs {
        /// Its number.
        seq: u64,
        /// What differs.
        what: &'static str,
    },
    /// The entry is not that of a drill.
    #[error("entry {seq} of a drill is not readable: {what}")]
    Malformed {
        /// Its number.
        seq: u64,
        /// What is missing.
        what: &'static str,
    },
    /// The proof is not one.
    #[error("the proof in entry {seq} does not verify")]
    Unproven {
        /// Its number.
        seq: u64,
        /// Why not.
        source: ProofError,
    },
}

impl Coded for RecordedError {
    fn code(&self) -> Code {
        Code::ZI391
    }

    fn hint(&self) -> Option<String> {
        Some(
            "do not rely on this proof; keep the file as it is, compare it with an exported copy, and find out who writes there"
                .to_owned(),
        )
    }
}

/// Reads an entry of the ledger and checks its proof: the signature, that it passed, and that entry,
/// report and row counts say the same.
///
/// # Errors
/// [`RecordedError`] names the first thing that is wrong.
pub fn recorded(entry: &Entry, key: &VerifyingKey) -> Result<Recorded, RecordedError> {
    let draft = &entry.draft;
    let seq = entry.seq;
    let is_passed = match draft.kind.as_str() {
        DRILL_PASSED => true,
        DRILL_FAILED => false,
        _ => return Ok(Recorded::Other),
    };
    let malformed = |what| RecordedError::Malformed { seq, what };
    let differs = |what| RecordedError::Differs { seq, what };
    let stated = draft.body.get("report").cloned();
    let report: DrillReport = stated
        .and_then(|report| serde_json::from_value(report).ok())
        .ok_or(malformed("the report"))?;
    if draft.source.as_ref() != Some(&report.source) {
        return Err(differs("the source"));
    }
    if report.passed() != is_passed {
        return Err(differs("whether it passed"));
    }
    if let Some(digest) = report.details.rows_digest {
        let rows = rows_recorded(entry).ok_or(malformed("the rows"))?;
        if rows_digest(&rows) != digest {
            return Err(differs("the rows"));
        }
    }
    let Some(signed) = draft.body.get("proof") else {
        return match (is_passed, report.details.version) {
            (false, _) => Ok(Recorded::Failed(Box::new(report))),
            (true, 1) => Ok(Recorded::Unsigned(Box::new(report))),
            (true, _) => Err(malformed("the proof")),
        };
    };
    let signed: SignedProof =
        serde_json::from_value(signed.clone()).map_err(|_| malformed("the proof"))?;
    let proof =
        Proof::verify(&signed, key).map_err(|source| RecordedError::Unproven { seq, source })?;
    if *proof.report() != report {
        return Err(differs("the report"));
    }
    Ok(Recorded::Proven(Box::new(proof)))
}

/// Returns the row counts that lie in an entry.
pub fn rows_recorded(entry: &Entry) -> Option<BTreeMap<String, u64>> {
    let rows = entry.draft.body.get("rows").and_then(Value::as_object)?;
    rows.iter()
        .map(|(table, count)| Some((table.clone(), count.as_u64()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{key, report};
    use super::*;
    use crate::Principal;
    use crate::ledger::{Chain, Draft};

    fn entry(draft: Draft) -> Entry {
        Chain::default().append(draft).unwrap().0
    }

    fn passed(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Entry {
        let mut rows = BTreeMap::new();
        rows.insert("a.public.t".to_owned(), 5);
        let mut report = report();
        report.details.rows_digest = Some(rows_digest(&rows));
        let proof = Proof::attest(report.clone(), &key()).unwrap();
        let mut draft = Draft::new(DRILL_PASSED, Principal::service("vault"), report.drilled_at)
            .source(report.source.clone())
            .with("report", serde_json::to_value(&report).unwrap())
            .with("rows", serde_json::to_value(&rows).unwrap())
            .with("proof", serde_json::to_value(proof.signed()).unwrap());
        change(&mut draft.body);
        entry(draft)
    }

    #[test]
    fn an_entry_counts_only_when_report_rows_and_signed_proof_agree() {
        let vault = key().verifying_key();
        assert!(matches!(
            recorded(&passed(|_| ()), &vault),
            Ok(Recorded::Proven(_))
        ));
        type Change = Box<dyn FnOnce(&mut serde_json::Map<String, Value>)>;
        let changes: [(&str, Change); 6] = [
            (
                "rto",
                Box::new(|body| body["report"]["rto"]["secs"] = 1.into()),
            ),
            (
                "checks",
                Box::new(|body| body["report"]["checks"] = Value::Array(Vec::new())),
            ),
            (
                "rows",
                Box::new(|body| body["rows"]["a.public.t"] = 6.into()),
            ),
            ("no proof", Box::new(|body| drop(body.remove("proof")))),
            (
                "signature",
                Box::new(|body| body["proof"]["signature"] = "00".repeat(64).into()),
            ),
            (
                "signed text",
                Box::new(|body| {
                    let text = body["proof"]["report"].as_str().unwrap();
                    body["proof"]["report"] = text.replace("prod", "test").into();
                }),
            ),
        ];
        for (what, change) in changes {
            let found = recorded(&passed(change), &vault);
            assert!(found.is_err(), "{what}: {found:?}");
        }
        let other = ed25519_dalek::SigningKey::from_bytes(&[8; 32]).verifying_key();
        assert!(matches!(
            recorded(&passed(|_| ()), &other),
            Err(RecordedError::Unproven { .. })
        ));
    }

    #[test]
    fn a_drill_that_failed_is_not_passed_off_as_one_that_passed() {
        let vault = key().verifying_key();
        let mut failed = report();
        failed.checks[0].outcome = crate::CheckOutcome::Failed;
        let draft = |kind: &str| {
            Draft::new(kind, Principal::service("vault"), failed.drilled_at)
                .source(failed.source.clone())
                .with("report", serde_json::to_value(&failed).unwrap())
        };
        assert!(matches!(
            recorded(&entry(draft(DRILL_FAILED)), &vault),
            Ok(Recorded::Failed(_))
        ));
        assert!(recorded(&entry(draft(DRILL_PASSED)), &vault).is_err());
        assert_eq!(
            recorded(&entry(draft("point.made")), &vault),
            Ok(Recorded::Other)
        );
    }
}
