//! What is kept of a file besides its bytes.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use data_encoding::HEXLOWER;
use rustix::fs::{FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, openat};

use super::is_settled;
use crate::engine::directory::names::encode;
use crate::engine::directory::tree::Found;
use crate::limits;
use crate::repository::FileMeta;

/// Returns owner, time and extended attributes; `opened` is the file itself if it is open.
pub(super) fn of(found: &Found, opened: Option<&OwnedFd>) -> FileMeta {
    let folder = match (opened, FileType::from_raw_mode(found.stat.st_mode)) {
        (None, FileType::Directory) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&found.folder, &found.name, flags, Mode::empty()).ok()
        }
        _ => None,
    };
    let xattrs = opened.or(folder.as_ref()).map(xattrs);
    FileMeta {
        mtime_ns: Some(nanoseconds(found.stat.st_mtime, found.stat.st_mtime_nsec)),
        uid: Some(found.stat.st_uid),
        gid: Some(found.stat.st_gid),
        xattrs: xattrs.unwrap_or_default(),
        stamp: None,
    }
}

/// Returns by what it is known later that a file has not changed, or `None` when that is not certain.
pub(super) fn stamp(stat: &Stat) -> Option<String> {
    let changed = nanoseconds(stat.st_ctime, stat.st_ctime_nsec);
    let modified = nanoseconds(stat.st_mtime, stat.st_mtime_nsec);
    is_settled(stat.st_ctime).then(|| {
        let (number, size) = (stat.st_ino, stat.st_size);
        format!("{number}:{size}:{modified}:{changed}")
    })
}

fn nanoseconds(seconds: i64, nanoseconds: u64) -> i64 {
    let fraction = i64::try_from(nanoseconds).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(fraction)
}

/// Returns the extended attributes that can be read, values in hexadecimal digits.
fn xattrs(file: &OwnedFd) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut names = vec![0; limits::XATTR_BYTES];
    let Ok(length) = flistxattr(file.as_fd(), &mut names[..]) else {
        return found;
    };
    names.resize(length, 0);
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0; limits::XATTR_BYTES];
        if let Ok(length) = fgetxattr(file.as_fd(), name, &mut value[..]) {
            value.resize(length, 0);
            let name = encode(std::os::unix::ffi::OsStrExt::from_bytes(name));
            found.insert(name, HEXLOWER.encode(&value));
        }
    }
    found
}
