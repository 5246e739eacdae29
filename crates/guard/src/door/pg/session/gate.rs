//! The gate before a `COMMIT`: what was done is asked, judged and only then let through.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::BytesMut;
use holdfast_core::{
    Action, ActionId, Code, Digest, DigestBuilder, DoorKind, Effect, Effects, Evidence, HoldId,
    Permit, RowCount,
};
use holdfast_judge::policy::Facts;
use holdfast_judge::sql::{Statement, StatementKind};

use super::super::changes::{self, Entry, Sight};
use super::super::evidence::{self, Said};
use super::super::measured::{self, Measured, sourced};
use super::super::outside::{Function, Outside, Sample};
use super::super::own;
use super::super::prepared::Kept;
use super::Session;
use super::plan::{Item, Ran};
use super::replies::{Expected, What};
use super::script::Rehearsing;
use super::steps::Phase;
use crate::clock;
use crate::decide::{Asked, Decision, Gatekeeper, Outcome, Refusal};
use crate::lease::{Lease, Leases};
use crate::limits::PG_EVIDENCE_WAITS_MAX;
use crate::rehearsal::Rehearsals;

/// What follows a permit.
pub(super) enum Then {
    /// The function that the message calls by its number is known.
    Call(BytesMut),
    /// The client's own `COMMIT` is sent.
    Client {
        bytes: BytesMut,
        expected: Vec<Expected>,
        is_simple: bool,
        /// It begins the next transaction, with the properties that this one had.
        is_chain: bool,
    },
    /// A prepared transaction is ended.
    End {
        bytes: BytesMut,
        expected: Vec<Expected>,
    },
    /// A `COMMIT` of ours is sent.
    Own { is_simple: bool },
    /// The client's own `PREPARE TRANSACTION` is sent.
    Prepare {
        bytes: BytesMut,
        expected: Vec<Expected>,
        is_simple: bool,
        gid: String,
    },
    /// What comes next may run.
    Sample,
    /// The statement that had to be decided may run.
    Statement { effects: Effects },
}

/// What came out.
pub(super) enum Decided {
    /// The prepared transaction may be ended.
    Ends(Box<Kept>),
    /// Where sequences stood.
    Sampled(Sample),
    /// Nothing that needs a permit.
    Free,
    /// Which function has a number, if others see one.
    Named(Option<Function>),
    Permitted(Box<Permit>),
    /// It may be prepared, and that is recorded.
    Prepared(Option<Box<Permit>>, Box<Kept>),
    Refused(Refusal),
}

impl Decided {
    /// What a decision that could not be made comes to.
    pub(super) fn or_none(made: Result<Self, tokio::task::JoinError>) -> Self {
        made.unwrap_or_else(|_| Self::Refused(no_decision()))
    }
}

/// Everything that a decision needs, apart from the session.
pub(super) struct Question {
    pub gatekeeper: Gatekeeper,
    leases: Leases,
    pub lease: Lease,
    pub source: Arc<super::super::source::Source>,
    pub database: String,
    digest: Digest,
    summary: String,
    rehearsing: Option<(Rehearsals, Rehearsing)>,
}

impl Session {
    /// Asks the transaction what it did.
    pub(super) fn gate(&mut self, then: Then) {
        if let Then::Own { is_simple } = &then {
            // Whatever comes of it, the client's request ends with one `ReadyForQuery`.
            self.todo.push_front(Item::End {
                is_simple: *is_simple,
            });
        }
        self.ask(then);
    }

    /// Asks the transaction right behind its only statements, in one go with them: it is answered as if
    /// it had been asked later, or not at all when they fail.
    pub(super) fn gate_behind(&mut self, ran: &[Ran]) -> bool {
        let Some(Item::End { is_simple }) = self.todo.front() else {
            return false;
        };
        let is_simple = *is_simple;
        let is_ours = self.transaction.as_ref();
        let is_ours = is_ours.is_some_and(|open| open.is_ours && !open.is_doomed);
        // While rows are copied in, the server takes nothing else.
        let takes_rows =
            |one: &Statement| matches!(one.kind, StatementKind::Copy | StatementKind::Unparsed);
        let is_plain = |ran: &Ran| ran.known.is_some() && !ran.statements().iter().any(takes_rows);
        let may_ask = is_ours && !ran.is_empty() && ran.iter().all(is_plain);
        if may_ask {
            self.ask(Then::Own { is_simple });
        }
        may_ask
    }

    fn ask(&mut self, then: Then) {
        self.captured.clear();
        if let Then::Prepare { .. } = then {
            // It gets its number now, by which it is known later. No row is answered.
            self.own("SELECT FROM pg_catalog.pg_current_xact_id() OFFSET 1");
        }
        let door = Arc::clone(&self.door);
        let is_behind = |one: &Expected| !one.is_own && !matches!(one.what, What::Query { .. });
        let is_behind = self.expected.iter().any(is_behind);
        let is_query = self.may_query(&then);
        if is_query {
            // As one simple query it takes the server a third less.
            self.own_query(&door.questions.joined);
        } else {
            for question in &door.questions.each {
                self.own(question);
            }
        }
        if is_behind || !is_query {
            // A server that skips what comes behind an error goes on from here.
            self.own_sync();
        }
        self.phase = Phase::Gate(then);
    }

    fn own_query(&mut self, text: &str) {
        own::write_query(text.as_bytes(), &mut self.to_server);
        let query = What::Query { ready: false };
        self.expected.push_back(Expected::own(query));
    }

    /// A simple query ends the unnamed statement and the unnamed portal: the client must have none that
    /// it may still use.
    fn may_query(&self, then: &Then) -> bool {
        let is_bound = match then {
            Then::Client { is_simple, .. } => !is_simple,
            Then::Prepare { .. } => true,
            Then::Call(_)
            | Then::End { .. }
            | Then::Own { .. }
            | Then::Sample
            | Then::Statement { .. } => false,
        };
        let makes = |one: &Expected| {
            !one.is_own && matches!(&one.what, What::Parse { name, .. } if name.is_empty())
        };
        !is_bound && !self.statements.contains_key(&b""[..]) && !self.expected.iter().any(makes)
    }

    /// The transaction has answered.
    pub(super) fn measured(&mut self, then: Then) {
        if self.has_failed && self.status == b'E' {
            // The statement before the question: the client was told, and nothing was measured.
            self.own_error = None;
            return;
        }
        if let Some(error) = self.own_error.take() {
            // A deferred constraint, or a timeout of the client's: nothing is committed.
            self.held.clear();
            self.relay(&error);
            self.has_failed = true;
            self.skip_client();
            self.roll_back();
            self.phase = Phase::Rolling;
            return;
        }
        let rows = std::mem::take(&mut self.captured);
        match evidence::read(&rows) {
            None => self.unmeasurable("the server's answer is not understood"),
            // On such a server READ ONLY does not keep what runs inside the COMMIT from acting.
            Some(said) if said.holds_cursors && !self.reads_pass => {
                self.unmeasurable("a cursor WITH HOLD would run inside the COMMIT");
            }
            Some(said) => match changes::question(&said) {
                Some(question) => {
                    // Compiling so long a question takes longer than answering it.
                    self.own("SET LOCAL jit TO off");
                    self.own(&question);
                    self.own_sync();
                    self.phase = Phase::Changes(then, said);
                }
                None => self.judge(then, said, None),
            },
        }
    }

    /// The transaction has said which rows of the catalogs it wrote.
    pub(super) fn changes(&mut self, then: Then, said: Said) {
        let rows = std::mem::take(&mut self.captured);
        match changes::read(&rows) {
            _ if self.own_error.is_some() => {
                self.own_error = None;
                self.unmeasurable("it does not say which structure it changed");
            }
            None => self.unmeasurable("more structure changes at once than is looked at"),
            Some(entries) => self.judge(then, said, Some(entries)),
        }
    }

    fn unmeasurable(&mut self, why: &str) {
        self.roll_back();
        self.phase = Phase::Refusing(unmeasured(why));
    }

    fn judge(&mut self, then: Then, said: Said, entries: Option<Vec<Entry>>) {
        let Some(open) = self.transaction.as_ref() else {
            self.phase = Phase::Refusing(no_decision());
            return;
        };
        let question = self.question(open.digest, open.summary.clone().unwrap_or_default());
        let question = question.rehearsed(&self.door.rehearsals, || self.rehearse_open());
        let (statements, approved) = (open.open.clone(), open.approved.clone());
        let sample = self.sample.take();
        let to_keep = self.to_keep(&then, &said);
        let keeper = to_keep
            .as_ref()
            .map(|_| self.question(question.digest, String::new()));
        self.deciding = Some(tokio::spawn(async move {
            let asking = question.measure((said, entries, sample), statements, approved);
            let decided = match tokio::time::timeout(PG_EVIDENCE_WAITS_MAX, asking).await {
                Ok(decided) => decided,
                Err(_) => Decided::Refused(unmeasured("the question took too long")),
            };
            match keeper {
                Some(keeper) => keeper.keep(decided, to_keep).await,
                None => decided,
            }
        }));
        self.phase = Phase::Deciding(then);
    }

    /// Asks whether a statement may start.
    pub(super) fn decide_before(&mut self, ran: &Ran) {
        let open = self.transaction.as_ref().map(|open| open.digest);
        let digest = DigestBuilder::new("holdfast pg statement before it starts 1")
            .field(self.source.name.as_str().as_bytes())
            .field(self.database.as_bytes())
            .field(&open.unwrap_or(Digest([0; 32])).0)
            .field(&ran.digest.0)
            .finish();
        let question = self.question(digest, ran.summary());
        let question = question.rehearsed(&self.door.rehearsals, || self.rehearse_before(ran));
        let mut effects = Effects::none();
        for statement in ran.statements() {
            for impact in statement.effects.impacts() {
                effects.push(sourced(impact, &self.source.name));
            }
            // Where READ ONLY does not keep the functions behind an index from acting, nothing does.
            let is_tidy = match statement.kind {
                StatementKind::Index => true,
                StatementKind::Maintenance => self.reads_pass,
                _ => false,
            };
            let alone = statement.needs_no_block
                && !is_tidy
                && statement.effects.worst() <= Some(Effect::Write);
            if alone {
                let because = "it runs outside transactions, so what it does cannot be measured before it is done";
                let impact = holdfast_core::Impact::new(Effect::Interrupt, because);
                effects.push(sourced(&impact, &self.source.name));
            }
            if self.may_leave(ran, statement) {
                let because = "its code may use a way out of this database that the lease has";
                let impact = holdfast_core::Impact::new(Effect::Unknown, because);
                effects.push(sourced(&impact, &self.source.name));
            }
        }
        let then = Then::Statement {
            effects: effects.clone(),
        };
        self.deciding = Some(tokio::spawn(async move {
            let measured = Measured {
                effects,
                ..Measured::default()
            };
            question.decide(measured).await
        }));
        self.phase = Phase::Deciding(then);
    }

    /// Asks whether something may be read; answers why not.
    pub(super) fn may_read(&mut self, ran: &Ran, reads: Effects) -> Option<Refusal> {
        let question = self.question(ran.digest, ran.summary());
        let asked = match question.asked(reads.clone(), Evidence::default(), 0, false) {
            Ok(asked) => asked,
            Err(refusal) => return Some(refusal),
        };
        match self.door.gatekeeper.decide(asked) {
            Decision::Forward(_) => {
                if self.reads_allowed.len() >= LIMIT_READS_ALLOWED {
                    self.reads_allowed.clear();
                }
                self.reads_allowed.push(reads);
                None
            }
            Decision::Refused(refusal) => Some(refusal),
        }
    }

    /// A decision was made.
    pub(super) fn decided(&mut self, decided: Decided) {
        let Phase::Deciding(then) = std::mem::replace(&mut self.phase, Phase::Ready) else {
            return;
        };
        match (decided, then) {
            (Decided::Sampled(sample), Then::Sample) => self.sample = Some(sample),
            (Decided::Ends(kept), Then::End { bytes, expected }) => {
                self.ends(kept, &bytes, expected);
            }
            (Decided::Refused(refusal), Then::End { .. }) => self.refuse_step(refusal),
            (Decided::Prepared(permit, kept), then) => self.let_prepare(permit, kept, then),
            (Decided::Named(function), Then::Call(message)) => self.called(message, function),
            (Decided::Refused(refusal), Then::Call(_)) => {
                self.todo.push_back(Item::End { is_simple: true });
                self.refuse_step(refusal);
            }
            (Decided::Refused(refusal), Then::Statement { .. } | Then::Sample) => {
                self.sample = Some(Sample::default());
                self.refuse_step(refusal);
            }
            (Decided::Refused(refusal), _) => {
                self.roll_back();
                self.phase = Phase::Refusing(refusal);
            }
            (Decided::Permitted(permit), Then::Statement { effects }) => {
                self.approved(*permit, &effects);
            }
            (Decided::Free, Then::Statement { .. }) | (_, Then::Sample | Then::Call(_)) => {}
            (decided, then) => {
                let permit = match decided {
                    Decided::Permitted(permit) => Some(permit),
                    Decided::Ends(_)
                    | Decided::Free
                    | Decided::Named(_)
                    | Decided::Prepared(..)
                    | Decided::Refused(_)
                    | Decided::Sampled(_) => None,
                };
                self.commit(permit, then);
            }
        }
    }

    pub(super) fn commit(&mut self, permit: Option<Box<Permit>>, then: Then) {
        // The permits of statements that were decided before they started end with it.
        let early = self
            .transaction
            .as_mut()
            .map(|open| std::mem::take(&mut open.permits));
        for permit in early.into_iter().flatten() {
            self.record(
                permit,
                Outcome::Done,
                "it ran, and its transaction was let through",
            );
        }
        self.transaction = None;
        match then {
            Then::Own { .. } => {
                if self.may_query(&then) {
                    self.own_query("COMMIT");
                } else {
                    self.own("COMMIT");
                    self.own_sync();
                }
                self.phase = Phase::Committing { permit };
            }
            Then::Client {
                bytes,
                expected,
                is_simple,
                is_chain,
            } => {
                self.send(&bytes, expected);
                if is_chain {
                    // The gate's READ ONLY was for the transaction that ends here.
                    self.own("SET TRANSACTION READ WRITE");
                    self.own_sync();
                } else if !is_simple {
                    own::write_flush(&mut self.to_server);
                }
                self.phase = Phase::Committing { permit };
            }
            Then::Prepare {
                bytes,
                expected,
                is_simple,
                ..
            } => {
                self.send(&bytes, expected);
                if !is_simple {
                    own::write_flush(&mut self.to_server);
                }
                self.phase = Phase::Committing { permit };
            }
            Then::Call(_) | Then::End { .. } | Then::Sample | Then::Statement { .. } => {}
        }
    }

    /// Notes where sequences stand before something runs that may hide a `setval`.
    pub(super) fn take_sample(&mut self) {
        let (source, database) = (Arc::clone(&self.source), self.database.clone());
        self.deciding = Some(tokio::spawn(async move {
            match source.control.sequences(&database, &[]).await {
                Ok(sample) => Decided::Sampled(sample),
                Err(why) => Decided::Refused(unmeasured(&format!("guard's own connection: {why}"))),
            }
        }));
        self.phase = Phase::Deciding(Then::Sample);
    }

    pub(super) fn question(&self, digest: Digest, summary: String) -> Question {
        Question {
            gatekeeper: self.door.gatekeeper.clone(),
            leases: self.door.leases.clone(),
            lease: self.lease.clone(),
            source: Arc::clone(&self.source),
            database: self.database.clone(),
            digest,
            summary,
            rehearsing: None,
        }
    }
}

/// Different sets of things read that the policy need not be asked about again.
const LIMIT_READS_ALLOWED: usize = 64;

impl Question {
    /// Adds what is rehearsed if it is held.
    fn rehearsed(
        mut self,
        rehearsals: &OnceLock<Rehearsals>,
        prepare: impl FnOnce() -> Rehearsing,
    ) -> Self {
        self.rehearsing = rehearsals.get().map(|queue| (queue.clone(), prepare()));
        self
    }

    async fn measure(
        self,
        (said, entries, sample): (Said, Option<Vec<Entry>>, Option<Sample>),
        open: measured::Open,
        approved: Effects,
    ) -> Decided {
        let strong = said
            .locks
            .iter()
            .filter(|lock| lock.mode != "RowExclusiveLock");
        let strong: Vec<u32> = strong.map(|lock| lock.oid).collect();
        let mended = match &sample {
            Some(sample) => {
                self.source
                    .control
                    .mend(&self.database, sample, &strong)
                    .await
            }
            None => Ok(Vec::new()),
        };
        let mended = match mended {
            Ok(mended) => mended,
            Err(why) => {
                return Decided::Refused(unmeasured(&format!("guard's own connection: {why}")));
            }
        };
        let looking = self.look(&said, entries).await;
        let (outside, sight) = match looking {
            Ok(seen) => seen,
            Err(why) => {
                return Decided::Refused(unmeasured(&format!("guard's own connection: {why}")));
            }
        };
        let inner = (&said, sight.as_ref());
        let mut measured = measured::conclude(inner, &outside, &open, &self.source.name);
        for name in mended {
            let because = format!("the sequence {name} was set; it was put back");
            measured.evidence.push("sequence set", name);
            let impact = holdfast_core::Impact::new(Effect::Interrupt, because);
            measured.effects.push(sourced(&impact, &self.source.name));
        }
        measured.effects = measured
            .effects
            .impacts()
            .iter()
            .filter(|impact| !approved.impacts().contains(impact))
            .cloned()
            .collect();
        self.decide(measured).await
    }

    /// Looks at what the transaction touched from outside.
    async fn look(
        &self,
        said: &Said,
        entries: Option<Vec<Entry>>,
    ) -> Result<(HashMap<u32, Outside>, Option<Sight>), String> {
        let control = &self.source.control;
        let wanted = measured::wanted(said, entries.as_deref().unwrap_or_default());
        if entries.is_none()
            && let Some(outside) = control.seen(&self.database, said, &wanted)
        {
            return Ok((outside, None));
        }
        let outside = control.look(&self.database, &wanted).await?;
        let Some(entries) = entries else {
            return Ok((outside, None));
        };
        let role = self.lease.pg.as_ref().map(|pg| pg.role.as_str());
        let place = (self.database.as_str(), role.unwrap_or_default());
        let sight = control.sight(place, said, entries).await?;
        // What was removed belongs to relations that nothing inside names any more.
        let wanted = measured::wanted(&Said::default(), &sight.outside);
        let missing: Vec<u32> = wanted
            .into_iter()
            .filter(|oid| !outside.contains_key(oid))
            .collect();
        let mut outside = outside;
        outside.extend(control.look(&self.database, &missing).await?);
        Ok((outside, Some(sight)))
    }

    async fn decide(mut self, mut measured: Measured) -> Decided {
        if measured.effects.impacts().is_empty() && !self.gatekeeper.is_frozen() {
            return Decided::Free;
        }
        let gate = self.source.gate(&self.lease.id).await;
        let one_at_a_time = gate.lock_owned().await;
        let now = clock::now();
        let used = self.leases.rows_this_hour(&self.lease.id, now).0;
        let budget = self.lease.budget;
        let hour = used.saturating_add(measured.rows);
        let is_beyond = measured.rows > budget.transaction.0 || hour > budget.hour.0;
        if is_beyond && measured.lost > 0 {
            let because = format!(
                "{} rows are changed or removed, more than the budget",
                measured.lost
            );
            let impact =
                holdfast_core::Impact::new(Effect::Destroy, because).rows(RowCount(measured.lost));
            measured.effects.push(sourced(&impact, &self.source.name));
        }
        let rows = RowCount(measured.rows);
        let asked = self.asked(
            measured.effects,
            measured.evidence,
            measured.rows,
            measured.additive,
        );
        let asked = match asked {
            Ok(asked) => asked,
            Err(refusal) => return Decided::Refused(refusal),
        };
        let gatekeeper = self.gatekeeper.clone();
        let rehearsing = self.rehearsing.take();
        let (leases, lease) = (self.leases.clone(), self.lease.id.clone());
        let deciding = tokio::task::spawn_blocking(move || {
            gatekeeper.decide_counting(asked, move |is_permitted| {
                if is_permitted {
                    leases.use_rows(&lease, rows, now);
                }
                // The next one need not wait until the disk has this one's entry.
                drop(one_at_a_time);
            })
        });
        let deciding = deciding.await;
        if let (Ok(Decision::Refused(refusal)), Some(prepared)) = (&deciding, rehearsing)
            && let Some(hold) = refusal.hold.clone().filter(|_| refusal.code == Code::ZH001)
        {
            self.rehearse(hold, prepared).await;
        }
        match deciding {
            Ok(Decision::Forward(permit)) => Decided::Permitted(permit),
            Ok(Decision::Refused(refusal)) => Decided::Refused(refusal),
            Err(_) => Decided::Refused(no_decision()),
        }
    }

    /// Has what was held rehearsed; that changes nothing of the hold.
    async fn rehearse(&self, hold: HoldId, (rehearsals, prepared): (Rehearsals, Rehearsing)) {
        let position = self.source.control.position(&self.database).await;
        let after = match position {
            Ok(position) => position,
            Err(why) => {
                tracing::warn!(%why, "the source does not tell its position");
                None
            }
        };
        let wanted = prepared.wanted(&hold, self.digest, after);
        // It only writes that it waits, which is quick.
        let asking = tokio::task::spawn_blocking(move || rehearsals.ask(&hold, wanted));
        if asking.await.is_err() {
            tracing::error!("a rehearsal could not be asked for");
        }
    }

    pub(super) fn asked(
        &self,
        effects: Effects,
        evidence: Evidence,
        rows: u64,
        additive: bool,
    ) -> Result<Asked, Refusal> {
        let now = clock::now();
        let id = clock::random().map_err(|_| no_decision())?;
        let used = self.leases.rows_this_hour(&self.lease.id, now).0;
        Ok(Asked {
            action: Action {
                id: ActionId::from_random(id),
                principal: self.lease.principal(),
                lease: Some(self.lease.id.clone()),
                source: Some(self.source.name.clone()),
                door: DoorKind::Pg,
                summary: self.summary.clone(),
                digest: self.digest,
                at: now,
            },
            effects: match self.source.is_copy {
                true => effects.on_a_copy(),
                false => effects,
            },
            evidence,
            facts: Facts {
                rows_transaction: rows,
                rows_transaction_max: self.lease.budget.transaction.0,
                rows_lease_hour: used.saturating_add(rows),
                rows_lease_hour_max: self.lease.budget.hour.0,
                additive,
                ..Facts::unmeasured(&self.source.environment, DoorKind::Pg)
            },
        })
    }
}

pub(super) fn unmeasured(why: &str) -> Refusal {
    Refusal {
        code: Code::ZS403,
        message: format!("what the transaction did cannot be measured: {why}; it was rolled back"),
        hint: "docs/pg-door.md says what can be measured".to_owned(),
        hold: None,
    }
}

fn no_decision() -> Refusal {
    Refusal {
        code: Code::ZS403,
        message: "the decision could not be made; nothing was executed".to_owned(),
        hint: "tell the operator of holdfast".to_owned(),
        hold: None,
    }
}
