//! A restore point for stock PostgreSQL: a plain directory or a tar archive with log and settings.

mod archive;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use holdfast_core::{ByteCount, Lsn, PointId, SourceName, Timestamp};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use super::files::{Owner, create_or_empty};
use super::{
    DirectoryRequest, Place, ProgressFn, RestoreError, RestoreRequest, RestoreTarget, Start,
    Verified, Ways, directory, outside, run,
};

/// What to export.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// Which source.
    pub source: SourceName,
    /// Which moment.
    pub at: RestoreTarget,
    /// The timeline to follow; `None` takes the newest that leads there.
    pub timeline: Option<u32>,
    /// How to go about it; a tar archive needs none of it.
    pub ways: Ways,
}

/// Where an export goes.
pub enum ExportTo<'a> {
    /// A new directory.
    Directory(&'a Path),
    /// Whatever takes bytes.
    Stream(&'a mut dyn Write),
    /// A new tar archive.
    Tar(&'a Path),
}

/// What was exported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exported {
    /// Which source.
    pub source: SourceName,
    /// The restore point that it is built on.
    pub point: PointId,
    /// The target as it was asked for.
    pub at: String,
    /// The timeline that recovery follows; of a PostgreSQL cluster.
    pub timeline: Option<u32>,
    /// The log is in it up to here; of a PostgreSQL cluster.
    pub wal_end: Option<Lsn>,
    /// The newest commit in it, if its log was read; of a directory, when it was read.
    pub newest: Option<Timestamp>,
    /// What whoever asked should know about the target.
    pub notes: Vec<String>,
    /// Bytes that were written.
    pub bytes: ByteCount,
    /// What was read back from the disk, when that was asked for.
    pub verified: Option<Verified>,
    /// Where it is, unless it was a stream.
    pub to: Option<PathBuf>,
}

/// Exports a restore point; nothing of Holdfast is needed to use what comes out.
///
/// # Errors
/// [`RestoreError`]. An archive has its name only when it is complete; what is there already is never
/// written over.
pub fn export(
    place: &Place,
    request: &ExportRequest,
    to: ExportTo<'_>,
    progress: &ProgressFn,
) -> Result<Exported, RestoreError> {
    match to {
        ExportTo::Directory(into) => to_directory(place, request, into, progress),
        ExportTo::Stream(writer) => {
            let name = Path::new("-");
            archive::write((place, request), (writer, name), None, progress)
        }
        ExportTo::Tar(path) => to_file(place, request, path, progress),
    }
}

fn to_directory(
    place: &Place,
    request: &ExportRequest,
    into: &Path,
    progress: &ProgressFn,
) -> Result<Exported, RestoreError> {
    if directory::is_directory(place, &request.source)? {
        let asked = DirectoryRequest {
            source: request.source.clone(),
            at: request.at.clone(),
            into: into.to_owned(),
            ways: request.ways.clone(),
        };
        let restored = directory::restore_directory(place, &asked, progress)?;
        return Ok(Exported {
            source: restored.source,
            point: restored.point,
            at: request.at.to_string(),
            timeline: None,
            wal_end: None,
            newest: Some(restored.at),
            notes: Vec::new(),
            bytes: restored.bytes,
            verified: restored.verified,
            to: Some(restored.directory),
        });
    }
    let mut asked = asked(request, into);
    asked.ways = request.ways.clone();
    let restored = run::restore(place, &asked, progress)?;
    Ok(Exported {
        source: restored.source,
        point: restored.point,
        at: restored.at,
        timeline: Some(restored.timeline),
        wal_end: Some(restored.wal_end),
        newest: restored.newest_commit,
        notes: restored.notes,
        bytes: restored.bytes,
        verified: restored.verified,
        to: Some(restored.directory),
    })
}

/// Asks for a cluster that can be taken anywhere.
fn asked(request: &ExportRequest, into: &Path) -> RestoreRequest {
    let (source, at) = (request.source.clone(), request.at.clone());
    let mut asked = RestoreRequest::new(source, at, into.to_owned(), Start::No);
    asked.timeline = request.timeline;
    asked.is_portable = true;
    asked
}

fn to_file(
    place: &Place,
    request: &ExportRequest,
    path: &Path,
    progress: &ProgressFn,
) -> Result<Exported, RestoreError> {
    outside::check(path, place)?;
    let refused = |why: String| RestoreError::Directory {
        path: path.to_owned(),
        why,
    };
    if !path.is_absolute() {
        return Err(refused("it is not an absolute path".to_owned()));
    }
    if fs::symlink_metadata(path).is_ok() {
        return Err(refused("it exists already".to_owned()));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = path.with_file_name(format!("{name}.unfinished"));
    let mut late = Late {
        path: &unfinished,
        file: None,
    };
    let exported = archive::write(
        (place, request),
        (&mut late, &unfinished),
        Some(path),
        progress,
    );
    let exported = exported?;
    let finish = || {
        if let Some(file) = late.file {
            let file = file
                .into_inner()
                .map_err(std::io::IntoInnerError::into_error)?;
            file.sync_all()?;
        }
        renameat_with(CWD, &unfinished, CWD, path, RenameFlags::NOREPLACE)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()
    };
    finish().map_err(|source| RestoreError::Archive {
        path: path.to_owned(),
        source,
    })?;
    Ok(Exported {
        to: Some(path.to_owned()),
        ..exported
    })
}

/// A file that is made when its first byte is written: what is refused before leaves nothing.
struct Late<'a> {
    path: &'a Path,
    file: Option<BufWriter<File>>,
}

impl Write for Late<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.file.is_none() {
            // An export that was interrupted leaves one; nobody else has such a name.
            let file = match create_or_empty(self.path, Owner(None)) {
                Err(RestoreError::Io { source, .. }) => return Err(source),
                made => made.map_err(std::io::Error::other)?,
            };
            self.file = Some(BufWriter::with_capacity(WRITE_BYTES, file));
        }
        self.file.as_mut().map_or(Ok(0), |file| file.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// How much of an archive is written at once.
const WRITE_BYTES: usize = 1 << 20;
