//! The clones that there are: their folders say it.

use std::path::Path;
use std::time::Instant;

use holdfast_core::ByteCount;

use super::folder::{self, CloneFolder};
use super::open::{ThinClone, boot};
use super::record::CloneState;
use super::{CloneError, CloneId, CloneRequest, CloneShown, ClonesConfig, data, processes};
use crate::limits;
use crate::restore::{Place, ProgressFn};

/// A clone that has a folder.
#[derive(Debug)]
pub struct Listed {
    /// What it is called.
    pub id: CloneId,
    /// Whether somebody serves it.
    pub is_served: bool,
    /// How it is, or why that cannot be told.
    pub shown: Result<CloneShown, CloneError>,
}

/// Returns the clones that there are, in the order of their names.
#[must_use]
pub fn clones(clones: &ClonesConfig) -> Vec<Listed> {
    let ids = folder::ids(&clones.dir);
    ids.into_iter().map(|id| listed(&clones.dir, id)).collect()
}

/// Returns one clone.
///
/// # Errors
/// [`CloneError::Unknown`] when there is none of that name, and [`CloneError::Record`].
pub fn find(clones: &ClonesConfig, id: &str) -> Result<Listed, CloneError> {
    let unknown = || CloneError::Unknown(id.chars().take(80).collect());
    let id: CloneId = id.parse().map_err(|_| unknown())?;
    match clones.dir.join(id.as_str()).is_dir() {
        true => Ok(listed(&clones.dir, id)),
        false => Err(unknown()),
    }
}

fn listed(root: &Path, id: CloneId) -> Listed {
    let path = root.join(id.as_str());
    let shown = folder::read(root, &id).map(|record| {
        let memory = ByteCount(processes::memory(&path.join("data")));
        record.shown(&path, (folder::disk(&path, record.form), memory))
    });
    Listed {
        is_served: !matches!(CloneFolder::take(root, &id), Ok(Some(_))),
        shown,
        id,
    }
}

/// Removes a clone that nobody serves; `false` when somebody does.
///
/// # Errors
/// [`CloneError::Record`] when its folder does not say that it is a clone's: then it stays.
pub fn remove(clones: &ClonesConfig, id: &CloneId) -> Result<bool, CloneError> {
    let Some(folder) = CloneFolder::take(&clones.dir, id)? else {
        return Ok(false);
    };
    let record = folder::read(&clones.dir, id)?;
    folder::remove_sockets(&record, folder.path());
    folder.remove().map(|()| true)
}

/// Opens a clone again that nobody serves; `None` when somebody does.
///
/// What was written in it is there, as after a crash of its server. What was not open yet, and was
/// interrupted by a restart of the machine, is brought anew.
///
/// # Errors
/// [`CloneError`]; its folder then stays, and says why.
pub fn reopen(
    place: &Place,
    clones: &ClonesConfig,
    id: &CloneId,
    progress: &ProgressFn,
) -> Result<Option<ThinClone>, CloneError> {
    let began = Instant::now();
    let Some(folder) = CloneFolder::take(&clones.dir, id)? else {
        return Ok(None);
    };
    let mut record = folder::read(&clones.dir, id)?;
    processes::end(&folder.data());
    let is_new = match record.state {
        CloneState::Filling => true,
        CloneState::Recovering => record.boot != boot(),
        CloneState::Halted | CloneState::Open => false,
    };
    let is_first = record.state == CloneState::Filling && record.reopened == 0;
    if record.state != CloneState::Filling {
        record.reopened = record.reopened.saturating_add(1);
    }
    if record.reopened > limits::CLONE_REOPENED {
        return Err(CloneError::State {
            id: id.clone(),
            what: "opened again",
            why: format!(
                "it was {} times, and ended each time",
                limits::CLONE_REOPENED
            ),
        });
    }
    if is_new {
        folder.clear()?;
        record.state = CloneState::Filling;
    }
    folder.write(&record)?;
    let mut request = CloneRequest::new(
        clones.clone(),
        record.source.clone(),
        record.at.parse().map_err(CloneError::Restore)?,
    );
    request.timeline = record.timeline;
    request.clones.disk_max = record.disk_max;
    request.clones.memory_max = record.memory_max;
    request.clones.form = record.wish;
    let mut clone = ThinClone::of(folder, record, began);
    if !is_first {
        clone.leave();
    }
    let opened = match is_new {
        true => clone.fill(place, &request, progress),
        false => clone.mount_again(place).and_then(|()| {
            let ground = data::again(place, &clone.data())?;
            clone.launch(&ground, progress)
        }),
    };
    match opened {
        Ok(()) => {
            clone.leave();
            Ok(Some(clone))
        }
        // One that was never open goes as it is dropped; another waits for somebody to look.
        Err(error) if is_first => Err(error),
        Err(error) => {
            let why = holdfast_core::ErrorChain(&error).to_string();
            clone.halt(why)?;
            Err(error)
        }
    }
}
