//! The file system's immutable flag: who holds the vault's account cannot remove the file then.
//!
//! It needs `CAP_LINUX_IMMUTABLE` (root has it) and a file system that knows it, such as ext4, XFS or
//! btrfs. Whoever has that capability can take the flag away: this is no promise, it is a lock on a door.
//!
//! # Source
//! `ioctl_iflags(2)`, Linux man-pages 6.9: `FS_IMMUTABLE_FL`.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

/// Tells whether the flag is set; false also where the file system does not know it.
pub(super) fn is_set(file: &File) -> bool {
    ioctl_getflags(file).is_ok_and(|flags| flags.contains(IFlags::IMMUTABLE))
}

/// Sets the flag.
pub(super) fn set(file: &File) -> io::Result<()> {
    let flags = ioctl_getflags(file)?;
    Ok(ioctl_setflags(file, flags | IFlags::IMMUTABLE)?)
}

/// Takes the flag away.
pub(super) fn clear(file: &File) -> io::Result<()> {
    let flags = ioctl_getflags(file)?;
    Ok(ioctl_setflags(file, flags - IFlags::IMMUTABLE)?)
}

/// Tells why files in this folder cannot have the flag, or `None` when they can; tried on a file that
/// has no name.
pub(super) fn obstacle(folder: &Path) -> Option<String> {
    let tried = unnamed(folder).and_then(|file| {
        set(&file)?;
        clear(&file)
    });
    tried.err().map(|error| error.to_string())
}

fn unnamed(folder: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::TMPFILE.bits().cast_signed();
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o400)
        .custom_flags(flags)
        .open(folder)
}
