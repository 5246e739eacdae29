//! A human's signed yes to one hold.

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::{Action, Code, Coded, Digest, HoldId, Timestamp};

/// What a human says yes to: exactly this action, with exactly this evidence, until then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalStatement {
    /// The hold.
    pub hold: HoldId,
    /// Digest of the action that was held.
    pub action: Digest,
    /// Digest of the evidence that was shown.
    pub evidence: Digest,
    /// Digest of the rehearsal that was shown; there was none yet when it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<Digest>,
    /// Who says yes.
    pub approver: String,
    /// When it was said.
    pub at: Timestamp,
    /// When it lapses.
    pub expires: Timestamp,
}

/// A statement with the approver's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// What is approved.
    pub statement: ApprovalStatement,
    /// Ed25519 signature over the statement's fields, 128 lower-case hexadecimal digits.
    pub signature: String,
}

impl Approval {
    /// Signs a statement with the approver's key.
    pub fn sign(statement: ApprovalStatement, key: &SigningKey) -> Self {
        let signature = key.sign(&statement_digest(&statement).0);
        Self {
            statement,
            signature: HEXLOWER.encode(&signature.to_bytes()),
        }
    }

    /// Checks that a human approved exactly `action` with exactly this `evidence`, and that it has not lapsed.
    ///
    /// Single use is kept by the one who spends it (`holdfast-guard`), because that needs a record.
    ///
    /// # Errors
    /// [`ApprovalError`] says what does not fit.
    pub fn verify(
        &self,
        action: &Action,
        evidence: Digest,
        key: &VerifyingKey,
        now: Timestamp,
    ) -> Result<VerifiedApproval, ApprovalError> {
        let bytes = HEXLOWER
            .decode(self.signature.as_bytes())
            .ok()
            .and_then(|bytes| <[u8; 64]>::try_from(bytes).ok())
            .ok_or(ApprovalError::WrongSignature)?;
        key.verify_strict(
            &statement_digest(&self.statement).0,
            &Signature::from_bytes(&bytes),
        )
        .map_err(|_| ApprovalError::WrongSignature)?;
        if self.statement.action != action.digest {
            return Err(ApprovalError::OtherAction);
        }
        if self.statement.evidence != evidence {
            return Err(ApprovalError::OtherEvidence);
        }
        if now >= self.statement.expires || now < self.statement.at {
            return Err(ApprovalError::Expired {
                expires: self.statement.expires,
            });
        }
        Ok(VerifiedApproval {
            hold: self.statement.hold.clone(),
            action: self.statement.action,
            approver: self.statement.approver.clone(),
        })
    }
}

fn statement_digest(statement: &ApprovalStatement) -> Digest {
    let domain = match statement.rehearsal {
        None => "holdfast approval 1",
        Some(_) => "holdfast approval 2",
    };
    let digest = crate::DigestBuilder::new(domain)
        .field(statement.hold.as_str().as_bytes())
        .field(&statement.action.0)
        .field(&statement.evidence.0)
        .field(statement.approver.as_bytes())
        .field(&statement.at.0.to_be_bytes())
        .field(&statement.expires.0.to_be_bytes());
    match &statement.rehearsal {
        None => digest.finish(),
        Some(rehearsal) => digest.field(&rehearsal.0).finish(),
    }
}

/// An approval whose signature, action, evidence and time were checked. Not `Clone`: it is spent once.
#[derive(Debug)]
pub struct VerifiedApproval {
    hold: HoldId,
    action: Digest,
    approver: String,
}

impl VerifiedApproval {
    /// Returns the hold that was approved.
    pub fn hold(&self) -> &HoldId {
        &self.hold
    }

    /// Returns the digest of the approved action.
    pub fn action(&self) -> Digest {
        self.action
    }

    /// Returns who approved.
    pub fn approver(&self) -> &str {
        &self.approver
    }
}

/// Why an approval is not one for this action now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// Lapsed, or dated in the future.
    #[error("the approval lapsed at {expires}")]
    Expired {
        /// When it lapsed.
        expires: Timestamp,
    },
    /// Given for another action.
    #[error("the approval is for another action")]
    OtherAction,
    /// What was measured has changed since.
    #[error("the approval was given for other evidence: production has moved")]
    OtherEvidence,
    /// Not the approver's signature.
    #[error("the approval was not signed by the approver")]
    WrongSignature,
}

impl Coded for ApprovalError {
    fn code(&self) -> Code {
        Code::ZH005
    }

    fn hint(&self) -> Option<String> {
        Some(
            "ask for the action again; a human can look at the new hold with `holdfast hold show`"
                .to_owned(),
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{ActionId, DoorKind, Principal};

    pub(crate) fn action(text: &str) -> Action {
        Action {
            id: ActionId::from_random([3; 12]),
            principal: Principal::agent("cursor"),
            lease: None,
            source: None,
            door: DoorKind::Http,
            summary: text.to_owned(),
            digest: Digest::of(text.as_bytes()),
            at: Timestamp(0),
        }
    }

    pub(crate) fn approve(action: &Action, evidence: Digest, key: &SigningKey) -> Approval {
        let statement = ApprovalStatement {
            hold: HoldId::from_random([1; 8]),
            action: action.digest,
            evidence,
            rehearsal: None,
            approver: "jer".to_owned(),
            at: Timestamp(10),
            expires: Timestamp(20),
        };
        Approval::sign(statement, key)
    }

    #[test]
    fn an_approval_fits_one_action_one_evidence_and_one_time() {
        let key = SigningKey::from_bytes(&[5; 32]);
        let public = key.verifying_key();
        let (drop, delete) = (action("DROP TABLE a"), action("DELETE FROM a"));
        let (seen, moved) = (Digest::of(b"1 row"), Digest::of(b"2 rows"));
        let approval = approve(&drop, seen, &key);
        let verify = |action: &Action, evidence, now| {
            approval
                .verify(action, evidence, &public, Timestamp(now))
                .map(|yes| yes.hold().clone())
        };
        assert!(verify(&drop, seen, 10).is_ok());
        assert_eq!(verify(&delete, seen, 10), Err(ApprovalError::OtherAction));
        assert_eq!(verify(&drop, moved, 10), Err(ApprovalError::OtherEvidence));
        let expired = Err(ApprovalError::Expired {
            expires: Timestamp(20),
        });
        assert_eq!(verify(&drop, seen, 20), expired);
        assert_eq!(verify(&drop, seen, 9), expired);
        let agent = SigningKey::from_bytes(&[6; 32]);
        let forged = approve(&drop, seen, &agent);
        assert_eq!(
            forged
                .verify(&drop, seen, &public, Timestamp(10))
                .map(|_| ()),
            Err(ApprovalError::WrongSignature)
        );
        let mut longer = approval.clone();
        longer.statement.expires = Timestamp(1_000);
        let mut rehearsed = approval.clone();
        rehearsed.statement.rehearsal = Some(seen);
        for changed in [longer, rehearsed] {
            assert_eq!(
                changed
                    .verify(&drop, seen, &public, Timestamp(10))
                    .map(|_| ()),
                Err(ApprovalError::WrongSignature)
            );
        }
    }
}
