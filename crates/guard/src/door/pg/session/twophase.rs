//! Two-phase commit: measured where it is prepared, and ended only by the lease that prepared it.

use bytes::BytesMut;
use holdfast_core::ledger::Draft;
use holdfast_core::{Code, Digest, Effects, Evidence, Permit, Untrusted};
use holdfast_judge::sql::Control;

use super::super::evidence::Said;
use super::super::prepared::{Kept, Prepared};
use super::Session;
use super::gate::{Decided, Question, Then};
use super::replies::{Expected, What};
use super::steps::Phase;
use crate::clock;
use crate::decide::{Decision, Outcome, Refusal};

/// What is on its way about a prepared transaction.
pub(super) struct TwoPhase {
    kept: Box<Kept>,
    /// It is being ended, and not made.
    ends: bool,
}

/// What the gate needs to make or to end one.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub control: Control,
    pub gid: String,
}

impl Session {
    /// Makes or ends a prepared transaction.
    pub(super) fn two_phase(&mut self, wanted: Wanted, bytes: BytesMut, expected: Vec<Expected>) {
        let is_doomed = self.transaction.as_ref().is_some_and(|open| open.is_doomed);
        match wanted.control {
            Control::PrepareTransaction if self.may_commit() && !is_doomed => {
                self.prepare_transaction(wanted, &bytes, expected);
            }
            // There is nothing to prepare, and the server says so.
            Control::PrepareTransaction => self.control(wanted.control, &bytes, expected),
            _ => self.end_prepared(wanted, bytes, expected),
        }
    }

    /// `PREPARE TRANSACTION`: asked, judged and recorded as a `COMMIT` is.
    fn prepare_transaction(&mut self, wanted: Wanted, bytes: &BytesMut, expected: Vec<Expected>) {
        if self.transaction.as_ref().is_some_and(|open| open.is_ours) {
            return self.refuse_step(alone("PREPARE TRANSACTION ends what BEGIN began"));
        }
        let is_simple = is_simple(&expected);
        let bytes = bytes.clone();
        self.gate(Then::Prepare {
            bytes,
            expected,
            is_simple,
            gid: wanted.gid,
        });
    }

    /// What is recorded before the source prepares it.
    pub(super) fn to_keep(&self, then: &Then, said: &Said) -> Option<(Prepared, Kept)> {
        let Then::Prepare { gid, .. } = then else {
            return None;
        };
        let kept = Kept {
            source: self.source.name.clone(),
            database: self.database.clone(),
            gid: gid.clone(),
            lease: self.lease.id.clone(),
            xid: said.transaction?,
            digest: self.transaction.as_ref()?.digest,
            at: clock::now(),
            ended: false,
        };
        Some((self.door.prepared.clone(), kept))
    }

    /// It was let through and recorded: the source may prepare it.
    pub(super) fn let_prepare(&mut self, permit: Option<Box<Permit>>, kept: Box<Kept>, then: Then) {
        self.two_phase = Some(TwoPhase { kept, ends: false });
        self.commit(permit, then);
    }

    /// `COMMIT PREPARED` or `ROLLBACK PREPARED`.
    fn end_prepared(&mut self, wanted: Wanted, bytes: BytesMut, expected: Vec<Expected>) {
        if !self.is_free() {
            let why = "a prepared transaction is ended by itself, outside of transactions";
            return self.refuse_step(alone(why));
        }
        let word = match wanted.control {
            Control::CommitPrepared => "COMMIT PREPARED",
            _ => "ROLLBACK PREPARED",
        };
        let summary = format!("{word} {}", Untrusted(&wanted.gid));
        let question = self.question(Digest::of(summary.as_bytes()), summary);
        let prepared = self.door.prepared.clone();
        let deciding = async move { question.end_prepared(&prepared, &wanted).await };
        self.deciding = Some(tokio::spawn(deciding));
        self.phase = Phase::Deciding(Then::End { bytes, expected });
    }

    /// The lease may end it.
    pub(super) fn ends(&mut self, kept: Box<Kept>, bytes: &[u8], expected: Vec<Expected>) {
        let is_simple = is_simple(&expected);
        self.prepare();
        self.two_phase = Some(TwoPhase { kept, ends: true });
        self.send(bytes, expected);
        if !is_simple {
            self.own_sync();
        }
        self.phase = Phase::Committing { permit: None };
    }

    /// The source has answered.
    pub(super) fn two_phase_done(&mut self, has_failed: bool) {
        let Some(TwoPhase { kept, ends }) = self.two_phase.take() else {
            return;
        };
        // The source counts the rows of what was prepared again in the session that commits it.
        self.flush_due = true;
        if has_failed == ends {
            return;
        }
        let prepared = self.door.prepared.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = prepared.end(&kept) {
                tracing::warn!(%error, "the end of a prepared transaction cannot be recorded");
            }
        });
    }
}

impl Question {
    /// Records what was let through, before it is prepared.
    pub(super) async fn keep(self, decided: Decided, to_keep: Option<(Prepared, Kept)>) -> Decided {
        let permit = match (decided, &to_keep) {
            (Decided::Permitted(permit), Some(_)) => Some(permit),
            (Decided::Free, Some(_)) => None,
            (decided, _) => return decided,
        };
        let Some((prepared, kept)) = to_keep else {
            return Decided::Free;
        };
        let keeping = kept.clone();
        let keeping = tokio::task::spawn_blocking(move || prepared.keep(&keeping));
        if let Ok(Ok(())) = keeping.await {
            return Decided::Prepared(permit, Box::new(kept));
        }
        if let Some(permit) = permit {
            let outcome = self
                .gatekeeper
                .outcome(*permit, Outcome::NotDone, "not recorded");
            drop(outcome);
        }
        Decided::Refused(Refusal {
            code: Code::ZS510,
            message: "the prepared transaction cannot be recorded; it was rolled back".to_owned(),
            hint: "tell the operator of holdfast".to_owned(),
            hold: None,
        })
    }

    /// Finds what is to be ended, and writes down that it will be.
    async fn end_prepared(self, prepared: &Prepared, wanted: &Wanted) -> Decided {
        let asked = self.asked(Effects::none(), Evidence::default(), 0, false);
        let asked = match asked {
            Ok(asked) => asked,
            Err(refusal) => return Decided::Refused(refusal),
        };
        // Without effects only a freeze refuses it; what it does was judged when it was prepared.
        if let Decision::Refused(refusal) = self.gatekeeper.decide(asked) {
            return Decided::Refused(refusal);
        }
        let place = (self.database.as_str(), wanted.gid.as_str());
        let control = &self.source.control;
        let kept = match prepared.find(control, &self.lease.id, place).await {
            Ok(Some(kept)) => kept,
            Ok(None) => return Decided::Refused(unknown(&wanted.gid)),
            Err(why) => return Decided::Refused(unasked(&why)),
        };
        let kind = match wanted.control {
            Control::CommitPrepared => "prepared.committing",
            _ => "prepared.rolling_back",
        };
        let entry = Draft::new(kind, self.lease.principal(), clock::now())
            .source(self.source.name.clone())
            .lease(self.lease.id.clone())
            .with("gid", Untrusted(&kept.gid).to_string())
            .with("digest", kept.digest.to_string());
        let ledger = self.gatekeeper.ledger().clone();
        match tokio::task::spawn_blocking(move || ledger.append(entry)).await {
            Ok(Ok(_)) => Decided::Ends(Box::new(kept)),
            _ => Decided::Refused(unasked("the ledger cannot be written")),
        }
    }
}

fn is_simple(expected: &[Expected]) -> bool {
    let first = expected.first().map(|one| &one.what);
    matches!(first, Some(What::Query { .. }))
}

fn alone(why: &str) -> Refusal {
    Refusal {
        code: Code::ZU510,
        message: format!("{why}; nothing of this was executed"),
        hint: "docs/pg-door.md says how two-phase commit passes".to_owned(),
        hold: None,
    }
}

fn unknown(gid: &str) -> Refusal {
    Refusal {
        code: Code::ZU511,
        message: format!(
            "no transaction {} is prepared that this lease had prepared through the door; nothing was executed",
            Untrusted(gid)
        ),
        hint:
            "a lease ends only what it had prepared itself; `pg_prepared_xacts` lists what there is"
                .to_owned(),
        hold: None,
    }
}

fn unasked(why: &str) -> Refusal {
    Refusal {
        code: Code::ZS510,
        message: format!(
            "whose prepared transaction it is cannot be told: {why}; nothing was executed"
        ),
        hint: "try again; if it stays, tell the operator of holdfast".to_owned(),
        hold: None,
    }
}
