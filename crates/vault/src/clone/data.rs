//! Bringing a clone's data: the log and the settings that recover to the target, and beneath them the
//! files, mounted or written.

use std::fs;
use std::path::Path;

use holdfast_core::ByteCount;

use super::folder::CloneFolder;
use super::settings::is_harmless;
use super::{CloneError, CloneRequest, Form, FormWish};
use crate::mount::MountError;
use crate::restore::{
    Aimed, Held, Place, Programs, ProgressFn, RestoreRequest, Restored, Start, lay_down, preloaded,
};

/// Data that a server can be started on.
pub(super) struct Laid {
    pub(super) form: Form,
    pub(super) restored: Restored,
    pub(super) ground: Ground,
    /// The mount, where it is mounted.
    pub(super) held: Option<Held>,
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
    let why = match request.clones.form {
        FormWish::Restored => "that was asked for".to_owned(),
        FormWish::Auto | FormWish::Mounted => {
            match mount(place, (&wanted, request), folder, progress)? {
                Ok(laid) => return Ok(laid),
                Err(why) if request.clones.form == FormWish::Mounted => {
                    return Err(CloneError::NotMounted { why });
                }
                Err(why) => why,
            }
        }
    };
    let admit = |bytes| admit(request, bytes);
    let (mut restored, programs, major) = lay_down(place, &wanted, progress, admit)?;
    restored
        .notes
        .push(format!("it was restored in full: {why}"));
    let libraries = libraries(&folder.data(), &programs)?;
    Ok(Laid {
        form: Form::Restored,
        restored,
        ground: Ground {
            programs,
            major,
            libraries,
        },
        held: None,
    })
}

fn admit(request: &CloneRequest, needed: ByteCount) -> Result<(), CloneError> {
    let max = request.clones.disk_max;
    match needed > max {
        true => Err(CloneError::Room { needed, max }),
        false => Ok(()),
    }
}

/// Mounts the point and lays the rest over it, or says why that is not possible here.
fn mount(
    place: &Place,
    (wanted, request): (&RestoreRequest, &CloneRequest),
    folder: &CloneFolder,
    progress: &ProgressFn,
) -> Result<Result<Laid, String>, CloneError> {
    let aimed = Aimed::at(place, wanted)?;
    if let Some(why) = aimed.unfit() {
        return Ok(Err(why));
    }
    admit(request, aimed.log_bytes())?;
    let laid = match aimed.lay(&folder.overlay(), progress) {
        // The device is there, and the system does not let us use it.
        Err(CloneError::Mount(error @ MountError::Overlay { step: "mount", .. })) => {
            folder.clear()?;
            return Ok(Err(holdfast_core::ErrorChain(&error).to_string()));
        }
        laid => laid?,
    };
    let libraries = libraries(&folder.data(), &laid.programs)?;
    Ok(Ok(Laid {
        form: Form::Mounted,
        restored: laid.restored,
        ground: Ground {
            programs: laid.programs,
            major: laid.major,
            libraries,
        },
        held: Some(laid.held),
    }))
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
