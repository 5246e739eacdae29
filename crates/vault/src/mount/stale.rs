//! Whether anything can be mounted, and detaching what nobody serves any more.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::error::WhyNot;
use super::holder::Holder;

/// What our mounts are called in the system's table, before who serves them.
const NAME: &str = "holdfast-mount";

/// What a mount is called that a process serves.
pub(super) fn name(holder: Holder) -> String {
    format!("{NAME}:{holder}")
}

/// Tells whether this process can mount restore points.
///
/// # Errors
/// [`WhyNot`]: what is missing. Nothing was tried beyond opening the device.
pub fn possible() -> Result<(), WhyNot> {
    if !cfg!(target_os = "linux") {
        return Err(WhyNot::NotLinux);
    }
    if !rustix::process::geteuid().is_root() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let is_there =
            |name: &str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
        if !is_there("fusermount3") && !is_there("fusermount") {
            return Err(WhyNot::NotRoot);
        }
    }
    let opened = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse");
    opened
        .map(drop)
        .map_err(|error| WhyNot::Device(error.to_string()))
}

/// Detaches mounts of ours in or below `folder` that no process serves any more, and returns where
/// they were. Mounts that are served are left alone.
///
/// # Errors
/// When the system's table cannot be read or a mount cannot be detached.
pub fn sweep(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut swept = Vec::new();
    for Mounted { path, .. } in mounted()? {
        if path.starts_with(folder) && take_away(&path)? {
            swept.push(path);
        }
    }
    Ok(swept)
}

/// Detaches all mounts of ours whose process was killed or has ended, wherever they are. What cannot be
/// detached, as that of another account, stays.
pub fn free() {
    for one in mounted().unwrap_or_default() {
        if one.holder.and_then(Holder::is_over) == Some(true)
            && let Err(error) = take_away(&one.path)
        {
            let path = one.path.display();
            tracing::warn!(%path, %error, "a mount that nobody serves stays");
        }
    }
}

/// Detaches the mounts of a process that is over.
pub(super) fn take_away_of(holder: Holder) -> io::Result<()> {
    for one in mounted()? {
        if one.holder == Some(holder) {
            take_away(&one.path)?;
        }
    }
    Ok(())
}

/// Detaches what is mounted at `path` if it is ours and nobody serves it, and tells whether it was so.
/// Who waits for an answer of it is given an error.
pub(super) fn take_away(path: &Path) -> io::Result<bool> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(false);
    };
    let folder = match folder.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    // One at a time: between looking and detaching nobody mounts anew in the same place.
    let turn = File::open(&folder)?;
    rustix::fs::flock(&turn, FlockOperation::LockExclusive)?;
    let path = folder.join(name);
    let newest = mounted()?.into_iter().rev().find(|one| one.path == path);
    let Some(found) = newest.filter(Mounted::is_abandoned) else {
        return Ok(false);
    };
    found.give_up()?;
    Ok(true)
}

/// Takes a mount away from its place; who still has files of it open keeps them until they close.
pub(super) fn detach(path: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let flags = rustix::mount::UnmountFlags::DETACH;
        match rustix::mount::unmount(path, flags) {
            Err(rustix::io::Errno::PERM) => {}
            done => return done.map_err(Into::into),
        }
    }
    let status = std::process::Command::new("fusermount3")
        .args(["-u", "-z", "-q"])
        .arg(path)
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other("`fusermount3 -u` failed")),
    }
}

/// A mount of ours.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    path: PathBuf,
    /// The number of its connection.
    minor: u32,
    /// Who serves it; earlier versions did not say.
    holder: Option<Holder>,
}

impl Mounted {
    /// Tells whether nobody answers. One whose process was killed, or might be meanwhile, is not asked:
    /// the question might never be answered.
    fn is_abandoned(&self) -> bool {
        if let Some(holder) = self.holder
            && let Some(is_over) = holder.is_over()
            && !holder.is_own()
        {
            return is_over;
        }
        // Asked anew each time: what the kernel knows of the folder itself it would tell by itself.
        let answer = rustix::fs::statvfs(&self.path);
        matches!(
            answer,
            Err(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED)
        )
    }

    /// Ends its connection, so that who waits for an answer waits no more, and detaches it.
    fn give_up(&self) -> io::Result<()> {
        // Not there in every container; the way below then does the same for root.
        let connection = format!("/sys/fs/fuse/connections/{}/abort", self.minor);
        let _ = fs::write(connection, "1");
        #[cfg(target_os = "linux")]
        {
            use rustix::mount::UnmountFlags;
            let flags = UnmountFlags::FORCE | UnmountFlags::DETACH;
            if rustix::mount::unmount(&self.path, flags).is_ok() {
                return Ok(());
            }
        }
        detach(&self.path)
    }

    /// SOURCE: `proc_pid_mountinfo(5)`.
    fn read(line: &str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let source = kind.split(' ').nth(1)?;
        let holder = source.strip_prefix(NAME)?;
        let holder = match holder.strip_prefix(':') {
            Some(holder) => Some(holder.parse().ok()?),
            None => holder.is_empty().then_some(None)?,
        };
        let mut fields = place.split(' ').skip(2);
        let (_, minor) = fields.next()?.split_once(':')?;
        Some(Self {
            minor: minor.parse().ok()?,
            path: unescape(fields.nth(1)?),
            holder,
        })
    }
}

/// Our mounts, the oldest first; none of them is touched.
fn mounted() -> io::Result<Vec<Mounted>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().filter_map(Mounted::read).collect())
}

/// The table writes blanks, tabs, line ends and backslashes as a backslash and three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut out = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'\\')
            .then(|| {
                after
                    .get(..3)
                    .and_then(|digits| std::str::from_utf8(digits).ok())
            })
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped {
            Some(byte) => {
                out.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_mounts_is_read_with_its_escapes() {
        assert_eq!(unescape("/a\\040b\\134c"), PathBuf::from("/a b\\c"));
        assert_eq!(unescape("/a\\04"), PathBuf::from("/a\\04"));

        let of = |source: &str| {
            let line =
                format!("36 35 0:42 / /a\\040b rw,nosuid shared:7 - fuse {source} rw,user_id=0");
            Mounted::read(&line)
        };
        let found = of("holdfast-mount:1:2:3").unwrap();
        assert_eq!((found.path, found.minor), (PathBuf::from("/a b"), 42));
        assert_eq!(found.holder, "1:2:3".parse().ok());
        assert_eq!(of("holdfast-mount").unwrap().holder, None);
        for other in ["holdfast-mounts", "holdfast-mount:1", "tmpfs", ""] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
