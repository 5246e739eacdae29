//! Reading the log backwards, a segment at a time, until what is looked for was seen.

use std::ops::ControlFlow;

use holdfast_core::{Lsn, Timestamp};
use holdfast_wire::pg::wal::{Event, Record, WalError, WalReader, WalShape};

use crate::limits;
use crate::repository::log::{Log, Origin, Piece};
use crate::repository::{Reader, RepositoryError, WalPlace};

/// One timeline's log, to be looked through.
pub(crate) struct Survey<'a> {
    reader: &'a Reader,
    at: &'a WalPlace,
    pieces: Vec<&'a Piece>,
    /// Where the segments to look at begin, in order.
    starts: Vec<Lsn>,
    /// How many segments are read at once.
    width: usize,
}

/// What is noted of each record of a segment.
pub(crate) type Note<'a, T> = &'a (dyn Fn(&Record<'_>, &mut T) -> Result<(), WalError> + Sync);

/// What was seen of one segment.
pub(crate) struct Seen<T> {
    /// Where the segment begins.
    pub(crate) start: Lsn,
    /// What was noted of it.
    pub(crate) noted: T,
    /// Every record that begins in it was read.
    pub(crate) is_whole: bool,
}

/// One segment that is being looked through.
struct Part<T> {
    start: Lsn,
    content: Vec<u8>,
    reader: Option<WalReader>,
    noted: T,
}

impl<'a> Survey<'a> {
    /// Looks at the pieces of `log` that lie between two positions, one segment at a time.
    pub(crate) fn of(
        reader: &'a Reader,
        at: &'a WalPlace,
        log: &'a Log,
        (from, to): (Lsn, Lsn),
    ) -> Self {
        // A segment is put together from its beginning.
        let from = at.segment_start(from);
        let within = |piece: &&Piece| piece.start < to && piece.end > from;
        let pieces: Vec<&Piece> = log.pieces.iter().filter(within).collect();
        let begins = pieces.iter().map(|piece| at.segment_start(piece.start));
        let mut starts: Vec<Lsn> = begins.collect();
        starts.sort_unstable();
        starts.dedup();
        Self {
            reader,
            at,
            pieces,
            starts,
            width: 1,
        }
    }

    /// Returns where the segments to look at begin, in order.
    pub(crate) fn starts(&self) -> &[Lsn] {
        &self.starts
    }

    /// Returns whether the repository has the segment as a whole, never to change.
    pub(crate) fn is_closed(&self, start: Lsn) -> bool {
        let is_it =
            |piece: &&&Piece| matches!(piece.origin, Origin::Segment(_)) && piece.start == start;
        self.pieces.iter().any(|piece| is_it(&piece))
    }

    /// Leaves segments out.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&Lsn) -> bool) {
        self.starts.retain(keep);
    }

    /// Reads as many segments at once as there are cores, for a way that may be long.
    pub(crate) fn wide(mut self) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.width = cores.min(limits::SURVEY_SEGMENTS);
        self
    }

    /// Hands what was noted of each segment to `each`, the newest segment first, until that breaks.
    ///
    /// A record belongs to the segment that it begins in. Where a segment cannot be read on, what was
    /// read of it counts.
    ///
    /// # Errors
    /// When an object cannot be read.
    pub(crate) fn backwards<T: Default + Send>(
        &self,
        note: Note<'_, T>,
        each: &mut dyn FnMut(Seen<T>) -> ControlFlow<()>,
    ) -> Result<(), RepositoryError> {
        // What ends in the next segment begins here: the front of the next one is kept.
        let mut later: Option<(Lsn, Vec<u8>)> = None;
        for window in self.starts.rchunks(self.width) {
            let mut parts = self.read(window, note)?;
            while let Some(mut part) = parts.pop() {
                let is_whole = later
                    .as_ref()
                    .is_some_and(|(start, content)| part.finish((*start, content), note));
                let overlap = part.content.get(..limits::SURVEY_OVERLAP_BYTES);
                let content = overlap.map_or(part.content.clone(), <[u8]>::to_vec);
                later = Some((part.start, content));
                let seen = Seen {
                    start: part.start,
                    noted: part.noted,
                    is_whole,
                };
                if each(seen).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Returns the newest commit, read from the end for a bounded part of the log.
    pub(crate) fn newest_commit(&self) -> Result<Option<Timestamp>, RepositoryError> {
        let mut newest = None;
        let mut left = limits::COMMIT_SEGMENTS;
        let note: Note<'_, Option<Timestamp>> = &|record, newest| {
            if let Some(Event::Commit(commit)) = record.event()? {
                *newest = (*newest).max(Some(commit.time));
            }
            Ok(())
        };
        self.backwards(note, &mut |seen| {
            newest = seen.noted;
            left = left.saturating_sub(1);
            if newest.is_some() || left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok(newest)
    }

    fn read<T: Default + Send>(
        &self,
        starts: &[Lsn],
        note: Note<'_, T>,
    ) -> Result<Vec<Part<T>>, RepositoryError> {
        let [only] = starts else {
            return std::thread::scope(|scope| {
                let threads: Vec<_> = starts
                    .iter()
                    .map(|start| scope.spawn(move || self.part(*start, note)))
                    .collect();
                let ended = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                    thread
                        .join()
                        .unwrap_or_else(|_| Err(super::files::thread_gone()))
                };
                threads.into_iter().map(ended).collect()
            });
        };
        Ok(vec![self.part(*only, note)?])
    }

    fn part<T: Default>(&self, start: Lsn, note: Note<'_, T>) -> Result<Part<T>, RepositoryError> {
        let content = super::log::segment(self.reader, self.at, &self.pieces, start)?;
        let mut reader = WalReader::new(shape(self.at));
        let mut noted = T::default();
        let read = reader.feed(start, &content, &mut |record| note(record, &mut noted));
        Ok(Part {
            start,
            content,
            reader: read.is_ok().then_some(reader),
            noted,
        })
    }
}

impl<T> Part<T> {
    /// Reads the record on that ends in the next segment, and returns whether nothing is left to read.
    fn finish(&mut self, (next, content): (Lsn, &[u8]), note: Note<'_, T>) -> bool {
        let Some(reader) = self.reader.as_mut().filter(|r| r.position() == Some(next)) else {
            return false;
        };
        let noted = &mut self.noted;
        // The error is the way to stop at the first record that is the next segment's own.
        let _ = reader.feed(next, content, &mut |record| {
            if record.start >= next {
                return Err(WalError::End { at: record.start });
            }
            note(record, noted)
        });
        reader.record_end().is_some_and(|end| end >= next)
    }
}

/// What a reader of this log must know.
pub(crate) fn shape(at: &WalPlace) -> WalShape {
    WalShape {
        segment_bytes: at.segment_bytes,
        system_identifier: Some(at.system_identifier),
    }
}
