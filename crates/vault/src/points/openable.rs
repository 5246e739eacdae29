//! What the keys at hand open: every restore point's manifest, and samples of the newest one.

use holdfast_core::{ByteCount, Coded, ErrorChain, Lsn, PointId, SourceName, Timestamp};
use serde::Serialize;

use crate::limits;
use crate::repository::{Point, PointSummary, Reader, RecordKind, RepositoryError, WalPlace};
use crate::restore::Place;

/// What the keys open of one source.
#[derive(Clone, Debug, Serialize)]
pub struct Openable {
    /// Which source.
    pub source: SourceName,
    /// How many restore points they open.
    pub opened: usize,
    /// What they do not open, oldest first.
    pub refused: Vec<Refused>,
    /// The newest restore point that they open.
    pub newest: Option<Opened>,
}

/// An object that the keys do not open.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// The code of the error.
    pub code: &'static str,
    /// The error, which names the object.
    pub why: String,
}

/// A restore point of which samples were read.
#[derive(Clone, Debug, Serialize)]
pub struct Opened {
    /// Which one.
    pub point: PointId,
    /// The moment that it brings back at the least.
    pub at: Timestamp,
    /// Files that it has.
    pub files: usize,
    /// Bytes that were read of some of them.
    pub read: ByteCount,
    /// The end of the newest part of the log that was read.
    pub log_to: Option<Lsn>,
}

/// Tries the keys of `place` on every restore point of every source, and reads samples of the newest.
///
/// # Errors
/// When the repository cannot be listed. What does not open is in the answer.
pub fn openable(place: &Place) -> Result<Vec<Openable>, RepositoryError> {
    let reader = Reader::open(&place.repository, place.vault_key, &place.keys)?;
    let sources = reader.sources()?;
    sources
        .into_iter()
        .map(|source| of_source(&reader, source))
        .collect()
}

fn of_source(reader: &Reader, source: SourceName) -> Result<Openable, RepositoryError> {
    let mut found = Openable {
        source,
        opened: 0,
        refused: Vec::new(),
        newest: None,
    };
    let mut newest: Option<PointSummary> = None;
    for manifest in reader.manifests(&found.source)? {
        match reader.summary(&found.source, &manifest) {
            Ok(summary) => {
                found.opened = found.opened.saturating_add(1);
                newest = Some(summary);
            }
            Err(error) => found.refused.push(refused(&error)),
        }
    }
    if let Some(newest) = newest {
        match sample(reader, &found.source, &newest) {
            Ok(opened) => found.newest = Some(opened),
            Err(error) => found.refused.push(refused(&error)),
        }
    }
    Ok(found)
}

fn refused(error: &RepositoryError) -> Refused {
    Refused {
        code: error.code().as_str(),
        why: ErrorChain(error).to_string(),
    }
}

/// Reads the beginnings of some files, evenly over all of them, and the newest part of the log.
fn sample(
    reader: &Reader,
    source: &SourceName,
    summary: &PointSummary,
) -> Result<Opened, RepositoryError> {
    let point = reader.point(source, &summary.point)?;
    let mut files = Vec::new();
    for file in point.files() {
        let (path, record) = file?;
        if record.kind == RecordKind::File && record.size > 0 {
            files.push((path, record.size));
        }
    }
    let step = files.len().div_ceil(limits::KEY_CHECK_FILES).max(1);
    let mut read = 0_u64;
    for (path, size) in files.iter().step_by(step) {
        read = read.saturating_add(beginning(&point, path, *size)?);
    }
    Ok(Opened {
        point: summary.point.clone(),
        at: summary.at,
        files: files.len(),
        read: ByteCount(read),
        log_to: newest_log(reader, source, summary)?,
    })
}

fn beginning(point: &Point, path: &str, size: u64) -> Result<u64, RepositoryError> {
    let length = usize::try_from(size).unwrap_or(usize::MAX);
    let bytes = point.read_at(path, 0, length.min(limits::KEY_CHECK_BYTES))?;
    Ok(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
}

fn newest_log(
    reader: &Reader,
    source: &SourceName,
    summary: &PointSummary,
) -> Result<Option<Lsn>, RepositoryError> {
    let Some(postgres) = &summary.postgres else {
        return Ok(None);
    };
    let place = WalPlace {
        source: source.clone(),
        system_identifier: postgres.system_identifier,
        timeline: postgres.timeline,
        segment_bytes: postgres.segment_bytes,
    };
    let log = reader.log(&place)?;
    match log.pieces.last() {
        Some(piece) => {
            reader.read_log(&place, piece)?;
            Ok(Some(piece.end))
        }
        None => Ok(None),
    }
}
