//! One restore point of a directory: what has changed since the one before, and nothing else.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_core::{PointId, SourceName, Untrusted};
use rustix::fs::{FileType, readlinkat};
use tokio_util::sync::CancellationToken;

use super::names::encode;
use super::tree::{Found, Next, Tree};
use super::{DirectoryConfig, DirectoryError, LeftOut};
use crate::limits;
use crate::repository::{
    EngineStart, FileEntry, FileKind, FileMeta, FileRecord, Point, PointEnd, PointStart,
    PointWriter, RecordKind, Repository, RepositoryError,
};

mod content;
mod meta;

/// A restore point that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Captured {
    pub(crate) point: PointId,
    /// Bytes that were read from files.
    pub(crate) read: u64,
    /// Files that changed while they were read.
    pub(crate) unsettled: u64,
    /// How many things should be in the point and are not.
    pub(crate) missing: u64,
    /// Sockets, pipes and devices, which no restore point has.
    pub(crate) special: u64,
    /// Some of what is missing.
    pub(crate) left_out: Vec<LeftOut>,
}

/// Makes a restore point of a directory on top of the newest one.
pub(crate) fn capture(
    repository: &Repository,
    config: &DirectoryConfig,
    stop: &CancellationToken,
) -> Result<Captured, DirectoryError> {
    let parent = newest(repository, &config.name)?;
    let tree = Tree::open(&config.directory).map_err(|errno| DirectoryError::Directory {
        path: config.directory.clone(),
        source: errno.into(),
    })?;
    let writer = repository.begin_point(PointStart {
        source: config.name.clone(),
        engine: EngineStart::Directory,
        parent: parent.as_ref().map(|point| point.summary().point.clone()),
    })?;
    let mut capture = Capture {
        captured: Captured {
            point: writer.point().clone(),
            read: 0,
            unsettled: 0,
            missing: 0,
            special: 0,
            left_out: Vec::new(),
        },
        writer,
        parent,
        links: BTreeMap::new(),
    };
    capture.walk(tree, stop)?;
    capture.writer.finish(PointEnd::Directory)?;
    Ok(capture.captured)
}

/// Returns the newest restore point of a source.
fn newest(repository: &Repository, name: &SourceName) -> Result<Option<Point>, RepositoryError> {
    let reader = repository.reader();
    let newest = reader.points(name)?.pop();
    newest
        .map(|summary| reader.point(name, &summary.point))
        .transpose()
}

struct Capture {
    captured: Captured,
    writer: PointWriter,
    parent: Option<Point>,
    /// The first path of each file that has several, by device and number.
    links: BTreeMap<(u64, u64), String>,
}

type Before =
    Peekable<Box<dyn Iterator<Item = Result<(String, FileRecord), RepositoryError>> + Send>>;

impl Capture {
    /// Goes through the directory and the parent side by side.
    fn walk(&mut self, mut tree: Tree, stop: &CancellationToken) -> Result<(), DirectoryError> {
        let files: Box<dyn Iterator<Item = _> + Send> = match &self.parent {
            Some(parent) => Box::new(parent.files()),
            None => Box::new(std::iter::empty()),
        };
        let mut before: Before = files.peekable();
        while let Some(next) = tree.next() {
            if stop.is_cancelled() {
                return Err(DirectoryError::Stopped);
            }
            let path = match &next {
                Next::Found(found) => &found.path,
                Next::Unreadable { path, .. } => path,
            };
            self.remove_until(&mut before, Some(path))?;
            let record = match before.peek() {
                Some(Ok((known, _))) if known == path => before.next().transpose()?.map(|(_, r)| r),
                _ => None,
            };
            match next {
                Next::Found(found) => self.take(&found, record.as_ref())?,
                // What the parent has of it stays: an older copy is better than none.
                Next::Unreadable { path, why } => self.leave_out(&path, why),
            }
        }
        self.remove_until(&mut before, None)
    }

    /// Leaves out what the parent has before `path` and the directory has no more.
    fn remove_until(
        &mut self,
        before: &mut Before,
        path: Option<&str>,
    ) -> Result<(), DirectoryError> {
        while let Some(known) = before.next_if(|known| match (known, path) {
            (Ok((known, _)), Some(path)) => known.as_str() < path,
            _ => true,
        }) {
            let (known, _) = known?;
            // Below a folder that could not be read, nothing is known to be gone.
            if !self.is_below_left_out(&known) {
                self.writer.remove(&known)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, found: &Found, before: Option<&FileRecord>) -> Result<(), DirectoryError> {
        if found.path.len() > limits::DIRECTORY_PATH_BYTES {
            self.leave_out(&found.path, "its path is too long".to_owned());
            return Ok(());
        }
        match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::RegularFile => self.take_file(found, before),
            FileType::Directory => self.take_still(found, FileKind::Directory, before),
            FileType::Symlink => match readlinkat(&found.folder, &found.name, Vec::new()) {
                Ok(target) => {
                    use std::os::unix::ffi::OsStrExt;
                    let target = encode(std::ffi::OsStr::from_bytes(target.as_bytes()));
                    self.take_still(found, FileKind::Symlink { target }, before)
                }
                Err(_) => Ok(()),
            },
            _ => {
                self.captured.special = self.captured.special.saturating_add(1);
                if before.is_some() {
                    self.writer.remove(&found.path)?;
                }
                Ok(())
            }
        }
    }

    fn take_file(
        &mut self,
        found: &Found,
        before: Option<&FileRecord>,
    ) -> Result<(), DirectoryError> {
        if found.stat.st_nlink > 1 {
            let file = (found.stat.st_dev, found.stat.st_ino);
            if let Some(first) = self.links.get(&file) {
                let target = first.clone();
                return self.take_still(found, FileKind::Hardlink { target }, before);
            }
            self.links.insert(file, found.path.clone());
        }
        self.take_content(found, before)
    }

    /// Takes something without bytes, unless the parent has it just so.
    fn take_still(
        &mut self,
        found: &Found,
        kind: FileKind,
        before: Option<&FileRecord>,
    ) -> Result<(), DirectoryError> {
        let meta = match kind {
            FileKind::Hardlink { .. } => FileMeta::default(),
            _ => meta::of(found, None),
        };
        let mode = found.stat.st_mode & 0o7777;
        let is_same = before.is_some_and(|before| {
            let (wanted, target) = match &kind {
                FileKind::Directory => (RecordKind::Directory, None),
                FileKind::File { .. } => (RecordKind::File, None),
                FileKind::Hardlink { target } => (RecordKind::Hardlink, Some(target)),
                FileKind::Symlink { target } => (RecordKind::Symlink, Some(target)),
            };
            before.kind == wanted
                && before.target.as_ref() == target
                && before.mode == mode
                && before.meta == meta
        });
        if is_same {
            return Ok(());
        }
        let path = found.path.clone();
        self.writer.begin_file(FileEntry {
            path,
            kind,
            mode,
            meta,
        })?;
        Ok(self.writer.end_file()?)
    }

    fn leave_out(&mut self, path: &str, why: String) {
        self.captured.missing = self.captured.missing.saturating_add(1);
        if self.captured.left_out.len() < limits::DIRECTORY_LEFT_OUT {
            self.captured.left_out.push(LeftOut {
                path: Untrusted(path).to_string(),
                why,
            });
        }
    }

    fn is_below_left_out(&self, path: &str) -> bool {
        self.captured.left_out.iter().any(|left| {
            path.strip_prefix(&left.path)
                .is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

/// Tells whether a file that was changed last at this moment can still change without it being seen:
/// the file system's clock has coarse ticks.
fn is_settled(seconds: i64) -> bool {
    let changed = UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    let age = changed.and_then(|changed| SystemTime::now().duration_since(changed).ok());
    age.is_some_and(|age| age > limits::DIRECTORY_SETTLES)
}
