//! Bringing a directory back into a new directory: contents first, then links, owners and times.
//!
//! Nobody else can enter the new directory before everything is in it, and no link exists before all
//! contents are written, so nothing is ever written through one.

use std::fs::{self, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use holdfast_core::{ByteCount, PointId, SourceName, Timestamp};
use rustix::fs::{Mode, OFlags, XattrFlags, lsetxattr};
use serde::{Deserialize, Serialize};

use super::files::{Owner, create_sized, failed, forget_notes, make_directory, make_folder};
use super::frames::{Batch, Task, work_batch};
use super::ground::Ground;
use super::journal::{self, Note, Stage};
use super::local::{Gap, Gaps};
use super::verify::{self, Verified};
use super::{
    Came, Place, Progress, ProgressFn, ReadBack, RestoreError, RestorePhase, RestoreTarget, Ways,
    old, outside, room,
};
use crate::engine::directory::decode;
use crate::repository::point::Part;
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
    /// How to go about it.
    pub ways: Ways,
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
    /// Where they came from.
    #[serde(default)]
    pub came: Came,
    /// What was read back from the disk, when that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
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
    let reader = Reader::open(&place.repository, place.vault_key, &place.keys)?;
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
    let reader = Reader::open(&place.repository, place.vault_key, &place.keys)?;
    let begun = journal::find(&request.into)?;
    let chosen = match &begun {
        Some(begun) => {
            journal::same(begun, &note(request, &begun.point), &request.into)?;
            begun.point.clone()
        }
        None => choose(
            &reader.points(&request.source)?,
            (&request.source, &request.at),
        )?
        .point
        .clone(),
    };
    let point = reader.point(&request.source, &chosen)?;
    go_on(&point, request, begun.map(|begun| begun.stage), progress)
}

fn note(request: &DirectoryRequest, point: &PointId) -> Note {
    Note::new(&request.source, request.at.to_string(), None, point)
}

/// As [`restore_directory`], of one point.
pub(crate) fn write(
    point: &Point,
    request: &DirectoryRequest,
    progress: &ProgressFn,
) -> Result<RestoredDirectory, RestoreError> {
    go_on(point, request, None, progress)
}

/// Writes a point, from where an interrupted restore has ended.
fn go_on(
    point: &Point,
    request: &DirectoryRequest,
    begun: Option<Stage>,
    progress: &ProgressFn,
) -> Result<RestoredDirectory, RestoreError> {
    let began = Instant::now();
    let summary = point.summary().clone();
    let into = request.into.as_path();
    let mut ground = Ground::new(into, Owner(None), &request.ways);
    ground.is_resumed = begun.is_some();
    let tell = |phase: RestorePhase, done: u64| {
        progress(Progress {
            phase,
            done: ByteCount(done),
            total: summary.bytes,
            elapsed: began.elapsed(),
        });
    };
    let mut note = note(request, &summary.point);
    if begun != Some(Stage::Links) {
        if let Some(old) = ground.old {
            old::check(old, into, None)?;
        }
        room::check(into, room::written(point)?)?;
        if begun.is_none() {
            make_directory(into, Owner(None))?;
            note.write(into, Owner(None))?;
        }
        contents(
            point,
            &ground,
            &counted(&|done| tell(RestorePhase::Files, done)),
        )?;
        note.stage = Stage::Links;
    }
    let verified = match request.ways.check {
        ReadBack::No => None,
        ReadBack::Yes => {
            super::run::sync(into)?;
            let path_of = |part: &Part| Some(decode(&part.path));
            let tell = |done| tell(RestorePhase::Verify, done);
            let each = counted(&tell);
            Some(verify::contents(point, &ground, (&path_of, &each))?)
        }
    };
    // From here on something may be a link, and nothing is written into files again.
    note.write(into, Owner(None))?;
    let (files, refused) = link_and_dress(point, into)?;
    forget_notes(into)?;
    super::run::sync(into)?;
    Ok(RestoredDirectory {
        source: request.source.clone(),
        point: summary.point,
        at: summary.began,
        directory: request.into.clone(),
        files,
        bytes: summary.bytes,
        came: ground.counts.came(),
        verified,
        refused,
        files_s: began.elapsed().as_secs_f64(),
    })
}

/// Adds up what several threads have done, and tells the sum.
fn counted<'a>(tell: &'a (dyn Fn(u64) + Sync)) -> impl Fn(u64) + Sync + 'a {
    let done = AtomicU64::new(0);
    move |bytes| {
        let before = done.fetch_add(bytes, Ordering::Relaxed);
        tell(before.saturating_add(bytes));
    }
}

/// Makes links, then sets owners, bits, attributes and times; returns how many things there are, and
/// how many owners and attributes the system refused.
fn link_and_dress(point: &Point, into: &Path) -> Result<(u64, u64), RestoreError> {
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
    Ok((files, refused))
}

/// Chooses the point that a target means.
pub(super) fn choose<'a>(
    points: &'a [PointSummary],
    (source, at): (&SourceName, &RestoreTarget),
) -> Result<&'a PointSummary, RestoreError> {
    let refused = |why: &str, nearest: Option<String>| RestoreError::Target {
        target: at.to_string(),
        why: why.to_owned(),
        nearest: nearest.into_iter().collect(),
    };
    let newest = points
        .last()
        .ok_or_else(|| RepositoryError::NoPoints(source.clone()))?;
    match at {
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
fn contents(
    point: &Point,
    ground: &Ground<'_>,
    each: &(dyn Fn(u64) + Sync),
) -> Result<(), RestoreError> {
    let mut batch = Batch::default();
    let mut gaps = Gaps::new(ground.directory, Gap::Clear);
    for part in point.walk() {
        let part = part?;
        let path = decode(&part.path);
        let full = ground.directory.join(&path);
        match part.record.kind {
            RecordKind::Directory => make_folder(&full, Owner(None))?,
            RecordKind::Hardlink | RecordKind::Symlink => {}
            RecordKind::File => {
                if !part.is_more {
                    create_sized(&full, part.record.size, ground)?;
                }
                if ground.is_resumed {
                    gaps.add(&path, &part)?;
                }
                batch.add(path, &part);
            }
        }
        if batch.is_full() {
            let full = std::mem::take(&mut batch);
            work_batch(point, full, (ground, Task::Write), each)?;
        }
    }
    gaps.finish()?;
    work_batch(point, batch, (ground, Task::Write), each)
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
            let first = into.join(decode(target));
            tolerate_same(fs::hard_link(&first, path), || is_same_file(&first, path))
        }
        RecordKind::Symlink => tolerate_same(symlink(decode(target), path), || {
            fs::read_link(path).is_ok_and(|found| found == decode(target))
        }),
        RecordKind::Directory | RecordKind::File => Ok(()),
    };
    made.map_err(|source| failed("link", path, source))
}

/// What an interrupted restore has made already is fine.
fn tolerate_same(made: io::Result<()>, is_same: impl Fn() -> bool) -> io::Result<()> {
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_same() => Ok(()),
        made => made,
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| fs::symlink_metadata(path).map(|facts| (facts.dev(), facts.ino()));
    matches!((id(one), id(other)), (Ok(one), Ok(other)) if one == other)
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
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map(fs::File::from);
    let opened = opened.map_err(|source| failed("open", path, source.into()))?;
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
