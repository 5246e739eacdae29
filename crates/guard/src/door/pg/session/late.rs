//! Statements that the server must not keep under a name.
//!
//! Statements of the extended protocol and those of SQL share their names: `EXECUTE x`, also from
//! inside a function, runs whatever the protocol prepared as `x`, and that may be a `COMMIT` or what
//! has to be decided before it starts. Such a statement is parsed for the client and closed at once;
//! it is parsed again, under a name of the door's own, where the client binds or describes it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use holdfast_judge::sql::Control;

use super::super::known::{Class, Known};
use super::super::own;
use super::Session;
use super::plan::{self, Message};
use super::replies::{Expected, What};

/// A statement that the server is not to keep, under the name that it has for a moment.
pub(super) struct Late {
    name: Vec<u8>,
}

impl Late {
    /// The name, for a message that uses it.
    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }
}

/// Tells whether running the statement by its name would go past the door.
fn is_late(known: &Known) -> bool {
    known.judgement.statements.iter().any(|statement| {
        matches!(
            Known::class(statement),
            Class::Control(_) | Class::Stops | Class::Unparsed
        )
    })
}

impl Session {
    /// Notes how a statement with a name was parsed; answers how it is sent if it is not to be kept.
    pub(super) fn note_types(
        &mut self,
        name: &[u8],
        known: &Arc<Known>,
        types: &[u8],
    ) -> Option<Late> {
        if name.is_empty() || !is_late(known) {
            return None;
        }
        let types = Bytes::copy_from_slice(types);
        self.late_types.insert(Bytes::copy_from_slice(name), types);
        Some(self.draw_name())
    }

    /// Parses a statement again that the server has not kept, for the message that comes next.
    pub(super) fn parse_late(&mut self, name: &[u8], known: Option<&Arc<Known>>) -> Option<Late> {
        let known = known.filter(|known| !name.is_empty() && is_late(known))?;
        let none = Bytes::from_static(&[0, 0]);
        let types = self.late_types.get(name).cloned().unwrap_or(none);
        let late = self.draw_name();
        let mut bytes = BytesMut::new();
        let text = sent_text(known);
        own::message(b'P', &[&late.name, &[0], &text, &[0], &types], &mut bytes);
        let what = What::Parse {
            name: Bytes::new(),
            known: None,
            types: Bytes::new(),
        };
        self.collect_own(bytes, what);
        Some(late)
    }

    /// Closes such a statement behind the message that used it.
    pub(super) fn close_late(&mut self, late: &Late) {
        let mut bytes = BytesMut::new();
        own::write_close(&late.name, &mut bytes);
        let what = What::Close {
            portal: None,
            statement: None,
        };
        self.collect_own(bytes, what);
    }

    fn draw_name(&mut self) -> Late {
        self.own_number = self.own_number.wrapping_add(1);
        let name = format!("holdfast_{}", self.own_number).into_bytes();
        Late { name }
    }

    fn collect_own(&mut self, bytes: BytesMut, what: What) {
        self.batch.push(Message {
            bytes,
            expected: Expected::own(what),
            runs: None,
        });
    }
}

/// The text as the server gets it: a `BEGIN` that may write.
pub(super) fn sent_text(known: &Known) -> Vec<u8> {
    match known.only() {
        Some(one) if matches!(one.control, Some(Control::Begin { read_only: false })) => {
            plan::writable(known.text.get(..one.range.end).unwrap_or_default())
        }
        _ => known.text.to_vec(),
    }
}
