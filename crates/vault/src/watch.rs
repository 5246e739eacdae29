//! What the log tells while it is captured: the newest commit, and commits that destroyed something.

mod ahead;
mod rule;

use std::collections::{BTreeSet, VecDeque};

use holdfast_core::ledger::Draft;
use holdfast_core::{ActionId, Code, Coded, Digest, Lsn, Principal, SourceName, Timestamp};
use holdfast_store::ledger::{self, Ledger, LedgerError};
use holdfast_wire::pg::wal::{Event, Rmgr, WalError, WalReader, WalShape};

pub(crate) use ahead::{Brink, Checkpointed, CutAt, LookAhead};
pub use rule::Destroyed;

use crate::config::Clock;
use rule::{Destruction, Transactions};

/// The kind of the ledger's entries about destruction.
pub const DESTRUCTION_SEEN: &str = "source.destruction_seen";

/// A commit that destroyed something, and how to get back to before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its name in the ledger: `holdfast restore SOURCE --at before:ACTION`.
    pub action: ActionId,
    /// Stop just before the record that begins here.
    pub before: Lsn,
    /// On which timeline.
    pub timeline: u32,
    /// When it was committed, by the source's clock.
    pub commit_time: Timestamp,
    /// The transaction.
    pub xid: u32,
    /// Relations whose files it removed, with their indexes and TOAST tables.
    pub relations: u64,
    /// What kind of thing is gone.
    pub what: Destroyed,
}

/// Why the log could not be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// What was seen could not be written down; it is tried again with the next bytes.
    #[error("cannot write down what `{source_name}` lost")]
    Ledger {
        /// Which source.
        source_name: SourceName,
        /// Why.
        source: LedgerError,
    },
    /// The bytes are not the log that was expected.
    #[error("cannot read the log of `{source_name}`")]
    Wal {
        /// Which source.
        source_name: SourceName,
        /// Why.
        source: WalError,
    },
}

impl Coded for WatchError {
    fn code(&self) -> Code {
        match self {
            Self::Ledger { source, .. } => source.code(),
            Self::Wal { source, .. } => source.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Ledger { source, .. } => source.hint(),
            Self::Wal { source, .. } => source.hint(),
        }
    }
}

/// Reads the log of one source as it is captured and writes down what was destroyed.
///
/// It may begin anywhere in the log and may see bytes twice: what is in the ledger already is not
/// written again.
pub struct LogWatch {
    source: SourceName,
    ledger: Ledger,
    clock: Clock,
    reader: WalReader,
    transactions: Transactions,
    newest_commit: Option<Timestamp>,
    known: Option<BTreeSet<(u32, Lsn)>>,
    unwritten: VecDeque<Seen>,
}

impl LogWatch {
    /// Makes a watch that has seen nothing.
    pub fn new(source: SourceName, shape: WalShape, ledger: Ledger, clock: Clock) -> Self {
        Self {
            source,
            ledger,
            clock,
            reader: WalReader::new(shape),
            transactions: Transactions::default(),
            newest_commit: None,
            known: None,
            unwritten: VecDeque::new(),
        }
    }

    /// States where `pg_class` and `pg_type` of a database stand (`pg_relation_filenode`).
    ///
    /// Needed only for a database whose catalogs were rewritten before the log was read from; without
    /// it more is taken for destruction than is.
    pub fn learn(&mut self, database: u32, class: u32, types: u32) {
        self.transactions.learn(database, class, types);
    }

    /// Reads `bytes`, which stand at `start`, and returns what was destroyed, written down already.
    ///
    /// Bytes that were fed before are passed over.
    ///
    /// # Errors
    /// [`WatchError::Wal`]: this watch is of no more use, make a new one at the position to go on
    /// from. [`WatchError::Ledger`]: nothing is lost, go on feeding.
    pub fn feed(&mut self, start: Lsn, bytes: &[u8]) -> Result<Vec<Seen>, WatchError> {
        let mut found: Vec<(u32, Destruction)> = Vec::new();
        let transactions = &mut self.transactions;
        let newest = &mut self.newest_commit;
        let read = self.reader.feed(start, bytes, &mut |record| {
            if record.rmgr == Rmgr::XACT
                && let Some(Event::Commit(commit)) = record.event()?
            {
                *newest = (*newest).max(Some(commit.time));
            }
            if let Some(destruction) = transactions.follow(record)? {
                found.push((record.timeline, destruction));
            }
            Ok(())
        });
        for (timeline, destruction) in found {
            self.remember(timeline, &destruction);
        }
        let seen = self.write()?;
        match read {
            Ok(()) => Ok(seen),
            Err(source) => Err(WatchError::Wal {
                source_name: self.source.clone(),
                source,
            }),
        }
    }

    /// Returns the time of the newest commit that was read, by the source's clock.
    pub fn newest_commit(&self) -> Option<Timestamp> {
        self.newest_commit
    }

    /// Returns the position that must come next, or `None` before the first bytes.
    pub fn position(&self) -> Option<Lsn> {
        self.reader.position()
    }

    /// Returns the end of the last whole record that was read.
    pub fn record_end(&self) -> Option<Lsn> {
        self.reader.record_end()
    }

    /// Returns where a new watch should begin so that no open transaction is seen in part.
    pub fn resume_from(&self) -> Option<Lsn> {
        let open = self.transactions.open_since();
        match (open, self.reader.record_end()) {
            (Some(open), Some(end)) => Some(open.min(end)),
            (open, end) => open.or(end),
        }
    }

    fn remember(&mut self, timeline: u32, destruction: &Destruction) {
        self.unwritten.push_back(Seen {
            action: self.name(timeline, destruction),
            before: destruction.before,
            timeline,
            commit_time: destruction.time,
            xid: destruction.xid,
            relations: destruction.relations,
            what: destruction.what,
        });
    }

    /// Names the action by what it is, so that it has the same name whoever reads the log again.
    fn name(&self, timeline: u32, destruction: &Destruction) -> ActionId {
        let Destruction {
            before, xid, time, ..
        } = destruction;
        let text = format!("{}\n{timeline}\n{before}\n{xid}\n{time}", self.source);
        let digest = Digest::of(text.as_bytes());
        let mut letters = [0_u8; ActionId::RANDOM_BYTES];
        for (letter, byte) in letters.iter_mut().zip(&digest.0) {
            *letter = *byte;
        }
        ActionId::from_random(letters)
    }

    /// Writes down what is not written yet; what fails stays for the next time.
    fn write(&mut self) -> Result<Vec<Seen>, WatchError> {
        let mut written = Vec::new();
        while let Some(seen) = self.unwritten.front() {
            let failed = |source| WatchError::Ledger {
                source_name: self.source.clone(),
                source,
            };
            let known = match &mut self.known {
                Some(known) => known,
                none => none.insert(known_in(&self.ledger, &self.source).map_err(failed)?),
            };
            if !known.contains(&(seen.timeline, seen.before)) {
                let draft = entry(seen, &self.source, (self.clock)());
                self.ledger.append(draft).map_err(failed)?;
                known.insert((seen.timeline, seen.before));
                written.push(seen.clone());
            }
            self.unwritten.pop_front();
        }
        Ok(written)
    }
}

fn entry(seen: &Seen, source: &SourceName, now: Timestamp) -> Draft {
    Draft::new(DESTRUCTION_SEEN, Principal::service("vault"), now)
        .source(source.clone())
        .action(seen.action.clone())
        .with("before_lsn", seen.before.to_string())
        .with("timeline", seen.timeline)
        .with("commit_time", seen.commit_time.to_string())
        .with("xid", seen.xid)
        .with("relations", seen.relations)
        .with("what", seen.what.as_str())
}

/// Reads which destruction of `source` is in the ledger already.
fn known_in(ledger: &Ledger, source: &SourceName) -> Result<BTreeSet<(u32, Lsn)>, LedgerError> {
    let mut known = BTreeSet::new();
    ledger::verify(ledger.folder(), &ledger.public_key(), |entry| {
        let draft = &entry.draft;
        if draft.kind != DESTRUCTION_SEEN || draft.source.as_ref() != Some(source) {
            return;
        }
        let timeline = draft
            .body
            .get("timeline")
            .and_then(serde_json::Value::as_u64);
        let before = draft
            .body
            .get("before_lsn")
            .and_then(serde_json::Value::as_str);
        let timeline = timeline.and_then(|timeline| u32::try_from(timeline).ok());
        if let (Some(timeline), Some(Ok(before))) = (timeline, before.map(str::parse)) {
            known.insert((timeline, before));
        }
    })?;
    Ok(known)
}
