//! How much a base backup may bring: no source can fill the disk that everybody's log goes to.

use std::path::{Path, PathBuf};

use holdfast_core::ByteCount;

use super::CaptureError;
use crate::limits;

/// What one base backup has brought, and what it may bring.
#[derive(Debug)]
pub(super) struct Bound {
    /// What the source said that it would bring.
    announced: u64,
    brought: u64,
    /// When the disk is looked at next, in bytes brought.
    look_at: u64,
    /// The folder of the repository, where it is one.
    folder: Option<PathBuf>,
}

impl Bound {
    /// Begins with nothing announced.
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self {
            announced: 0,
            brought: 0,
            look_at: 0,
            folder,
        }
    }

    /// Notes what the source says that one of its tablespaces has.
    pub(super) fn announce(&mut self, bytes: u64) {
        self.announced = self.announced.saturating_add(bytes);
    }

    /// Counts bytes that came.
    ///
    /// # Errors
    /// [`CaptureError::Endless`] and [`CaptureError::Room`].
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), CaptureError> {
        let count = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.brought = self.brought.saturating_add(count);
        let (half, more) = (self.announced / 2, limits::BASE_MORE_BYTES);
        let most = self.announced.saturating_add(half).saturating_add(more);
        if self.brought > most {
            return Err(CaptureError::Endless {
                announced: ByteCount(self.announced),
            });
        }
        if self.brought >= self.look_at {
            self.look_at = self.brought.saturating_add(limits::BASE_LOOK_BYTES);
            if let Some(folder) = &self.folder {
                check_room(folder)?;
            }
        }
        Ok(())
    }
}

/// Refuses when a disk has so little left that the log would soon find no room.
fn check_room(folder: &Path) -> Result<(), CaptureError> {
    // What cannot be asked is found out by writing.
    let Ok(disk) = rustix::fs::statvfs(folder) else {
        return Ok(());
    };
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    let kept = (bytes(disk.f_blocks) / limits::BASE_KEEPS_PART).min(limits::BASE_KEEPS_BYTES);
    let free = bytes(disk.f_bavail);
    if free < kept {
        return Err(CaptureError::Room {
            free: ByteCount(free),
            kept: ByteCount(kept),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_was_announced_is_taken_and_much_more_is_not() {
        let mut bound = Bound::new(None);
        bound.announce(2 << 30);
        let most = (3 << 30) + usize::try_from(limits::BASE_MORE_BYTES).unwrap();
        bound.take(most).unwrap();
        assert!(matches!(bound.take(1), Err(CaptureError::Endless { .. })));
        // Whoever announces all there is, is held up by the disk alone.
        let mut bound = Bound::new(None);
        bound.announce(u64::MAX);
        bound.announce(1);
        bound.take(usize::MAX).unwrap();
    }

    #[test]
    fn a_disk_with_room_is_fine_and_one_that_cannot_be_asked_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut bound = Bound::new(Some(folder.path().to_owned()));
        bound.take(1).unwrap();
        let mut bound = Bound::new(Some(folder.path().join("gone")));
        bound.take(1).unwrap();
    }
}
