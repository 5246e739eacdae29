//! One session: two sockets, four buffers, and the order in which things happen.
//!
//! What the client sends up to a `Sync`, `Flush` or `Query` is planned as a whole and carried out step
//! by step; replies are relayed as they come, except those to statements of the door's own.

mod gate;
mod intake;
mod late;
mod plan;
mod replies;
mod steps;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use holdfast_core::{Code, Coded, Digest, DigestBuilder, Effects, Permit};
use holdfast_judge::sql::SqlContext;
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio_util::sync::CancellationToken;

use super::known::Known;
use super::login::LoggedIn;
use super::measured::Open;
use super::source::Source;
use super::{Door, Key, refuse};
use crate::clock;
use crate::decide::Outcome;
use crate::lease::Lease;
use crate::limits::{PG_LEASE_LOOKS_EVERY, PG_READ_BYTES, PG_WAITING_BYTES_MAX};
use gate::Decided;
use plan::{Item, Ran};
use replies::Expected;
use steps::Phase;

/// A statement with its parameters.
#[derive(Debug)]
struct Bound {
    /// Its text, where the door has seen it.
    known: Option<Arc<Known>>,
    /// Digest of text and parameters.
    digest: Digest,
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
}

/// Why a session ends.
enum End {
    /// One side has gone; there is nobody to tell.
    Gone,
    /// The client is told.
    Told(Code, String, String),
}

/// What the client is held back from reading while its request may have to run again.
struct Retry {
    items: Vec<Item>,
    /// Bytes that already waited for the client.
    mark: usize,
    /// The server said that a read only transaction was not enough.
    is_needed: bool,
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
    /// Counters of a rolled back transaction wait to be flushed.
    flush_due: bool,
    phase: Phase,
    expected: VecDeque<Expected>,
    todo: VecDeque<Item>,
    transaction: Option<Transaction>,
    statements: HashMap<Bytes, Arc<Known>>,
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
    /// Bytes of a message that is relayed while it arrives, and whether the client gets it.
    streaming: usize,
    /// The last completion of a simple query, held back until it is true.
    held: BytesMut,
    captured: Vec<super::evidence::Row>,
    own_error: Option<BytesMut>,
    /// The client was told of an error in what is being carried out.
    has_failed: bool,
    retry: Option<Retry>,
    /// Reads that the policy let through before.
    reads_allowed: Vec<Effects>,
    deciding: Option<tokio::task::JoinHandle<Decided>>,
    own_number: u64,
    client_gone: bool,
}

/// Answers that are held back at most, in bytes, before a request can no longer run again.
const LIMIT_RETRY_BYTES: usize = 32 << 10;

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

/// Serves a session until one side ends it, the lease ends or the door closes.
pub(super) async fn serve(door: Arc<Door>, session: LoggedIn, stop: CancellationToken) {
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
        ..
    } = session;
    let mut session = Session::new(door, source, lease);
    session.from_client = from_client;
    session.reads_pass = reads_pass;
    session.from_server = from_server;
    session.welcome(&parameters, key);
    let (client_rx, client_tx) = split(client);
    let (server_rx, server_tx) = split(server);
    session
        .run((client_rx, client_tx), (server_rx, server_tx), stop)
        .await;
}

impl Session {
    fn new(door: Arc<Door>, source: Arc<Source>, lease: Lease) -> Self {
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
            flush_due: false,
            phase: Phase::Ready,
            expected: VecDeque::new(),
            todo: VecDeque::new(),
            transaction: None,
            statements: HashMap::new(),
            portals: HashMap::new(),
            late_types: HashMap::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            is_skipping: false,
            server_skips: false,
            copies_in: false,
            streaming: 0,
            held: BytesMut::new(),
            captured: Vec::new(),
            own_error: None,
            has_failed: false,
            retry: None,
            reads_allowed: Vec::new(),
            deciding: None,
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

    async fn run<C, S>(
        &mut self,
        (mut client_rx, mut client_tx): (tokio::io::ReadHalf<C>, tokio::io::WriteHalf<C>),
        (mut server_rx, mut server_tx): (tokio::io::ReadHalf<S>, tokio::io::WriteHalf<S>),
        stop: CancellationToken,
    ) where
        C: tokio::io::AsyncRead + tokio::io::AsyncWrite,
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite,
    {
        let mut looks = tokio::time::interval(PG_LEASE_LOOKS_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let end = loop {
            if let Err(end) = self.turn() {
                break end;
            }
            if self.client_gone && !self.must_finish() {
                break End::Gone;
            }
            let reads_client = !self.client_gone && self.wants_client();
            let reads_server = self.to_client.len() < PG_WAITING_BYTES_MAX || self.client_gone;
            let writes_client = !self.client_gone && self.may_write_client();
            self.from_client
                .reserve(if reads_client { PG_READ_BYTES } else { 0 });
            self.from_server
                .reserve(if reads_server { PG_READ_BYTES } else { 0 });
            tokio::select! {
                biased;
                written = server_tx.write(&self.to_server), if !self.to_server.is_empty() => match written {
                    Ok(count) if count > 0 => self.to_server.advance(count),
                    _ => break End::Gone,
                },
                written = client_tx.write(&self.to_client), if writes_client => match written {
                    Ok(count) if count > 0 => self.to_client.advance(count),
                    _ => self.client_gone = true,
                },
                read = server_rx.read_buf(&mut self.from_server), if reads_server => match read {
                    Ok(count) if count > 0 => {}
                    _ => break self.server_gone(),
                },
                read = client_rx.read_buf(&mut self.from_client), if reads_client => match read {
                    Ok(count) if count > 0 => {}
                    _ => self.client_gone = true,
                },
                decided = Decided::of(&mut self.deciding), if self.deciding.is_some() => {
                    self.deciding = None;
                    self.decided(decided);
                }
                _ = looks.tick() => if let Some(end) = self.lease_end() {
                    break end;
                },
                () = stop.cancelled() => break closing(),
            }
        };
        self.record_open(Outcome::Unknown);
        if let End::Told(code, message, hint) = end {
            let mut out = Vec::new();
            refuse(&mut out, true, (code, &message, &hint));
            self.retry = None;
            self.to_client.extend_from_slice(&out);
        }
        let telling = client_tx.write_all(&self.to_client);
        // A client that reads nothing does not keep the session.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), telling).await;
        let _ = client_tx.shutdown().await;
        let _ = server_tx.write_all(b"X\0\0\0\x04").await;
        let _ = server_tx.shutdown().await;
    }

    /// Does everything that can be done with the bytes that are there.
    fn turn(&mut self) -> Result<(), End> {
        loop {
            let before = (
                self.from_server.len(),
                self.from_client.len(),
                self.todo.len(),
            );
            self.take_replies()?;
            self.advance()?;
            if self.wants_client() {
                self.take_requests()?;
            }
            self.advance()?;
            let after = (
                self.from_server.len(),
                self.from_client.len(),
                self.todo.len(),
            );
            if before == after {
                return Ok(());
            }
        }
    }

    /// The client's next message can be looked at.
    fn wants_client(&self) -> bool {
        let is_idle = matches!(self.phase, Phase::Ready)
            && self.expected.is_empty()
            && self.todo.is_empty()
            && self.deciding.is_none();
        (is_idle || self.copies_in) && self.to_server.len() < PG_WAITING_BYTES_MAX
    }

    fn may_write_client(&self) -> bool {
        !self.to_client.is_empty() && self.retry.is_none()
    }

    /// A permitted commit is on its way: how it ends must be known.
    fn must_finish(&self) -> bool {
        matches!(self.phase, Phase::Committing { .. })
    }

    fn server_gone(&mut self) -> End {
        if matches!(self.phase, Phase::Committing { .. }) {
            let message = "the source was lost while a COMMIT was on its way; it is not known whether it was done";
            return End::Told(
                Code::ZS401,
                message.to_owned(),
                "look whether it was done before repeating it".to_owned(),
            );
        }
        // Its last words, such as that it was terminated, were relayed already.
        End::Gone
    }

    /// Tells why the session may not go on, once its lease has ended.
    fn lease_end(&self) -> Option<End> {
        let found = match self.door.leases.find(&self.lease.id) {
            Ok(lease) => lease.ended(clock::now())?,
            Err(error) => error,
        };
        let message = format!("{found}; an open transaction was rolled back");
        let hint = found.hint().unwrap_or_default();
        Some(End::Told(found.code(), message, hint))
    }

    /// Records permits of statements whose transaction ended.
    fn record_open(&mut self, outcome: Outcome) {
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
        if ran.known.is_none() {
            self.open.add_unknown();
        }
        if self.summary.is_none() || !self.is_summed && ran.writes() {
            self.summary = Some(ran.summary());
            self.is_summed = ran.writes();
        }
    }
}

fn closing() -> End {
    let message = "the door closes; an open transaction was rolled back".to_owned();
    End::Told(Code::ZS401, message, "connect again later".to_owned())
}
