//! What a ledger has written, what of it is durable, and how the rest is taken back.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use holdfast_core::ledger::{Chain, Draft, Entry, LineError};
use holdfast_core::{Digest, Timestamp};

use super::{LedgerError, Ticket};

/// What the writer of a ledger knows of its file.
pub(super) struct State {
    pub file: Arc<File>,
    /// Everything that was written.
    pub written: Written,
    /// What of it is durable.
    pub durable: Written,
    /// How often entries that were written had to be taken back.
    pub taken_back: u64,
    /// Why, the last time.
    pub failure: Option<Failure>,
    /// Entries that nobody waits for and that are not durable yet.
    pub later: Vec<Draft>,
    /// Those of them that were taken back, and are written with the next entry.
    pub owed: Vec<Draft>,
    /// Somebody syncs the file.
    pub is_syncing: bool,
    /// Somebody will sync it soon.
    pub is_expected: bool,
    pub id: Digest,
    pub head_size: u64,
    /// Bytes of whole lines in the file of heads; a crash may have left a part of one after them.
    pub heads_bytes: u64,
    /// The last write failed; the next may succeed again.
    pub failing: bool,
    pub stopped: bool,
}

/// How far the file is.
#[derive(Clone)]
pub(super) struct Written {
    pub bytes: u64,
    pub chain: Chain,
    pub at: Timestamp,
}

/// Why entries were taken back.
#[derive(Clone)]
pub(super) struct Failure {
    pub step: &'static str,
    pub path: PathBuf,
    pub kind: io::ErrorKind,
    pub said: String,
}

/// Why a line was not written.
pub(super) enum Unwritten {
    Cannot(LineError),
    File(io::Error),
    Stopped,
}

impl Unwritten {
    pub(super) fn at(self, path: PathBuf) -> LedgerError {
        match self {
            Self::Cannot(error) => LedgerError::Entry(error),
            Self::File(source) => LedgerError::File {
                step: "write",
                path,
                source,
            },
            Self::Stopped => LedgerError::Stopped,
        }
    }
}

impl Failure {
    pub(super) fn new(step: &'static str, path: PathBuf, source: &io::Error) -> Self {
        Self {
            step,
            path,
            kind: source.kind(),
            said: source.to_string(),
        }
    }
}

impl State {
    /// Writes a line, after those that are owed.
    pub(super) fn write(&mut self, draft: Draft) -> Result<Entry, Unwritten> {
        if self.stopped {
            return Err(Unwritten::Stopped);
        }
        while let Some(owed) = self.owed.first().cloned() {
            self.line(owed.clone())?;
            self.owed.remove(0);
            self.later.push(owed);
        }
        self.line(draft)
    }

    pub(super) fn line(&mut self, draft: Draft) -> Result<Entry, Unwritten> {
        let mut chain = self.written.chain.clone();
        let (entry, mut line) = chain.append(draft).map_err(Unwritten::Cannot)?;
        let id = Digest::of(line.as_bytes());
        line.push('\n');
        if let Err(error) = (&*self.file).write_all(line.as_bytes()) {
            self.failing = true;
            self.cut(self.written.bytes);
            return Err(Unwritten::File(error));
        }
        if entry.seq == 0 {
            self.id = id;
        }
        let bytes = u64::try_from(line.len()).unwrap_or(u64::MAX);
        self.written = Written {
            bytes: self.written.bytes.saturating_add(bytes),
            chain,
            at: entry.draft.at,
        };
        Ok(entry)
    }

    /// What waits for everything that was written.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket {
            size: self.written.chain.size(),
            taken_back: self.taken_back,
        }
    }

    /// Takes back everything that is not durable.
    pub(super) fn take_back(&mut self, failure: Failure) {
        self.failing = true;
        self.failure = Some(failure);
        self.taken_back = self.taken_back.saturating_add(1);
        self.written = self.durable.clone();
        self.owed.append(&mut self.later);
        self.cut(self.durable.bytes);
    }

    /// Cuts the file off; where even that fails, nothing is written any more.
    pub(super) fn cut(&mut self, bytes: u64) {
        let cut = self.file.set_len(bytes);
        self.stopped |= cut.and_then(|()| self.file.sync_all()).is_err();
    }

    /// What somebody is told whose entry was taken back.
    pub(super) fn refusal(&self) -> LedgerError {
        match &self.failure {
            Some(failure) => LedgerError::File {
                step: failure.step,
                path: failure.path.clone(),
                source: io::Error::new(failure.kind, failure.said.clone()),
            },
            None => LedgerError::Stopped,
        }
    }
}
