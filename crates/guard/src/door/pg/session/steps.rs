//! Carrying a plan out: one step after the other, each when the one before has been answered.

use bytes::BytesMut;
use holdfast_core::{Code, Effects, Permit};
use holdfast_judge::sql::Control;
use holdfast_wire::pg::backend;
use holdfast_wire::pg::frontend::HEADER_BYTES;

use super::super::{own, refuse};
use super::gate::Then;
use super::plan::{Item, Ran};
use super::replies::{Expected, What};
use super::{End, Session, Transaction};
use crate::decide::{Outcome, Refusal};

/// What the session waits for, besides answers.
pub(super) enum Phase {
    /// The transaction is asked which rows of the catalogs it wrote.
    Changes(Then, super::super::evidence::Said),
    /// A permitted commit is on its way.
    Committing { permit: Option<Box<Permit>> },
    /// The gatekeeper decides.
    Deciding(Then),
    /// The transaction is asked what it did.
    Gate(Then),
    /// The server is asked whether it understands a text.
    Probing(Ran),
    /// Nothing.
    Ready,
    /// A transaction that failed inside the gate is rolled back; the client knows why.
    Rolling,
    /// A refused transaction is rolled back; then the client is told.
    Refusing(Refusal),
    /// A transaction failed or is doomed; it is rolled back and the client's request ends.
    Undoing { is_simple: bool },
}

impl Session {
    /// Goes on as far as is possible without waiting.
    pub(super) fn advance(&mut self) -> Result<(), End> {
        while self.expected.is_empty() && self.deciding.is_none() && !self.copies_in {
            match std::mem::replace(&mut self.phase, Phase::Ready) {
                Phase::Ready => {
                    self.is_safe()?;
                    let Some(item) = self.todo.pop_front() else {
                        return Ok(());
                    };
                    self.step(item);
                }
                Phase::Gate(then) => self.measured(then),
                Phase::Changes(then, said) => self.changes(then, said),
                Phase::Deciding(then) => {
                    self.phase = Phase::Deciding(then);
                    return Ok(());
                }
                Phase::Committing { permit } => self.committed(permit),
                Phase::Probing(ran) => self.probed(ran),
                Phase::Refusing(refusal) => {
                    self.own_error = None;
                    self.end_transaction();
                    self.fail(&refusal);
                }
                Phase::Rolling => {
                    self.own_error = None;
                    self.end_transaction();
                }
                Phase::Undoing { is_simple } => {
                    self.own_error = None;
                    self.end_transaction();
                    self.finish(is_simple);
                }
            }
        }
        Ok(())
    }

    /// Looks whether the statements that keep the session safe have done so.
    fn is_safe(&mut self) -> Result<(), End> {
        let was_reset = std::mem::take(&mut self.is_resetting);
        let Some(error) = self.own_error.take() else {
            return match was_reset && !self.reads_by_default {
                true => Err(unsafe_session(b"")),
                false => Ok(()),
            };
        };
        let body = error.get(HEADER_BYTES..).unwrap_or_default();
        if backend::error_field(body, b'C') != Some(b"57014") {
            return Err(unsafe_session(body));
        }
        // The client has cancelled what it asked for before that began.
        self.relay(&error);
        self.has_failed = true;
        self.skip_client();
        Ok(())
    }

    fn step(&mut self, item: Item) {
        let is_free = self.status == b'I' && self.transaction.is_none();
        let begins = !matches!(item, Item::End { .. } | Item::Refuse(..));
        if is_free && begins && !self.reads_by_default {
            // Nothing begins before the server says that it is so again.
            self.todo.push_front(item);
            self.own("SET default_transaction_read_only TO on");
            self.own_sync();
            self.is_resetting = true;
            return;
        }
        match item {
            Item::Pass { bytes, expected } => {
                self.prepare();
                self.send(&bytes, expected);
            }
            Item::Begin
                if self
                    .todo
                    .front()
                    .is_some_and(|next| self.needs_sample(next)) =>
            {
                self.todo.push_front(Item::Begin);
                self.take_sample();
            }
            run @ Item::Run { .. } if self.needs_sample(&run) => {
                self.todo.push_front(run);
                self.take_sample();
            }
            Item::Begin => {
                self.begin();
                // In one go with what it is for: nothing is answered before a `Flush`.
                if let Some(next) = self.todo.pop_front() {
                    self.step(next);
                }
            }
            Item::Run {
                bytes,
                expected,
                ran,
                is_simple,
            } => self.run_part(&bytes, expected, &ran, is_simple),
            Item::Control {
                control,
                bytes,
                expected,
            } => self.control(control, &bytes, expected),
            Item::TwoPhase {
                wanted,
                bytes,
                expected,
            } => self.two_phase(wanted, bytes, expected),
            Item::Decide(ran) => self.decide_before(&ran),
            Item::Probe(ran) => self.probe(ran),
            Item::Bare {
                bytes,
                expected,
                tidies,
            } => self.bare(&bytes, expected, tidies),
            Item::Refuse(code, message) => {
                let refusal = Refusal {
                    code,
                    message,
                    hint: "docs/pg-door.md lists what the door passes".to_owned(),
                    hold: None,
                };
                self.refuse_step(refusal);
            }
            Item::End { is_simple } => self.end(is_simple),
        }
    }

    /// Asks the server whether it understands a text.
    fn probe(&mut self, ran: Ran) {
        self.prepare();
        self.own_number = self.own_number.wrapping_add(1);
        own::write_probe(&ran.text(), self.own_number, &mut self.to_server);
        let parse = What::Parse {
            name: bytes::Bytes::new(),
            known: None,
            types: bytes::Bytes::new(),
        };
        let close = What::Close {
            portal: None,
            statement: None,
        };
        self.expected
            .extend([Expected::own(parse), Expected::own(close)]);
        self.own_sync();
        self.phase = Phase::Probing(ran);
    }

    fn run_part(
        &mut self,
        bytes: &BytesMut,
        expected: Vec<Expected>,
        ran: &[Ran],
        is_simple: bool,
    ) {
        let has_statements = is_simple || !ran.is_empty();
        if self.status == b'I' && self.transaction.is_none() {
            if has_statements {
                self.begin();
            } else {
                // A `Sync` of ours behind a `Bind` would end the portal that a `BEGIN` is run by.
                self.prepare();
            }
        }
        if let Some(transaction) = self.transaction.as_mut() {
            for ran in ran {
                transaction.add(ran);
            }
        }
        self.note_code(ran);
        self.send(bytes, expected);
        if !self.gate_behind(ran) && !is_simple {
            own::write_flush(&mut self.to_server);
        }
    }

    /// Makes the session safe again before something runs outside a transaction of ours.
    pub(super) fn prepare(&mut self) {
        if self.status != b'I' || self.transaction.is_some() {
            return;
        }
        if self.flush_due {
            // Counters of what was rolled back would be taken for what comes next.
            self.flush_due = false;
            self.own("SELECT pg_catalog.pg_stat_force_next_flush()");
            self.own_sync_as(What::Prelude);
        }
    }

    /// Opens a transaction of ours.
    fn begin(&mut self) {
        if self.transaction.is_some() {
            return;
        }
        self.prepare();
        self.own_controlling(
            "BEGIN READ WRITE",
            Some(Control::Begin { read_only: false }),
        );
        let mut transaction = Transaction::new(&self.source, &self.database);
        transaction.is_ours = true;
        self.transaction = Some(transaction);
    }

    pub(super) fn control(&mut self, control: Control, bytes: &BytesMut, expected: Vec<Expected>) {
        let is_simple = matches!(
            expected.first().map(|one| &one.what),
            Some(What::Query { .. })
        );
        match control {
            Control::Commit { chain } if self.may_commit() => {
                let is_doomed = self.transaction.as_ref().is_some_and(|open| open.is_doomed);
                if !is_doomed {
                    let bytes = bytes.clone();
                    self.gate(Then::Client {
                        bytes,
                        expected,
                        is_simple,
                        is_chain: chain,
                    });
                    return;
                }
            }
            Control::Begin { .. } => {
                if self.transaction.is_none() {
                    self.prepare();
                } else if let Some(open) = self.transaction.as_mut() {
                    // What began without `BEGIN` goes on as the client's own.
                    open.is_ours = false;
                }
            }
            _ => {}
        }
        self.send(bytes, expected);
        if !is_simple {
            own::write_flush(&mut self.to_server);
        }
    }

    /// Something may be open that a `COMMIT` would make last: the server says so, or our `BEGIN` is on
    /// its way.
    pub(super) fn may_commit(&self) -> bool {
        self.status == b'T' || (self.status != b'E' && self.transaction.is_some())
    }

    /// Runs what the server refuses inside a transaction, without the default of reading only.
    fn bare(&mut self, bytes: &BytesMut, expected: Vec<Expected>, tidies: bool) {
        let is_simple = matches!(
            expected.first().map(|one| &one.what),
            Some(What::Query { .. })
        );
        let permits = self
            .transaction
            .take()
            .map(|open| open.permits)
            .unwrap_or_default();
        self.prepare();
        let writes = !permits.is_empty() && !tidies;
        if writes {
            self.own("SET default_transaction_read_only TO off");
            self.own_sync();
        }
        self.send(bytes, expected);
        if !is_simple {
            self.own_sync();
        }
        if writes {
            self.own("SET default_transaction_read_only TO on");
            self.own_sync();
        }
        if permits.is_empty() {
            return;
        }
        let mut permits = permits.into_iter();
        let permit = permits.next().map(Box::new);
        self.phase = Phase::Committing { permit };
    }

    fn end(&mut self, is_simple: bool) {
        if self.server_skips {
            // The server waits for a Sync before it goes on.
            self.own_sync();
            self.todo.push_front(Item::End { is_simple });
            return;
        }
        let ours = self.transaction.as_ref().filter(|open| open.is_ours);
        let Some(ours) = ours else {
            if is_simple {
                self.finish(true);
            } else {
                own::write_sync(&mut self.to_server);
                self.expected.push_back(Expected::client(What::Sync));
            }
            return;
        };
        if self.status == b'T' && !ours.is_doomed {
            self.gate(Then::Own { is_simple });
        } else {
            self.roll_back();
            self.phase = Phase::Undoing { is_simple };
        }
    }

    /// Ends what the client asked for.
    pub(super) fn finish(&mut self, is_simple: bool) {
        if !is_simple {
            self.held.clear();
        }
        let mut out = Vec::new();
        backend::write_ready(self.status, &mut out);
        self.relay(&out);
        self.has_failed = false;
    }

    fn committed(&mut self, permit: Option<Box<Permit>>) {
        let error = self.own_error.take();
        let failed = error.is_some() || self.has_failed;
        self.two_phase_done(failed);
        if let Some(permit) = permit {
            let (outcome, detail) = match failed {
                true => (Outcome::NotDone, "the server refused it"),
                false => (Outcome::Done, "committed"),
            };
            self.record(*permit, outcome, detail);
        }
        if let Some(error) = error {
            self.held.clear();
            self.relay(&error);
            self.skip_client();
        }
    }

    fn probed(&mut self, ran: Ran) {
        match self.own_error.take() {
            // The server does not understand it either, and says why.
            Some(error) => {
                self.relay(&error);
                self.has_failed = true;
                self.skip_client();
            }
            None => self.decide_before(&ran),
        }
    }

    /// Refuses a step in the middle of a request.
    pub(super) fn refuse_step(&mut self, refusal: Refusal) {
        match self.transaction.as_mut() {
            Some(open) if open.is_ours || self.status == b'E' => {
                open.is_doomed = true;
                self.fail(&refusal);
            }
            Some(open) => {
                open.is_doomed = true;
                // The client must see a failed transaction, and no lock may stay.
                self.own("holdfast refused the statement before");
                self.own_sync();
                self.phase = Phase::Refusing(refusal);
            }
            None => self.fail(&refusal),
        }
    }

    /// Tells the client and leaves out the rest of its request.
    pub(super) fn fail(&mut self, refusal: &Refusal) {
        let mut out = Vec::new();
        refuse(
            &mut out,
            false,
            (refusal.code, &refusal.message, &refusal.hint),
        );
        self.held.clear();
        self.relay(&out);
        self.has_failed = true;
        self.skip_client();
    }

    pub(super) fn roll_back(&mut self) {
        self.flush_due = true;
        if self.server_skips {
            self.own_sync();
        }
        self.own("ROLLBACK");
        self.own_sync();
    }

    /// Sends a statement of the door's own.
    pub(super) fn own(&mut self, sql: &str) {
        self.own_controlling(sql, None);
    }

    fn own_controlling(&mut self, sql: &str, control: Option<Control>) {
        self.own_number = self.own_number.wrapping_add(1);
        own::write(sql, self.own_number, &mut self.to_server);
        let close = || {
            Expected::own(What::Close {
                portal: None,
                statement: None,
            })
        };
        self.expected.extend([
            Expected::own(What::Parse {
                name: bytes::Bytes::new(),
                known: None,
                types: bytes::Bytes::new(),
            }),
            Expected::own(What::Bind {
                portal: bytes::Bytes::new(),
                bound: None,
            }),
            Expected::own(What::Execute { control }),
            close(),
            close(),
        ]);
    }

    pub(super) fn own_sync(&mut self) {
        self.own_sync_as(What::Sync);
    }

    fn own_sync_as(&mut self, what: What) {
        self.server_skips = false;
        own::write_sync(&mut self.to_server);
        self.expected.push_back(Expected::own(what));
    }

    pub(super) fn send(&mut self, bytes: &[u8], expected: Vec<Expected>) {
        self.to_server.extend_from_slice(bytes);
        self.expected.extend(expected);
    }

    /// Remembers what a human has approved before a statement started.
    pub(super) fn approved(&mut self, permit: Permit, effects: &Effects) {
        if self.transaction.is_none() {
            let mut transaction = Transaction::new(&self.source, &self.database);
            transaction.is_ours = true;
            // Whether a transaction is opened at all is for the next step to say.
            transaction.permits.push(permit);
            transaction.approved.extend(effects.clone());
            self.transaction = Some(transaction);
            if !matches!(self.todo.front(), Some(Item::Bare { .. })) {
                let kept = self.transaction.take();
                self.begin();
                // Nothing else is on its way that would have it answered.
                own::write_flush(&mut self.to_server);
                if let (Some(kept), Some(open)) = (kept, self.transaction.as_mut()) {
                    open.permits = kept.permits;
                    open.approved = kept.approved;
                }
            }
        } else if let Some(open) = self.transaction.as_mut() {
            open.permits.push(permit);
            open.approved.extend(effects.clone());
        }
    }
}

fn unsafe_session(error: &[u8]) -> End {
    let said = holdfast_wire::pg::replication::server_message(error);
    let message = format!("the session cannot be kept safe: {said}");
    End::Told(Code::ZS403, message, "connect again".to_owned())
}
