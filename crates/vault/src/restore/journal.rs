//! What a restore notes in its directory while it is not complete, so that the same command goes on.
//!
//! One note says which restore the directory belongs to; it is there before anything else and is taken
//! away when everything is. It does not say how far the restore came: what is on the disk is compared
//! with what is wanted. Only for the log, whose sums are nowhere else, a second note has them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use holdfast_core::{Digest, PointId, SourceName, Untrusted};
use serde::{Deserialize, Serialize};

use super::RestoreError;
use super::files::{self, Owner, failed};
use super::ground::Ground;
use super::local::open_below;

/// Says which restore a directory belongs to.
pub(super) const NOTE: &str = "holdfast-restore.json";
/// The same while it is written.
pub(super) const FRESH: &str = "holdfast-restore.json.fresh";
/// The sums of the segments of the log that were written.
pub(super) const LOG: &str = "holdfast-restore.wal";
/// The largest note that is read, in bytes.
const NOTE_BYTES: u64 = 64 * 1024;
/// The largest list of segments that is read, in bytes.
const LOG_BYTES: u64 = 256 << 20;

/// Which restore a directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Note {
    format: u32,
    pub(super) source: SourceName,
    pub(super) at: String,
    pub(super) timeline: Option<u32>,
    /// The restore point that it is built on.
    pub(super) point: PointId,
    pub(super) stage: Stage,
}

/// How far the restore of a directory is, whose links are made last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    /// Files are written, and nothing is a link.
    Contents,
    /// All contents are there, and nothing is written into a file any more.
    Links,
}

impl Note {
    pub(super) fn new(
        source: &SourceName,
        at: String,
        timeline: Option<u32>,
        point: &PointId,
    ) -> Self {
        Self {
            format: 1,
            source: source.clone(),
            at,
            timeline,
            point: point.clone(),
            stage: Stage::Contents,
        }
    }

    /// Writes it beside and gives it its name, durably.
    pub(super) fn write(&self, directory: &Path, owner: Owner) -> Result<(), RestoreError> {
        let (fresh, path) = (directory.join(FRESH), directory.join(NOTE));
        let file = files::create_or_empty(&fresh, owner)?;
        let work = |mut file: File| -> io::Result<()> {
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(directory)?.sync_all()
        };
        work(file).map_err(|source| failed("write", &path, source))
    }
}

/// Returns the note of an interrupted restore in `directory`, or `None` when the directory is absent,
/// empty or not ours to judge.
///
/// # Errors
/// [`RestoreError::Foreign`] when the note cannot be read, the directory has links, or a server has run.
pub(super) fn find(directory: &Path) -> Result<Option<Note>, RestoreError> {
    let foreign = |why: String| RestoreError::Foreign {
        path: directory.to_owned(),
        why,
    };
    let is_there = |name: &str| fs::symlink_metadata(directory.join(name)).is_ok();
    let is_dir = fs::symlink_metadata(directory).is_ok_and(|metadata| metadata.is_dir());
    if !is_dir || !is_there(NOTE) {
        return Ok(None);
    }
    if is_there("postmaster.pid") || is_there("postmaster.opts") {
        return Err(foreign("a server was started on it".to_owned()));
    }
    let mut text = Vec::new();
    let read = open_below(directory, Path::new(NOTE))
        .and_then(|file| file.take(NOTE_BYTES).read_to_end(&mut text));
    let note: Option<Note> = serde_json::from_slice(&text).ok();
    let Some(note) = note.filter(|note| read.is_ok() && note.format == 1) else {
        return Err(foreign(format!("`{NOTE}` in it is not readable")));
    };
    if note.stage == Stage::Links {
        return Ok(Some(note));
    }
    match odd(directory) {
        Ok(None) => Ok(Some(note)),
        Ok(Some(path)) => Err(foreign(format!(
            "`{}` in it is a link or no file, which nothing of a restore is",
            path.display()
        ))),
        Err(source) => Err(failed("look through", directory, source)),
    }
}

/// Refuses to go on with another restore than the one that was begun.
pub(super) fn same(found: &Note, asked: &Note, directory: &Path) -> Result<(), RestoreError> {
    let asked = Note {
        stage: found.stage,
        ..asked.clone()
    };
    match *found == asked {
        true => Ok(()),
        false => Err(RestoreError::Foreign {
            path: directory.to_owned(),
            why: format!(
                "the restore of `{}` to `{}` was begun in it",
                found.source,
                Untrusted(&found.at)
            ),
        }),
    }
}

/// Returns something below a folder through which a write would leave it.
fn odd(folder: &Path) -> io::Result<Option<PathBuf>> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            if metadata.is_dir() {
                folders.push(path);
            } else if !metadata.is_file() || metadata.nlink() != 1 {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

/// The segments of the log that were written whole, with their sums.
pub(super) struct Segments {
    known: BTreeMap<String, Digest>,
    file: Mutex<File>,
    path: PathBuf,
}

impl Segments {
    /// Opens the list; what an interrupted restore has noted is read.
    pub(super) fn open(ground: &Ground<'_>) -> Result<Self, RestoreError> {
        let path = ground.directory.join(LOG);
        let mut text = String::new();
        if ground.is_resumed {
            // A list that cannot be read costs only the work.
            let _ = open_below(ground.directory, Path::new(LOG))
                .and_then(|file| file.take(LOG_BYTES).read_to_string(&mut text));
        }
        let known = text.lines().filter_map(|line| {
            let (name, sum) = line.split_once(' ')?;
            Some((name.to_owned(), sum.parse().ok()?))
        });
        let known: BTreeMap<String, Digest> = known.collect();
        let mut file = files::create_or_empty(&path, ground.owner)?;
        for (name, sum) in &known {
            note(&mut file, name, sum).map_err(|source| failed("write", &path, source))?;
        }
        Ok(Self {
            known,
            file: Mutex::new(file),
            path,
        })
    }

    /// Returns a segment that is on the disk exactly as it was written.
    pub(super) fn kept(&self, ground: &Ground<'_>, name: &str, bytes: u32) -> Option<Vec<u8>> {
        let sum = self.known.get(name)?;
        let path = Path::new("pg_wal").join(name);
        let mut content = Vec::new();
        let file = open_below(ground.directory, &path).ok()?;
        let limit = u64::from(bytes).saturating_add(1);
        file.take(limit).read_to_end(&mut content).ok()?;
        let is_whole = u64::try_from(content.len()) == Ok(u64::from(bytes));
        (is_whole && Digest::of(&content) == *sum).then_some(content)
    }

    /// Notes a segment that was written.
    pub(super) fn wrote(&self, name: &str, content: &[u8]) -> Result<(), RestoreError> {
        if self.known.contains_key(name) {
            return Ok(());
        }
        let Ok(mut file) = self.file.lock() else {
            return Ok(());
        };
        note(&mut file, name, &Digest::of(content))
            .map_err(|source| failed("write", &self.path, source))
    }
}

fn note(file: &mut File, name: &str, sum: &Digest) -> io::Result<()> {
    file.write_all(format!("{name} {sum}\n").as_bytes())
}
