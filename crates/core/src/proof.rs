//! The evidence that a way back exists: made by a real restore, signed by the vault.

use std::time::Duration;

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::{ByteCount, Code, Coded, Effects, Lsn, PointId, SourceName, Timestamp};

/// How one check of a drill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckOutcome {
    /// It was run and found something wrong.
    Failed,
    /// It was not run; `detail` says why.
    NotRun,
    /// It was run and found nothing wrong.
    Passed,
}

/// One thing that a drill checked, or did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked, such as `page checksums`.
    pub name: String,
    /// How it ended.
    pub outcome: CheckOutcome,
    /// Numbers or the reason, for a person.
    pub detail: String,
}

/// What a drill did and found: the restore point was really restored, started and checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillReport {
    /// The source whose point was restored.
    pub source: SourceName,
    /// PostgreSQL's system identifier of the source, so that a proof is not taken for another cluster.
    pub system_identifier: u64,
    /// The base that was restored.
    pub point: PointId,
    /// The timeline that was recovered.
    pub timeline: u32,
    /// Recovery reached this position.
    pub reached: Lsn,
    /// The newest commit that the restored server contained, or when the drill read the position.
    pub covers_until: Timestamp,
    /// When the drill ended.
    pub drilled_at: Timestamp,
    /// Time from the start of the restore to the first committed write.
    pub rto: Duration,
    /// Bytes written by the restore.
    pub restored: ByteCount,
    /// What was checked and what was not.
    pub checks: Vec<Check>,
}

impl DrillReport {
    /// Tells whether something was checked and nothing failed.
    pub fn passed(&self) -> bool {
        let passed = |check: &Check| check.outcome == CheckOutcome::Passed;
        let failed = |check: &Check| check.outcome == CheckOutcome::Failed;
        self.checks.iter().any(passed) && !self.checks.iter().any(failed)
    }
}

/// A proof as it is stored and sent: the report's exact JSON text and the vault's signature over it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedProof {
    /// The report as JSON; the signature covers `holdfast proof 1`, a line feed and these bytes.
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
        let signature = key.sign(&signed_bytes(&text));
        let signed = SignedProof {
            report: text,
            signature: HEXLOWER.encode(&signature.to_bytes()),
        };
        Ok(Self { report, signed })
    }

    /// Reads a proof back, checking the signature and that the report passed.
    ///
    /// # Errors
    /// [`ProofError`] when the signature is not the vault's, the text is not a report or it did not pass.
    pub fn verify(signed: &SignedProof, key: &VerifyingKey) -> Result<Self, ProofError> {
        let bytes = HEXLOWER
            .decode(signed.signature.as_bytes())
            .ok()
            .and_then(|bytes| <[u8; 64]>::try_from(bytes).ok())
            .ok_or(ProofError::Malformed)?;
        key.verify_strict(
            &signed_bytes(&signed.report),
            &Signature::from_bytes(&bytes),
        )
        .map_err(|_| ProofError::WrongSignature)?;
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

fn signed_bytes(report: &str) -> Vec<u8> {
    format!("holdfast proof 1\n{report}").into_bytes()
}

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
    /// Changed after it was signed, or signed by another key.
    #[error("the proof was not signed by this vault")]
    WrongSignature,
}

impl Coded for ProofError {
    fn code(&self) -> Code {
        Code::ZI002
    }

    fn hint(&self) -> Option<String> {
        Some("run `holdfast drill run SOURCE` to make a new proof".to_owned())
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Effect, Impact, Resource};

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
}
