//! One session: two sockets, four buffers, and the order in which things happen.
//!
//! What the client sends up to a `Sync`, `Flush` or `Query` is planned as a whole and carried out step
//! by step; replies are relayed as they come, except those to statements of the door's own.

mod call;
mod gate;
mod intake;
mod late;
mod outward;
mod pass;
mod plan;
mod replies;
mod run;
mod script;
mod steps;
mod twophase;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use holdfast_core::{Code, Digest, DigestBuilder, Effects, Permit};
use holdfast_judge::sql::SqlContext;
use tokio_util::sync::CancellationToken;

use super::flying::Flying;
use super::known::Known;
use super::login::LoggedIn;
use super::measured::Open;
use super::source::Source;
use super::{Door, Key};
use crate::decide::Outcome;
use crate::lease::Lease;
use crate::limits::PG_WAITING_BYTES_MAX;
use gate::Decided;
use pass::Pass;
use plan::{Item, Ran};
use replies::Expected;
use script::{Parameters, Script, Settings};
use steps::Phase;

/// A statement with its parameters.
#[derive(Debug)]
struct Bound {
    /// Its text, where the door has seen it.
    known: Option<Arc<Known>>,
    /// Digest of text and parameters.
    digest: Digest,
    parameters: Arc<Parameters>,
}

/// A transaction that is open in the source.
struct Transaction {
    /// The door opened it around what the client sent without `BEGIN`.
    is_ours: bool,
    /// It will be rolled back whatever comes.
    is_doomed: bool,
    /// Digest of everything that ran in it.
    digest: Digest,
    /// The first text, or the first that openly writes, for people.
    summary: Option<String>,
    /// The summary is of a text that openly writes.
    is_summed: bool,
    open: Open,
    /// Exactly what was let through before a statement started; nothing that is measured is among it.
    approved: Effects,
    /// Permits of statements that were decided before they started.
    permits: Vec<Permit>,
    /// What ran, to be rehearsed when it is held.
    script: Script,
}

/// Why a session ends.
enum End {
    /// One side has gone; there is nobody to tell.
    Gone,
    /// The client is told.
    Told(Code, String, String),
}

struct Session {
    door: Arc<Door>,
    source: Arc<Source>,
    lease: Lease,
    database: String,
    from_client: BytesMut,
    to_client: BytesMut,
    from_server: BytesMut,
    to_server: BytesMut,
    /// State of the transaction: `I`, `T` or `E`.
    status: u8,
    context: SqlContext,
    /// What transactions are by default, as the server last said.
    reads_by_default: bool,
    /// What openly reads may run without the gate.
    reads_pass: bool,
    /// The lease may call what works over connections of its own.
    leads_out: bool,
    /// The session has made functions, so what only writes rows may run them.
    has_code: bool,
    /// Where sequences stood before what runs now.
    sample: Option<super::outside::Sample>,
    /// Counters of a rolled back transaction wait to be flushed.
    flush_due: bool,
    phase: Phase,
    expected: VecDeque<Expected>,
    todo: VecDeque<Item>,
    transaction: Option<Transaction>,
    statements: HashMap<Bytes, Arc<Known>>,
    /// The types of the parameters of those statements.
    types: HashMap<Bytes, Bytes>,
    settings: Settings,
    portals: HashMap<Bytes, Arc<Bound>>,
    /// Types of the parameters of statements that the server has not kept, by name.
    late_types: HashMap<Bytes, Bytes>,
    /// Messages of the extended protocol that wait for `Sync` or `Flush`.
    batch: Vec<plan::Message>,
    batch_bytes: usize,
    /// Everything up to the client's `Sync` is ignored.
    is_skipping: bool,
    /// The server ignores everything up to our `Sync`.
    server_skips: bool,
    /// The server takes rows of the client.
    copies_in: bool,
    /// Bytes of the server's message that is relayed while it arrives.
    streaming: usize,
    /// Bytes of the client's row that is handed on while it arrives.
    rows_left: usize,
    /// The last completion of a simple query, held back until it is true.
    held: BytesMut,
    captured: Vec<super::evidence::Row>,
    own_error: Option<BytesMut>,
    /// The client was told of an error in what is being carried out.
    has_failed: bool,
    /// A request on the short way.
    pass: Option<Pass>,
    /// Its bytes, in case it must be taken again.
    again: BytesMut,
    /// What the client is told in any case, whatever becomes of that request.
    asides: BytesMut,
    /// Bytes in front of `from_client` that must go the long way.
    redo: usize,
    /// Texts that were let through before.
    allowed: Vec<Weak<Known>>,
    /// Why the request at the front may not be read; the long way tells the client.
    refused_read: Option<crate::decide::Refusal>,
    /// The setting that keeps reads harmless is being put back.
    is_resetting: bool,
    /// Cancel requests on their way; nothing new begins meanwhile.
    flying: Arc<Flying>,
    is_cancelling: bool,
    /// Reads that the policy let through before.
    reads_allowed: Vec<Effects>,
    deciding: Option<tokio::task::JoinHandle<Decided>>,
    /// A prepared transaction that is being made or ended.
    two_phase: Option<twophase::TwoPhase>,
    own_number: u64,
    client_gone: bool,
}

/// Answers that are held back at most, in bytes, before a request can no longer run again.
const LIMIT_PASS_ANSWER_BYTES: usize = 32 << 10;

/// Tells whether a byte of a character can never look like a backslash or a quote.
pub(super) fn is_safe_encoding(name: &[u8]) -> bool {
    const UNSAFE: [&str; 8] = [
        "SJIS",
        "SHIFT_JIS_2004",
        "BIG5",
        "GBK",
        "UHC",
        "GB18030",
        "JOHAB",
        "MULE_INTERNAL",
    ];
    let mut unsafe_ones = UNSAFE.iter();
    !unsafe_ones.any(|one| name.eq_ignore_ascii_case(one.as_bytes()))
}

/// Serves a session until one side ends it, or `ended` says that its lease has ended or the door
/// closes.
pub(super) async fn serve(
    door: Arc<Door>,
    session: LoggedIn,
    flying: Arc<Flying>,
    ended: CancellationToken,
) {
    let LoggedIn {
        client,
        from_client,
        server,
        from_server,
        lease,
        source,
        parameters,
        key,
        reads_pass,
        leads_out,
        ..
    } = session;
    let mut session = Box::new(Session::new(door, source, lease, flying));
    // Buffers of a login are larger than what is left in them.
    session.from_client = BytesMut::from(&from_client[..]);
    session.from_server = BytesMut::from(&from_server[..]);
    session.reads_pass = reads_pass;
    session.leads_out = leads_out;
    session.welcome(&parameters, key);
    drop((parameters, from_client, from_server));
    session.run(client, server, ended).await;
}

impl Session {
    fn new(door: Arc<Door>, source: Arc<Source>, lease: Lease, flying: Arc<Flying>) -> Self {
        let database = lease.pg.as_ref().map(|pg| pg.database.clone());
        Self {
            door,
            source,
            lease,
            database: database.unwrap_or_default(),
            from_client: BytesMut::new(),
            to_client: BytesMut::new(),
            from_server: BytesMut::new(),
            to_server: BytesMut::new(),
            status: b'I',
            context: SqlContext::default(),
            reads_by_default: true,
            reads_pass: false,
            leads_out: false,
            has_code: false,
            sample: None,
            flush_due: false,
            phase: Phase::Ready,
            expected: VecDeque::new(),
            todo: VecDeque::new(),
            transaction: None,
            statements: HashMap::new(),
            types: HashMap::new(),
            settings: Settings::default(),
            portals: HashMap::new(),
            late_types: HashMap::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            is_skipping: false,
            server_skips: false,
            copies_in: false,
            streaming: 0,
            rows_left: 0,
            held: BytesMut::new(),
            captured: Vec::new(),
            own_error: None,
            has_failed: false,
            pass: None,
            again: BytesMut::new(),
            asides: BytesMut::new(),
            redo: 0,
            allowed: Vec::new(),
            refused_read: None,
            is_resetting: false,
            flying,
            is_cancelling: false,
            reads_allowed: Vec::new(),
            deciding: None,
            two_phase: None,
            own_number: 0,
            client_gone: false,
        }
    }

    /// Tells the client that it is in, with the server's settings and the door's own key.
    fn welcome(
        &mut self,
        parameters: &[holdfast_wire::pg::startup::Parameter],
        (process, secret): Key,
    ) {
        let mut out = Vec::new();
        holdfast_wire::pg::backend::write_message(b'R', &[0; 4], &mut out);
        for (name, value) in parameters {
            if name == b"standard_conforming_strings" {
                self.context.standard_conforming_strings = value == b"on";
            }
            // Clients that want to write look at it; they may, through the gate.
            let value: &[u8] = match name.as_slice() {
                b"default_transaction_read_only" => b"off",
                _ => value,
            };
            let body = [name, &b"\0"[..], value, b"\0"].concat();
            holdfast_wire::pg::backend::write_message(b'S', &body, &mut out);
        }
        let key = [&process.to_be_bytes()[..], &secret].concat();
        holdfast_wire::pg::backend::write_message(b'K', &key, &mut out);
        holdfast_wire::pg::backend::write_ready(b'I', &mut out);
        self.to_client.extend_from_slice(&out);
    }

    /// The client's next message can be looked at.
    fn wants_client(&self) -> bool {
        let is_idle = matches!(self.phase, Phase::Ready)
            && self.expected.is_empty()
            && self.todo.is_empty()
            && self.deciding.is_none()
            && !self.is_cancelling;
        (is_idle || self.copies_in) && self.to_server.len() < PG_WAITING_BYTES_MAX
    }

    /// A permitted commit is on its way: how it ends must be known.
    fn must_finish(&self) -> bool {
        matches!(self.phase, Phase::Committing { .. })
    }

    /// Records permits of statements whose transaction ended.
    fn record_open(&mut self, outcome: Outcome) {
        self.mend();
        if let Phase::Committing {
            permit: Some(permit),
            ..
        } = std::mem::replace(&mut self.phase, Phase::Ready)
        {
            self.record(*permit, outcome, "the session ended");
        }
        let permits = self.transaction.take().map(|open| open.permits);
        for permit in permits.into_iter().flatten() {
            self.record(permit, outcome, "the transaction ended");
        }
    }

    /// Writes how an action ended; the ledger has the action itself already.
    fn record(&self, permit: Permit, outcome: Outcome, detail: &'static str) {
        let gatekeeper = self.door.gatekeeper.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = gatekeeper.outcome(permit, outcome, detail) {
                tracing::error!(%error, "the outcome of an action is not in the ledger");
            }
        });
    }
}

impl Transaction {
    fn new(source: &Source, database: &str) -> Self {
        let digest = DigestBuilder::new("holdfast pg transaction 1")
            .field(source.name.as_str().as_bytes())
            .field(database.as_bytes())
            .finish();
        Self {
            is_ours: false,
            is_doomed: false,
            digest,
            summary: None,
            is_summed: false,
            open: Open::default(),
            approved: Effects::none(),
            permits: Vec::new(),
            script: Script::default(),
        }
    }

    /// Adds what is about to run.
    fn add(&mut self, ran: &Ran) {
        self.digest = DigestBuilder::new("holdfast pg transaction 1")
            .field(&self.digest.0)
            .field(&ran.digest.0)
            .finish();
        for statement in ran.statements() {
            self.open.add(statement);
        }
        self.script.add(ran);
        if ran.known.is_none() {
            self.open.add_unknown();
        }
        if self.summary.is_none() || !self.is_summed && ran.writes() {
            self.summary = Some(ran.summary());
            self.is_summed = ran.writes();
        }
    }
}
