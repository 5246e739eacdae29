//! Whether anything can be mounted, and detaching what nobody serves any more.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::error::WhyNot;

/// What our mounts are called in the system's table.
pub(super) const NAME: &str = "holdfast-mount";

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
    for path in mounted()? {
        if path.starts_with(folder) && is_abandoned(&path) {
            detach(&path)?;
            swept.push(path);
        }
    }
    Ok(swept)
}

/// Tells whether nobody answers at a mount point.
pub(super) fn is_abandoned(path: &Path) -> bool {
    // Asked anew each time: what the kernel knows of the folder itself it would tell by itself.
    let answer = rustix::fs::statvfs(path);
    matches!(
        answer,
        Err(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED)
    )
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

/// Where our mounts are.
fn mounted() -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mounts")?;
    let paths = table.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let path = fields.next().filter(|name| *name == NAME);
        path.and(fields.next()).map(unescape)
    });
    Ok(paths.collect())
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
    }
}
