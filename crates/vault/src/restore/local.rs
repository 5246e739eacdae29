//! What is on the disk already: in the directory of a restore that goes on, or in an older copy.
//!
//! Nothing counts before its SHA-256 is that of the frame that is wanted, and links are not followed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};
use sha2::{Digest, Sha256};

use super::RestoreError;
use super::files::failed;
use super::frames::Placement;
use crate::repository::bundle::FrameRecord;
use crate::repository::point::Part;

/// Reads frames from files below a folder: one for each thread, so that its memory is used again.
#[derive(Default)]
pub(super) struct Local {
    bytes: Vec<u8>,
    open: Option<(PathBuf, File)>,
}

impl Local {
    /// Returns the bytes of a frame when the files below `root` hold exactly them; `places` are all
    /// that is known of where the frame's bytes go, in order.
    pub(super) fn frame<'a>(
        &mut self,
        record: &FrameRecord,
        places: &[Placement],
        root: &Path,
        path_of: impl Fn(&Placement) -> Option<&'a Path>,
    ) -> Option<&[u8]> {
        let mut covered = 0_u32;
        for place in places {
            // Also where two places share bytes: each of them would have to be looked at.
            if place.within != covered {
                return None;
            }
            covered = covered.saturating_add(place.length);
        }
        if covered != record.raw_bytes {
            return None;
        }
        self.bytes.clear();
        self.bytes.resize(usize::try_from(covered).ok()?, 0);
        for place in places {
            let from = usize::try_from(place.within).ok()?;
            let to = from.saturating_add(usize::try_from(place.length).ok()?);
            let path = path_of(place)?;
            if self.open.as_ref().is_none_or(|(open, _)| open != path) {
                self.open = Some((path.to_owned(), open_below(root, path).ok()?));
            }
            let (_, file) = self.open.as_ref()?;
            let into = self.bytes.get_mut(from..to)?;
            file.read_exact_at(into, place.offset).ok()?;
        }
        (Sha256::digest(&self.bytes).as_slice() == record.sum).then_some(self.bytes.as_slice())
    }
}

/// Opens a file below a folder for reading, if it is one; no link on the way is followed.
pub(super) fn open_below(root: &Path, relative: &Path) -> io::Result<File> {
    let odd = || io::Error::from(io::ErrorKind::InvalidInput);
    let mut parts = relative.components().peekable();
    let mut at = File::open(root)?;
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else {
            return Err(odd());
        };
        let kind = match parts.peek() {
            Some(_) => OFlags::DIRECTORY,
            // What is no file must not make us wait.
            None => OFlags::NONBLOCK,
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | kind;
        at = File::from(openat(&at, name, flags, Mode::empty())?);
    }
    match at.metadata()?.is_file() {
        true => Ok(at),
        false => Err(odd()),
    }
}

/// What is done with bytes that no frame fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// They are made zero.
    Clear,
    /// They must be zero.
    Compare,
}

/// Looks after what no frame fills of files that were there before: it reads as zeros.
pub(super) struct Gaps<'a> {
    root: &'a Path,
    task: Gap,
    /// The file, up to where it is done, and its size.
    open: Option<(PathBuf, u64, u64)>,
}

impl<'a> Gaps<'a> {
    pub(super) fn new(root: &'a Path, task: Gap) -> Self {
        Self {
            root,
            task,
            open: None,
        }
    }

    /// Takes the next part of a restore point; the file has its size already.
    pub(super) fn add(&mut self, path: &Path, part: &Part) -> Result<(), RestoreError> {
        if !part.is_more {
            self.finish()?;
            self.open = Some((path.to_owned(), 0, part.record.size));
        }
        for extent in &part.extents {
            if let Some((path, done, _)) = &mut self.open {
                zero((self.root, path, self.task), *done, extent.offset)?;
                *done = extent.offset.saturating_add(extent.length);
            }
        }
        Ok(())
    }

    /// Ends the last file.
    pub(super) fn finish(&mut self) -> Result<(), RestoreError> {
        match self.open.take() {
            Some((path, done, size)) => zero((self.root, &path, self.task), done, size),
            None => Ok(()),
        }
    }
}

fn zero(
    (root, relative, task): (&Path, &Path, Gap),
    from: u64,
    to: u64,
) -> Result<(), RestoreError> {
    if from >= to {
        return Ok(());
    }
    let path = root.join(relative);
    let read = open_below(root, relative).map_err(|source| failed("open", &path, source))?;
    let mut at = from;
    let mut bytes = vec![0; ZERO_BYTES];
    while at < to {
        let length = usize::try_from(to.saturating_sub(at)).unwrap_or(usize::MAX);
        let part = bytes.get_mut(..length.min(ZERO_BYTES)).unwrap_or_default();
        let filled = read.read_exact_at(part, at);
        filled.map_err(|source| failed("read", &path, source))?;
        match (part.iter().position(|byte| *byte != 0), task) {
            (None, _) => {}
            (Some(first), Gap::Compare) => {
                let offset = at.saturating_add(u64::try_from(first).unwrap_or(0));
                return Err(RestoreError::NotAsWritten { path, offset });
            }
            (Some(_), Gap::Clear) => {
                part.fill(0);
                super::files::open_to_write(&path)?
                    .write_all_at(part, at)
                    .map_err(|source| failed("clear", &path, source))?;
            }
        }
        at = at.saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
    }
    Ok(())
}

/// How much is looked at at once.
const ZERO_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_and_what_is_no_file_are_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        fs::create_dir_all(root.join("base/1")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(root.join("base/1/file"), "inside").unwrap();
        fs::write(outside.join("file"), "outside").unwrap();
        symlink(&outside, root.join("base/2")).unwrap();
        symlink(outside.join("file"), root.join("base/1/link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), Mode::RWXU).unwrap();
        assert!(open_below(&root, Path::new("base/1/file")).is_ok());
        for odd in [
            "base/2/file",
            "base/1/link",
            "base/1",
            "pipe",
            "../outside/file",
            "base/../../outside/file",
            "/etc/passwd",
            "",
        ] {
            assert!(open_below(&root, Path::new(odd)).is_err(), "{odd}");
        }
    }
}
