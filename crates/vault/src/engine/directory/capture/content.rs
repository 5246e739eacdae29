//! The bytes of a file: not at all when nothing has changed, else those parts that have.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags, SeekFrom, Stat, fstat, openat, seek};

use super::{Capture, meta};
use crate::engine::directory::DirectoryError;
use crate::engine::directory::tree::Found;
use crate::limits;
use crate::repository::{FileEntry, FileKind, FileMeta, FileRecord, PatchTo, RecordKind};

/// How a file is opened: no link, and a pipe that took its place blocks nobody.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

impl Capture {
    pub(super) fn take_content(
        &mut self,
        found: &Found,
        before: Option<&FileRecord>,
    ) -> Result<(), DirectoryError> {
        let known = before.filter(|before| before.kind == RecordKind::File);
        let stamp = meta::stamp(&found.stat);
        if stamp.is_some() && known.is_some_and(|known| known.meta.stamp == stamp) {
            return Ok(());
        }
        let opened = openat(&found.folder, &found.name, FILE, Mode::empty())
            .and_then(|file| fstat(&file).map(|stat| (file, stat)));
        let is_kind = |stat: &Stat| (stat.st_mode ^ found.stat.st_mode) & 0o170_000 == 0;
        let (file, stat) = match opened {
            Ok((file, stat)) if is_kind(&stat) => (file, stat),
            // It is gone, or something else has its name since its folder was read.
            Ok(_) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => {
                return match before {
                    Some(_) => Ok(self.writer.remove(&found.path)?),
                    None => Ok(()),
                };
            }
            Err(errno) => {
                self.leave_out(&found.path, errno.to_string());
                return Ok(());
            }
        };
        let found = Found {
            stat,
            path: found.path.clone(),
            folder: found.folder.clone(),
            name: found.name.clone(),
        };
        let mut new = meta::of(&found, Some(&file));
        new.stamp = meta::stamp(&stat);
        let file = Reading {
            file: file.into(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
        };
        let taken = match known {
            _ if usize::try_from(file.size).is_ok_and(|size| size <= limits::SMALL_FILE_BYTES) => {
                self.take_small(&found, &file, new)?
            }
            Some(_) => self.take_parts(&found, &file, new)?,
            None => self.take_whole(&found, &file, new)?,
        };
        match taken {
            Ok(()) => {
                let after = fstat(&file.file).ok();
                if !after.is_some_and(|after| is_same(&after, &stat)) {
                    self.captured.unsettled = self.captured.unsettled.saturating_add(1);
                }
            }
            Err(error) => self.leave_out(&found.path, format!("it cannot be read: {error}")),
        }
        Ok(())
    }

    /// Takes a small file, which is kept only when its content has changed.
    fn take_small(&mut self, found: &Found, file: &Reading, meta: FileMeta) -> Taken {
        let mut content = vec![0; usize::try_from(file.size).unwrap_or(0)];
        if let Err(error) = file.fill(0, &mut content) {
            return Ok(Err(error));
        }
        self.captured.read = self.captured.read.saturating_add(file.size);
        self.begin(found, file.size, meta)?;
        self.writer.write(&content)?;
        self.writer.end_file()?;
        Ok(Ok(()))
    }

    /// Takes a large file that the parent does not have.
    fn take_whole(&mut self, found: &Found, file: &Reading, meta: FileMeta) -> Taken {
        self.begin(found, file.size, meta)?;
        let mut buffer = vec![0; limits::DIRECTORY_READ_BYTES];
        let mut offset = 0_u64;
        let mut failed = None;
        while offset < file.size {
            let (data, hole) = file.next_data(offset);
            if data > offset {
                self.writer.skip(data.saturating_sub(offset))?;
                offset = data;
                continue;
            }
            let part = part(&mut buffer, hole.saturating_sub(offset));
            // A file that has been begun must be ended: what cannot be read of it reads as zeros.
            if let Err(error) = file.fill(offset, part) {
                failed.get_or_insert(error);
                part.fill(0);
            }
            self.writer.write(part)?;
            let length = u64::try_from(part.len()).unwrap_or(0);
            self.captured.read = self.captured.read.saturating_add(length);
            offset = offset.saturating_add(length);
        }
        self.writer.end_file()?;
        Ok(failed.map_or(Ok(()), Err))
    }

    /// Takes those parts of a large file that differ from the parent's.
    fn take_parts(&mut self, found: &Found, file: &Reading, meta: FileMeta) -> Taken {
        let Some(parent) = self.parent.clone() else {
            return self.take_whole(found, file, meta);
        };
        let to = PatchTo {
            size: file.size,
            mode: found.stat.st_mode & 0o7777,
            meta,
        };
        self.writer.begin_patch(&found.path, to)?;
        let mut buffer = vec![0; limits::FRAME_BYTES];
        let mut offset = 0_u64;
        let mut failed = None;
        while offset < file.size {
            let part = part(&mut buffer, file.size.saturating_sub(offset));
            let known = parent.read_at(&found.path, offset, part.len())?;
            match file.fill(offset, part) {
                Ok(()) if known != part => self.writer.write_at(offset, part)?,
                Ok(()) => {}
                // What cannot be read stays as the parent has it.
                Err(error) => failed = failed.or(Some(error)),
            }
            let length = u64::try_from(part.len()).unwrap_or(0);
            self.captured.read = self.captured.read.saturating_add(length);
            offset = offset.saturating_add(length);
        }
        self.writer.end_file()?;
        Ok(failed.map_or(Ok(()), Err))
    }

    fn begin(&mut self, found: &Found, size: u64, meta: FileMeta) -> Result<(), DirectoryError> {
        Ok(self.writer.begin_file(FileEntry {
            path: found.path.clone(),
            kind: FileKind::File { size },
            mode: found.stat.st_mode & 0o7777,
            meta,
        })?)
    }
}

/// The outer error is the repository's and ends the point, the inner one is this file's alone.
type Taken = Result<std::io::Result<()>, DirectoryError>;

/// A file that is read up to the size that it had when it was opened.
struct Reading {
    file: File,
    size: u64,
}

impl Reading {
    /// Fills a buffer; what the file has lost meanwhile reads as zeros.
    fn fill(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let mut filled = 0_usize;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
            match self.file.read_at(rest, at) {
                Ok(0) => {
                    rest.fill(0);
                    break;
                }
                Ok(count) => filled = filled.saturating_add(count),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns where the next bytes begin at or after `offset`, and where they end.
    fn next_data(&self, offset: u64) -> (u64, u64) {
        let data = seek(&self.file, SeekFrom::Data(offset)).unwrap_or_else(|errno| match errno {
            // There is nothing but a hole.
            rustix::io::Errno::NXIO => self.size,
            // The file system knows no holes.
            _ => offset,
        });
        let hole = seek(&self.file, SeekFrom::Hole(data)).unwrap_or(self.size);
        let data = data.min(self.size);
        (data, hole.min(self.size).max(data.saturating_add(1)))
    }
}

fn part(buffer: &mut [u8], rest: u64) -> &mut [u8] {
    let length = usize::try_from(rest)
        .unwrap_or(usize::MAX)
        .min(buffer.len());
    buffer.split_at_mut(length).0
}

fn is_same(a: &Stat, b: &Stat) -> bool {
    (
        a.st_size,
        a.st_mtime,
        a.st_mtime_nsec,
        a.st_ctime,
        a.st_ctime_nsec,
    ) == (
        b.st_size,
        b.st_mtime,
        b.st_mtime_nsec,
        b.st_ctime,
        b.st_ctime_nsec,
    )
}
