//! Holds: actions that wait for a human, and the approvals that end them.

use std::sync::{Arc, Mutex, PoisonError};

use ed25519_dalek::VerifyingKey;
use holdfast_core::ledger::Draft;
use holdfast_core::{
    Action, Approval, ApprovalError, Code, Coded, Digest, Effects, Evidence, HoldId, Principal,
    Reason, RehearsalState, Timestamp, Tolerance,
};
use holdfast_store::ledger::{Ledger, LedgerError};
use holdfast_store::record::{Record, RecordError, Records, Version};
use serde::{Deserialize, Serialize};

use crate::clock::{self, RandomError};
use crate::limits::{HOLD_WAITS_MAX, HOLDS_PER_LEASE_MAX};
use crate::rehearsal::KeptRehearsal;

/// A human who may approve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approver {
    /// The name in the ledger.
    pub name: String,
    /// Salt of the passphrase, 32 hexadecimal digits.
    pub salt: String,
    /// Ed25519 public key, 64 hexadecimal digits.
    pub key: String,
}

impl Record for Approver {
    const KIND: &'static str = "approver";
}

impl Approver {
    /// Returns the key that verifies this person's approvals, or `None` if it is damaged.
    pub fn verifying_key(&self) -> Option<VerifyingKey> {
        let bytes = data_encoding::HEXLOWER.decode(self.key.as_bytes()).ok()?;
        VerifyingKey::from_bytes(&bytes.try_into().ok()?).ok()
    }
}

/// How a hold stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum HoldState {
    /// A human said yes; the same action passes once.
    Approved {
        /// The signed yes.
        approval: Approval,
    },
    /// A human said no.
    Denied {
        /// Who.
        by: Principal,
        /// When.
        at: Timestamp,
    },
    /// The approval was used.
    Spent {
        /// The signed yes.
        approval: Approval,
        /// When.
        at: Timestamp,
    },
    /// Nobody has decided.
    Waiting,
}

/// An action that waits for a human.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Its id.
    pub id: HoldId,
    /// What was asked.
    pub action: Action,
    /// What it would do.
    pub effects: Effects,
    /// What was measured.
    pub evidence: Evidence,
    /// Why it is held.
    pub reasons: Vec<Reason>,
    /// When it lapses.
    pub expires: Timestamp,
    /// How it stands.
    #[serde(flatten)]
    pub state: HoldState,
}

impl Record for Hold {
    const KIND: &'static str = "hold";
}

impl Hold {
    /// Returns the word for how it stands now.
    pub fn word(&self, now: Timestamp) -> &'static str {
        match &self.state {
            HoldState::Approved { approval } if now >= approval.statement.expires => "expired",
            HoldState::Approved { .. } => "approved",
            HoldState::Denied { .. } => "denied",
            HoldState::Spent { .. } => "spent",
            HoldState::Waiting if now >= self.expires => "expired",
            HoldState::Waiting => "waiting",
        }
    }
}

/// A hold with its rehearsal, as people look at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldShown {
    /// The hold.
    #[serde(flatten)]
    pub hold: Hold,
    /// How its rehearsal stands; there is none of what cannot be rehearsed at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<RehearsalState>,
}

/// Why a hold cannot be made, found or decided.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The approval does not fit.
    #[error("{id} cannot be approved")]
    Approval {
        /// Which hold.
        id: HoldId,
        /// What does not fit.
        source: ApprovalError,
    },
    /// It was decided, spent or has lapsed.
    #[error("{id} is {state}, so it cannot be decided")]
    Decided {
        /// Which hold.
        id: HoldId,
        /// How it stands.
        state: &'static str,
    },
    /// The ledger could not be written, so nothing was decided.
    #[error("the decision cannot be recorded")]
    Ledger(#[source] LedgerError),
    /// One lease has too many waiting.
    #[error("this lease has {HOLDS_PER_LEASE_MAX} holds waiting")]
    TooMany,
    /// No randomness for an id.
    #[error("no hold can be made")]
    Random(#[source] RandomError),
    /// The state file could not be read or written.
    #[error("the hold cannot be kept")]
    Record(#[source] RecordError),
    /// There is no such hold.
    #[error("no {0} is known")]
    Unknown(HoldId),
    /// Nobody of this name may approve.
    #[error("`{0}` is not an approver")]
    UnknownApprover(String),
    /// The rehearsal that was looked at is not the one that is kept.
    #[error("{0} was approved with another rehearsal in view")]
    OtherRehearsal(HoldId),
    /// What is configured wants a rehearsal first.
    #[error("{0} cannot be approved before its rehearsal is done")]
    NotRehearsed(HoldId),
}

impl Coded for HoldError {
    fn code(&self) -> Code {
        match self {
            Self::Approval { source, .. } => source.code(),
            Self::Decided { .. } | Self::Unknown(_) | Self::UnknownApprover(_) => Code::ZU402,
            Self::Ledger(error) => error.code(),
            Self::NotRehearsed(_) | Self::OtherRehearsal(_) => Code::ZH430,
            Self::TooMany => Code::ZH401,
            Self::Random(_) => Code::ZS202,
            Self::Record(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Approval { source, .. } => source.hint(),
            Self::Decided { .. } | Self::Unknown(_) => {
                Some("`holdfast hold list` shows what waits".to_owned())
            }
            Self::UnknownApprover(_) => {
                Some("`holdfast init` asks for the first approver".to_owned())
            }
            Self::Ledger(error) => error.hint(),
            Self::NotRehearsed(id) | Self::OtherRehearsal(id) => {
                Some(format!("look at it again with `holdfast hold show {id}`"))
            }
            Self::TooMany => {
                Some("a human decides what waits with `holdfast hold list`".to_owned())
            }
            Self::Random(_) => None,
            Self::Record(error) => error.hint(),
        }
    }
}

/// What is to be held.
#[derive(Clone, Debug)]
pub struct HoldRequest {
    /// What was asked.
    pub action: Action,
    /// What it would do.
    pub effects: Effects,
    /// What was measured.
    pub evidence: Evidence,
    /// Why it is held.
    pub reasons: Vec<Reason>,
}

/// What the approvals that were given say about an action that is asked for now.
#[derive(Clone, Debug)]
pub enum Approved {
    /// A human approved exactly this, and it has not been used.
    Exactly(Box<Hold>),
    /// A human approved it when something else was measured: it must be asked again.
    OtherEvidence {
        /// The hold that was approved.
        hold: HoldId,
        /// What has moved since, one line each.
        moved: Vec<String>,
    },
    /// Nobody did.
    Not,
}

/// All holds. Clones share one state file.
#[derive(Clone)]
pub struct Holds {
    records: Records,
    ledger: Ledger,
    /// Held from the look at what waits until a new hold is kept: the same action makes one hold only.
    making: Arc<Mutex<()>>,
}

impl Holds {
    /// Makes the view on the holds in `records`.
    pub fn new(records: Records, ledger: Ledger) -> Self {
        Self {
            records,
            ledger,
            making: Arc::default(),
        }
    }

    /// Returns all holds, newest first.
    ///
    /// # Errors
    /// [`HoldError::Record`].
    pub fn list(&self) -> Result<Vec<Hold>, HoldError> {
        let holds = self.records.list::<Hold>().map_err(HoldError::Record)?;
        let mut holds: Vec<Hold> = holds.into_iter().map(|(hold, _)| hold).collect();
        holds.sort_by(|a, b| b.action.at.cmp(&a.action.at).then_with(|| a.id.cmp(&b.id)));
        Ok(holds)
    }

    /// Returns one hold.
    ///
    /// # Errors
    /// [`HoldError::Unknown`].
    pub fn find(&self, id: &HoldId) -> Result<Hold, HoldError> {
        self.read(id).map(|(hold, _)| hold)
    }

    /// Returns one hold with its rehearsal.
    ///
    /// # Errors
    /// [`HoldError::Unknown`].
    pub fn show(&self, id: &HoldId) -> Result<HoldShown, HoldError> {
        self.shown(self.find(id)?)
    }

    /// Adds its rehearsal to a hold.
    ///
    /// # Errors
    /// [`HoldError::Record`].
    pub fn shown(&self, hold: Hold) -> Result<HoldShown, HoldError> {
        let rehearsal = self.rehearsal(&hold.id)?.map(|kept| kept.state);
        Ok(HoldShown { hold, rehearsal })
    }

    /// Accepts a human's signed yes only once what can be rehearsed was, and was looked at.
    ///
    /// # Errors
    /// [`HoldError::NotRehearsed`], and as [`Holds::approve`].
    pub fn approve_rehearsed(&self, approval: Approval, now: Timestamp) -> Result<Hold, HoldError> {
        let id = &approval.statement.hold;
        let is_settled = match self.rehearsal(id)?.map(|kept| kept.state) {
            None | Some(RehearsalState::Impossible { .. }) => true,
            Some(RehearsalState::Done { .. }) => approval.statement.rehearsal.is_some(),
            Some(RehearsalState::Pending { .. } | RehearsalState::Running { .. }) => false,
        };
        match is_settled {
            true => self.approve(approval, now),
            false => Err(HoldError::NotRehearsed(id.clone())),
        }
    }

    /// Returns the waiting hold of the same action under the same lease, or makes one.
    ///
    /// # Errors
    /// [`HoldError`]; the action is refused all the same.
    pub fn hold(&self, request: HoldRequest, now: Timestamp) -> Result<Hold, HoldError> {
        let same = |hold: &Hold| {
            hold.action.digest == request.action.digest
                && hold.action.lease == request.action.lease
                && hold.evidence.digest() == request.evidence.digest()
        };
        let waiting = |hold: &Hold| hold.word(now) == "waiting";
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = self.list()?;
        if let Some(hold) = holds.iter().find(|hold| waiting(hold) && same(hold)) {
            return Ok(hold.clone());
        }
        let of_lease = |hold: &&Hold| waiting(hold) && hold.action.lease == request.action.lease;
        if holds.iter().filter(of_lease).count() >= HOLDS_PER_LEASE_MAX {
            return Err(HoldError::TooMany);
        }
        let hold = Hold {
            id: HoldId::from_random(clock::random().map_err(HoldError::Random)?),
            action: request.action,
            effects: request.effects,
            evidence: request.evidence,
            reasons: request.reasons,
            expires: now.plus(HOLD_WAITS_MAX),
            state: HoldState::Waiting,
        };
        self.records
            .insert(hold.id.as_str(), &hold)
            .map_err(HoldError::Record)?;
        Ok(hold)
    }

    /// Returns the people who may approve.
    ///
    /// # Errors
    /// [`HoldError::Record`].
    pub fn approvers(&self) -> Result<Vec<Approver>, HoldError> {
        let approvers = self.records.list::<Approver>().map_err(HoldError::Record)?;
        Ok(approvers
            .into_iter()
            .map(|(approver, _)| approver)
            .collect())
    }

    /// Accepts a human's signed yes.
    ///
    /// # Errors
    /// [`HoldError`] when the hold does not wait, the approval does not fit it or its signer may not approve.
    pub fn approve(&self, approval: Approval, now: Timestamp) -> Result<Hold, HoldError> {
        let (mut hold, version) = self.waiting(&approval.statement.hold, now)?;
        let id = hold.id.clone();
        if approval.statement.rehearsal.is_some() {
            let kept = self.rehearsal(&id)?;
            let kept = kept.and_then(|kept| kept.state.rehearsal().map(|seen| seen.digest()));
            if kept != approval.statement.rehearsal {
                return Err(HoldError::OtherRehearsal(id));
            }
        }
        let key = self.approver_key(&approval.statement.approver)?;
        approval
            .verify(&hold.action, hold.evidence.digest(), &key, now)
            .map_err(|source| HoldError::Approval { id, source })?;
        let by = Principal::human(approval.statement.approver.clone());
        let entry = Draft::new("hold.approved", by, now)
            .action(hold.action.id.clone())
            .with("hold", hold.id.to_string())
            .with("expires", approval.statement.expires.to_string())
            .with("signature", approval.signature.clone());
        let entry = match approval.statement.rehearsal {
            None => entry,
            Some(rehearsal) => entry.with("rehearsal", rehearsal.to_string()),
        };
        self.ledger.append(entry).map_err(HoldError::Ledger)?;
        hold.state = HoldState::Approved { approval };
        self.records
            .replace(hold.id.as_str(), version, &hold)
            .map_err(HoldError::Record)?;
        Ok(hold)
    }

    /// Accepts a human's no.
    ///
    /// # Errors
    /// [`HoldError`] when the hold does not wait.
    pub fn deny(&self, id: &HoldId, by: Principal, now: Timestamp) -> Result<Hold, HoldError> {
        let (mut hold, version) = self.waiting(id, now)?;
        let entry = Draft::new("hold.denied", by.clone(), now)
            .action(hold.action.id.clone())
            .with("hold", hold.id.to_string());
        self.ledger.append(entry).map_err(HoldError::Ledger)?;
        hold.state = HoldState::Denied { by, at: now };
        self.records
            .replace(hold.id.as_str(), version, &hold)
            .map_err(HoldError::Record)?;
        Ok(hold)
    }

    /// Returns how the rehearsal of a hold stands, if one was asked for.
    ///
    /// # Errors
    /// [`HoldError::Record`].
    pub fn rehearsal(&self, id: &HoldId) -> Result<Option<KeptRehearsal>, HoldError> {
        let found = self.records.find::<KeptRehearsal>(id.as_str());
        Ok(found.map_err(HoldError::Record)?.map(|(kept, _)| kept))
    }

    /// Tells whether a human approved this action under its lease, with evidence that still stands:
    /// what was measured when it was held, or in the rehearsal that the human looked at.
    ///
    /// # Errors
    /// [`HoldError::Record`].
    pub fn approved(
        &self,
        action: &Action,
        measured: &Evidence,
        tolerance: Tolerance,
        now: Timestamp,
    ) -> Result<Approved, HoldError> {
        let mut found = Approved::Not;
        for hold in self.list()? {
            let same = hold.action.digest == action.digest && hold.action.lease == action.lease;
            if same && hold.word(now) == "approved" {
                let moved = self.moved(&hold, measured, tolerance)?;
                if moved.is_empty() {
                    return Ok(Approved::Exactly(Box::new(hold)));
                }
                let hold = hold.id;
                found = Approved::OtherEvidence { hold, moved };
            }
        }
        Ok(found)
    }

    /// Returns how production has moved since a hold was approved; nothing when the approval stands.
    fn moved(
        &self,
        hold: &Hold,
        measured: &Evidence,
        tolerance: Tolerance,
    ) -> Result<Vec<String>, HoldError> {
        if hold.evidence.digest() == measured.digest() {
            return Ok(Vec::new());
        }
        let moved = hold.evidence.lapses(measured, tolerance);
        let HoldState::Approved { approval } = &hold.state else {
            return Ok(moved);
        };
        let Some(looked_at) = approval.statement.rehearsal else {
            return Ok(moved);
        };
        let kept = self.rehearsal(&hold.id)?;
        let rehearsal = kept.as_ref().and_then(|kept| kept.state.rehearsal());
        let Some(rehearsal) = rehearsal.filter(|one| one.digest() == looked_at) else {
            return Ok(moved);
        };
        let rehearsed = hold.evidence.with_rows(&rehearsal.row_facts());
        match rehearsed.lapses(measured, tolerance).is_empty() {
            true => Ok(Vec::new()),
            false => Ok(moved),
        }
    }

    /// Uses an approval up, durably, before the action goes ahead. Of two who try, one succeeds.
    ///
    /// # Errors
    /// [`HoldError`] when it lapsed, does not fit `evidence`, or somebody else has used it.
    pub fn spend(
        &self,
        id: &HoldId,
        action: &Action,
        evidence: Digest,
        now: Timestamp,
    ) -> Result<holdfast_core::VerifiedApproval, HoldError> {
        let (mut hold, version) = self.read(id)?;
        let HoldState::Approved { approval } = hold.state.clone() else {
            return Err(HoldError::Decided {
                id: id.clone(),
                state: hold.word(now),
            });
        };
        let key = self.approver_key(&approval.statement.approver)?;
        let verified = approval
            .verify(action, evidence, &key, now)
            .map_err(|source| HoldError::Approval {
                id: id.clone(),
                source,
            })?;
        hold.state = HoldState::Spent { approval, at: now };
        self.records
            .replace(id.as_str(), version, &hold)
            .map_err(HoldError::Record)?;
        Ok(verified)
    }

    fn approver_key(&self, name: &str) -> Result<VerifyingKey, HoldError> {
        let unknown = || HoldError::UnknownApprover(name.to_owned());
        let found = self
            .records
            .find::<Approver>(name)
            .map_err(HoldError::Record)?;
        found
            .and_then(|(approver, _)| approver.verifying_key())
            .ok_or_else(unknown)
    }

    fn read(&self, id: &HoldId) -> Result<(Hold, Version), HoldError> {
        let found = self
            .records
            .find::<Hold>(id.as_str())
            .map_err(HoldError::Record)?;
        found.ok_or_else(|| HoldError::Unknown(id.clone()))
    }

    fn waiting(&self, id: &HoldId, now: Timestamp) -> Result<(Hold, Version), HoldError> {
        let (hold, version) = self.read(id)?;
        match hold.word(now) {
            "waiting" => Ok((hold, version)),
            state => Err(HoldError::Decided {
                id: id.clone(),
                state,
            }),
        }
    }
}
