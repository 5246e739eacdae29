//! The evidence that a way back exists: made by a real restore, signed by the vault.

use std::time::Duration;

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::{Code, Coded, Effects, PointId, SourceName, Timestamp};

mod recorded;
mod report;

pub use recorded::{
    DRILL_FAILED, DRILL_PASSED, LOSS_ACCEPTED, Recorded, RecordedError, recorded, rows_recorded,
};
pub use report::{
    Check, CheckOutcome, DrillDetails, DrillForm, DrillOf, DrillReport, ProvenPoint,
    REPORT_VERSION, TableChange, rows_digest,
};

/// A proof as it is stored and sent: the report's exact JSON text and the vault's signature over it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedProof {
    /// The report as JSON; the signature covers `holdfast proof N`, a line feed and these bytes, where
    /// N is the version that the report states, or 1 when it states none.
    pub report: String,
    /// Ed25519 signature, 128 lower-case hexadecimal digits.
    pub signature: String,
}

/// Evidence that a restore point was really restored and checked.
///
/// It exists only with a valid signature: made by [`Proof::attest`] where a drill has just passed, or
/// read back by [`Proof::verify`]. The fields are private, so no other code can make one:
///
/// ```compile_fail
/// let proof = holdfast_core::Proof { report: todo!(), signed: todo!() };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    report: DrillReport,
    signed: SignedProof,
}

impl Proof {
    /// Signs the report of a drill that passed. Called in the vault's drill and nowhere else.
    ///
    /// # Errors
    /// [`ProofError::DrillFailed`] when a check failed or nothing was checked.
    pub fn attest(report: DrillReport, key: &SigningKey) -> Result<Self, ProofError> {
        if !report.passed() {
            return Err(ProofError::DrillFailed {
                point: report.point,
            });
        }
        let text = serde_json::to_string(&report).map_err(|_| ProofError::Malformed)?;
        let signature = key.sign(&signed_bytes(report.details.version, &text));
        let signed = SignedProof {
            report: text,
            signature: HEXLOWER.encode(&signature.to_bytes()),
        };
        Ok(Self { report, signed })
    }

    /// Reads a proof back, checking the signature and that the report passed.
    ///
    /// # Errors
    /// [`ProofError`] when the signature is not the vault's, the text is not a report, it did not pass or
    /// its version is not known here.
    pub fn verify(signed: &SignedProof, key: &VerifyingKey) -> Result<Self, ProofError> {
        if signed.report.len() > LIMIT_REPORT_BYTES {
            return Err(ProofError::Malformed);
        }
        let bytes = HEXLOWER
            .decode(signed.signature.as_bytes())
            .ok()
            .and_then(|bytes| <[u8; 64]>::try_from(bytes).ok())
            .ok_or(ProofError::Malformed)?;
        // Read before the signature is checked only to know what that covers.
        let version = report::version_of(&signed.report).ok_or(ProofError::Malformed)?;
        key.verify_strict(
            &signed_bytes(version, &signed.report),
            &Signature::from_bytes(&bytes),
        )
        .map_err(|_| ProofError::WrongSignature)?;
        if version > REPORT_VERSION {
            return Err(ProofError::Newer { version });
        }
        let report: DrillReport =
            serde_json::from_str(&signed.report).map_err(|_| ProofError::Malformed)?;
        if !report.passed() {
            return Err(ProofError::DrillFailed {
                point: report.point,
            });
        }
        Ok(Self {
            report,
            signed: signed.clone(),
        })
    }

    /// Returns what the drill did and found.
    pub fn report(&self) -> &DrillReport {
        &self.report
    }

    /// Returns the form that is stored and sent.
    pub fn signed(&self) -> &SignedProof {
        &self.signed
    }

    /// Checks that this proof covers everything irreversible in `effects` and is fresh enough.
    ///
    /// Each touched resource must be known to belong to the proof's source; an irreversible effect
    /// without any resource is never covered, because nobody can say what would have to come back.
    ///
    /// # Errors
    /// [`NotCovered`] says what is missing.
    pub fn covering(
        &self,
        effects: &Effects,
        age_max: Duration,
        now: Timestamp,
    ) -> Result<Covering, NotCovered> {
        let age = now.since(self.report.drilled_at);
        if age > age_max || self.report.drilled_at > now {
            return Err(NotCovered::Stale {
                drilled_at: self.report.drilled_at,
                age_max,
            });
        }
        for impact in effects
            .impacts()
            .iter()
            .filter(|i| i.effect.is_irreversible())
        {
            if impact.resources.is_empty() {
                return Err(NotCovered::NoResource {
                    because: impact.because.clone(),
                });
            }
            for resource in &impact.resources {
                if resource.source.as_ref() != Some(&self.report.source) {
                    return Err(NotCovered::OtherResource {
                        resource: resource.to_string(),
                    });
                }
            }
        }
        Ok(Covering {
            source: self.report.source.clone(),
            point: self.report.point.clone(),
        })
    }
}

fn signed_bytes(version: u32, report: &str) -> Vec<u8> {
    format!("holdfast proof {version}\n{report}").into_bytes()
}

/// LIMIT: the longest report that is read; an entry of the ledger holds no more.
const LIMIT_REPORT_BYTES: usize = 256 * 1024;

/// A proof that was found to cover one set of effects, fresh enough, at one moment.
///
/// It can only come from [`Proof::covering`]:
///
/// ```compile_fail
/// let covering = holdfast_core::Covering { source: todo!(), point: todo!() };
/// ```
#[derive(Debug)]
pub struct Covering {
    source: SourceName,
    point: PointId,
}

impl Covering {
    /// Returns the source that can be brought back.
    pub fn source(&self) -> &SourceName {
        &self.source
    }

    /// Returns the base that was proven.
    pub fn point(&self) -> &PointId {
        &self.point
    }
}

/// Why a signed text is not a proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The drill found something wrong.
    #[error("the drill of {point} did not pass, so it proves nothing")]
    DrillFailed {
        /// The base that was drilled.
        point: PointId,
    },
    /// Not a report with a signature.
    #[error("the proof is not readable")]
    Malformed,
    /// Made by a newer holdfast.
    #[error("the proof has version {version}, which this holdfast does not know")]
    Newer {
        /// Its version.
        version: u32,
    },
    /// Changed after it was signed, or signed by another key.
    #[error("the proof was not signed by this vault")]
    WrongSignature,
}

impl Coded for ProofError {
    fn code(&self) -> Code {
        Code::ZI002
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Newer { .. } => "update holdfast; the proof itself may be good".to_owned(),
            Self::DrillFailed { .. } | Self::Malformed | Self::WrongSignature => {
                "run `holdfast drill run SOURCE` to make a new proof".to_owned()
            }
        })
    }
}

/// Why a proof is no way back for an action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCovered {
    /// It cannot be told what would have to come back.
    #[error("it cannot be told what would have to be brought back ({because})")]
    NoResource {
        /// Why the effect was concluded.
        because: String,
    },
    /// Something touched does not belong to the proven source.
    #[error("{resource} is not covered by the proof")]
    OtherResource {
        /// What is touched.
        resource: String,
    },
    /// Too old, or from the future.
    #[error("the newest proof is from {drilled_at}, and it may be at most {} s old", age_max.as_secs())]
    Stale {
        /// When the drill ended.
        drilled_at: Timestamp,
        /// How old it may be.
        age_max: Duration,
    },
}

impl NotCovered {
    /// Says what a person does next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoResource { .. } => {
                "say exactly what is to be removed; what cannot be named cannot be brought back"
            }
            Self::OtherResource { .. } => {
                "add it as a source with `holdfast source add`, so that the vault keeps and drills it"
            }
            Self::Stale { .. } => {
                "a human runs `holdfast drill run SOURCE`, which makes a fresh proof; then ask again"
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{ByteCount, Effect, Impact, Lsn, Resource};

    pub(crate) fn report() -> DrillReport {
        DrillReport {
            source: "prod".parse().unwrap(),
            system_identifier: 7,
            point: PointId::from_random([1; 10]),
            timeline: 1,
            reached: Lsn(0x0100_0000),
            covers_until: Timestamp(1_000_000),
            drilled_at: Timestamp(2_000_000),
            rto: Duration::from_millis(900),
            restored: ByteCount(1 << 20),
            checks: vec![Check {
                name: "server starts".to_owned(),
                outcome: CheckOutcome::Passed,
                detail: String::new(),
            }],
            details: DrillDetails::new(DrillOf::Newest, "latest"),
        }
    }

    pub(crate) fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    #[test]
    fn a_failed_drill_proves_nothing() {
        let mut failed = report();
        failed.checks.push(Check {
            name: "amcheck".to_owned(),
            outcome: CheckOutcome::Failed,
            detail: String::new(),
        });
        assert!(matches!(
            Proof::attest(failed, &key()),
            Err(ProofError::DrillFailed { .. })
        ));
        let mut empty = report();
        empty.checks.clear();
        assert!(matches!(
            Proof::attest(empty, &key()),
            Err(ProofError::DrillFailed { .. })
        ));
    }

    #[test]
    fn a_changed_proof_is_refused() {
        let proof = Proof::attest(report(), &key()).unwrap();
        let vault = key().verifying_key();
        assert_eq!(Proof::verify(proof.signed(), &vault).as_ref(), Ok(&proof));
        let mut changed = proof.signed().clone();
        changed.report = changed.report.replace("prod", "test");
        assert_eq!(
            Proof::verify(&changed, &vault),
            Err(ProofError::WrongSignature)
        );
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key();
        assert_eq!(
            Proof::verify(proof.signed(), &other),
            Err(ProofError::WrongSignature)
        );
        let mut cut = proof.signed().clone();
        cut.signature.truncate(10);
        assert_eq!(Proof::verify(&cut, &vault), Err(ProofError::Malformed));
    }

    #[test]
    fn a_proof_covers_only_its_own_source_while_it_is_fresh() {
        let proof = Proof::attest(report(), &key()).unwrap();
        let hour = Duration::from_secs(3600);
        let now = Timestamp(3_000_000);
        let volume = Resource::new("railway:volume", "v1");
        let destroy = |resource: Option<Resource>| {
            let mut impact = Impact::new(Effect::Destroy, "volumeDelete");
            impact.resources.extend(resource);
            Effects::one(impact)
        };
        let of = |name: &str| volume.clone().of(name.parse().unwrap());
        assert!(
            proof
                .covering(&destroy(Some(of("prod"))), hour, now)
                .is_ok()
        );
        assert!(matches!(
            proof.covering(&destroy(Some(of("other"))), hour, now),
            Err(NotCovered::OtherResource { .. })
        ));
        assert!(matches!(
            proof.covering(&destroy(Some(volume.clone())), hour, now),
            Err(NotCovered::OtherResource { .. })
        ));
        assert!(matches!(
            proof.covering(&destroy(None), hour, now),
            Err(NotCovered::NoResource { .. })
        ));
        let late = now.plus(hour).plus(hour);
        assert!(matches!(
            proof.covering(&destroy(Some(of("prod"))), hour, late),
            Err(NotCovered::Stale { .. })
        ));
        assert!(matches!(
            proof.covering(&destroy(Some(of("prod"))), hour, Timestamp(1)),
            Err(NotCovered::Stale { .. })
        ));
    }

    #[test]
    fn a_proof_of_the_first_version_is_still_read_and_one_of_a_later_is_told() {
        // As the first version wrote it, byte for byte.
        let text = r#"{"source":"prod","system_identifier":7,"point":"point-0g40r40m30e209185gr38e1wg4","timeline":1,"reached":"0/1000000","covers_until":"1970-01-01T00:00:01.000000Z","drilled_at":"1970-01-01T00:00:02.000000Z","rto":{"secs":0,"nanos":900000000},"restored":1048576,"checks":[{"name":"server starts","outcome":"passed","detail":""}]}"#;
        let point = serde_json::to_value(report()).unwrap()["point"].clone();
        let text = text.replace("point-0g40r40m30e209185gr38e1wg4", point.as_str().unwrap());
        let sign = |prefix: &str, text: &str| SignedProof {
            report: text.to_owned(),
            signature: HEXLOWER.encode(
                &key()
                    .sign(format!("{prefix}\n{text}").as_bytes())
                    .to_bytes(),
            ),
        };
        let vault = key().verifying_key();
        let old = Proof::verify(&sign("holdfast proof 1", &text), &vault).unwrap();
        assert_eq!(old.report().details.version, 1);
        assert_eq!(old.report().details.of, DrillOf::Newest);
        assert_eq!(
            Proof::verify(&sign("holdfast proof 2", &text), &vault),
            Err(ProofError::WrongSignature)
        );
        let now = Proof::attest(report(), &key()).unwrap();
        assert!(now.signed().report.contains(r#""version":2"#));
        let newer = now
            .signed()
            .report
            .replace(r#""version":2"#, r#""version":9"#);
        assert_eq!(
            Proof::verify(&sign("holdfast proof 9", &newer), &vault),
            Err(ProofError::Newer { version: 9 })
        );
    }

    #[test]
    fn a_loss_of_rows_is_said_by_a_proof_and_does_not_unmake_it() {
        let mut lost = report();
        lost.checks.push(Check {
            name: "rows".to_owned(),
            outcome: CheckOutcome::Alarm,
            detail: "most are gone".to_owned(),
        });
        assert_eq!(lost.alarm().as_deref(), Some("rows: most are gone"));
        let proof = Proof::attest(lost.clone(), &key()).unwrap();
        assert_eq!(proof.report(), &lost);
        lost.checks
            .retain(|check| check.outcome == CheckOutcome::Alarm);
        assert!(!lost.passed(), "an alarm alone proves nothing");
    }
}
