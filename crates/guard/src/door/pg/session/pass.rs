//! The short way: a request that openly only reads is handed on in the very bytes it came in.
//!
//! The server runs it read only. If the server says that this was not enough, nothing has happened and
//! nothing was told to the client, so the request is taken once more, the long way, through the gate.

use std::sync::{Arc, Weak};

use bytes::{Buf, Bytes, BytesMut};
use holdfast_core::{Effect, Effects};
use holdfast_wire::pg::frontend::{self, HEADER_BYTES, header};

use super::super::known::Known;
use super::intake::garbled;
use super::plan::Ran;
use super::replies::{Expected, What};
use super::{End, Session};
use crate::limits::PG_MESSAGE_BYTES_MAX;

/// A request on the short way, which has not been answered yet.
pub(super) struct Pass {
    /// Bytes that already waited for the client.
    pub mark: usize,
    /// The server said that a read only transaction was not enough.
    pub is_needed: bool,
}

/// What became of the bytes at the front.
pub(super) enum Taken {
    /// They were handed on.
    Passed,
    /// They must go the long way.
    Slow,
    /// The request is not complete.
    Waits,
}

/// The longest request of the extended protocol that goes the short way, in bytes.
const LIMIT_PASS_BYTES: usize = 256 << 10;

/// Texts whose way is remembered, in one session.
const LIMIT_ALLOWED: usize = 64;

impl Session {
    /// Hands on the request at the front, if it is complete and openly only reads.
    pub(super) fn take_pass(&mut self) -> Result<Taken, End> {
        if !self.may_pass() {
            return Ok(Taken::Slow);
        }
        let bytes = std::mem::take(&mut self.from_client);
        let before = self.expected.len();
        let scanned = match bytes.first() {
            Some(b'Q') => self.scan_query(&bytes),
            _ => self.scan_batch(&bytes, before),
        };
        self.from_client = bytes;
        let end = match scanned {
            Ok(Scan::Passes(end)) => end,
            Ok(Scan::Slow | Scan::Waits) | Err(_) => {
                self.expected.truncate(before);
                return scanned.map(|scan| match scan {
                    Scan::Waits => Taken::Waits,
                    Scan::Slow | Scan::Passes(_) => Taken::Slow,
                });
            }
        };
        let request = self.from_client.get(..end).unwrap_or_default();
        self.again.clear();
        self.again.extend_from_slice(request);
        self.to_server.extend_from_slice(request);
        self.from_client.advance(end);
        self.has_failed = false;
        self.pass = Some(Pass {
            mark: self.to_client.len(),
            is_needed: false,
        });
        Ok(Taken::Passed)
    }

    /// Nothing of what was before can change how the next request is to be taken.
    fn may_pass(&self) -> bool {
        self.reads_pass
            && self.redo == 0
            && self.is_free()
            && self.reads_by_default
            && !self.flush_due
            && self.batch.is_empty()
            && !self.is_skipping
            && !self.server_skips
            && !self.copies_in
            && self.own_error.is_none()
            && !self.door.gatekeeper.is_frozen()
    }

    fn scan_query(&mut self, bytes: &BytesMut) -> Result<Scan, End> {
        let found = header(bytes, PG_MESSAGE_BYTES_MAX).map_err(garbled)?;
        let Some(found) = found.filter(|found| bytes.len() >= found.total) else {
            return Ok(Scan::Waits);
        };
        let body = bytes.get(HEADER_BYTES..found.total).unwrap_or_default();
        let text = frontend::query(body).map_err(garbled)?;
        let known = self.door.verdicts.reads(text, self.context);
        match known {
            Some(known) if self.allows(&known) => {
                self.note_settings(&known);
                // A simple query takes the unnamed statement with it.
                self.statements.remove(&b""[..]);
                let what = What::Query { ready: true };
                self.expected.push_back(Expected::client(what));
                Ok(Scan::Passes(found.total))
            }
            _ => Ok(Scan::Slow),
        }
    }

    /// Looks at messages of the extended protocol up to their `Sync`; what they are expected to be
    /// answered is added behind the first `before`.
    fn scan_batch(&mut self, bytes: &BytesMut, before: usize) -> Result<Scan, End> {
        let mut at = 0_usize;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let found = header(rest, PG_MESSAGE_BYTES_MAX).map_err(garbled)?;
            let Some(found) = found.filter(|found| rest.len() >= found.total) else {
                let is_long = bytes.len() > LIMIT_PASS_BYTES
                    || found.is_some_and(|found| found.total > LIMIT_PASS_BYTES);
                return Ok(if is_long { Scan::Slow } else { Scan::Waits });
            };
            let body = rest.get(HEADER_BYTES..found.total).unwrap_or_default();
            at = at.saturating_add(found.total);
            let what = match found.tag {
                b'S' => {
                    self.expected.push_back(Expected::client(What::Sync));
                    return Ok(Scan::Passes(at));
                }
                b'P' | b'B' | b'E' => self.scan_statement(found.tag, body, before)?,
                b'D' => self.scan_describe(body, before)?,
                b'C' => Some(closes(body)?),
                _ => None,
            };
            match what {
                Some(what) => self.expected.push_back(Expected::client(what)),
                None => return Ok(Scan::Slow),
            }
        }
    }

    fn scan_describe(&self, body: &[u8], before: usize) -> Result<Option<What>, End> {
        let named = frontend::named(b'D', body).map_err(garbled)?;
        let known = match named.is_statement {
            true => self.prepared(named.name, before),
            false => None,
        };
        // The server may not have kept another one.
        let is_there = known.is_none_or(|known| known.all_read);
        Ok(is_there.then_some(What::Describe))
    }

    fn scan_statement(&mut self, tag: u8, body: &[u8], before: usize) -> Result<Option<What>, End> {
        Ok(match tag {
            b'P' => {
                let parse = frontend::parse(body).map_err(garbled)?;
                let known = self.door.verdicts.judge(parse.text, self.context);
                self.note_settings(&known);
                self.allows(&known).then(|| What::Parse {
                    name: name(parse.name),
                    known: Some(known),
                    types: types(parse.types),
                })
            }
            b'B' => {
                let bind = frontend::bind(body).map_err(garbled)?;
                let known = self.prepared(bind.statement, before);
                // Its portal ends with the request, so nobody asks later what it was.
                known
                    .filter(|known| self.allows(known))
                    .map(|_| What::Bind {
                        portal: name(bind.portal),
                        bound: None,
                    })
            }
            _ => {
                let (portal, _) = frontend::execute(body).map_err(garbled)?;
                let binds = |one: &Expected| matches!(&one.what, What::Bind { portal: made, .. } if made == portal);
                let is_bound = self.expected.range(before..).any(binds);
                is_bound.then_some(What::Execute { control: None })
            }
        })
    }

    /// Finds what a statement's name stands for once the messages before it are done.
    fn prepared(&self, wanted: &[u8], before: usize) -> Option<Arc<Known>> {
        for message in self.expected.range(before..).rev() {
            match &message.what {
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

    /// Tells whether all that is read there was permitted before.
    fn allows(&mut self, known: &Arc<Known>) -> bool {
        let is_known = |kept: &Weak<Known>| std::ptr::eq(kept.as_ptr(), Arc::as_ptr(known));
        if self.allowed.iter().any(is_known) {
            return true;
        }
        if !known.all_read || self.leaves(&[Ran::whole(known)]) {
            return false;
        }
        for statement in &known.judgement.statements {
            let reads = reads_of(&statement.effects);
            if reads.impacts().is_empty() || self.reads_allowed.contains(&reads) {
                continue;
            }
            self.refused_read = self.may_read(&Ran::whole(known), reads);
            if self.refused_read.is_some() {
                // The long way tells the client.
                return false;
            }
        }
        if self.allowed.len() >= LIMIT_ALLOWED {
            self.allowed.clear();
        }
        self.allowed.push(Arc::downgrade(known));
        true
    }

    /// The server has answered a request on the short way; answers whether it must be taken again.
    pub(super) fn passed(&mut self) -> bool {
        let asides = std::mem::take(&mut self.asides);
        let Some(pass) = self.pass.take().filter(|pass| pass.is_needed) else {
            return false;
        };
        self.to_client.truncate(pass.mark);
        self.to_client.extend_from_slice(&asides);
        let mut again = std::mem::take(&mut self.again);
        self.redo = again.len();
        again.extend_from_slice(&self.from_client);
        self.from_client = again;
        self.has_failed = false;
        self.is_skipping = false;
        true
    }
}

enum Scan {
    Passes(usize),
    Slow,
    Waits,
}

/// Returns what is only read.
pub(super) fn reads_of(effects: &Effects) -> Effects {
    let impacts = effects.impacts().iter();
    impacts
        .filter(|impact| impact.effect == Effect::Read)
        .cloned()
        .collect()
}

/// What `Close` ends.
pub(super) fn closes(body: &[u8]) -> Result<What, End> {
    let named = frontend::named(b'C', body).map_err(garbled)?;
    let name = Some(name(named.name));
    Ok(match named.is_statement {
        true => What::Close {
            portal: None,
            statement: name,
        },
        false => What::Close {
            portal: name,
            statement: None,
        },
    })
}

/// Keeps types; the usual none are empty and cost nothing.
fn types(bytes: &[u8]) -> Bytes {
    match bytes {
        [0, 0] => Bytes::new(),
        bytes => Bytes::copy_from_slice(bytes),
    }
}

/// Keeps a name; the usual one is empty and costs nothing.
fn name(bytes: &[u8]) -> Bytes {
    match bytes {
        [] => Bytes::new(),
        bytes => Bytes::copy_from_slice(bytes),
    }
}
