//! From what a client sent to the steps in which it is carried out.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use holdfast_core::{Code, Digest, Untrusted};
use holdfast_judge::sql::{Control, Statement, StatementKind};

use super::super::known::{Class, Known};
use super::super::own;
use super::Bound;
use super::replies::{Expected, What};
use super::script::Parameters;
use super::twophase::Wanted;

/// One step.
#[derive(Debug)]
pub(super) enum Item {
    /// Sent outside any transaction, because the server wants it so.
    Bare {
        bytes: BytesMut,
        expected: Vec<Expected>,
        /// It tidies only, which the server does READ ONLY as well.
        tidies: bool,
    },
    /// The door opens a transaction.
    Begin,
    /// A statement that begins or ends a transaction.
    Control {
        control: Control,
        bytes: BytesMut,
        expected: Vec<Expected>,
    },
    /// Must be decided before the next step.
    Decide(Ran),
    /// What the client sent has ended, and it waits for `ReadyForQuery`.
    End { is_simple: bool },
    /// Sent as it is: nothing in it runs.
    Pass {
        bytes: BytesMut,
        expected: Vec<Expected>,
    },
    /// The server is asked whether it understands a text.
    Probe(Ran),
    /// The client is told why it is not passed.
    Refuse(Code, String),
    /// Makes or ends a prepared transaction.
    TwoPhase {
        wanted: Wanted,
        bytes: BytesMut,
        expected: Vec<Expected>,
    },
    /// Sent inside a transaction.
    Run {
        bytes: BytesMut,
        expected: Vec<Expected>,
        ran: Vec<Ran>,
        is_simple: bool,
    },
}

/// Statements that are about to run.
#[derive(Clone, Debug)]
pub(super) struct Ran {
    /// The text they are of, where it is known.
    pub known: Option<Arc<Known>>,
    /// Which statements of it.
    pub which: Range<usize>,
    /// Digest of the text and its parameters.
    pub digest: Digest,
    /// The parameters; a simple query has none.
    pub parameters: Option<Arc<Parameters>>,
}

impl Ran {
    /// All statements of a text.
    pub(super) fn whole(known: &Arc<Known>) -> Self {
        Self::part(known, 0..known.judgement.statements.len())
    }

    fn part(known: &Arc<Known>, which: Range<usize>) -> Self {
        let statements = known.judgement.statements.get(which.clone());
        let text = span(statements.unwrap_or_default());
        Self {
            digest: Digest::of(known.text.get(text).unwrap_or_default()),
            known: Some(Arc::clone(known)),
            which,
            parameters: None,
        }
    }

    /// Returns one of its statements, by its place among them.
    pub(super) fn one(&self, at: usize) -> Option<Self> {
        let begin = self.which.start.saturating_add(at);
        let which = begin..begin.saturating_add(1);
        self.known.as_ref().map(|known| Self::part(known, which))
    }

    pub(super) fn bound(bound: &Bound) -> Self {
        let known = bound.known.clone();
        let count = known
            .as_ref()
            .map_or(0, |known| known.judgement.statements.len());
        Self {
            known,
            which: 0..count,
            digest: bound.digest,
            parameters: Some(Arc::clone(&bound.parameters)),
        }
    }

    /// Returns the statements.
    pub(super) fn statements(&self) -> &[Statement] {
        let all = self
            .known
            .as_ref()
            .map(|known| known.judgement.statements.as_slice());
        all.and_then(|all| all.get(self.which.clone()))
            .unwrap_or_default()
    }

    /// Returns the text.
    pub(super) fn text(&self) -> Bytes {
        match &self.known {
            Some(known) => {
                Bytes::copy_from_slice(known.text.get(span(self.statements())).unwrap_or_default())
            }
            None => Bytes::from_static(b"(a prepared statement whose text is not known)"),
        }
    }

    /// Returns the text for people.
    pub(super) fn summary(&self) -> String {
        Untrusted(&String::from_utf8_lossy(&self.text())).to_string()
    }

    fn has(&self, class: Class) -> bool {
        self.statements()
            .iter()
            .any(|one| Known::class(one) == class)
    }

    /// Something else than reading is among them.
    pub(super) fn writes(&self) -> bool {
        self.known.is_none()
            || self
                .statements()
                .iter()
                .any(|one| Known::class(one) != Class::Reads)
    }

    fn control(&self) -> Option<Control> {
        match self.statements() {
            [one] => match Known::class(one) {
                Class::Control(control) => Some(control),
                _ => None,
            },
            _ => None,
        }
    }

    /// The name of the prepared transaction that its only statement is about.
    fn gid(&self) -> Option<String> {
        match self.statements() {
            [one] => one.prepared.clone(),
            _ => None,
        }
    }

    fn ends_prepared(&self) -> Option<Wanted> {
        let control = self.control()?;
        let ends = matches!(control, Control::CommitPrepared | Control::RollbackPrepared);
        let gid = self.gid().filter(|_| ends)?;
        Some(Wanted { control, gid })
    }

    /// It is one statement that the server refuses inside a transaction.
    pub(super) fn is_alone(&self) -> bool {
        matches!(self.statements(), [one] if one.needs_no_block && one.control.is_none())
    }

    /// It only tidies; functions behind an index or statistics run meanwhile.
    fn tidies(&self) -> bool {
        let mut statements = self.statements().iter();
        statements.all(|one| one.kind == StatementKind::Maintenance)
    }

    /// It must be decided before it starts.
    fn must_be_decided(&self) -> bool {
        let stops = |one: &Statement| {
            Known::class(one) == Class::Stops && !one.effects.impacts().is_empty()
        };
        self.statements().iter().any(stops)
    }
}

fn span(statements: &[Statement]) -> Range<usize> {
    match (statements.first(), statements.last()) {
        (Some(first), Some(last)) => first.range.start..last.range.end,
        _ => 0..0,
    }
}

/// One message of the extended protocol.
#[derive(Debug)]
pub(super) struct Message {
    pub bytes: BytesMut,
    pub expected: Expected,
    /// What it runs.
    pub runs: Option<Ran>,
}

/// Plans a simple query; `is_free` says that no transaction is open.
pub(super) fn simple(known: &Arc<Known>, is_free: bool) -> Vec<Item> {
    let whole = Ran::whole(known);
    let query = |bytes: &[u8], ready: bool| {
        let mut out = BytesMut::with_capacity(bytes.len().saturating_add(6));
        own::write_query(bytes, &mut out);
        (out, vec![Expected::client(What::Query { ready })])
    };
    let end = Item::End { is_simple: true };
    if whole.has(Class::Unparsed) {
        // The server parses it as one statement or refuses it: no second one hides in it.
        let (bytes, expected) = query(&known.text, false);
        let run = run_simple(bytes, expected, vec![whole.clone()]);
        return vec![Item::Probe(whole), run, end];
    }
    if is_free && whole.is_alone() {
        let (bytes, expected) = query(&known.text, false);
        let mut items = Vec::new();
        let tidies = whole.tidies();
        if whole.must_be_decided() {
            items.push(Item::Decide(whole));
        }
        items.push(Item::Bare {
            bytes,
            expected,
            tidies,
        });
        items.push(end);
        return items;
    }
    let mut items = Vec::new();
    for ran in parts(known) {
        if ran.must_be_decided() {
            items.push(Item::Decide(ran.clone()));
        }
        let (bytes, expected) = query(&sent(known, &ran), false);
        items.push(match ran.control() {
            Some(control) => control_item((control, ran.gid()), bytes, expected),
            None => run_simple(bytes, expected, vec![ran]),
        });
    }
    items.push(end);
    items
}

/// Plans the call of a function by its number: always in a transaction that ends at the gate.
pub(super) fn call(
    message: BytesMut,
    expected: Vec<Expected>,
    ran: &Ran,
    is_free: bool,
) -> Vec<Item> {
    let decide = ran.must_be_decided().then(|| Item::Decide(ran.clone()));
    let begin = is_free.then_some(Item::Begin);
    let run = run_simple(message, expected, vec![ran.clone()]);
    let end = Item::End { is_simple: true };
    decide.into_iter().chain(begin).chain([run, end]).collect()
}

fn run_simple(bytes: BytesMut, expected: Vec<Expected>, ran: Vec<Ran>) -> Item {
    Item::Run {
        bytes,
        expected,
        ran,
        is_simple: true,
    }
}

fn control_item(
    (control, gid): (Control, Option<String>),
    bytes: BytesMut,
    expected: Vec<Expected>,
) -> Item {
    match (control, gid) {
        (
            Control::CommitPrepared | Control::PrepareTransaction | Control::RollbackPrepared,
            gid,
        ) => match gid {
            Some(gid) => Item::TwoPhase {
                wanted: Wanted { control, gid },
                bytes,
                expected,
            },
            None => {
                let message = "the prepared transaction has no name; nothing of this was executed";
                Item::Refuse(Code::ZU403, message.to_owned())
            }
        },
        (control, _) => Item::Control {
            control,
            bytes,
            expected,
        },
    }
}

/// Cuts a text where transactions begin and end.
fn parts(known: &Arc<Known>) -> Vec<Ran> {
    let statements = &known.judgement.statements;
    let mut parts = Vec::new();
    let mut begun = 0_usize;
    for (at, statement) in statements.iter().enumerate() {
        if matches!(Known::class(statement), Class::Control(_)) {
            if begun < at {
                parts.push(Ran::part(known, begun..at));
            }
            let next = at.saturating_add(1);
            parts.push(Ran::part(known, at..next));
            begun = next;
        }
    }
    if begun < statements.len() || parts.is_empty() {
        parts.push(Ran::part(known, begun..statements.len()));
    }
    parts
}

/// Longer texts are cut without keeping the positions of errors, which costs their square.
const LIMIT_PADDED_BYTES: usize = 64 << 10;

/// Returns what is sent for a part of a text: the same bytes at the same place, so that positions in
/// errors stay true.
fn sent(known: &Known, ran: &Ran) -> Vec<u8> {
    let Range { start, end } = span(ran.statements());
    let part = known.text.get(start..end).unwrap_or_default();
    let before = known.text.get(..start).unwrap_or_default();
    let is_whole = ran.which.start == 0 && ran.which.end == known.judgement.statements.len();
    if let Some(Control::Begin { read_only: false }) = ran.control() {
        let begin = known.text.get(..end).unwrap_or_default();
        return writable(if is_whole { begin } else { part });
    }
    if is_whole {
        return known.text.to_vec();
    }
    let mut sent = Vec::with_capacity(known.text.len());
    if known.text.len() <= LIMIT_PADDED_BYTES {
        // The server counts characters, not bytes.
        sent.extend(String::from_utf8_lossy(before).chars().map(|_| b' '));
    }
    sent.extend_from_slice(part);
    sent
}

/// Returns the text of a `BEGIN` that may write, although sessions read only by default.
pub(super) fn writable(begin: &[u8]) -> Vec<u8> {
    [begin, b"\nREAD WRITE"].concat()
}

/// Plans messages of the extended protocol up to a `Sync` or `Flush`.
pub(super) fn extended(batch: Vec<Message>, is_free: bool, is_sync: bool) -> Vec<Item> {
    let runs = || batch.iter().filter_map(|message| message.runs.as_ref());
    let binds = batch
        .iter()
        .any(|one| matches!(one.expected.what, What::Bind { .. }));
    let is_one = runs().count() == 1;
    let alone = is_one && runs().all(Ran::is_alone);
    if let Some(wanted) = runs().next().and_then(Ran::ends_prepared)
        && is_free
        && is_sync
        && is_one
    {
        let (bytes, expected) = joined(batch);
        let ends = Item::TwoPhase {
            wanted,
            bytes,
            expected,
        };
        return vec![ends, Item::End { is_simple: false }];
    }
    let end = Item::End { is_simple: false };
    if is_free && !binds && runs().next().is_none() {
        return pass(batch, is_sync);
    }
    if is_free && is_sync && alone {
        let decide: Vec<Item> = runs()
            .filter(|ran| ran.must_be_decided())
            .map(|ran| Item::Decide(ran.clone()))
            .collect();
        let tidies = runs().all(Ran::tidies);
        let (bytes, expected) = joined(batch);
        let bare = Item::Bare {
            bytes,
            expected,
            tidies,
        };
        return decide.into_iter().chain([bare, end]).collect();
    }
    let begins = runs()
        .next()
        .is_some_and(|ran| matches!(ran.control(), Some(Control::Begin { .. })));
    let mut items = if is_free && !begins {
        vec![Item::Begin]
    } else {
        Vec::new()
    };
    items.extend(cut(batch));
    if is_sync {
        items.push(end);
    }
    items
}

/// What runs nothing passes; nothing ran, so a `Sync` in place of the client's `Flush` ends nothing.
fn pass(batch: Vec<Message>, is_sync: bool) -> Vec<Item> {
    let (mut bytes, mut expected) = joined(batch);
    own::write_sync(&mut bytes);
    expected.push(match is_sync {
        true => Expected::client(What::Sync),
        false => Expected::own(What::Sync),
    });
    vec![Item::Pass { bytes, expected }]
}

/// Puts a `Close` in front of a batch for every statement that it gives a name.
pub(super) fn closed_before(batch: Vec<Message>) -> Vec<Message> {
    let mut closes: Vec<Message> = Vec::new();
    let parses = batch.iter().filter(|message| !message.expected.is_own);
    for message in parses {
        if let What::Parse { name, .. } = &message.expected.what {
            let mut bytes = BytesMut::new();
            own::write_close(name, &mut bytes);
            closes.push(Message {
                bytes,
                expected: Expected::own(What::Close {
                    portal: None,
                    statement: None,
                }),
                runs: None,
            });
        }
    }
    closes.extend(batch);
    closes
}

fn joined(batch: Vec<Message>) -> (BytesMut, Vec<Expected>) {
    let mut bytes = BytesMut::new();
    let mut expected = Vec::new();
    for message in batch {
        bytes.extend_from_slice(&message.bytes);
        expected.push(message.expected);
    }
    (bytes, expected)
}

/// Cuts a batch where something must be decided, or a transaction begins or ends.
fn cut(batch: Vec<Message>) -> Vec<Item> {
    let mut items = Vec::new();
    let (mut bytes, mut expected, mut ran) = (BytesMut::new(), Vec::new(), Vec::new());
    for message in batch {
        let control = message.runs.as_ref().and_then(Ran::control);
        let decides = message
            .runs
            .clone()
            .filter(|ran| ran.must_be_decided() || ran.has(Class::Unparsed));
        if (control.is_some() || decides.is_some()) && !bytes.is_empty() {
            items.push(Item::Run {
                bytes: std::mem::take(&mut bytes),
                expected: std::mem::take(&mut expected),
                ran: std::mem::take(&mut ran),
                is_simple: false,
            });
        }
        if let Some(ran) = decides {
            items.push(Item::Decide(ran));
        }
        if let Some(control) = control {
            let gid = message.runs.as_ref().and_then(Ran::gid);
            let expected = vec![message.expected];
            items.push(control_item((control, gid), message.bytes, expected));
        } else {
            bytes.extend_from_slice(&message.bytes);
            expected.push(message.expected);
            ran.extend(message.runs);
        }
    }
    if !bytes.is_empty() {
        items.push(Item::Run {
            bytes,
            expected,
            ran,
            is_simple: false,
        });
    }
    items
}
