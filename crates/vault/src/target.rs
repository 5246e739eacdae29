//! What may be promised of the place of the repository: tried, remembered, and told at every start.
//!
//! Only a key that may delete can show that a bucket refuses deletes, and the vault's own should have no
//! such right. So `check-target` is run with another key, and what it found is remembered beside the
//! vault's other state; at its starts the vault tries again what its own key can show.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use holdfast_core::{Code, Coded, Timestamp};
use holdfast_store::durable;
use holdfast_store::object::probe::{TargetReport, probe};
use holdfast_store::object::s3::CredentialSource;
use holdfast_store::object::{Location, ObjectError, Promise};
use serde::{Deserialize, Serialize};

use crate::limits;

/// The file in the vault's state.
const FILE: &str = "target.json";

/// What was found, and when it was tried last, perhaps with another key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    #[serde(flatten)]
    report: TargetReport,
    tried: Timestamp,
}

/// Why nothing can be said of a place. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The place cannot be asked.
    #[error("cannot try what the repository's place refuses")]
    Object(#[from] ObjectError),
    /// What was found cannot be kept.
    #[error("cannot keep what was found in `{}`", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Coded for TargetError {
    fn code(&self) -> Code {
        match self {
            Self::Object(error) => error.code(),
            Self::State { .. } => Code::ZS304,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Object(error) => error.hint(),
            Self::State { .. } => Some("check who owns the state directory".to_owned()),
        }
    }
}

/// Tries what the place refuses and remembers it in `state`, the vault's folder; blocks for seconds.
///
/// `strong` is a key that may delete, where the vault's own may not.
///
/// # Errors
/// [`TargetError`]; nothing new is then remembered.
pub fn check_target(
    location: &Location,
    strong: Option<&CredentialSource>,
    state: &Path,
) -> Result<TargetReport, TargetError> {
    let report = probe(location, strong)?;
    let tried = report.at;
    let memory = Memory { report, tried };
    remember(state, &memory)?;
    Ok(memory.report)
}

/// Finds out what may be promised and lets `location` promise that.
///
/// # Errors
/// [`TargetError`] when a bucket cannot be asked.
pub(crate) fn settle(
    location: &mut Location,
    state: &Path,
    now: Timestamp,
) -> Result<Promise, TargetError> {
    let place = location.place();
    let known = recall(state).filter(|known| known.report.place == place);
    let Location::S3(bucket) = location else {
        let why = "who rules this machine can empty a directory".to_owned();
        let promise = known.map(|known| known.report.promise);
        return Ok(promise.unwrap_or(Promise::Advisory { why }));
    };
    let promise = match known {
        Some(known) if now.since(known.tried) < limits::TARGET_AGAIN => known.report.promise,
        known => {
            let found = probe(&Location::S3(bucket.clone()), None)?;
            let gave_way = found.failed().next().is_some();
            let is_proven = |known: &Memory| {
                known.report.promise == Promise::Compliance
                    && now.since(known.report.at) < limits::TARGET_PROVEN_FOR
            };
            let report = match known.filter(is_proven) {
                // What the vault's key cannot show was shown by another one before.
                Some(known) if !gave_way => known.report,
                _ => found,
            };
            let memory = Memory { report, tried: now };
            remember(state, &memory)?;
            memory.report.promise
        }
    };
    bucket.promise = promise.clone();
    Ok(promise)
}

/// What is not readable was never found out.
fn recall(state: &Path) -> Option<Memory> {
    let text = fs::read(state.join(FILE)).ok()?;
    serde_json::from_slice(&text).ok()
}

fn remember(state: &Path, memory: &Memory) -> Result<(), TargetError> {
    let path = state.join(FILE);
    let write = || {
        durable::make_folder(state)?;
        let text = serde_json::to_vec_pretty(memory)?;
        let fresh = path.with_extension("new");
        fs::write(&fresh, &text)?;
        fs::File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, &path)?;
        durable::sync_folder(state)
    };
    write().map_err(|source| TargetError::State {
        path: path.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_promises_nothing_whatever_was_remembered_of_another_place() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let report = TargetReport {
            place: "s3://bucket at https://elsewhere".to_owned(),
            at: Timestamp(0),
            checks: Vec::new(),
            promise: Promise::Compliance,
        };
        let tried = Timestamp(5);
        let memory = Memory { report, tried };
        remember(&state, &memory).unwrap();
        assert_eq!(recall(&state), Some(memory));
        let root = folder.path().join("repository");
        let mut location = Location::Directory(root);
        let why = |promise| match promise {
            Promise::Advisory { why } => why,
            Promise::Compliance => panic!("it is a directory"),
        };
        let told = why(settle(&mut location, &state, Timestamp(1)).unwrap());
        assert!(told.contains("who rules this machine"), "{told}");
        let report = check_target(&location, None, &state).unwrap();
        let told = settle(&mut location, &state, Timestamp(1)).unwrap();
        assert_eq!(told, report.promise);
        fs::write(state.join(FILE), "damaged").unwrap();
        assert_eq!(recall(&state), None);
    }
}
