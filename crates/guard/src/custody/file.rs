//! A file from which a credential is taken: read whole, replaced in one step.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

use super::CustodyError;
use crate::clock;
use crate::limits::CUSTODY_FILE_BYTES_MAX;

/// A file as it was found.
pub(super) struct Found {
    /// Where it really is.
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    pub mode: u32,
}

pub(super) fn read(path: &Path) -> Result<Found, CustodyError> {
    let failed = |step| {
        let path = path.to_owned();
        move |source| CustodyError::File { step, path, source }
    };
    let path = path.canonicalize().map_err(failed("find"))?;
    let file = fs::File::open(&path).map_err(failed("open"))?;
    let found = file.metadata().map_err(failed("read"))?;
    if !found.is_file() || found.len() > CUSTODY_FILE_BYTES_MAX {
        return Err(CustodyError::Unfit(path));
    }
    let mut bytes = Vec::new();
    file.take(CUSTODY_FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(failed("read"))?;
    Ok(Found {
        mode: found.mode() & 0o7777,
        path,
        bytes,
    })
}

/// Replaces every occurrence; `None` when there is none.
pub(super) fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    if from.is_empty() {
        return None;
    }
    let (mut out, mut rest, mut any) = (Vec::with_capacity(bytes.len()), bytes, false);
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        let (before, after) = rest.split_at(at);
        out.extend(before);
        out.extend(to);
        rest = after.get(from.len()..).unwrap_or_default();
        any = true;
    }
    out.extend(rest);
    any.then_some(out)
}

/// Replaces a file in one step: a whole new file beside it, made durable, takes its name.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CustodyError> {
    let failed = |step| {
        let path = path.to_owned();
        move |source| CustodyError::File { step, path, source }
    };
    let random: [u8; 8] = clock::random().map_err(CustodyError::Random)?;
    let name = format!(".holdfast-{}.tmp", HEXLOWER.encode(&random));
    let folder = path.parent().unwrap_or(Path::new("."));
    let beside = folder.join(name);
    let owner = fs::metadata(path)
        .ok()
        .map(|found| (found.uid(), found.gid()));
    let fill = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(bytes)?;
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        fs::File::open(folder)?.sync_all()
    };
    fill().map_err(|error| {
        // Nothing refers to the file beside; that it may stay is no reason to say something else.
        drop(fs::remove_file(&beside));
        failed("replace")(error)
    })
}
