//! An older copy of the same source, whose files spare a restore what has not changed since.
//!
//! It is only ever read, and a byte of it counts only as a part of a frame with the right SHA-256: it
//! may change meanwhile, and nothing in it is believed.

use std::io::Read;
use std::path::Path;

use super::local::open_below;
use super::{RestoreError, outside};

/// Checks that a copy lies apart from the new directory and is of this cluster.
pub(super) fn check(
    old: &Path,
    into: &Path,
    system_identifier: Option<u64>,
) -> Result<(), RestoreError> {
    let refused = |why: String| RestoreError::OldCopy {
        path: old.to_owned(),
        why,
    };
    let real = old
        .canonicalize()
        .map_err(|error| refused(error.to_string()))?;
    if !real.is_dir() {
        return Err(refused("it is no directory".to_owned()));
    }
    let into = outside::resolve(into);
    if into.starts_with(&real) || real.starts_with(&into) {
        return Err(refused(
            "it and the new directory lie in each other".to_owned(),
        ));
    }
    let Some(wanted) = system_identifier else {
        return Ok(());
    };
    let mut first = [0; 8];
    open_below(&real, Path::new("global/pg_control"))
        .and_then(|mut file| file.read_exact(&mut first))
        .map_err(|_| refused("it is no data directory of PostgreSQL".to_owned()))?;
    // SOURCE: PostgreSQL 18, `catalog/pg_control.h`: the identifier is the first field.
    let found = u64::from_le_bytes(first);
    match found == wanted {
        true => Ok(()),
        false => Err(refused(format!(
            "it is another cluster ({found} instead of {wanted})"
        ))),
    }
}
