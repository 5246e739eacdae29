//! Bringing the log into `pg_wal`: whole files of PostgreSQL's size, from repository and spool.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use holdfast_core::{Lsn, Timestamp};
use holdfast_wire::pg::wal::{Event, WalReader, WalShape};

use super::RestoreError;
use super::files::{Owner, create};
use super::plan::{Plan, Stop, Stretch};
use super::tablespace::{self, Made};
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
}

/// Writes everything that recovery needs into `pg_wal` below `directory`.
pub(super) fn bring(
    plan: &Plan,
    directory: &Path,
    owner: Owner,
    each: &dyn Fn(u64),
) -> Result<Brought, RestoreError> {
    let folder = directory.join("pg_wal");
    let mut brought = Brought::default();
    let mut prefix = Vec::new();
    for (index, stretch) in plan.stretches.iter().enumerate() {
        if let Some(text) = &stretch.history {
            let path = folder.join(format!("{:08X}.history", stretch.at.timeline));
            let file = create(&path, owner)?;
            file.write_all_at(text, 0)
                .map_err(|source| written(&path, source))?;
        }
        // Records may straddle a switch of timelines, and the newest commit is all that is wanted.
        let mut scan = Scan::new(&stretch.at);
        let mut start = stretch.at.segment_start(stretch.from);
        let end = end_needed(plan, stretch);
        let pieces: Vec<&Piece> = stretch.log.pieces.iter().collect();
        while start < end {
            let known = std::mem::take(&mut prefix);
            let filled = fill((&plan.reader, &stretch.at), &pieces, start, known)?;
            let path = folder.join(stretch.at.segment_name(start));
            write(&path, &filled, &stretch.at, owner)?;
            let length = u64::try_from(filled.len()).unwrap_or(0);
            scan.feed(start, &filled);
            each(length);
            brought.bytes = brought.bytes.saturating_add(length);
            brought.end = Lsn(start.0.saturating_add(length));
            if length < u64::from(stretch.at.segment_bytes) && index + 1 == plan.stretches.len() {
                break;
            }
            start = Lsn(start.0.saturating_add(u64::from(stretch.at.segment_bytes)));
            if start >= end {
                prefix = shared_part(stretch, filled);
            }
        }
        brought.newest_commit = brought.newest_commit.max(scan.newest_commit);
        let is_replayed = |made: &Made| stretch.from <= made.record && made.record < stretch.to;
        let made = scan.tablespaces.into_iter().filter(is_replayed);
        brought.tablespaces.extend(made);
    }
    Ok(brought)
}

/// Returns up to where a stretch is needed.
fn end_needed(plan: &Plan, stretch: &Stretch) -> Lsn {
    match plan.stop {
        Stop::Before(lsn) | Stop::Lsn(lsn) => {
            stretch.to.min(Lsn(lsn.0.saturating_add(RECORD_BYTES_MAX)))
        }
        Stop::End | Stop::Time(_) => stretch.to,
    }
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

/// Writes a file of the segment's full size; what is not kept of it reads as zeros.
fn write(path: &Path, filled: &[u8], at: &WalPlace, owner: Owner) -> Result<(), RestoreError> {
    let file = create(path, owner)?;
    let last = u64::from(at.segment_bytes).saturating_sub(1);
    let is_whole = u64::try_from(filled.len()).is_ok_and(|length| length > last);
    file.write_all_at(filled, 0)
        .and_then(|()| {
            if is_whole {
                Ok(())
            } else {
                file.write_all_at(&[0], last)
            }
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

/// Reads the log along for its newest commit and for what endangers this machine; what it cannot read it leaves to PostgreSQL.
struct Scan {
    reader: Option<WalReader>,
    newest_commit: Option<Timestamp>,
    tablespaces: Vec<Made>,
}

impl Scan {
    fn new(at: &WalPlace) -> Self {
        let shape = WalShape {
            segment_bytes: at.segment_bytes,
            system_identifier: Some(at.system_identifier),
        };
        Self {
            reader: Some(WalReader::new(shape)),
            newest_commit: None,
            tablespaces: Vec::new(),
        }
    }

    fn feed(&mut self, start: Lsn, bytes: &[u8]) {
        let Some(reader) = &mut self.reader else {
            return;
        };
        let (newest, tablespaces) = (&mut self.newest_commit, &mut self.tablespaces);
        let read = reader.feed(start, bytes, &mut |record| {
            if let Some(Event::Commit(commit)) = record.event()? {
                *newest = (*newest).max(Some(commit.time));
            }
            if let Some(location) = tablespace::read(record)? {
                tablespaces.push(Made {
                    record: record.start,
                    after: *newest,
                    location,
                });
            }
            Ok(())
        });
        if read.is_err() {
            self.reader = None;
        }
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
