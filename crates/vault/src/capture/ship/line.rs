//! What of one timeline's log is stored next: pure, so that every order of events can be tried.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use holdfast_core::Lsn;

use crate::config::AckAt;
use crate::limits;
use crate::spool::{Segment, SegmentBytes};

/// A part of the log that is to be stored as one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::capture) struct Cut {
    pub(in crate::capture) timeline: u32,
    pub(in crate::capture) start: Lsn,
    pub(in crate::capture) end: Lsn,
    pub(in crate::capture) kind: CutKind,
}

/// As what it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::capture) enum CutKind {
    /// A whole segment that carries the end of the log further.
    Segment,
    /// A part of a segment.
    Tail,
    /// A whole segment whose tails carry the end further.
    Whole,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Look again then.
    At(Instant),
    /// Store this.
    Cut(Cut),
    /// Wait for something to happen.
    Wait,
}

/// What of the log may be cut now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// The end of what is durable in the spool.
    pub(super) durable: Lsn,
    /// Nothing more comes, or somebody waits: no waiting for more in one tail.
    pub(super) ended: bool,
    pub(super) now: Instant,
}

#[derive(Debug)]
struct Part<P> {
    cut: Cut,
    payload: P,
    stored: bool,
}

/// One timeline on its way into the repository.
///
/// Several objects are on their way at once, so that a slow store delays what is new by no more than
/// its own time; `done` moves over a part only when everything before is stored.
#[derive(Debug)]
pub(super) struct Line<P> {
    timeline: u32,
    size: SegmentBytes,
    ack: AckAt,
    /// Everything before is stored, or on its way.
    sent: Lsn,
    /// Everything before is stored.
    done: Lsn,
    /// What is on its way and carries the end further, in order.
    parts: VecDeque<Part<P>>,
    /// Closed segments that are not stored as wholes yet.
    closed: BTreeSet<Lsn>,
    /// Those of them that are on their way.
    wholes: BTreeSet<Lsn>,
    last_tail: Option<Instant>,
    failed: bool,
}

impl<P> Line<P> {
    /// Begins at `done`, before which the repository has everything.
    pub(super) fn new(timeline: u32, done: Lsn, size: SegmentBytes, ack: AckAt) -> Self {
        Self {
            timeline,
            size,
            ack,
            sent: done,
            done,
            parts: VecDeque::new(),
            closed: BTreeSet::new(),
            wholes: BTreeSet::new(),
            last_tail: None,
            failed: false,
        }
    }

    /// Notes that the repository has a segment as tails alone.
    pub(super) fn owe(&mut self, segment: Segment) {
        self.closed.insert(segment.start);
    }

    /// Returns up to where the repository has everything.
    pub(super) fn done(&self) -> Lsn {
        self.done
    }

    /// Returns up to where everything is stored or on its way.
    pub(super) fn sent(&self) -> Lsn {
        self.sent
    }

    /// Returns the position that is news before `at`, when it is looked again in any case, or before
    /// something that is on its way is stored.
    pub(super) fn wants(&self, durable: Lsn, at: Option<Instant>) -> Lsn {
        if at.is_some() {
            // A closed segment goes at once.
            self.end_of(self.size.floor(self.sent))
        } else if self.sent >= durable {
            Lsn::ZERO
        } else {
            Lsn(u64::MAX)
        }
    }

    /// Goes on behind a hole of the log, once nothing is on its way.
    pub(super) fn jump(&mut self, to: Lsn) {
        if self.is_still() {
            self.parts.clear();
            self.sent = to;
            self.done = to;
        }
    }

    /// Returns up to where the repository has everything as whole segments.
    pub(super) fn whole_until(&self) -> Lsn {
        let done = self.size.floor(self.done);
        self.closed.first().map_or(done, |first| done.min(*first))
    }

    /// Tells whether nothing is on its way.
    pub(super) fn is_still(&self) -> bool {
        self.parts.iter().all(|part| part.stored) && self.wholes.is_empty()
    }

    /// Tells whether an upload failed and the line has not begun anew.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Begins anew behind what is stored, unless something is still on its way.
    pub(super) fn recover(&mut self) {
        if self.failed && self.is_still() {
            self.parts.clear();
            self.sent = self.done;
            self.failed = false;
        }
    }

    /// Says what to store next.
    pub(super) fn next(&self, reach: Reach) -> Next {
        if self.failed {
            return Next::Wait;
        }
        let further = self.further(reach);
        if let Next::Cut(_) = further {
            return further;
        }
        let whole = self
            .closed
            .iter()
            .find(|start| !self.wholes.contains(start));
        match whole {
            Some(start) if self.wholes.len() < limits::SEGMENTS_ON_THEIR_WAY => {
                Next::Cut(self.cut(*start, self.end_of(*start), CutKind::Whole))
            }
            _ => further,
        }
    }

    /// Says what carries the end of the log further.
    fn further(&self, reach: Reach) -> Next {
        if self.sent >= reach.durable {
            return Next::Wait;
        }
        let start = self.size.floor(self.sent);
        let end = self.end_of(start);
        // Where somebody waits, the rest of a segment is sooner stored than all of it.
        let is_waited_for = self.ack == AckAt::Repository && self.sent > start;
        if reach.durable >= end && !is_waited_for {
            return if self.on_their_way(CutKind::Segment) < limits::SEGMENTS_ON_THEIR_WAY {
                Next::Cut(self.cut(self.sent, end, CutKind::Segment))
            } else {
                Next::Wait
            };
        }
        let (most, every) = match self.ack {
            AckAt::Repository => (limits::TAILS_WAITED_FOR, None),
            AckAt::Spool => (limits::TAILS_ON_THEIR_WAY, Some(limits::SHIP_EVERY)),
        };
        if self.on_their_way(CutKind::Tail) >= most {
            return Next::Wait;
        }
        let due = every.zip(self.last_tail).map(|(every, last)| last + every);
        if let Some(due) = due.filter(|due| *due > reach.now && !reach.ended) {
            return Next::At(due);
        }
        let longest = Lsn(self.sent.0.saturating_add(limits::TAIL_BYTES));
        let end = reach.durable.min(end).min(longest);
        Next::Cut(self.cut(self.sent, end, CutKind::Tail))
    }

    /// Notes that a cut is on its way; its payload is kept until it is stored in its turn.
    pub(super) fn begun(&mut self, cut: Cut, payload: P, now: Instant) {
        match cut.kind {
            CutKind::Whole => {
                self.wholes.insert(cut.start);
                return;
            }
            CutKind::Tail => {
                // A tail that is full leaves more behind, which is not made to wait.
                let is_full = cut.end.since(cut.start).0 >= limits::TAIL_BYTES;
                self.last_tail = (!is_full).then_some(now);
                let segment = self.size.floor(cut.start);
                if cut.end == self.end_of(segment) {
                    self.closed.insert(segment);
                }
            }
            CutKind::Segment => self.last_tail = Some(now),
        }
        self.sent = cut.end;
        self.parts.push_back(Part {
            cut,
            payload,
            stored: false,
        });
    }

    /// Notes that a cut is stored and hands over, in order, what has become safe by it.
    pub(super) fn stored(&mut self, cut: Cut) -> Vec<P> {
        if cut.kind == CutKind::Whole {
            self.wholes.remove(&cut.start);
            self.closed.remove(&cut.start);
            return Vec::new();
        }
        if let Some(part) = self.parts.iter_mut().find(|part| part.cut == cut) {
            part.stored = true;
        }
        let mut safe = Vec::new();
        // What is stored behind something that is not yet, or that failed, does not count.
        while let Some(part) = self
            .parts
            .pop_front_if(|part| part.stored && part.cut.start == self.done)
        {
            self.done = part.cut.end;
            safe.push(part.payload);
        }
        safe
    }

    /// Notes that a cut is not stored, or that nobody knows.
    pub(super) fn lost(&mut self, cut: Cut) {
        self.failed = true;
        if cut.kind == CutKind::Whole {
            self.wholes.remove(&cut.start);
        } else {
            self.parts.retain(|part| part.cut != cut);
        }
    }

    fn on_their_way(&self, kind: CutKind) -> usize {
        let of_kind = |part: &&Part<P>| part.cut.kind == kind && !part.stored;
        self.parts.iter().filter(of_kind).count()
    }

    fn cut(&self, start: Lsn, end: Lsn, kind: CutKind) -> Cut {
        Cut {
            timeline: self.timeline,
            start,
            end,
            kind,
        }
    }

    fn end_of(&self, segment: Lsn) -> Lsn {
        Lsn(segment.0.saturating_add(self.size.get()))
    }
}

#[cfg(test)]
mod tests;
