//! Bringing the log into `pg_wal`: whole files of PostgreSQL's size, from repository and spool.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use holdfast_core::{Lsn, Timestamp};
use holdfast_wire::pg::wal::{Event, Record, WalError, WalReader};

use super::files::create_in;
use super::ground::{Counts, Ground};
use super::journal::Segments;
use super::line::Stretch;
use super::plan::{Plan, Stop};
use super::tablespace::{self, Made};
use super::{RestoreError, survey};
use crate::repository::log::{Origin, Piece};
use crate::repository::{Reader, RepositoryError, WalPlace};

/// How far behind a position its record may end: PostgreSQL's largest record.
///
/// SOURCE: PostgreSQL 18, `access/xlogrecord.h`, `XLogRecordMaxSize` (1020 MiB)
const RECORD_BYTES_MAX: u64 = 1020 << 20;

/// What was brought in.
#[derive(Clone, Debug, Default)]
pub(super) struct Brought {
    /// The log is there up to here.
    pub(super) end: Lsn,
    /// The newest commit in it.
    pub(super) newest_commit: Option<Timestamp>,
    /// Bytes written.
    pub(super) bytes: u64,
    /// The tablespaces that replay would make, in order.
    pub(super) tablespaces: Vec<Made>,
    /// A record was read at which recovery stops by itself, or `None` when the log cannot be read.
    pub(super) is_reached: Option<bool>,
    /// Where the log must end for a server that replays all of it, when recovery stops before its end.
    pub(super) cut: Option<(WalPlace, Lsn)>,
}

/// Where the log is brought to.
pub(super) trait LogSink {
    /// Returns a segment that is there already, whole and exactly as it was put.
    fn kept(&self, name: &str, bytes: u32) -> Option<Vec<u8>>;

    /// Puts a file of `length` bytes; what it has behind `content` reads as zeros.
    fn put(&mut self, name: &str, content: &[u8], length: u64) -> Result<(), RestoreError>;

    /// Is told of every record that will be replayed, in order.
    fn replayed(&mut self, _record: &Record<'_>) {}
}

/// Brings everything that recovery needs into `pg_wal`.
///
/// Of what follows the record at which recovery stops nothing is brought.
pub(super) fn bring(
    plan: &Plan,
    sink: &mut dyn LogSink,
    counts: &Counts,
    each: &dyn Fn(u64),
) -> Result<Brought, RestoreError> {
    let mut brought = Brought::default();
    let mut prefix = Vec::new();
    for (timeline, text) in &plan.histories {
        put_history(sink, *timeline, text)?;
    }
    for (index, stretch) in plan.stretches.iter().enumerate() {
        if let Some(text) = &stretch.history {
            put_history(sink, stretch.at.timeline, text)?;
        }
        // Records may straddle a switch of timelines, and the newest commit is all that is wanted.
        let mut scan = Scan::new(stretch, plan.stop);
        let mut start = stretch.at.segment_start(stretch.from);
        let pieces: Vec<&Piece> = stretch.log.pieces.iter().collect();
        while start < scan.end_needed() && stretch.from < stretch.to {
            let known = std::mem::take(&mut prefix);
            let name = stretch.at.segment_name(start);
            let filled = match sink.kept(&name, stretch.at.segment_bytes) {
                Some(kept) => {
                    counts.resumed(bytes_of(&kept));
                    kept
                }
                None => {
                    let filled = fill((&plan.reader, &stretch.at), &pieces, start, known)?;
                    counts.fetched(bytes_of(&filled));
                    sink.put(&name, &filled, u64::from(stretch.at.segment_bytes))?;
                    filled
                }
            };
            let length = bytes_of(&filled);
            scan.feed(start, &filled, sink);
            each(length);
            brought.bytes = brought.bytes.saturating_add(length);
            brought.end = Lsn(start.0.saturating_add(length));
            if length < u64::from(stretch.at.segment_bytes) && index + 1 == plan.stretches.len() {
                break;
            }
            start = Lsn(start.0.saturating_add(u64::from(stretch.at.segment_bytes)));
            if start >= stretch.to {
                prefix = shared_part(stretch, filled);
            }
        }
        brought.newest_commit = brought.newest_commit.max(scan.newest_commit);
        brought.is_reached = scan.reader.is_some().then_some(scan.is_reached);
        brought.tablespaces.append(&mut scan.tablespaces);
        if scan.is_reached {
            brought.cut = Some((stretch.at.clone(), scan.cut));
            break;
        }
    }
    Ok(brought)
}

fn bytes_of(content: &[u8]) -> u64 {
    u64::try_from(content.len()).unwrap_or(u64::MAX)
}

fn put_history(sink: &mut dyn LogSink, timeline: u32, text: &[u8]) -> Result<(), RestoreError> {
    sink.put(&format!("{timeline:08X}.history"), text, bytes_of(text))
}

/// Returns what the next timeline's first segment shares with the last one of `stretch`.
fn shared_part(stretch: &Stretch, mut filled: Vec<u8>) -> Vec<u8> {
    let length = stretch.to.since(stretch.at.segment_start(stretch.to)).0;
    filled.resize(usize::try_from(length).unwrap_or(0).min(filled.len()), 0);
    filled
}

/// Returns what is kept of the segment from its beginning, as far as it has no hole.
pub(crate) fn segment(
    reader: &Reader,
    at: &WalPlace,
    pieces: &[&Piece],
    start: Lsn,
) -> Result<Vec<u8>, RepositoryError> {
    fill((reader, at), pieces, start, Vec::new())
}

/// As [`segment`]; `filled` is what is known of its beginning from the timeline before.
fn fill(
    (reader, at): (&Reader, &WalPlace),
    pieces: &[&Piece],
    start: Lsn,
    mut filled: Vec<u8>,
) -> Result<Vec<u8>, RepositoryError> {
    let end = Lsn(start.0.saturating_add(u64::from(at.segment_bytes)));
    let within = |piece: &&&Piece| piece.start < end && piece.end > start;
    let pieces: Vec<&Piece> = pieces.iter().filter(within).copied().collect();
    let whole = |piece: &&&Piece| matches!(piece.origin, Origin::Segment(_));
    if let Some(segment) = pieces.iter().find(whole) {
        return reader.read_log(at, segment);
    }
    // The spool comes last: what the repository has was durable before it was said to be.
    let is_spool = |piece: &&&Piece| matches!(piece.origin, Origin::Spool(_));
    let kept = pieces.iter().filter(|piece| !is_spool(piece));
    for piece in kept.chain(pieces.iter().filter(is_spool)) {
        let content = match &piece.origin {
            Origin::Spool(path) => match spool_file(path, at) {
                // A running vault has put the whole segment into the repository since we looked.
                Err(RepositoryError::Spool { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    return shipped((reader, at), start);
                }
                read => read?,
            },
            Origin::Segment(_) | Origin::Tail(_) => reader.read_log(at, piece)?,
        };
        let offset = usize::try_from(piece.start.since(start).0).unwrap_or(usize::MAX);
        if !join(&mut filled, offset, &content) {
            return Err(contradiction(at, piece));
        }
    }
    Ok(filled)
}

/// Returns a whole segment that has come into the repository meanwhile.
fn shipped((reader, at): (&Reader, &WalPlace), start: Lsn) -> Result<Vec<u8>, RepositoryError> {
    let log = reader.log(at)?;
    let is_it = |piece: &&Piece| piece.start == start && matches!(piece.origin, Origin::Segment(_));
    match log.pieces.iter().find(is_it) {
        Some(segment) => reader.read_log(at, segment),
        None => Err(RepositoryError::MissingLog {
            timeline: at.timeline,
            from: start,
            to: Lsn(start.0.saturating_add(u64::from(at.segment_bytes))),
        }),
    }
}

/// Appends what is new in `content`, which begins at `offset`; a hole before it leaves all as it is.
///
/// Returns `false` when it contradicts what is there already.
fn join(filled: &mut Vec<u8>, offset: usize, content: &[u8]) -> bool {
    let Some(there) = filled.get(offset..) else {
        return true;
    };
    let shared = there.len().min(content.len());
    let (known, fresh) = content.split_at_checked(shared).unwrap_or((content, &[]));
    if there.get(..shared) != Some(known) {
        return false;
    }
    filled.extend_from_slice(fresh);
    true
}

fn contradiction(at: &WalPlace, piece: &Piece) -> RepositoryError {
    match &piece.origin {
        Origin::Segment(key) | Origin::Tail(key) => RepositoryError::Damaged {
            key: key.clone(),
            what: "it contradicts another part of the log".to_owned(),
        },
        Origin::Spool(_) => RepositoryError::Contradiction {
            timeline: at.timeline,
            at: piece.start,
        },
    }
}

fn spool_file(path: &Path, at: &WalPlace) -> Result<Vec<u8>, RepositoryError> {
    let mut content = Vec::new();
    let limit = u64::from(at.segment_bytes);
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut content))
        .map_err(|source| RepositoryError::Spool {
            path: path.to_owned(),
            source,
        })?;
    Ok(content)
}

/// The `pg_wal` of a data directory that exists.
pub(super) struct Disk<'a> {
    ground: &'a Ground<'a>,
    segments: Segments,
}

impl<'a> Disk<'a> {
    pub(super) fn open(ground: &'a Ground<'a>) -> Result<Self, RestoreError> {
        Ok(Self {
            ground,
            segments: Segments::open(ground)?,
        })
    }
}

impl LogSink for Disk<'_> {
    fn kept(&self, name: &str, bytes: u32) -> Option<Vec<u8>> {
        self.segments.kept(self.ground, name, bytes)
    }

    fn put(&mut self, name: &str, content: &[u8], length: u64) -> Result<(), RestoreError> {
        put_file(self.ground, name, (content, length))?;
        match bytes_of(content) >= length {
            true => self.segments.wrote(name, content),
            false => Ok(()),
        }
    }
}

/// Makes a file of the log; what it has behind `content` reads as zeros.
pub(super) fn put_file(
    ground: &Ground<'_>,
    name: &str,
    (content, length): (&[u8], u64),
) -> Result<(), RestoreError> {
    let path = &ground.directory.join("pg_wal").join(name);
    let file = create_in(ground, path)?;
    file.write_all_at(content, 0)
        .and_then(|()| match bytes_of(content) >= length {
            true => Ok(()),
            false => file.write_all_at(&[0], length.saturating_sub(1)),
        })
        .map_err(|source| written(path, source))
}

fn written(path: &Path, source: std::io::Error) -> RestoreError {
    RestoreError::Io {
        step: "write",
        path: path.to_owned(),
        source,
    }
}

/// Tells whether a file of the spool is of this cluster and begins where its name says.
///
/// # Source
/// PostgreSQL 18, `access/xlog_internal.h`, `XLogLongPageHeaderData`
pub(super) fn is_of_cluster(path: &Path, at: &WalPlace, start: Lsn) -> bool {
    let mut header = [0; 40];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    let field = |from: usize| -> Option<u64> {
        let bytes = header.get(from..)?.first_chunk::<8>()?;
        Some(u64::from_le_bytes(*bytes))
    };
    let segment_bytes = header.get(32..).and_then(|rest| rest.first_chunk::<4>());
    read.is_ok()
        && field(8) == Some(start.0)
        && field(24) == Some(at.system_identifier)
        && segment_bytes == Some(&at.segment_bytes.to_le_bytes())
}

/// Reads a stretch along: for its newest commit, for where recovery stops, and for what endangers this
/// machine. What it cannot read it leaves to PostgreSQL.
struct Scan<'a> {
    stretch: &'a Stretch,
    stop: Stop,
    reader: Option<WalReader>,
    newest_commit: Option<Timestamp>,
    tablespaces: Vec<Made>,
    /// A record was read at which recovery stops by itself.
    is_reached: bool,
    /// Where what is replayed ends then.
    cut: Lsn,
}

impl<'a> Scan<'a> {
    fn new(stretch: &'a Stretch, stop: Stop) -> Self {
        Self {
            stretch,
            stop,
            reader: Some(WalReader::new(survey::shape(&stretch.at))),
            newest_commit: None,
            tablespaces: Vec::new(),
            is_reached: false,
            cut: Lsn::ZERO,
        }
    }

    /// Returns up to where the stretch is needed, by what was read of it so far.
    fn end_needed(&self) -> Lsn {
        match self.stop {
            _ if self.is_reached => Lsn::ZERO,
            // What cannot be read here may still be replayed.
            Stop::Before(lsn) | Stop::Lsn(lsn) if self.reader.is_none() => {
                let end = Lsn(lsn.0.saturating_add(RECORD_BYTES_MAX));
                self.stretch.to.min(end)
            }
            Stop::Before(_) | Stop::Lsn(_) | Stop::End | Stop::Time(_) => self.stretch.to,
        }
    }

    fn feed(&mut self, start: Lsn, bytes: &[u8], sink: &mut dyn LogSink) {
        let Some(mut reader) = self.reader.take() else {
            return;
        };
        let read = reader.feed(start, bytes, &mut |record| self.note(record, sink));
        // Zeros where the next record would be are an end, not an error.
        if matches!(read, Ok(()) | Err(WalError::End { .. })) {
            self.reader = Some(reader);
        }
    }

    fn note(&mut self, record: &Record<'_>, sink: &mut dyn LogSink) -> Result<(), WalError> {
        // What stands behind a switch of timelines is not replayed.
        if self.is_reached || record.start >= self.stretch.to {
            return Ok(());
        }
        let event = record.event()?;
        let ended = match &event {
            Some(Event::Commit(commit)) => Some(commit.time),
            Some(Event::Abort(abort)) => Some(abort.time),
            _ => None,
        };
        let is_old = record.start < self.stretch.from;
        self.is_reached = !is_old
            && match self.stop {
                Stop::Before(lsn) | Stop::Lsn(lsn) => record.start >= lsn,
                Stop::End => false,
                Stop::Time(time) => ended.is_some_and(|ended| ended > time),
            };
        let is_replayed = !self.is_reached || matches!(self.stop, Stop::Lsn(_));
        if self.is_reached {
            self.cut = if is_replayed {
                record.end
            } else {
                record.start
            };
        }
        if is_replayed && !is_old {
            sink.replayed(record);
        }
        if let Some(Event::Commit(commit)) = event.filter(|_| is_replayed) {
            self.newest_commit = self.newest_commit.max(Some(commit.time));
        }
        if let Some(location) = tablespace::read(record)?.filter(|_| is_replayed && !is_old) {
            self.tablespaces.push(Made {
                record: record.start,
                location,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_up_to_the_first_hole_and_contradictions_are_found() {
        let mut filled = Vec::new();
        assert!(join(&mut filled, 0, b"abc"));
        assert!(join(&mut filled, 1, b"bcd"));
        assert!(join(&mut filled, 2, b"c"));
        assert!(join(&mut filled, 9, b"z"));
        assert!(join(&mut filled, 4, b"e"));
        assert_eq!(filled, b"abcde");
        assert!(!join(&mut filled, 0, b"abX"));
        assert!(!join(&mut filled, 3, b"xyz"));
        assert_eq!(filled, b"abcde");
    }
}
