//! Whether the disk has room for what is to be written.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use holdfast_core::ByteCount;

use super::RestoreError;
use crate::repository::{Point, RepositoryError};

/// Refuses when the disk of `into` has fewer free bytes than are needed, as far as that can be known.
///
/// What an interrupted restore has written there already counts as free.
pub(super) fn check(into: &Path, needed: u64) -> Result<(), RestoreError> {
    let existing = into.ancestors().find(|path| path.is_dir());
    let Some(disk) = existing.and_then(|path| rustix::fs::statvfs(path).ok()) else {
        return Ok(());
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let free = free.saturating_add(occupied(into));
    if free >= needed {
        return Ok(());
    }
    Err(RestoreError::NoRoom {
        path: into.to_owned(),
        needed: ByteCount(needed),
        free: ByteCount(free),
    })
}

/// Returns the bytes of a point's files that are not holes.
pub(super) fn written(point: &Point) -> Result<u64, RepositoryError> {
    let mut bytes = 0_u64;
    for part in point.walk() {
        let part = part?;
        let extents = part.extents.iter().map(|extent| extent.length);
        bytes = extents.fold(bytes, u64::saturating_add);
    }
    Ok(bytes)
}

/// Returns what a folder occupies; what cannot be read counts as nothing.
fn occupied(folder: &Path) -> u64 {
    let mut folders = vec![folder.to_owned()];
    let mut bytes = 0_u64;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            // SOURCE: stat(2), blocks are of 512 bytes whatever the file system has.
            bytes = bytes.saturating_add(metadata.blocks().saturating_mul(512));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_too_small_is_refused_with_both_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("not/there/yet");
        check(&into, 1).unwrap();
        let refused = check(&into, 1 << 60).unwrap_err().to_string();
        let needed = ByteCount(1 << 60).to_string();
        assert!(
            refused.contains(&needed) && refused.contains("free"),
            "{refused}"
        );
        fs::write(folder.path().join("there"), vec![1; 1 << 20]).unwrap();
        assert!(occupied(folder.path()) >= 1 << 20);
    }
}
