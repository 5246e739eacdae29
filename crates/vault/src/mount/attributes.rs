//! What is said of files and folders, and changing it.

use std::fs::{self, FileTimes, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

use super::content::{Content, Layer};
use super::layers::Layers;
use super::tree::{NodeKind, missing};

/// What is to be changed.
pub(super) struct Change {
    pub(super) mode: Option<u32>,
    pub(super) owner: (Option<u32>, Option<u32>),
    pub(super) size: Option<u64>,
    pub(super) times: (Option<TimeOrNow>, Option<TimeOrNow>),
}

impl Layers {
    /// Returns the attributes of what is under a path; what was unlinked has none.
    pub(super) fn attributes(
        &self,
        number: u64,
        kind: &NodeKind,
        path: Option<&str>,
    ) -> io::Result<FileAttr> {
        let mut attributes = blank();
        attributes.ino = INodeNo(number);
        let owner = self.overlay.owner().unwrap_or_else(|| {
            let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
            (user.as_raw(), group.as_raw())
        });
        (attributes.uid, attributes.gid) = owner;
        attributes.mtime = self.lower.made();
        attributes.ctime = attributes.mtime;
        match kind {
            NodeKind::Folder => {
                (attributes.kind, attributes.perm) = (FileType::Directory, 0o700);
                attributes.nlink = 2;
                if let Some(facts) = path.and_then(|path| self.facts(path)) {
                    dress(&mut attributes, &facts);
                }
            }
            NodeKind::Other => {
                let path = path.ok_or_else(missing)?;
                dress(&mut attributes, &self.facts(path).ok_or_else(missing)?);
            }
            NodeKind::File(content) => match self.file_facts(content, path)? {
                Ok(facts) => dress(&mut attributes, &facts),
                Err(size) => attributes.size = size,
            },
        }
        attributes.blocks = attributes.size.div_ceil(512);
        Ok(attributes)
    }

    /// Returns the facts of the overlay's file, or the size of one that was never touched.
    fn file_facts(
        &self,
        content: &Arc<Content>,
        path: Option<&str>,
    ) -> io::Result<Result<Metadata, u64>> {
        let body = content.look();
        match (body.layer, &body.file, path, content.origin()) {
            (_, Some(file), _, _) => file.metadata().map(Ok),
            (Layer::Lower, None, _, _) => Ok(Err(body.length)),
            (Layer::Whole, None, Some(path), _) => self.facts(path).ok_or_else(missing).map(Ok),
            (Layer::Partial, None, _, Some(origin)) => {
                fs::symlink_metadata(self.overlay.partial(&origin.path)).map(Ok)
            }
            _ => Err(missing()),
        }
    }

    /// Changes size, rights, owner and times.
    pub(super) fn apply(
        &self,
        kind: &NodeKind,
        path: Option<&str>,
        change: &Change,
    ) -> io::Result<()> {
        if let (Some(size), NodeKind::File(content)) = (change.size, kind) {
            self.resize(content, path, size)?;
        }
        let (atime, mtime) = change.times;
        let is_touched = atime.is_some() || mtime.is_some();
        let is_dressed = change.mode.is_some() || change.owner != (None, None);
        let Some(path) = path.filter(|_| is_dressed || is_touched) else {
            return Ok(());
        };
        if !is_dressed
            && let NodeKind::File(content) = kind
            && content.look().layer == Layer::Lower
        {
            // Nobody needs the time of a file that was never written.
            return Ok(());
        }
        let host = self.host_path(path, kind)?;
        if matches!(kind, NodeKind::Other) {
            let (user, group) = change.owner;
            return std::os::unix::fs::lchown(&host, user, group);
        }
        if change.owner != (None, None) {
            chown(&host, change.owner.0, change.owner.1)?;
        }
        if let Some(mode) = change.mode {
            fs::set_permissions(&host, Permissions::from_mode(mode & 0o7777))?;
        }
        if is_touched {
            let mut times = FileTimes::new();
            if let Some(time) = atime {
                times = times.set_accessed(moment(time));
            }
            if let Some(time) = mtime {
                times = times.set_modified(moment(time));
            }
            fs::File::open(&host)?.set_times(times)?;
        }
        Ok(())
    }
}

fn moment(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

/// Takes over what the host says.
fn dress(attributes: &mut FileAttr, facts: &Metadata) {
    attributes.kind = FileType::from_std(facts.file_type()).unwrap_or(FileType::RegularFile);
    attributes.perm = u16::try_from(facts.mode() & 0o7777).unwrap_or(0o600);
    attributes.size = facts.len();
    (attributes.uid, attributes.gid) = (facts.uid(), facts.gid());
    attributes.nlink = u32::try_from(facts.nlink()).unwrap_or(1);
    attributes.mtime = facts.modified().unwrap_or(UNIX_EPOCH);
    attributes.atime = attributes.mtime;
    let seconds = u64::try_from(facts.ctime()).unwrap_or(0);
    let changed = UNIX_EPOCH.checked_add(std::time::Duration::from_secs(seconds));
    attributes.ctime = changed.unwrap_or(UNIX_EPOCH);
}

/// Attributes of a private file of nobody without bytes; with this number it says that there is none.
pub(super) fn blank() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0o600,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 8192,
        flags: 0,
    }
}
