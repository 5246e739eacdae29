//! Which blocks the log changed since a position: kept up as the log is shipped, or read again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::Lsn;
use holdfast_wire::pg::replication::TimelineHistory;
use holdfast_wire::pg::wal::{Changes, Record, WalError, WalReader, WalShape};

use super::super::{Capture, CaptureError};
use super::IncrementalError;
use crate::repository::log::Piece;
use crate::repository::{PostgresPoint, WalPlace};
use crate::spool::{Cluster, Segment};

/// The changes since a position, as far as the log was seen; clones share it.
#[derive(Clone, Default)]
pub(crate) struct ChangeLog(Arc<Mutex<Seen>>);

/// What was seen of one timeline's log.
#[derive(Clone, Default)]
struct Seen {
    timeline: u32,
    reader: Option<WalReader>,
    now: Since,
    /// What comes after the restore point that is being taken.
    next: Option<Since>,
}

/// The changes of every record that begins at `from` or later.
#[derive(Clone, Default)]
struct Since {
    from: Option<Lsn>,
    changes: Changes,
}

impl ChangeLog {
    /// Takes a part of the log that was shipped; what does not continue the part before begins anew.
    pub(crate) fn feed(&self, cluster: &Cluster, timeline: u32, start: Lsn, bytes: &[u8]) {
        self.lock().feed(cluster, timeline, start, bytes);
    }

    /// Collects what comes from now on also for the restore point after the one that begins now.
    pub(in crate::capture) fn begin(&self) {
        let mut seen = self.lock();
        let from = seen.reader.as_ref().and_then(WalReader::record_end);
        // Before anything was seen, what comes may lie far before the restore point: it is read again.
        seen.next = Some(Since {
            from: from.or(Some(Lsn(u64::MAX))),
            changes: Changes::default(),
        });
    }

    /// Forgets what came before the start of the restore point that was begun.
    ///
    /// More may have been seen by then. Where it is worth it, that is forgotten as well and its end is
    /// returned: what lies between is to be [added](ChangeLog::add).
    fn starts(&self, timeline: u32, at: Lsn) -> Option<Lsn> {
        let mut seen = self.lock();
        let is_same = seen.timeline == timeline;
        let ahead = seen.position().filter(|position| *position > at);
        let next = seen.next.as_mut()?;
        if let Some(position) = ahead {
            let before = next.from.filter(|from| is_same && *from < at)?;
            if position.since(at) > at.since(before) {
                // Little is stored too much, and much would have to be read.
                return None;
            }
        }
        *next = Since {
            from: Some(at),
            changes: Changes::default(),
        };
        ahead
    }

    /// Adds a record of the restore point that was begun.
    fn add(&self, record: &Record<'_>) -> Result<(), WalError> {
        match &mut self.lock().next {
            Some(next) => next.changes.apply(record),
            None => Ok(()),
        }
    }

    /// Gives up what is collected for the restore point that was begun: it will be read again.
    fn spoil(&self) {
        if let Some(next) = &mut self.lock().next {
            next.from = Some(Lsn(u64::MAX));
        }
    }

    /// Forgets what the restore point that was begun has taken in.
    pub(in crate::capture) fn commit(&self) {
        let mut seen = self.lock();
        if let Some(next) = seen.next.take() {
            seen.now = next;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn position(&self) -> Option<Lsn> {
        self.reader.as_ref().and_then(WalReader::position)
    }

    fn feed(&mut self, cluster: &Cluster, timeline: u32, start: Lsn, bytes: &[u8]) {
        let continues = self.timeline == timeline && self.position().is_some_and(|at| start <= at);
        if !continues {
            self.begin_anew(timeline);
        }
        let reader = self.reader.get_or_insert_with(|| reader(cluster));
        let (now, next) = (&mut self.now, &mut self.next);
        let read = reader.feed(start, bytes, &mut |record| {
            for since in std::iter::once(&mut *now).chain(next.as_mut()) {
                if *since.from.get_or_insert(record.start) <= record.start {
                    since.changes.apply(record)?;
                }
            }
            Ok(())
        });
        if let Err(error) = read {
            // Reading it again finds the same and says so, if it matters.
            tracing::debug!(%error, "the log's changes cannot be followed");
            self.begin_anew(0);
        }
    }

    /// Forgets what was seen; a restore point that was begun may still find its start in what comes.
    fn begin_anew(&mut self, timeline: u32) {
        let next = self.next.take().map(|_| Since {
            from: Some(Lsn(u64::MAX)),
            changes: Changes::default(),
        });
        *self = Self {
            timeline,
            next,
            ..Self::default()
        };
    }

    /// Returns the changes from `from` on when nothing before `to` is missing.
    fn between(&self, timeline: u32, from: Lsn, to: Lsn) -> Option<&Changes> {
        let has_begun = self.now.from.is_some_and(|seen| seen <= from);
        let has_ended = self.position().is_some_and(|at| to <= at);
        (self.timeline == timeline && has_begun && has_ended).then_some(&self.now.changes)
    }
}

impl Capture {
    /// Returns the blocks that changed from the parent's first position to `(timeline, to)`.
    ///
    /// The log up to there must be durable in the spool or in the repository.
    pub(super) fn changed(
        &self,
        cluster: &Cluster,
        parent: &PostgresPoint,
        (timeline, to): (u32, Lsn),
    ) -> Result<Changes, CaptureError> {
        if parent.timeline == timeline
            && let Some(changes) = self.changed_as_seen(cluster, parent, to)?
        {
            return Ok(changes);
        }
        self.changed_again(cluster, parent, (timeline, to))
    }

    /// Takes what was seen while the log was shipped, and the rest from the spool.
    fn changed_as_seen(
        &self,
        cluster: &Cluster,
        parent: &PostgresPoint,
        to: Lsn,
    ) -> Result<Option<Changes>, CaptureError> {
        let (timeline, from) = (parent.timeline, parent.start_lsn);
        let mut seen = self.changes.lock().clone();
        seen.next = None;
        while let Some(at) = seen.position().filter(|at| *at < to) {
            let segment = Segment::containing(timeline, at, cluster.segment_bytes);
            let spooled = self.spooled(cluster, segment, at)?;
            // What lies behind may be room that no log came for yet.
            let wanted = usize::try_from(to.since(at).0).unwrap_or(usize::MAX);
            let bytes = spooled.get(..wanted).unwrap_or(&spooled);
            if bytes.is_empty() || seen.timeline != timeline {
                return Ok(None);
            }
            seen.feed(cluster, timeline, at, bytes);
        }
        Ok(seen.between(timeline, from, to).cloned())
    }

    /// Reads the whole stretch of the log once more.
    fn changed_again(
        &self,
        cluster: &Cluster,
        parent: &PostgresPoint,
        (timeline, to): (u32, Lsn),
    ) -> Result<Changes, CaptureError> {
        let path = self.path(cluster, parent, (timeline, to))?;
        let mut changes = Changes::default();
        let mut take = |record: &Record<'_>| changes.apply(record);
        self.read_again(cluster, parent.start_lsn, path, &mut take)?;
        Ok(changes)
    }

    /// Notes where the restore point that was begun starts: its changes count from there.
    pub(in crate::capture) fn changes_start(&self, cluster: &Cluster, (timeline, at): (u32, Lsn)) {
        let Some(until) = self.changes.starts(timeline, at) else {
            return;
        };
        let mut take = |record: &Record<'_>| self.changes.add(record);
        let read = self.read_again(cluster, at, vec![(timeline, until)], &mut take);
        if let Err(error) = read {
            tracing::debug!(%error, "the log since the start is read later");
            self.changes.spoil();
        }
    }

    /// Reads the log from `from` on along a path of timelines, each with where it was left.
    fn read_again(
        &self,
        cluster: &Cluster,
        from: Lsn,
        path: Vec<(u32, Lsn)>,
        take: &mut dyn FnMut(&Record<'_>) -> Result<(), WalError>,
    ) -> Result<(), CaptureError> {
        let mut reader = reader(cluster);
        let mut at = cluster.segment_bytes.floor(from);
        for (timeline, until) in path {
            let place = self.place(cluster, timeline);
            let mut pieces = self.repository.reader().log(&place)?.pieces;
            // A new timeline's first segment repeats the end of the old one; that is passed over.
            while at < until {
                let (start, all) = self.piece(cluster, &place, &mut pieces, at)?;
                let length = usize::try_from(until.since(start).0).unwrap_or(usize::MAX);
                let bytes = all.get(..length).unwrap_or(&all);
                let read = reader.feed(start, bytes, &mut |record| {
                    if record.end > from {
                        take(record)?;
                    }
                    Ok(())
                });
                read.map_err(|source| IncrementalError::Unreadable { at: start, source })?;
                at = Lsn(start
                    .0
                    .saturating_add(u64::try_from(bytes.len()).unwrap_or(0)));
            }
        }
        Ok(())
    }

    /// Returns the timelines from the parent's to this one, each with where it was left.
    fn path(
        &self,
        cluster: &Cluster,
        parent: &PostgresPoint,
        (timeline, to): (u32, Lsn),
    ) -> Result<Vec<(u32, Lsn)>, CaptureError> {
        if parent.timeline == timeline {
            return Ok(vec![(timeline, to)]);
        }
        let strays = IncrementalError::OtherLine {
            parent: parent.timeline,
            timeline,
        };
        let kept = self.spool.histories()?;
        let text = match kept.into_iter().find(|(of, _)| *of == timeline) {
            Some((_, text)) => text,
            None => {
                let reader = self.repository.reader();
                reader.history(&self.place(cluster, timeline))?
            }
        };
        let history = TimelineHistory::parse(&text).unwrap_or_default();
        match history.left_at(parent.timeline) {
            Some(left) if left >= parent.stop_lsn => {}
            _ => return Err(strays.into()),
        }
        let mut path: Vec<(u32, Lsn)> = history
            .switches
            .iter()
            .filter(|switch| switch.timeline >= parent.timeline)
            .map(|switch| (switch.timeline, switch.at))
            .collect();
        path.push((timeline, to));
        Ok(path)
    }

    /// Returns a part of the log that holds `at`, and where it begins.
    fn piece(
        &self,
        cluster: &Cluster,
        place: &WalPlace,
        pieces: &mut Vec<Piece>,
        at: Lsn,
    ) -> Result<(Lsn, Vec<u8>), CaptureError> {
        let reader = self.repository.reader();
        let holds = |piece: &&Piece| piece.start <= at && at < piece.end;
        let longest = |pieces: &[Piece]| {
            let found = pieces.iter().filter(holds);
            found.max_by_key(|piece| piece.end).cloned()
        };
        if let Some(piece) = longest(pieces) {
            return Ok((piece.start, reader.read_log(place, &piece)?));
        }
        let segment = Segment::containing(place.timeline, at, cluster.segment_bytes);
        let bytes = self.spooled(cluster, segment, at)?;
        if !bytes.is_empty() {
            return Ok((at, bytes));
        }
        // It may have left the spool for the repository a moment ago.
        *pieces = reader.log(place)?.pieces;
        match longest(pieces) {
            Some(piece) => Ok((piece.start, reader.read_log(place, &piece)?)),
            None => Err(IncrementalError::Missing { at }.into()),
        }
    }

    /// Returns what the spool has of a segment from `at` on; nothing when it has none of it.
    fn spooled(
        &self,
        cluster: &Cluster,
        segment: Segment,
        at: Lsn,
    ) -> Result<Vec<u8>, CaptureError> {
        let size = cluster.segment_bytes;
        let stored = self.spool.stored(size)?;
        if !stored.iter().any(|one| one.segment == segment) {
            return Ok(Vec::new());
        }
        match self.spool.read(segment, size, at, size.get()) {
            Ok(bytes) => Ok(bytes),
            // It was shipped and removed in between.
            Err(_) if !self.spool.has(segment, size) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

fn reader(cluster: &Cluster) -> WalReader {
    WalReader::new(WalShape {
        segment_bytes: cluster.segment_bytes.get_u32(),
        system_identifier: Some(cluster.system_identifier),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::SegmentBytes;

    #[test]
    fn a_point_that_begins_before_any_log_was_seen_finds_its_start() {
        let cluster = Cluster {
            system_identifier: 7,
            segment_bytes: SegmentBytes::new(16 << 20).unwrap(),
        };
        let start = Lsn(16 << 20);
        let changes = ChangeLog::default();
        changes.begin();
        // The first part of the log begins everything anew, and what is no log once more.
        changes.feed(&cluster, 1, start, &[0x5A; 8192]);
        assert_eq!(changes.starts(1, start), None);
        changes.commit();
        assert_eq!(changes.lock().now.from, Some(start));
    }
}
