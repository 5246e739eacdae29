//! Bringing a clone's data: the files, the log and the settings that recover to the target.

use std::fs;
use std::path::Path;

use holdfast_core::ByteCount;

use super::folder::CloneFolder;
use super::settings::is_harmless;
use super::{CloneError, CloneRequest, Form};
use crate::restore::{
    Place, Programs, ProgressFn, RestoreRequest, Restored, Start, lay_down, preloaded,
};

/// Data that a server can be started on.
pub(super) struct Laid {
    pub(super) form: Form,
    pub(super) restored: Restored,
    pub(super) ground: Ground,
}

/// What runs on it.
pub(super) struct Ground {
    pub(super) programs: Programs,
    pub(super) major: u32,
    /// The libraries that the source loads at start: those that this machine has, and those that will
    /// not be loaded.
    pub(super) libraries: Vec<String>,
}

/// Brings everything that the target needs into the clone's folder.
pub(super) fn bring(
    place: &Place,
    request: &CloneRequest,
    folder: &CloneFolder,
    progress: &ProgressFn,
) -> Result<Laid, CloneError> {
    let start = Start::Yes { port: None };
    let mut wanted = RestoreRequest::new(
        request.source.clone(),
        request.at.clone(),
        folder.data(),
        start,
    );
    wanted.timeline = request.timeline;
    // It may be kept, and then lies somewhere else.
    wanted.is_portable = true;
    let max = request.clones.disk_max;
    let admit = |bytes: ByteCount| match bytes > max {
        true => Err(CloneError::Room { needed: bytes, max }),
        false => Ok(()),
    };
    let (restored, programs, major) = lay_down(place, &wanted, progress, admit)?;
    let libraries = libraries(&folder.data(), &programs)?;
    Ok(Laid {
        form: Form::Restored,
        restored,
        ground: Ground {
            programs,
            major,
            libraries,
        },
    })
}

/// Finds what runs on data that is there already.
pub(super) fn again(place: &Place, data: &Path) -> Result<Ground, CloneError> {
    let path = data.join("PG_VERSION");
    let text =
        fs::read_to_string(&path).map_err(|error| super::folder::failed("read", &path, error))?;
    let major = text.trim().parse().unwrap_or(0);
    let programs = Programs::of(&place.postgres, major, data)?;
    let libraries = libraries(data, &programs)?;
    Ok(Ground {
        programs,
        major,
        libraries,
    })
}

fn libraries(data: &Path, programs: &Programs) -> Result<Vec<String>, CloneError> {
    let named = preloaded(data)?;
    let is_told = |name: &String| !is_harmless(name) || programs.has_library(name);
    Ok(named.into_iter().filter(is_told).collect())
}
