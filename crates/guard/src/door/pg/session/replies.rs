//! What the server sends: relayed, swallowed or captured, by what it answers.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use holdfast_core::Code;
use holdfast_judge::sql::Control;
use holdfast_wire::pg::backend;
use holdfast_wire::pg::frontend::{HEADER_BYTES, header};

use super::super::known::Known;
use super::pass::Pass;
use super::plan::Item;
use super::{Bound, End, LIMIT_PASS_ANSWER_BYTES, Session, Transaction};

/// The longest message of a server, in bytes; PostgreSQL's own limit is a gigabyte.
const LIMIT_SERVER_BYTES: usize = (1 << 30) + (1 << 20);

/// A message that was sent and is not answered yet.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub what: What,
    /// The door sent it for itself: the client sees nothing of the answer.
    pub is_own: bool,
}

/// What an answer is to.
#[derive(Clone, Debug)]
pub(super) enum What {
    Bind {
        portal: Bytes,
        bound: Option<Arc<Bound>>,
    },
    Close {
        portal: Option<Bytes>,
        statement: Option<Bytes>,
    },
    Describe,
    Execute {
        control: Option<Control>,
    },
    Parse {
        name: Bytes,
        known: Option<Arc<Known>>,
        /// The types of its parameters, as they stand in the message.
        types: Bytes,
    },
    /// The `Sync` of what keeps the session safe; what comes behind it may be on its way already.
    Prelude,
    /// A simple query; whether its `ReadyForQuery` is the client's.
    Query {
        ready: bool,
    },
    Sync,
}

impl Expected {
    pub(super) fn client(what: What) -> Self {
        Self {
            what,
            is_own: false,
        }
    }

    pub(super) fn own(what: What) -> Self {
        Self { what, is_own: true }
    }
}

impl Session {
    /// Takes every message of the server's that has arrived.
    pub(super) fn take_replies(&mut self) -> Result<(), End> {
        if self.from_server.is_empty() {
            return Ok(());
        }
        let mut bytes = std::mem::take(&mut self.from_server);
        let taken = self.take_from_server(&bytes)?;
        bytes.advance(taken);
        self.from_server = bytes;
        Ok(())
    }

    /// Takes every message at the front of `bytes`; answers how many bytes were taken.
    pub(super) fn take_from_server(&mut self, bytes: &[u8]) -> Result<usize, End> {
        let mut at = 0_usize;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(at);
            }
            let rows = match self.streaming {
                0 => self.rows(rest)?,
                streaming => {
                    let count = streaming.min(rest.len());
                    self.streaming = streaming.saturating_sub(count);
                    count
                }
            };
            if rows > 0 {
                self.relay(rest.get(..rows).unwrap_or_default());
                at = at.saturating_add(rows);
                continue;
            }
            let found = header(rest, LIMIT_SERVER_BYTES).map_err(|_| End::Gone)?;
            let Some(found) = found else { return Ok(at) };
            let Some(message) = rest.get(..found.total) else {
                if matches!(found.tag, b'D' | b'd') && !self.is_own_next() {
                    self.streaming = found.total;
                    continue;
                }
                return Ok(at);
            };
            self.reply(found.tag, message)?;
            at = at.saturating_add(found.total);
            self.advance()?;
        }
    }

    fn is_own_next(&self) -> bool {
        self.expected.front().is_some_and(|front| front.is_own)
    }

    /// Counts the bytes of whole rows at the front that the client gets.
    fn rows(&self, bytes: &[u8]) -> Result<usize, End> {
        if !matches!(bytes.first(), Some(b'D' | b'd')) || self.is_own_next() {
            return Ok(0);
        }
        let mut end = 0_usize;
        loop {
            let rest = bytes.get(end..).unwrap_or_default();
            match header(rest, LIMIT_SERVER_BYTES).map_err(|_| End::Gone)? {
                Some(found) if matches!(found.tag, b'D' | b'd') && rest.len() >= found.total => {
                    end = end.saturating_add(found.total);
                }
                _ => return Ok(end),
            }
        }
    }

    fn reply(&mut self, tag: u8, message: &[u8]) -> Result<(), End> {
        let body = message.get(HEADER_BYTES..).unwrap_or_default();
        let is_own = self.is_own_next();
        match tag {
            b'S' => {
                if !self.parameter(body)? {
                    return Ok(());
                }
                self.relay_aside(message);
            }
            // A `ROLLBACK` of ours may come when the transaction has ended already.
            b'N' if is_own && backend::error_field(body, b'C') == Some(b"25P01") => {}
            b'A' => self.relay_aside(message),
            b'N' => self.relay(message),
            b'E' => self.error(message, is_own),
            b'Z' => self.ready(message),
            b'1' | b'2' | b'3' => {
                self.acknowledged();
                if !is_own {
                    self.relay(message);
                }
            }
            b'D' => self.captured.push(row(body)),
            b'C' | b'I' | b's' => self.completed(tag, message, is_own),
            // What a function returned is true only after the gate, as a completion is.
            b'V' => self.completed(tag, message, is_own),
            b'T' | b'n' => {
                if let Some(What::Describe) = self.expected.front().map(|front| &front.what) {
                    self.expected.pop_front();
                }
                if !is_own {
                    self.relay(message);
                }
            }
            b'G' => {
                self.begins_copy();
                self.relay(message);
            }
            b'W' => {
                let message = "the PostgreSQL door does not pass replication".to_owned();
                return Err(End::Told(Code::ZU403, message, String::new()));
            }
            _ if is_own => {}
            _ => self.relay(message),
        }
        Ok(())
    }

    /// The server waits for rows; it ignores a `Sync` that was sent too early, and so do we.
    fn begins_copy(&mut self) {
        self.copies_in = true;
        self.pass = None;
        let is_extended = matches!(
            self.expected.front().map(|front| &front.what),
            Some(What::Execute { .. })
        );
        if is_extended && matches!(self.todo.front(), Some(Item::End { is_simple: false })) {
            self.todo.pop_front();
        }
    }

    /// Notes a setting; answers whether the client is told.
    fn parameter(&mut self, body: &[u8]) -> Result<bool, End> {
        let Some((name, value)) = backend::parameter(body) else {
            return Ok(true);
        };
        match name {
            b"default_transaction_read_only" => {
                self.reads_by_default = value == b"on";
                Ok(false)
            }
            b"standard_conforming_strings" => {
                self.context.standard_conforming_strings = value == b"on";
                Ok(true)
            }
            b"client_encoding" if !super::is_safe_encoding(value) => {
                let message = "the PostgreSQL door does not pass this encoding: a byte of a character could look like a backslash";
                let hint = "set client_encoding to UTF8";
                Err(End::Told(Code::ZU403, message.to_owned(), hint.to_owned()))
            }
            _ => Ok(true),
        }
    }

    fn error(&mut self, message: &[u8], is_own: bool) {
        self.copies_in = false;
        let body = message.get(HEADER_BYTES..).unwrap_or_default();
        if is_own {
            self.own_error
                .get_or_insert_with(|| BytesMut::from(message));
        } else {
            let needs_writing = backend::error_field(body, b'C') == Some(b"25006");
            if let Some(pass) = self.pass.as_mut().filter(|_| needs_writing) {
                pass.is_needed = true;
            }
            self.relay(message);
            self.has_failed = true;
            self.skip_client();
        }
        let is_query = matches!(
            self.expected.front().map(|front| &front.what),
            Some(What::Query { .. })
        );
        if is_query {
            return;
        }
        // The server ignores everything up to the next `Sync`, so nothing of it is answered.
        while let Some(front) = self.expected.front() {
            if matches!(front.what, What::Sync | What::Prelude) {
                return;
            }
            self.expected.pop_front();
        }
        self.server_skips = true;
    }

    /// Leaves out what is left of the client's request.
    pub(super) fn skip_client(&mut self) {
        let is_simple = self
            .todo
            .iter()
            .any(|item| matches!(item, Item::End { is_simple: true }));
        let end = self
            .todo
            .iter()
            .rposition(|item| matches!(item, Item::End { .. }));
        match end {
            Some(at) => drop(self.todo.drain(..at)),
            None => {
                self.todo.clear();
                let waits = self.expected.iter().any(|one| {
                    !one.is_own && matches!(one.what, What::Sync | What::Query { ready: true })
                });
                self.is_skipping = !waits && !is_simple;
            }
        }
        if self.is_skipping {
            self.batch.clear();
            self.batch_bytes = 0;
        }
    }

    fn ready(&mut self, message: &[u8]) {
        let status = message.get(HEADER_BYTES).copied().unwrap_or(b'I');
        self.status = status;
        self.copies_in = false;
        let answered = self.expected.pop_front();
        // A transaction that is on its way behind the prelude is not over.
        if !matches!(answered.as_ref().map(|one| &one.what), Some(What::Prelude)) {
            self.settle(status);
        }
        if matches!(answered.as_ref().map(|one| &one.what), Some(What::Prelude)) {
            // The counters are flushed another time.
            self.flush_due |= self.own_error.take().is_some();
            // What it answered is not what the transaction will say.
            self.captured.clear();
        }
        if answered.as_ref().is_some_and(|one| !one.is_own) && self.passed() {
            return;
        }
        let is_clients = answered.is_some_and(|answered| {
            !answered.is_own && matches!(answered.what, What::Sync | What::Query { ready: true })
        });
        if is_clients {
            self.relay(message);
            self.has_failed = false;
        }
    }

    /// Brings the transaction into line with what the server says of it.
    fn settle(&mut self, status: u8) {
        if status != b'I' {
            if self.transaction.is_none() {
                self.transaction = Some(Transaction::new(&self.source, &self.database));
            }
            return;
        }
        self.portals.clear();
        // What kept the session safe before our own `BEGIN` has been answered; that has yet to begin.
        let begins = |one: &Expected| {
            let begin = Some(Control::Begin { read_only: false });
            one.is_own && matches!(&one.what, What::Execute { control } if *control == begin)
        };
        if !self.expected.iter().any(begins) {
            self.end_transaction();
        }
    }

    /// The transaction is over and was not committed by way of the gate.
    pub(super) fn end_transaction(&mut self) {
        self.mend();
        let Some(over) = self.transaction.take() else {
            return;
        };
        self.flush_due = true;
        for permit in over.permits {
            let detail = "the transaction was rolled back; this effect survives that";
            self.record(permit, crate::decide::Outcome::Unknown, detail);
        }
    }

    /// `Parse`, `Bind` or `Close` was done.
    fn acknowledged(&mut self) {
        let Some(front) = self.expected.pop_front() else {
            return;
        };
        match front.what {
            What::Parse {
                name,
                known: Some(known),
                types,
            } if !front.is_own => {
                self.types.insert(name.clone(), types);
                self.statements.insert(name, known);
            }
            What::Bind {
                portal,
                bound: Some(bound),
            } if !front.is_own => {
                self.portals.insert(portal, bound);
            }
            What::Close { portal, statement } => {
                if let Some(portal) = portal {
                    self.portals.remove(&portal);
                }
                if let Some(statement) = statement {
                    self.late_types.remove(&statement);
                    self.statements.remove(&statement);
                    self.types.remove(&statement);
                }
            }
            _ => {}
        }
    }

    fn completed(&mut self, tag: u8, message: &[u8], is_own: bool) {
        self.copies_in = false;
        let control = match self.expected.front().map(|front| &front.what) {
            Some(What::Execute { control }) => *control,
            // Whether the last completion is true is known only after the gate.
            Some(What::Query { ready: false }) if tag != b's' && !is_own => {
                let last = std::mem::replace(&mut self.held, BytesMut::from(message));
                self.to_client.extend_from_slice(&last);
                return;
            }
            _ if is_own => return,
            _ => return self.relay(message),
        };
        self.expected.pop_front();
        if tag != b's' {
            self.controlled(control);
        }
        if !is_own && self.is_last_of_ours(tag) {
            let last = std::mem::replace(&mut self.held, BytesMut::from(message));
            self.to_client.extend_from_slice(&last);
        } else if !is_own {
            self.relay(message);
        }
    }

    /// The gate comes next: drivers take the last completion for the outcome, so it waits for that.
    fn is_last_of_ours(&self, tag: u8) -> bool {
        let is_ours = self.transaction.as_ref().is_some_and(|open| open.is_ours);
        let ends = match self.todo.front() {
            Some(item) => matches!(item, Item::End { .. }),
            // After a COPY, the `Sync` that ends it comes behind the rows.
            None => self.from_client.first() == Some(&b'S'),
        };
        // The question may be on its way already.
        let is_last = self.expected.iter().all(|one| one.is_own);
        tag != b's' && is_ours && is_last && ends
    }

    /// A statement of the extended protocol began or ended a transaction; no `ReadyForQuery` says so.
    fn controlled(&mut self, control: Option<Control>) {
        match control {
            Some(Control::Begin { .. }) => self.status = b'T',
            Some(
                Control::Commit { chain: false }
                | Control::PrepareTransaction
                | Control::Rollback { chain: false },
            ) => {
                self.status = b'I';
            }
            _ => return,
        }
        let status = self.status;
        self.settle(status);
    }

    /// Gives bytes to the client, after what was held back.
    pub(super) fn relay(&mut self, bytes: &[u8]) {
        if !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            self.to_client.extend_from_slice(&held);
        }
        self.to_client.extend_from_slice(bytes);
        let waits = self.to_client.len();
        let is_long = |pass: &Pass| waits.saturating_sub(pass.mark) > LIMIT_PASS_ANSWER_BYTES;
        if self
            .pass
            .as_ref()
            .is_some_and(|pass| !pass.is_needed && is_long(pass))
        {
            self.pass = None;
        }
    }

    /// Gives bytes to the client that are true whatever becomes of a request on the short way.
    fn relay_aside(&mut self, bytes: &[u8]) {
        if self.pass.is_some() {
            self.asides.extend_from_slice(bytes);
        }
        self.relay(bytes);
    }
}

/// Reads a row of ours as text; what is malformed is NULL and will not be understood.
fn row(body: &[u8]) -> super::super::evidence::Row {
    let mut rest = body;
    if rest.remaining() < 2 {
        return Vec::new();
    }
    let count = rest.get_u16();
    let mut fields = Vec::new();
    for _ in 0..count {
        let Some((length, after)) = rest.split_first_chunk::<4>() else {
            return Vec::new();
        };
        rest = after;
        let field = usize::try_from(i32::from_be_bytes(*length)).ok();
        let field = field.and_then(|length| rest.split_at_checked(length));
        fields.push(field.map(|(text, after)| {
            rest = after;
            String::from_utf8_lossy(text).into_owned()
        }));
    }
    fields
}
