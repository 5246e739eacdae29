//! Bringing a directory back into a new directory: contents first, then links, owners and times.
//!
//! Nobody else can enter the new directory before everything is in it, and no link exists before all
//! contents are written, so nothing is ever written through one.

use std::fs::{self, File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use holdfast_core::{ByteCount, PointId, SourceName, Timestamp};
use rustix::fs::{XattrFlags, lsetxattr};
use serde::{Deserialize, Serialize};

use super::files::{Owner, failed, make_directory};
use super::frames::{Batch, write_batch};
use super::{Place, Progress, ProgressFn, RestoreError, RestorePhase, RestoreTarget, outside};
use crate::engine::directory::decode;
use crate::repository::{
    FileMeta, FileRecord, Point, PointSummary, Reader, RecordKind, RepositoryError,
};

/// Which restore point of a directory to bring back, and where to.
#[derive(Clone, Debug)]
pub struct DirectoryRequest {
    /// Which source.
    pub source: SourceName,
    /// `Latest` or a time; a directory has no positions.
    pub at: RestoreTarget,
    /// The new directory; it must be absent or empty.
    pub into: PathBuf,
}

/// What was brought back of a directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestoredDirectory {
    /// Which source.
    pub source: SourceName,
    /// The restore point.
    pub point: PointId,
    /// When that was begun: what was written before is in it.
    pub at: Timestamp,
    /// The new directory.
    pub directory: PathBuf,
    /// Files, folders and links.
    pub files: u64,
    /// Bytes written.
    pub bytes: ByteCount,
    /// How many owners and attributes the system did not let us set.
    pub refused: u64,
    /// Seconds until everything was on disk.
    pub files_s: f64,
}

/// Tells whether what is kept of a source is a directory, and not a PostgreSQL cluster.
///
/// # Errors
/// When the repository cannot be read.
pub fn is_directory(place: &Place, source: &SourceName) -> Result<bool, RepositoryError> {
    let reader = Reader::open(&place.repository, place.vault_key)?;
    let newest = reader.points(source)?.pop();
    Ok(newest.is_some_and(|point| point.postgres.is_none()))
}

/// Brings a directory back into a new one.
///
/// # Errors
/// [`RestoreError`]. What was written stays for a look; nothing else was touched.
pub fn restore_directory(
    place: &Place,
    request: &DirectoryRequest,
    progress: &ProgressFn,
) -> Result<RestoredDirectory, RestoreError> {
    outside::check(&request.into, place)?;
    let reader = Reader::open(&place.repository, place.vault_key)?;
    let points = reader.points(&request.source)?;
    let chosen = choose(&points, request)?;
    let point = reader.point(&request.source, &chosen.point)?;
    write(&point, request, progress)
}

/// As [`restore_directory`], of one point.
pub(crate) fn write(
    point: &Point,
    request: &DirectoryRequest,
    progress: &ProgressFn,
) -> Result<RestoredDirectory, RestoreError> {
    let began = Instant::now();
    let summary = point.summary().clone();
    let into = request.into.as_path();
    make_directory(into, Owner(None))?;
    let done = std::sync::atomic::AtomicU64::new(0);
    let each = |bytes: u64| {
        let before = done.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        progress(Progress {
            phase: RestorePhase::Files,
            done: ByteCount(before.saturating_add(bytes)),
            total: summary.bytes,
            elapsed: began.elapsed(),
        });
    };
    let bytes = contents(point, into, &each)?;
    let mut refused = 0_u64;
    let mut files = 0_u64;
    let mut folders = Vec::new();
    for named in point.files() {
        let (kept, record) = named?;
        files = files.saturating_add(1);
        let path = into.join(decode(&kept));
        link(point, (into, &path), &record)?;
        match record.kind {
            RecordKind::Directory => folders.push((path, record)),
            RecordKind::Hardlink => {}
            RecordKind::File | RecordKind::Symlink => dress(&path, &record, &mut refused)?,
        }
    }
    // What is made in a folder changes its time, and a folder may be closed to its owner.
    for (path, record) in folders.iter().rev() {
        dress(path, record, &mut refused)?;
    }
    super::run::sync(into)?;
    Ok(RestoredDirectory {
        source: request.source.clone(),
        point: summary.point,
        at: summary.began,
        directory: request.into.clone(),
        files,
        bytes: ByteCount(bytes),
        refused,
        files_s: began.elapsed().as_secs_f64(),
    })
}

fn choose<'a>(
    points: &'a [PointSummary],
    request: &DirectoryRequest,
) -> Result<&'a PointSummary, RestoreError> {
    let refused = |why: &str, nearest: Option<String>| RestoreError::Target {
        target: request.at.to_string(),
        why: why.to_owned(),
        nearest: nearest.into_iter().collect(),
    };
    let newest = points
        .last()
        .ok_or_else(|| RepositoryError::NoPoints(request.source.clone()))?;
    match &request.at {
        RestoreTarget::Latest => Ok(newest),
        RestoreTarget::Time(time) => {
            let oldest = points.first().map(|point| point.began.to_string());
            let before = points.iter().rfind(|point| point.began <= *time);
            before.ok_or_else(|| refused("nothing that is kept reaches back so far", oldest))
        }
        _ => Err(refused(
            "a directory is kept by time: `latest` or a time",
            Some(newest.began.to_string()),
        )),
    }
}

/// Makes folders and files and writes what is in them.
fn contents(point: &Point, into: &Path, each: &(dyn Fn(u64) + Sync)) -> Result<u64, RestoreError> {
    let mut batch = Batch::default();
    let mut bytes = 0_u64;
    for part in point.walk() {
        let part = part?;
        let path = into.join(decode(&part.path));
        match part.record.kind {
            RecordKind::Directory => super::files::make_folder(&path, Owner(None))?,
            RecordKind::Hardlink | RecordKind::Symlink => {}
            RecordKind::File => {
                if !part.is_more {
                    super::files::create_sized(&path, part.record.size, Owner(None))?;
                    bytes = bytes.saturating_add(part.record.size);
                }
                batch.add(path, &part);
            }
        }
        if batch.is_full() {
            write_batch(point, std::mem::take(&mut batch), each)?;
        }
    }
    write_batch(point, batch, each)?;
    Ok(bytes)
}

fn link(
    point: &Point,
    (into, path): (&Path, &Path),
    record: &FileRecord,
) -> Result<(), RestoreError> {
    let target = record.target.as_deref().unwrap_or_default();
    let made = match record.kind {
        RecordKind::Hardlink => {
            let first = point.file(target)?;
            if first.is_none_or(|first| first.kind != RecordKind::File) {
                return Err(RepositoryError::NoFile {
                    point: point.summary().point.clone(),
                    path: target.to_owned(),
                }
                .into());
            }
            fs::hard_link(into.join(decode(target)), path)
        }
        RecordKind::Symlink => symlink(decode(target), path),
        RecordKind::Directory | RecordKind::File => Ok(()),
    };
    made.map_err(|source| failed("link", path, source))
}

/// Sets owner, permission bits, attributes and time, in the order in which none undoes another.
fn dress(path: &Path, record: &FileRecord, refused: &mut u64) -> Result<(), RestoreError> {
    let FileMeta {
        mtime_ns,
        uid,
        gid,
        xattrs,
        ..
    } = &record.meta;
    let mut tolerate = |set: io::Result<()>| match set {
        Ok(()) => Ok(()),
        // An account that is not root cannot give files away; the bytes are what counts.
        Err(error) if is_refusal(&error) => {
            *refused = refused.saturating_add(1);
            Ok(())
        }
        Err(source) => Err(failed("set owner, attributes or time of", path, source)),
    };
    if uid.is_some() || gid.is_some() {
        tolerate(lchown(path, *uid, *gid))?;
    }
    if record.kind == RecordKind::Symlink {
        return Ok(());
    }
    for (name, value) in xattrs {
        let value = HEXLOWER.decode(value.as_bytes()).unwrap_or_default();
        let name = decode(name);
        let set = lsetxattr(path, name.as_os_str(), &value, XattrFlags::empty());
        tolerate(set.map_err(Into::into))?;
    }
    let time = mtime_ns.map(moment);
    let opened = File::open(path).map_err(|source| failed("open", path, source))?;
    if let Some(time) = time {
        tolerate(opened.set_times(FileTimes::new().set_modified(time)))?;
    }
    tolerate(opened.set_permissions(Permissions::from_mode(record.mode & 0o7777)))
}

fn is_refusal(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::PermissionDenied, io::ErrorKind::Unsupported];
    kinds.contains(&error.kind())
}

fn moment(nanoseconds: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    let moment = match nanoseconds < 0 {
        true => UNIX_EPOCH.checked_sub(distance),
        false => UNIX_EPOCH.checked_add(distance),
    };
    moment.unwrap_or(UNIX_EPOCH)
}
