//! The log: whole segments, tails of the open one, histories; and which positions they cover.

use std::collections::BTreeMap;
use std::path::PathBuf;

use holdfast_core::{ByteCount, Lsn};
use holdfast_store::object::{ObjectError, ObjectKey};

use super::format::{self, DETAIL_BYTES, Format, Judge, Kind, damaged, length};
use super::shelf::Shelf;
use super::{RepositoryError, WalPlace, Writing, layout};
use crate::limits;

/// A part of the log that is kept somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) start: Lsn,
    /// The position after its last byte.
    pub(crate) end: Lsn,
    /// Bytes that it occupies.
    pub(crate) stored: ByteCount,
    pub(crate) origin: Origin,
}

/// Where a part of the log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A whole segment in the repository.
    Segment(ObjectKey),
    /// A file of the spool, from the beginning of its segment.
    Spool(PathBuf),
    /// A part of a segment in the repository.
    Tail(ObjectKey),
}

/// What is kept of one timeline's log, in order of positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) pieces: Vec<Piece>,
}

impl Log {
    /// Returns the runs without holes, in order: first position and the one after the last.
    pub(crate) fn runs(&self) -> Vec<(Lsn, Lsn)> {
        let mut runs: Vec<(Lsn, Lsn)> = Vec::new();
        for piece in &self.pieces {
            match runs.last_mut() {
                Some((_, end)) if piece.start <= *end => *end = piece.end.max(*end),
                _ => runs.push((piece.start, piece.end)),
            }
        }
        runs
    }

    /// Returns the end of the run that contains `from`, or `None` when `from` is not kept.
    ///
    /// The end of a run counts as contained: nothing is missing there yet.
    pub(crate) fn end_from(&self, from: Lsn) -> Option<Lsn> {
        let contains = |run: &&(Lsn, Lsn)| run.0 <= from && from <= run.1;
        self.runs().iter().find(contains).map(|run| run.1)
    }

    /// Adds pieces that were found elsewhere.
    pub(crate) fn add(&mut self, more: impl IntoIterator<Item = Piece>) {
        self.pieces.extend(more);
        self.pieces.sort_by_key(|piece| (piece.start, piece.end));
    }
}

/// Lists what the repository has of a timeline, from names alone.
pub(crate) fn list(shelf: &Shelf, at: &WalPlace) -> Result<Log, RepositoryError> {
    let mut log = Log::default();
    let bytes = u64::from(at.segment_bytes);
    let mut whole = BTreeMap::new();
    let end = layout::end(shelf.format);
    for (key, stored) in shelf.store.list(&layout::segments(at))? {
        let name = key.name().strip_suffix(end).unwrap_or_default();
        match layout::read_segment_name(name, at.segment_bytes) {
            Some((timeline, start)) if timeline == at.timeline => {
                whole.insert(start, ());
                let end = Lsn(start.0.saturating_add(bytes));
                let origin = Origin::Segment(key);
                log.pieces.push(Piece {
                    start,
                    end,
                    stored,
                    origin,
                });
            }
            _ => return Err(damaged(&key, "its name is not one of a segment")),
        }
    }
    for (key, stored) in shelf.store.list(&layout::tails(at))? {
        let (start, end) = layout::read_tail_name(shelf.format, &key)
            .ok_or_else(|| damaged(&key, "its name is not one of a tail"))?;
        let segment = Lsn(start.0 - start.0 % bytes.max(1));
        if !whole.contains_key(&segment) {
            let origin = Origin::Tail(key);
            log.pieces.push(Piece {
                start,
                end,
                stored,
                origin,
            });
        }
    }
    log.add([]);
    Ok(log)
}

/// Stores a whole segment.
pub(crate) fn put_segment(
    writing: &Writing,
    at: &WalPlace,
    start: Lsn,
    bytes: &[u8],
) -> Result<(), RepositoryError> {
    check_place(at)?;
    let segment = u64::from(at.segment_bytes);
    if length(bytes) != segment || !start.0.is_multiple_of(segment) {
        return Err(misuse(format!(
            "{} bytes at {start} are not a whole segment",
            bytes.len()
        )));
    }
    let key = layout::segment(Format::V2, at, start)?;
    put(writing, &key, (Kind::Segment, detail(at, start)), bytes)
}

/// Stores a part of a segment.
pub(crate) fn put_tail(
    writing: &Writing,
    at: &WalPlace,
    start: Lsn,
    bytes: &[u8],
) -> Result<(), RepositoryError> {
    check_place(at)?;
    let segment = u64::from(at.segment_bytes);
    let end = start.0.checked_add(length(bytes));
    let fits = |end: &u64| !bytes.is_empty() && (end - 1) / segment == start.0 / segment;
    let Some(end) = end.filter(fits) else {
        return Err(misuse(format!(
            "{} bytes at {start} are not in one segment",
            bytes.len()
        )));
    };
    let key = layout::tail(Format::V2, at, (start, Lsn(end)))?;
    put(writing, &key, (Kind::Tail, detail(at, start)), bytes)
}

/// Stores a timeline's history.
pub(crate) fn put_history(
    writing: &Writing,
    at: &WalPlace,
    text: &[u8],
) -> Result<(), RepositoryError> {
    holdfast_wire::pg::replication::TimelineHistory::parse(text)
        .map_err(|error| misuse(error.to_string()))?;
    let key = layout::history(Format::V2, at)?;
    put(writing, &key, (Kind::History, detail(at, Lsn::ZERO)), text)
}

/// Returns the content of a piece that is in the repository.
pub(crate) fn read(
    shelf: &Shelf,
    at: &WalPlace,
    piece: &Piece,
) -> Result<Vec<u8>, RepositoryError> {
    let (key, kind) = match &piece.origin {
        Origin::Segment(key) => (key, Kind::Segment),
        Origin::Tail(key) => (key, Kind::Tail),
        Origin::Spool(path) => {
            return Err(misuse(format!(
                "`{}` is not in the repository",
                path.display()
            )));
        }
    };
    let object = shelf.store.get(
        key,
        ByteCount(u64::from(limits::SEGMENT_BYTES_MAX).saturating_mul(2)),
    )?;
    let limit = ByteCount(u64::from(at.segment_bytes));
    let (header, content) = format::unseal(key, shelf.judge(), kind, &object, limit)?;
    let covers = piece.end.since(piece.start).0;
    if header.detail != detail(at, piece.start) || length(&content) != covers {
        return Err(damaged(
            key,
            "it is another part of the log than its name says",
        ));
    }
    Ok(content)
}

/// Returns the text of a history.
pub(crate) fn read_history(shelf: &Shelf, at: &WalPlace) -> Result<Vec<u8>, RepositoryError> {
    let key = layout::history(shelf.format, at)?;
    let limit = ByteCount(limits::NOTE_BYTES);
    let object = shelf.store.get(&key, limit)?;
    let (header, content) = format::unseal(&key, shelf.judge(), Kind::History, &object, limit)?;
    if header.detail != detail(at, Lsn::ZERO) {
        return Err(damaged(
            &key,
            "it is of another timeline than its name says",
        ));
    }
    Ok(content)
}

/// Returns the timelines of a cluster that have a history, in order.
pub(crate) fn histories(shelf: &Shelf, at: &WalPlace) -> Result<Vec<u32>, RepositoryError> {
    let mut found = Vec::new();
    let end = layout::end(shelf.format);
    for (key, _) in shelf.store.list(&layout::histories(at))? {
        let name = key.name().strip_suffix(end).unwrap_or_default();
        let timeline = name
            .strip_suffix(".history")
            .and_then(|name| u32::from_str_radix(name, 16).ok())
            .ok_or_else(|| damaged(&key, "its name is not one of a history"))?;
        found.push(timeline);
    }
    Ok(found)
}

/// Stores an object, or makes sure that what is there has the same content.
fn put(
    writing: &Writing,
    key: &ObjectKey,
    (kind, detail): (Kind, [u8; DETAIL_BYTES]),
    content: &[u8],
) -> Result<(), RepositoryError> {
    let store = writing.store.as_ref();
    let object = format::seal(&writing.key, key, (kind, detail), content)?;
    // Not looked at first: that would be a round trip for each part, and it is hardly ever there.
    match store.create_new(key, &object) {
        Err(ObjectError::Exists(_)) => {}
        stored => return Ok(stored?),
    }
    let limit = ByteCount(u64::from(limits::SEGMENT_BYTES_MAX).saturating_mul(2));
    let there = store.get(key, limit)?;
    let judge = Judge {
        format: Format::V2,
        vault: &writing.key.verifying_key(),
    };
    let (header, found) = format::unseal(key, judge, kind, &there, limit)?;
    if header.detail == detail && found == content {
        Ok(())
    } else {
        Err(ObjectError::Exists(key.clone()).into())
    }
}

/// What the header of a part of the log says of itself: position, cluster, timeline, segment size.
fn detail(at: &WalPlace, start: Lsn) -> [u8; DETAIL_BYTES] {
    let mut detail = [0; DETAIL_BYTES];
    let fields = start
        .0
        .to_le_bytes()
        .into_iter()
        .chain(at.system_identifier.to_le_bytes())
        .chain(at.timeline.to_le_bytes())
        .chain(at.segment_bytes.to_le_bytes());
    for (place, byte) in detail.iter_mut().zip(fields) {
        *place = byte;
    }
    detail
}

fn check_place(at: &WalPlace) -> Result<(), RepositoryError> {
    let bytes = at.segment_bytes;
    let is_size = (limits::SEGMENT_BYTES_MIN..=limits::SEGMENT_BYTES_MAX).contains(&bytes);
    if is_size && bytes.is_power_of_two() && at.timeline > 0 {
        Ok(())
    } else {
        Err(misuse(format!(
            "PostgreSQL has no segments of {bytes} bytes"
        )))
    }
}

fn misuse(what: String) -> RepositoryError {
    RepositoryError::Misuse { what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: u64, end: u64) -> Piece {
        Piece {
            start: Lsn(start),
            end: Lsn(end),
            stored: ByteCount(0),
            origin: Origin::Spool(PathBuf::new()),
        }
    }

    #[test]
    fn a_hole_ends_a_run_and_overlaps_do_not() {
        let mut log = Log::default();
        log.add([
            piece(50, 60),
            piece(0, 10),
            piece(10, 20),
            piece(5, 12),
            piece(15, 30),
        ]);
        assert_eq!(log.runs(), [(Lsn(0), Lsn(30)), (Lsn(50), Lsn(60))]);
        assert_eq!(log.end_from(Lsn(7)), Some(Lsn(30)));
        assert_eq!(log.end_from(Lsn(30)), Some(Lsn(30)));
        assert_eq!(log.end_from(Lsn(31)), None);
        assert_eq!(log.end_from(Lsn(50)), Some(Lsn(60)));
    }
}
