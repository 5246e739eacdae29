//! The probe of a directory: who may write there, and what the file system can be made to refuse.
//!
//! Whatever is found, whoever rules the machine can empty a directory; the label stays `advisory`.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use holdfast_core::{CheckOutcome, Timestamp};

use super::{Findings, TargetReport};
use crate::durable;
use crate::object::directory::{DirectoryStore, PROBE};
use crate::object::{Marker, ObjectError, ObjectKey, ObjectStore, Promise, immutable};

/// A folder of our own in the directory; it goes with this value.
struct Trial {
    folder: PathBuf,
}

impl Drop for Trial {
    fn drop(&mut self) {
        // What is left behind has a name that no object can have, and harms nobody.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub(super) fn probe(root: &Path) -> Result<TargetReport, ObjectError> {
    let failed = |step, source| ObjectError::Io {
        step,
        what: root.display().to_string(),
        source,
    };
    durable::make_folder(root).map_err(|source| failed("make", source))?;
    let mut findings = Findings::default();
    ownership(root, &mut findings).map_err(|source| failed("look at", source))?;
    let trial = Trial {
        folder: root.join(format!("{PROBE}{}", std::process::id())),
    };
    let made = DirBuilder::new().mode(0o700).create(&trial.folder);
    made.map_err(|source| failed("write to", source))?;
    files(&trial.folder, &mut findings)?;
    let is_immutable = flag(&trial.folder, &mut findings)?;
    let why = match (findings.worst(), is_immutable) {
        (Some(worst), _) => worst,
        (None, true) => {
            "who rules this machine can empty a directory; the immutable flag can be had here, which stops every other account".to_owned()
        }
        (None, false) => "who rules this machine can empty a directory".to_owned(),
    };
    Ok(TargetReport {
        place: root.display().to_string(),
        at: Timestamp::from(SystemTime::now()),
        checks: findings.checks,
        promise: Promise::Advisory { why },
    })
}

/// Who owns the directory, and who else may write to it or to what leads to it.
fn ownership(root: &Path, findings: &mut Findings) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let metadata = fs::metadata(root)?;
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let told = format!("account {owner}, mode {mode:04o}");
    match own {
        0 => findings.note(
            "separate owner",
            CheckOutcome::NotRun,
            format!("{told}; the vault runs as root, and no right keeps root from anything"),
        ),
        own => findings.is(
            "separate owner",
            match owner == own && mode & 0o022 == 0 {
                true => Ok(format!("{told}; nobody else may write")),
                false => Err(format!("{told}; others than the vault may write")),
            },
        ),
    }
    let root = fs::canonicalize(root)?;
    let mut loose = None;
    for folder in root.ancestors().skip(1) {
        let metadata = fs::metadata(folder)?;
        let (owner, mode) = (metadata.uid(), metadata.mode());
        // In a sticky folder others cannot move what is not theirs.
        let is_shared = mode & 0o022 != 0 && mode & 0o1000 == 0;
        if is_shared || (owner != 0 && owner != own) {
            loose = Some(format!(
                "`{}` belongs to account {owner}, mode {:04o}: who may write there can move the repository away",
                folder.display(),
                mode & 0o7777
            ));
        }
    }
    findings.is(
        "folders above",
        match loose {
            Some(loose) => Err(loose),
            None => Ok("only root and the vault may write to them".to_owned()),
        },
    );
    Ok(())
}

/// An object is read-only for everybody and is not written twice.
fn files(folder: &Path, findings: &mut Findings) -> Result<(), ObjectError> {
    let marker = Marker {
        format: 0,
        id: String::new(),
        created: Timestamp(0),
        vault_key: String::new(),
        recipients: Vec::new(),
    };
    let store = DirectoryStore::at(folder, marker);
    let key: ObjectKey = KEY.parse().map_err(|_| ObjectError::Unreadable {
        place: KEY.to_owned(),
    })?;
    store.create_new(&key, b"first")?;
    let again = store.create_new(&key, b"second");
    let kept = store.get(&key, holdfast_core::ByteCount(99))?;
    findings.is(
        "create only",
        match (again, kept.as_slice()) {
            (Err(ObjectError::Exists(_)), b"first") => {
                Ok("a second object of one name is refused".to_owned())
            }
            _ => Err("a second object of one name was accepted".to_owned()),
        },
    );
    let path = folder.join(KEY);
    let mode = fs::metadata(&path).map(|metadata| metadata.mode() & 0o7777);
    let mode = mode.map_err(|source| trouble("look at", &path, source))?;
    findings.is(
        "read-only files",
        match mode & 0o277 {
            0 => Ok(format!("mode {mode:04o}")),
            _ => Err(format!("mode {mode:04o}")),
        },
    );
    Ok(())
}

/// Whether the immutable flag can be had, and then whether it holds.
fn flag(folder: &Path, findings: &mut Findings) -> Result<bool, ObjectError> {
    const NAME: &str = "immutable flag";
    let path = folder.join(KEY);
    let failed = |source| trouble("try the immutable flag of", &path, source);
    let file = File::open(&path).map_err(failed)?;
    if let Err(error) = immutable::set(&file) {
        findings.note(
            NAME,
            CheckOutcome::NotRun,
            format!("not to be had here: {error}"),
        );
        return Ok(false);
    }
    let removed = fs::remove_file(&path);
    let renamed = fs::rename(&path, folder.join("elsewhere"));
    if removed.is_err() && renamed.is_err() {
        immutable::clear(&file).map_err(failed)?;
    }
    let holds = removed.is_err() && renamed.is_err();
    findings.is(
        NAME,
        match holds {
            true => Ok("a file that has it could be neither removed nor renamed".to_owned()),
            false => Err("a file that has it could be removed or renamed".to_owned()),
        },
    );
    Ok(holds)
}

fn trouble(step: &'static str, path: &Path, source: io::Error) -> ObjectError {
    ObjectError::Io {
        step,
        what: path.display().to_string(),
        source,
    }
}

const KEY: &str = "probe/object";
