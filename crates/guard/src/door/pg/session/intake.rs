//! What the client sends, message by message, until it can be planned.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use holdfast_core::{Code, Digest, DigestBuilder};
use holdfast_judge::sql::Control;
use holdfast_wire::pg::frontend::{self, HEADER_BYTES, Header, MessageError, header};

use super::super::known::{Class, Known};
use super::super::own;
use super::late::{self, Late};
use super::pass::{Taken, closes, reads_of};
use super::plan::{self, Item, Message, Ran};
use super::replies::{Expected, What};
use super::script::Parameters;
use super::{Bound, End, Session};
use crate::limits::PG_MESSAGE_BYTES_MAX;

impl Session {
    /// Takes every message of the client's that has arrived, as far as it can be carried out now.
    pub(super) fn take_requests(&mut self) -> Result<(), End> {
        while self.wants_client() {
            if self.copies_in || self.rows_left > 0 {
                self.pass_rows();
            } else {
                match self.take_pass()? {
                    Taken::Passed => return Ok(()),
                    Taken::Waits => return Ok(()),
                    Taken::Slow => {}
                }
            }
            let limit = match self.copies_in {
                true => LIMIT_ROWS_BYTES,
                false => PG_MESSAGE_BYTES_MAX,
            };
            let found = header(&self.from_client, limit).map_err(garbled)?;
            let Some(found) = found.filter(|_| self.rows_left == 0) else {
                return Ok(());
            };
            if self.copies_in && found.tag == b'd' {
                // Rows go on while they arrive.
                self.rows_left = found.total;
                continue;
            }
            if self.from_client.len() < found.total {
                return Ok(());
            }
            if self.copies_in && !self.takes_while_copying(found)? {
                return Ok(());
            }
            if matches!(found.tag, b'F' | b'Q') && !self.batch.is_empty() {
                // As in the server, what came before without a `Sync` is done first.
                self.flush(false);
                self.advance()?;
                continue;
            }
            let message = self.from_client.split_to(found.total);
            self.request(found, message)?;
            self.redo = self.redo.saturating_sub(found.total);
            self.advance()?;
        }
        Ok(())
    }

    /// Hands rows on that the server waits for; one that has begun is ended in any case.
    fn pass_rows(&mut self) {
        let mut end = self.rows_left.min(self.from_client.len());
        self.rows_left = self.rows_left.saturating_sub(end);
        if self.rows_left == 0 && self.copies_in {
            end = end.saturating_add(whole_rows(self.from_client.get(end..)));
        }
        let rows = self.from_client.get(..end).unwrap_or_default();
        self.to_server.extend_from_slice(rows);
        self.from_client.advance(end);
    }

    /// Answers whether the message may be looked at while the server takes rows.
    fn takes_while_copying(&self, found: Header) -> Result<bool, End> {
        match found.tag {
            b'd' | b'c' | b'f' | b'H' | b'S' | b'X' => Ok(true),
            _ => {
                let message = "another message came while rows were being copied".to_owned();
                Err(End::Told(Code::ZU404, message, String::new()))
            }
        }
    }

    fn request(&mut self, found: Header, message: BytesMut) -> Result<(), End> {
        let body = message.get(HEADER_BYTES..).unwrap_or_default();
        match found.tag {
            b'd' | b'c' | b'f' => {
                // Rows that come after a failed COPY are nobody's, as in the server.
                if self.copies_in {
                    self.copies_in = found.tag == b'd';
                    self.to_server.extend_from_slice(&message);
                    if !self.copies_in {
                        // The end of a COPY is answered at the next `Sync`, which waits for that answer.
                        own::write_flush(&mut self.to_server);
                    }
                }
            }
            // The server ignores both while it takes rows.
            b'H' | b'S' if self.copies_in => {}
            b'X' => return Err(End::Gone),
            // As in the server, whatever it is.
            b'P' | b'B' | b'D' | b'C' | b'E' | b'H' | b'Q' | b'F' if self.is_skipping => {}
            b'Q' => {
                let text = frontend::query(body).map_err(garbled)?;
                self.query(text);
            }
            b'S' => {
                self.is_skipping = false;
                self.flush(true);
            }
            b'H' => self.flush(false),
            b'P' | b'B' | b'D' | b'C' | b'E' => self.collect(found.tag, message)?,
            b'F' => self.call(message)?,
            tag => return Err(garbled(MessageError::Malformed { tag })),
        }
        Ok(())
    }

    /// No transaction is open, neither the client's nor ours.
    pub(super) fn is_free(&self) -> bool {
        self.status == b'I' && self.transaction.is_none()
    }

    fn query(&mut self, text: &[u8]) {
        self.statements.remove(&b""[..]);
        let known = self.door.verdicts.judge(text, self.context);
        let whole = Ran {
            known: Some(Arc::clone(&known)),
            which: 0..known.judgement.statements.len(),
            digest: Digest::of(&known.text),
            parameters: None,
        };
        let items = plan::simple(&known, self.is_free());
        self.begin_items(items, &[whole], Some(Item::End { is_simple: true }));
    }

    /// Carries out what was collected up to a `Sync` or `Flush`.
    fn flush(&mut self, is_sync: bool) {
        let mut batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        if self.redo > 0 {
            // Its statements got their names the first time.
            batch = plan::closed_before(batch);
        }
        if batch.is_empty() && !is_sync {
            return;
        }
        let ran: Vec<Ran> = batch
            .iter()
            .filter_map(|message| message.runs.clone())
            .collect();
        let items = if batch.is_empty() {
            vec![Item::End { is_simple: false }]
        } else {
            plan::extended(batch, self.is_free(), is_sync)
        };
        let end = is_sync.then_some(Item::End { is_simple: false });
        self.begin_items(items, &ran, end);
    }

    /// Puts a plan before the session, unless agents are frozen or may not even read this.
    pub(super) fn begin_items(&mut self, items: Vec<Item>, ran: &[Ran], end: Option<Item>) {
        self.has_failed = false;
        for ran in ran {
            self.settings.add(ran);
        }
        match self.refuses_to_read(ran) {
            None => {
                let leaving: Vec<Item> = ran
                    .iter()
                    .filter(|one| self.leaves(std::slice::from_ref(*one)))
                    .map(|one| Item::Decide(one.clone()))
                    .collect();
                self.todo.extend(leaving);
                self.todo.extend(items);
            }
            Some(refusal) => {
                self.todo.extend(end);
                self.refuse_step(refusal);
            }
        }
    }

    /// Collects a message of the extended protocol.
    fn collect(&mut self, tag: u8, message: BytesMut) -> Result<(), End> {
        self.batch_bytes = self.batch_bytes.saturating_add(message.len());
        if self.batch_bytes > PG_MESSAGE_BYTES_MAX {
            let text = "more was sent before a Sync than the PostgreSQL door keeps".to_owned();
            return Err(End::Told(
                Code::ZU404,
                text,
                "send Sync more often".to_owned(),
            ));
        }
        let body = message.get(HEADER_BYTES..).unwrap_or_default();
        let (what, runs) = match tag {
            b'P' => return self.collect_parse(message),
            b'B' => return self.collect_bind(message),
            b'D' => return self.collect_describe(message),
            b'E' => {
                let (portal, _) = frontend::execute(body).map_err(garbled)?;
                let ran = self.portal(portal);
                let control = ran
                    .statements()
                    .first()
                    .and_then(|one| match Known::class(one) {
                        Class::Control(control) => Some(control),
                        _ => None,
                    });
                (What::Execute { control }, Some(ran))
            }
            _ => (closes(body)?, None),
        };
        self.batch.push(Message {
            bytes: message,
            expected: Expected::client(what),
            runs,
        });
        Ok(())
    }

    fn collect_bind(&mut self, message: BytesMut) -> Result<(), End> {
        let body = message.get(HEADER_BYTES..).unwrap_or_default();
        let bind = frontend::bind(body).map_err(garbled)?;
        let known = self.statement(bind.statement);
        let late = self.parse_late(bind.statement, known.as_ref());
        let text = known.as_ref().map_or(&b""[..], |known| &known.text[..]);
        let digest = DigestBuilder::new("holdfast pg statement 1")
            .field(text)
            .field(bind.parameters)
            .finish();
        // Without parameters it is the same as its text in a simple query.
        let plain = bind.parameters.starts_with(&[0, 0, 0, 0]);
        let digest = match &known {
            Some(known) if plain => Digest::of(trimmed(known)),
            _ => digest,
        };
        let parameters = Parameters::new(self.types(bind.statement), bind.parameters);
        let bound = Bound {
            known,
            digest,
            parameters: Arc::new(parameters),
        };
        let what = What::Bind {
            portal: Bytes::copy_from_slice(bind.portal),
            bound: Some(Arc::new(bound)),
        };
        let renamed = late.as_ref().map(|late| {
            let mut bytes = BytesMut::new();
            let parts = [bind.portal, &[0], late.name(), &[0], bind.parameters];
            own::message(b'B', &parts, &mut bytes);
            bytes
        });
        self.collect_late(renamed.unwrap_or(message), what, late.as_ref());
        Ok(())
    }

    fn collect_describe(&mut self, message: BytesMut) -> Result<(), End> {
        let body = message.get(HEADER_BYTES..).unwrap_or_default();
        let named = frontend::named(b'D', body).map_err(garbled)?;
        let late = match named.is_statement {
            true => {
                let known = self.statement(named.name);
                self.parse_late(named.name, known.as_ref())
            }
            false => None,
        };
        let renamed = late.as_ref().map(|late| {
            let mut bytes = BytesMut::new();
            own::message(b'D', &[b"S", late.name(), &[0]], &mut bytes);
            bytes
        });
        self.collect_late(renamed.unwrap_or(message), What::Describe, late.as_ref());
        Ok(())
    }

    /// Collects a message that may use a statement which the server is not to keep.
    fn collect_late(&mut self, bytes: BytesMut, what: What, late: Option<&Late>) {
        self.batch.push(Message {
            bytes,
            expected: Expected::client(what),
            runs: None,
        });
        if let Some(late) = late {
            self.close_late(late);
        }
    }

    fn collect_parse(&mut self, message: BytesMut) -> Result<(), End> {
        let body = message.get(HEADER_BYTES..).unwrap_or_default();
        let parse = frontend::parse(body).map_err(garbled)?;
        let mut context = self.context;
        // A statement before it may change how the server reads strings, unseen until the next Sync.
        let writes_before = self
            .batch
            .iter()
            .any(|one| one.runs.as_ref().is_some_and(Ran::writes));
        context.standard_conforming_strings &= !writes_before;
        let known = self.door.verdicts.judge(parse.text, context);
        let late = self.note_types(parse.name, &known, parse.types);
        let begins = known
            .only()
            .is_some_and(|one| matches!(one.control, Some(Control::Begin { read_only: false })));
        let mut bytes = BytesMut::new();
        if begins || late.is_some() {
            let name = late.as_ref().map_or(parse.name, Late::name);
            let text = late::sent_text(&known);
            own::message(b'P', &[name, &[0], &text, &[0], parse.types], &mut bytes);
        } else {
            bytes = message.clone();
        }
        let what = What::Parse {
            name: Bytes::copy_from_slice(parse.name),
            known: Some(known),
            types: Bytes::copy_from_slice(parse.types),
        };
        self.batch.push(Message {
            bytes,
            expected: Expected::client(what),
            runs: None,
        });
        if let Some(late) = &late {
            self.close_late(late);
        }
        Ok(())
    }

    /// Finds what a statement's name stands for once everything before it is done.
    fn statement(&self, wanted: &[u8]) -> Option<Arc<Known>> {
        for message in self.batch.iter().rev() {
            match &message.expected.what {
                What::Parse { name, known, .. } if name == wanted => return known.clone(),
                What::Close {
                    statement: Some(name),
                    ..
                } if name == wanted => return None,
                _ => {}
            }
        }
        self.statements.get(wanted).cloned()
    }

    /// Finds the types that a statement's parameters were given.
    fn types(&self, wanted: &[u8]) -> Bytes {
        let found = self
            .batch
            .iter()
            .rev()
            .find_map(|message| match &message.expected.what {
                What::Parse { name, types, .. } if name == wanted && !message.expected.is_own => {
                    Some(types.clone())
                }
                _ => None,
            });
        let found = found.or_else(|| self.types.get(wanted).cloned());
        found.unwrap_or_default()
    }

    /// Finds what a portal will run.
    fn portal(&self, wanted: &[u8]) -> Ran {
        for message in self.batch.iter().rev() {
            if let What::Bind {
                portal,
                bound: Some(bound),
            } = &message.expected.what
                && portal == wanted
            {
                return Ran::bound(bound);
            }
        }
        match self.portals.get(wanted) {
            Some(bound) => Ran::bound(bound),
            None => Ran {
                known: None,
                which: 0..0,
                digest: Digest::of(wanted),
                parameters: None,
            },
        }
    }

    /// Says why a request may not even begin.
    fn refuses_to_read(&mut self, ran: &[Ran]) -> Option<crate::decide::Refusal> {
        if let Some(refusal) = self.refused_read.take() {
            return Some(refusal);
        }
        let statements = ran
            .iter()
            .flat_map(|ran| ran.statements().iter().map(move |one| (ran, one)));
        let mut wanted = Vec::new();
        for (ran, statement) in statements {
            let reads = reads_of(&statement.effects);
            let is_new = !reads.impacts().is_empty() && !self.reads_allowed.contains(&reads);
            if is_new && !wanted.iter().any(|(_, other)| *other == reads) {
                wanted.push((ran.clone(), reads));
            }
        }
        if wanted.is_empty() && self.door.gatekeeper.is_frozen() {
            let any = ran.first().cloned()?;
            return self.may_read(&any, holdfast_core::Effects::none());
        }
        wanted
            .into_iter()
            .find_map(|(ran, reads)| self.may_read(&ran, reads))
    }
}

/// Counts the bytes of whole rows at the front.
fn whole_rows(bytes: Option<&[u8]>) -> usize {
    let bytes = bytes.unwrap_or_default();
    let mut end = 0_usize;
    loop {
        let rest = bytes.get(end..).unwrap_or_default();
        match header(rest, LIMIT_ROWS_BYTES) {
            Ok(Some(found)) if found.tag == b'd' && rest.len() >= found.total => {
                end = end.saturating_add(found.total);
            }
            _ => return end,
        }
    }
}

/// The longest piece of a COPY, in bytes: PostgreSQL's own limit. It goes on while it arrives.
const LIMIT_ROWS_BYTES: usize = (1 << 30) - 1;

fn trimmed(known: &Known) -> &[u8] {
    match known.only() {
        Some(one) => known.text.get(one.range.clone()).unwrap_or_default(),
        None => &known.text,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
pub(super) fn garbled(error: MessageError) -> End {
    let message = format!("the message cannot be understood: {error}");
    End::Told(Code::ZU404, message, String::new())
}
