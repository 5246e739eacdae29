//! Reading the log ahead of a server that will replay it: where it must not go on yet.

use std::collections::VecDeque;

use holdfast_core::{Lsn, Timestamp};
use holdfast_wire::pg::wal::{Event, Record, Rmgr, WalError, WalReader, WalShape};

use super::rule::Transactions;
use crate::limits;
use crate::restore::tablespace;

/// Where the log is to be cut off for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutAt {
    /// After the record that begins here.
    After(Lsn),
    /// Just before the record that begins here.
    Before(Lsn),
    /// Nowhere.
    Never,
    /// Before the first transaction that ended later than this.
    Time(Timestamp),
}

/// A position before something that destroys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Brink {
    /// Where the record begins.
    pub(crate) before: Lsn,
    /// Where the record before it ends: what has replayed up to here has replayed all.
    pub(crate) behind: Lsn,
    /// When it was committed, where the record says so.
    pub(crate) at: Option<Timestamp>,
    /// The newest commit before it.
    pub(crate) newest_commit: Option<Timestamp>,
}

/// A checkpoint of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpointed {
    /// Where its record ends.
    pub(crate) end: Lsn,
    /// Where replay from it begins.
    pub(crate) redo: Lsn,
}

/// Reads the log before it is given to a server.
pub(crate) struct LookAhead {
    reader: WalReader,
    notes: Notes,
}

struct Notes {
    transactions: Transactions,
    cut_at: CutAt,
    /// What lies before is replayed already.
    from: Lsn,
    /// Whether it is stopped before what destroys.
    is_careful: bool,
    last_end: Lsn,
    cut: Option<Brink>,
    brinks: VecDeque<Brink>,
    checkpoints: VecDeque<Checkpointed>,
    newest_commit: Option<Timestamp>,
    marked: Option<Lsn>,
    /// A tablespace is made here: on this machine its place is somebody else's.
    tablespace: Option<Lsn>,
}

impl LookAhead {
    /// Makes one that stops before whatever destroys something from `from` on.
    pub(crate) fn careful(shape: WalShape, from: Lsn) -> Self {
        Self::new(shape, from, (CutAt::Never, true))
    }

    /// Makes one that passes everything up to where the log is cut off.
    pub(crate) fn until(shape: WalShape, from: Lsn, cut_at: CutAt) -> Self {
        Self::new(shape, from, (cut_at, false))
    }

    fn new(shape: WalShape, from: Lsn, (cut_at, is_careful): (CutAt, bool)) -> Self {
        Self {
            reader: WalReader::new(shape),
            notes: Notes {
                transactions: Transactions::default(),
                cut_at,
                from,
                is_careful,
                last_end: Lsn::ZERO,
                cut: None,
                brinks: VecDeque::new(),
                checkpoints: VecDeque::new(),
                newest_commit: None,
                marked: None,
                tablespace: None,
            },
        }
    }

    /// Reads `bytes`, which stand at `start`.
    ///
    /// # Errors
    /// When they are not log; this one is then of no more use.
    pub(crate) fn feed(&mut self, start: Lsn, bytes: &[u8]) -> Result<(), WalError> {
        let notes = &mut self.notes;
        self.reader
            .feed(start, bytes, &mut |record| notes.take(record))
    }

    /// Returns the position that must come next, once something was read.
    pub(crate) fn position(&self) -> Option<Lsn> {
        self.reader.position()
    }

    /// Returns up to where a server may be given the log now.
    pub(crate) fn limit(&self) -> Lsn {
        let end = self.reader.record_end().unwrap_or(Lsn::ZERO);
        let brink = self.notes.brinks.front().map(|brink| brink.before);
        let cut = self.notes.cut.map(|cut| cut.before);
        let stops = brink.into_iter().chain(cut).chain(self.notes.tablespace);
        stops.fold(end, Lsn::min)
    }

    /// Returns the end of the last record that lies before the limit.
    pub(crate) fn behind(&self) -> Lsn {
        let brink = self.notes.brinks.front().or(self.notes.cut.as_ref());
        brink.map_or(self.notes.last_end, |brink| brink.behind)
    }

    /// Returns before what it stops.
    pub(crate) fn brink(&self) -> Option<Brink> {
        self.notes.brinks.front().copied()
    }

    /// Tells where the log makes a tablespace, which cannot be replayed beside its place.
    pub(crate) fn tablespace(&self) -> Option<Lsn> {
        self.notes.tablespace
    }

    /// Lets the log go on.
    pub(crate) fn release(&mut self) {
        self.notes.brinks.pop_front();
    }

    /// Tells whether everything that is wanted has been read.
    pub(crate) fn is_cut(&self) -> bool {
        self.notes.cut.is_some()
    }

    /// Returns the newest checkpoint whose record ends at or before `replayed`.
    pub(crate) fn checkpoint(&mut self, replayed: Lsn) -> Option<Checkpointed> {
        let checkpoints = &mut self.notes.checkpoints;
        while checkpoints
            .get(1)
            .is_some_and(|second| second.end <= replayed)
        {
            checkpoints.pop_front();
        }
        checkpoints
            .front()
            .filter(|first| first.end <= replayed)
            .copied()
    }

    /// Returns the time of the newest commit that lies before the limit.
    pub(crate) fn newest_commit(&self) -> Option<Timestamp> {
        let brink = self.notes.brinks.front();
        brink.map_or(self.notes.newest_commit, |brink| brink.newest_commit)
    }
}

impl Notes {
    fn take(&mut self, record: &Record<'_>) -> Result<(), WalError> {
        if self.cut.is_some() {
            return Ok(());
        }
        let event = match record.rmgr {
            Rmgr::XACT | Rmgr::XLOG => record.event()?,
            _ => None,
        };
        let behind = self.last_end;
        self.cut_before(record, event.as_ref(), behind);
        if self.cut.is_some() {
            return Ok(());
        }
        let newest_commit = self.newest_commit;
        match &event {
            Some(Event::Commit(commit)) => {
                self.newest_commit = self.newest_commit.max(Some(commit.time));
            }
            Some(Event::Checkpoint { redo, .. }) => self.checkpointed(Checkpointed {
                end: record.end,
                redo: *redo,
            }),
            _ => {}
        }
        if record.start >= self.from && tablespace::read(record)?.is_some() {
            self.tablespace.get_or_insert(record.start);
        }
        if self.is_careful {
            let at = match &event {
                Some(Event::Commit(commit)) => Some(commit.time),
                _ => None,
            };
            let brink = Brink {
                before: record.start,
                behind,
                at,
                newest_commit,
            };
            self.beware(record, brink)?;
        }
        self.last_end = record.end;
        if matches!(self.cut_at, CutAt::After(lsn) if record.start >= lsn) {
            self.cut = Some(Brink {
                before: record.end,
                behind: record.end,
                at: None,
                newest_commit: self.newest_commit,
            });
        }
        Ok(())
    }

    fn cut_before(&mut self, record: &Record<'_>, event: Option<&Event>, behind: Lsn) {
        let ended = match event {
            Some(Event::Commit(commit)) => Some(commit.time),
            Some(Event::Abort(abort)) => Some(abort.time),
            _ => None,
        };
        let is_here = match self.cut_at {
            CutAt::Before(lsn) => record.start >= lsn,
            CutAt::Time(time) => ended.is_some_and(|ended| ended > time),
            CutAt::After(_) | CutAt::Never => false,
        };
        if is_here && record.start >= self.from {
            self.cut = Some(Brink {
                before: record.start,
                behind,
                at: ended,
                newest_commit: self.newest_commit,
            });
        }
    }

    fn checkpointed(&mut self, checkpoint: Checkpointed) {
        if self.checkpoints.len() >= limits::MIRROR_CHECKPOINTS {
            self.checkpoints.pop_front();
        }
        self.checkpoints.push_back(checkpoint);
    }

    /// Stops before a commit that destroys, and before the mark of a database that will go.
    fn beware(&mut self, record: &Record<'_>, brink: Brink) -> Result<(), WalError> {
        let destroys = self.transactions.follow(record)?.is_some();
        let marked = self.transactions.newest_mark();
        let is_marked = marked > self.marked;
        self.marked = marked;
        if (destroys || is_marked) && record.start >= self.from {
            self.brinks.push_back(brink);
        }
        Ok(())
    }
}
