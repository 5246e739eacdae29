//! The one path from an action to a permit.
//!
//! A door brings what was asked, what it would do and what was measured; it gets a permit or a
//! refusal. The freeze, the policy, the way back, approvals, holds and the ledger meet here and
//! nowhere else.

mod freeze;
mod refusal;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_core::ledger::Draft;
use holdfast_core::{
    Action, Covering, Effect, Effects, Evidence, HoldId, Judged, Leave, NoWayBack, Permit,
    Principal, Proof, Reason, SourceName, Timestamp, Tolerance, Untrusted, Verdict, WayBack,
};
use holdfast_judge::policy::{Facts, Policy};
use holdfast_store::ledger::{Ledger, LedgerError, Ticket};
use holdfast_store::record::{RecordError, Records};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::hold::{Approved, Hold, HoldRequest, Holds};

pub use freeze::{Freeze, FreezeError};
pub use refusal::Refusal;

/// What a door brings.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What was asked, by whom.
    pub action: Action,
    /// What it would do; resources carry their source where it is known.
    pub effects: Effects,
    /// What was measured.
    pub evidence: Evidence,
    /// What the policy may look at. `way_back_proven` is filled in here.
    pub facts: Facts,
}

/// What a door gets.
#[derive(Debug)]
pub enum Decision {
    /// The action may be performed once. The ledger has it already.
    Forward(Box<Permit>),
    /// The action must not be performed. The ledger has that, unless the ledger is what failed.
    Refused(Refusal),
}

/// How a permitted action ended, as far as the door can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The target said that it is done.
    Done,
    /// The target said that nothing was done.
    NotDone,
    /// Nobody knows; it counts as done.
    Unknown,
}

/// What a gatekeeper is made of.
pub struct Parts {
    /// Where everything is recorded.
    pub ledger: Ledger,
    /// Where holds and the freeze are kept.
    pub records: Records,
    /// What decides.
    pub policy: Policy,
    /// Who knows whether a source can be brought back.
    pub way_back: Arc<dyn WayBack>,
    /// The oldest proof that still counts.
    pub proof_age_max: Duration,
}

/// The one who gives permits. Clones share one state.
#[derive(Clone)]
pub struct Gatekeeper {
    shared: Arc<Shared>,
}

struct Shared {
    parts: Parts,
    holds: Holds,
    frozen: AtomicBool,
    /// By how many per cent production may have moved since an approval.
    tolerance: AtomicU8,
    /// Held while a freeze or thaw is recorded, so that of two the later one stands.
    freezing: Mutex<()>,
}

/// What was asked, what was answered and what could bring it back.
struct Case {
    asked: Asked,
    verdict: Verdict,
    way_back: Result<Option<Covering>, Missing>,
    now: Timestamp,
}

/// A permit, with its entry in the ledger, which has yet to become durable.
type Written = (Permit, Option<Ticket>);

/// Why nothing can bring it back, and what a person does next.
#[derive(Debug)]
struct Missing {
    why: String,
    hint: String,
}

impl Missing {
    fn new(why: impl ToString, hint: impl Into<String>) -> Self {
        Self {
            why: why.to_string(),
            hint: hint.into(),
        }
    }
}

/// A source without a vault: nothing is proven.
#[derive(Debug, Clone, Copy)]
pub struct NoVault;

impl WayBack for NoVault {
    fn way_back(
        &self,
        _source: &SourceName,
        _now: Timestamp,
    ) -> Result<holdfast_core::WayBackAnswer, NoWayBack> {
        Err(NoWayBack::Unreachable)
    }
}

impl Gatekeeper {
    /// Makes a gatekeeper, reading whether agents are frozen.
    ///
    /// # Errors
    /// [`RecordError`] when the state file cannot be read.
    pub fn new(parts: Parts) -> Result<Self, RecordError> {
        let frozen = Freeze::find(&parts.records)?.is_some_and(|freeze| freeze.frozen);
        let holds = Holds::new(parts.records.clone(), parts.ledger.clone());
        let shared = Shared {
            parts,
            holds,
            frozen: AtomicBool::new(frozen),
            tolerance: AtomicU8::new(Tolerance::default().0),
            freezing: Mutex::new(()),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Returns the holds.
    pub fn holds(&self) -> &Holds {
        &self.shared.holds
    }

    /// Sets by how much production may have moved since an approval; exact unless it is set.
    pub fn tolerate(&self, tolerance: Tolerance) {
        self.shared.tolerance.store(tolerance.0, Ordering::SeqCst);
    }

    /// Returns the ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.shared.parts.ledger
    }

    /// Returns where holds and the freeze are kept.
    pub(crate) fn records(&self) -> &Records {
        &self.shared.parts.records
    }

    /// Tells whether agents are frozen.
    pub fn is_frozen(&self) -> bool {
        self.shared.frozen.load(Ordering::SeqCst)
    }

    /// Denies everything to agents, or ends that.
    ///
    /// # Errors
    /// [`FreezeError`]; a freeze that cannot be recorded is still in force in this process.
    pub fn set_frozen(&self, frozen: bool, by: Principal) -> Result<(), FreezeError> {
        let freeze = Freeze {
            frozen,
            by,
            at: clock::now(),
        };
        if frozen {
            self.shared.frozen.store(true, Ordering::SeqCst);
        }
        let _one_at_a_time = self.shared.freezing.lock();
        if frozen {
            self.shared.frozen.store(true, Ordering::SeqCst);
            // What protects is kept even when it cannot be recorded; what ends protection is not.
            let kept = freeze.keep(&self.shared.parts.records);
            freeze.record(self.ledger())?;
            kept.map_err(FreezeError::Record)
        } else {
            freeze.record(self.ledger())?;
            freeze
                .keep(&self.shared.parts.records)
                .map_err(FreezeError::Record)?;
            self.shared.frozen.store(false, Ordering::SeqCst);
            Ok(())
        }
    }

    /// Decides about one action. When this returns [`Decision::Forward`], the ledger entry is durable.
    pub fn decide(&self, asked: Asked) -> Decision {
        self.decide_counting(asked, |_| {})
    }

    /// Decides as [`Gatekeeper::decide`], and says whether it is permitted before the ledger entry is
    /// durable: what one action uses up counts for the next, which need not wait for the disk.
    pub fn decide_counting(&self, asked: Asked, count: impl FnOnce(bool)) -> Decision {
        let judged = self.judge(asked, clock::now());
        count(judged.is_ok());
        let settled = judged.and_then(|(permit, written)| {
            let settled = written.map_or(Ok(()), |ticket| self.ledger().settle(ticket));
            settled.map_err(|error| refusal::fault(&error))?;
            Ok(permit)
        });
        match settled {
            Ok(permit) => Decision::Forward(Box::new(permit)),
            Err(refusal) => Decision::Refused(refusal),
        }
    }

    /// Records how a permitted action ended; that is durable with the next entry, or soon.
    ///
    /// # Errors
    /// [`LedgerError`]; the action was performed all the same, and its first entry stands.
    pub fn outcome(
        &self,
        permit: Permit,
        outcome: Outcome,
        detail: &str,
    ) -> Result<(), LedgerError> {
        let kind = match outcome {
            Outcome::Done => "action.done",
            Outcome::NotDone => "action.not_done",
            Outcome::Unknown => "action.unknown",
        };
        let entry = Draft::new(kind, permit.action().principal.clone(), clock::now())
            .action(permit.action().id.clone())
            .with("detail", Untrusted(detail).to_string());
        self.shared.parts.ledger.append_soon(entry)
    }

    fn judge(&self, mut asked: Asked, now: Timestamp) -> Result<Written, Refusal> {
        if self.is_frozen() {
            self.record_refusal("action.frozen", &asked, &[], now)?;
            return Err(refusal::frozen());
        }
        let way_back = self.way_back(&asked.effects, now);
        asked.facts.way_back_proven = way_back.is_ok();
        let verdict = self
            .shared
            .parts
            .policy
            .verdict(&asked.action, &asked.effects, &asked.facts);
        let case = Case {
            asked,
            verdict,
            way_back,
            now,
        };
        match &case.verdict {
            Verdict::Deny(reasons) => {
                self.record_refusal("action.denied", &case.asked, reasons, now)?;
                Err(refusal::denied(&case.asked.action, reasons))
            }
            Verdict::Allow(_) => self.permit(case, Leave::Policy),
            Verdict::Hold(_) => self.ask(case),
        }
    }

    /// Spends the approval that a human gave for exactly this, or holds it for one.
    fn ask(&self, case: Case) -> Result<Written, Refusal> {
        let tolerance = Tolerance(self.shared.tolerance.load(Ordering::SeqCst));
        let asked = &case.asked;
        let holds = &self.shared.holds;
        let approved = holds.approved(&asked.action, &asked.evidence, tolerance, case.now);
        match approved.map_err(|error| refusal::fault(&error))? {
            Approved::Exactly(hold) => self.spend(case, &hold),
            Approved::OtherEvidence { hold, moved } => Err(self.hold(case, Some((hold, moved)))),
            Approved::Not => Err(self.hold(case, None)),
        }
    }

    /// Finds the proof that covers everything irreversible; nothing irreversible needs none.
    fn way_back(&self, effects: &Effects, now: Timestamp) -> Result<Option<Covering>, Missing> {
        if !effects.is_irreversible() {
            return Ok(None);
        }
        let irreversible = effects
            .impacts()
            .iter()
            .filter(|i| i.effect.is_irreversible());
        let sources: BTreeSet<&SourceName> = irreversible
            .flat_map(|i| &i.resources)
            .filter_map(|r| r.source.as_ref())
            .collect();
        let mut sources = sources.into_iter();
        let (Some(source), None) = (sources.next(), sources.next()) else {
            let why = "it cannot be told which one source would have to come back";
            return Err(Missing::new(
                why,
                "ask for one source at a time, and name exactly what is to be removed",
            ));
        };
        let answer = self.shared.parts.way_back.way_back(source, now);
        let proof: Proof = answer
            .map_err(|error| Missing::new(&error, error.hint()))?
            .proof;
        proof
            .covering(effects, self.shared.parts.proof_age_max, now)
            .map(Some)
            .map_err(|error| Missing::new(&error, error.hint()))
    }

    /// Uses an approval up; one that would not be used for want of a way back stays as it is.
    fn spend(&self, case: Case, hold: &Hold) -> Result<Written, Refusal> {
        if let Err(missing) = &case.way_back {
            self.record_refusal("action.no_way_back", &case.asked, &[], case.now)?;
            return Err(refusal::no_way_back(
                &case.asked.action,
                (&missing.why, &missing.hint),
                Some(hold.id.clone()),
            ));
        }
        // What was measured now was found to stand for what the human saw.
        let evidence = hold.evidence.digest();
        let spent = self
            .shared
            .holds
            .spend(&hold.id, &case.asked.action, evidence, case.now);
        match spent {
            Ok(approval) => self.permit(case, Leave::Approval(approval)),
            Err(error) => {
                self.record_refusal("action.approval_refused", &case.asked, &[], case.now)?;
                Err(refusal::fault(&error))
            }
        }
    }

    fn permit(&self, case: Case, leave: Leave) -> Result<Written, Refusal> {
        let Case {
            asked,
            verdict,
            way_back,
            now,
        } = case;
        let action = asked.action.clone();
        let covering = match way_back {
            Ok(covering) => covering,
            Err(missing) => {
                self.record_refusal("action.no_way_back", &asked, &[], now)?;
                return Err(refusal::no_way_back(
                    &action,
                    (&missing.why, &missing.hint),
                    None,
                ));
            }
        };
        let mut entry = self.entry("action.permitted", &asked, verdict.reasons(), now);
        if let Leave::Approval(approval) = &leave {
            entry = entry
                .with("hold", approval.hold().to_string())
                .with("approver", approval.approver());
        }
        let worst = asked.effects.worst();
        let permit = match (Judged::new(asked.action, asked.effects, verdict), covering) {
            (Judged::Reversible(judged), _) => Permit::new(judged, leave, ()),
            (Judged::Irreversible(judged), Some(covering)) => Permit::new(judged, leave, covering),
            (Judged::Irreversible(_), None) => {
                return Err(refusal::no_way_back(
                    &action,
                    ("nothing covers it", "tell the makers of holdfast"),
                    None,
                ));
            }
        };
        let permit = permit.map_err(|error| refusal::permit_refused(&action, error))?;
        // Reads are recorded only while the ledger fails: they pass when that works again.
        if worst > Some(Effect::Read) || self.ledger().is_failing() {
            let written = self.ledger().write(entry);
            let (_, ticket) = written.map_err(|error| refusal::fault(&error))?;
            return Ok((permit, Some(ticket)));
        }
        Ok((permit, None))
    }

    fn hold(&self, case: Case, approved_before: Option<(HoldId, Vec<String>)>) -> Refusal {
        let missing = case.way_back.err().map(|missing| missing.why);
        let reasons = case.verdict.reasons().to_vec();
        let request = HoldRequest {
            action: case.asked.action.clone(),
            effects: case.asked.effects.clone(),
            evidence: case.asked.evidence.clone(),
            reasons: reasons.clone(),
        };
        let hold = match self.shared.holds.hold(request, case.now) {
            Ok(hold) => hold,
            Err(error) => return refusal::fault(&error),
        };
        let way_back = missing.clone().unwrap_or_else(|| "proven".to_owned());
        let mut entry = self
            .entry("action.held", &case.asked, &reasons, case.now)
            .with("hold", hold.id.to_string())
            .with("way_back", way_back);
        if let Some((before, moved)) = &approved_before {
            entry = entry
                .with("approved_with_other_evidence", before.to_string())
                .with("moved", serde_json::json!(moved));
        }
        if let Err(error) = self.shared.parts.ledger.append(entry) {
            return refusal::fault(&error);
        }
        refusal::held(&hold, missing.as_deref(), approved_before.as_ref())
    }

    fn record_refusal(
        &self,
        kind: &str,
        asked: &Asked,
        reasons: &[Reason],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let entry = self.entry(kind, asked, reasons, now);
        self.shared
            .parts
            .ledger
            .append(entry)
            .map(|_| ())
            .map_err(|error| refusal::fault(&error))
    }

    fn entry(&self, kind: &str, asked: &Asked, reasons: &[Reason], now: Timestamp) -> Draft {
        let action = &asked.action;
        let mut entry = Draft::new(kind, action.principal.clone(), now)
            .action(action.id.clone())
            .with("door", action.door.word())
            .with("summary", action.summary.clone())
            .with("digest", action.digest.to_string())
            .with("effects", serde_json::json!(asked.effects))
            .with("because", serde_json::json!(reasons));
        if !asked.evidence.items.is_empty() {
            entry = entry.with("evidence", serde_json::json!(asked.evidence));
        }
        entry.lease = action.lease.clone();
        entry.source = action.source.clone();
        entry
    }
}

/// What an hour's rows of a lease were, told by the ledger after a restart.
pub fn rows_of_entry(
    entry: &holdfast_core::ledger::Entry,
) -> Option<(holdfast_core::LeaseId, holdfast_core::RowCount, Timestamp)> {
    if entry.draft.kind != "action.permitted" {
        return None;
    }
    let effects: Effects = serde_json::from_value(entry.draft.body.get("effects")?.clone()).ok()?;
    let rows = effects.rows();
    let lease = entry.draft.lease.clone()?;
    (rows.0 > 0).then_some((lease, rows, entry.draft.at))
}
