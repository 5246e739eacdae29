//! Opening the point of a drill: mounted where that is possible, so that it takes what a recovery takes,
//! and restored in full otherwise.

use std::fs;
use std::path::Path;

use holdfast_core::{DrillForm, DrillOf};

use super::DrillContext;
use crate::clone::FormWish;
use crate::mount::MountError;
use crate::repository::RepositoryError;
use crate::restore::{
    Aimed, Held, LocalServer, ProgressFn, RestoreError, RestoreRequest, Restored, ServerLife,
    restore_locally,
};

/// What a mounted point has of its own, beside where it is mounted.
const OVERLAY: &str = "overlay";

/// A point that was opened, and the server on it.
pub(super) struct Opened {
    pub(super) form: DrillForm,
    pub(super) restored: Restored,
    pub(super) local: LocalServer,
    /// The mount, which must outlive the server.
    pub(super) held: Option<Held>,
}

/// Opens a point as a drill of this kind does.
///
/// Older points are restored in full, so that this way stays proven too.
pub(super) fn open(
    ctx: &DrillContext,
    (of, form, request): (DrillOf, FormWish, &RestoreRequest),
    progress: &ProgressFn,
) -> Result<Opened, RestoreError> {
    let may_mount = of == DrillOf::Newest && form != FormWish::Restored;
    if may_mount && let Some(opened) = mounted(ctx, request, progress)? {
        return Ok(opened);
    }
    let (restored, local) = restore_locally(&ctx.place, request, progress)?;
    let local = local.ok_or_else(|| RestoreError::Server {
        why: "it was not started".to_owned(),
        log: String::new(),
        directory: request.into.clone(),
    })?;
    Ok(Opened {
        form: DrillForm::Restored,
        restored,
        local,
        held: None,
    })
}

/// Why a point was not mounted.
enum NotLaid {
    Mount(MountError),
    Restore(RestoreError),
}

impl From<MountError> for NotLaid {
    fn from(error: MountError) -> Self {
        Self::Mount(error)
    }
}

impl From<RestoreError> for NotLaid {
    fn from(error: RestoreError) -> Self {
        Self::Restore(error)
    }
}

/// Mounts a point and starts a server on it; `None` where this machine does not let us.
fn mounted(
    ctx: &DrillContext,
    request: &RestoreRequest,
    progress: &ProgressFn,
) -> Result<Option<Opened>, RestoreError> {
    let aimed = Aimed::at(&ctx.place, request)?;
    if aimed.unfit().is_some() {
        return Ok(None);
    }
    let overlay = request.into.with_file_name(OVERLAY);
    let laid = match aimed.lay(&overlay, progress) {
        Ok(laid) => laid,
        Err(NotLaid::Restore(error)) => return Err(error),
        Err(NotLaid::Mount(MountError::Repository(error))) => return Err(error.into()),
        Err(NotLaid::Mount(error)) => {
            let what = holdfast_core::ErrorChain(&error).to_string();
            tracing::info!(what, "a drill cannot mount its point, and restores it");
            clear(&request.into)?;
            clear(&overlay)?;
            return Ok(None);
        }
    };
    let (restored, local, held) = laid.serve(ServerLife::EndsWithUs, progress)?;
    Ok(Some(Opened {
        form: DrillForm::Mounted,
        restored,
        local,
        held: Some(held),
    }))
}

fn clear(folder: &Path) -> Result<(), RestoreError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let what = format!("{}: {error}", folder.display());
            let step = "remove what a mount has left";
            Err(RepositoryError::System { step, what }.into())
        }
        _ => Ok(()),
    }
}
