//! The mount of a clone, held by the process that serves it: again after that was killed, and how much has
//! come.

use std::path::Path;

use holdfast_core::{ByteCount, PointId, SourceName};
use serde::{Deserialize, Serialize};

use super::CloneError;
use super::folder::{self, CloneFolder};
use crate::mount::{Hydration, Mount, MountRequest};
use crate::repository::Reader;
use crate::restore::{Held, Place, Programs, RestoreError, files_owner};

/// How much of a clone has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hydrated {
    /// Bytes of files that need the repository no more.
    pub done: ByteCount,
    /// Bytes of all files of the restore point.
    pub total: ByteCount,
    /// Everything has come.
    pub complete: bool,
    /// Why it does not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl From<Hydration> for Hydrated {
    fn from(hydration: Hydration) -> Self {
        Self {
            done: hydration.done,
            total: hydration.total,
            complete: hydration.is_complete,
            failed: hydration.failed,
        }
    }
}

impl Hydrated {
    /// Tells whether two are the same to whoever looks now and then.
    pub(super) fn is_near(&self, other: &Self) -> bool {
        let percent = |one: &Self| one.done.0.saturating_mul(100) / one.total.0.max(1);
        (percent(self), self.complete, &self.failed)
            == (percent(other), other.complete, &other.failed)
    }
}

/// Mounts a clone's point again over what was written to it.
pub(super) fn again(
    place: &Place,
    folder: &CloneFolder,
    (source, point): (&SourceName, &PointId),
) -> Result<Held, CloneError> {
    // Its process was killed: nothing answers where it was mounted.
    folder.sweep()?;
    let reader = Reader::open(&place.repository, place.vault_key, &place.keys);
    let point = reader.and_then(|reader| reader.point(source, point));
    let point = point.map_err(RestoreError::from)?;
    let major = point.summary().postgres.as_ref().map_or(0, |one| one.major);
    let programs = Programs::of(&place.postgres, major, &folder.data())?;
    let mount = Mount::open(MountRequest {
        point,
        overlay: folder.overlay(),
        mountpoint: folder.data(),
        owner: files_owner(&programs),
    })?;
    Ok(Held::new(mount, Default::default()))
}

/// Returns what is left in an overlay that makes its data directory less than whole.
pub(super) fn unfinished(overlay: &Path) -> u64 {
    folder::files(&overlay.join("notes")).saturating_add(folder::files(&overlay.join("partial")))
}
