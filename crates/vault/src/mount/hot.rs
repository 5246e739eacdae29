//! Which blocks a server touches until it serves: what the next opening of its source brings at once.
//!
//! A server that starts reads one thing after the other, and what it reads depends on what it has
//! read; with a repository far away each costs a round trip. They are the same blocks every time, or
//! nearly so, also of a restore point that was sealed later.
//!
//! # Shape
//! Lines of text: `holdfast-hot 1` and the CRC-32C of all that follows, in eight hexadecimal digits;
//! then for each run of blocks of 8 KiB its first block, the one after its last, and the path. A file
//! that is anything else counts for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::SourceName;
use holdfast_wire::pg::basebackup::relative_path;

use super::presence::BLOCK_BYTES;
use crate::limits;

const TITLE: &str = "holdfast-hot 1 ";

/// Blocks of files, in runs.
pub(super) type Blocks = BTreeMap<String, Vec<Range<u64>>>;

/// Remembers what is touched until the server serves.
pub(super) struct Recorder {
    is_on: AtomicBool,
    touched: Mutex<Touched>,
}

#[derive(Default)]
struct Touched {
    blocks: BTreeSet<(Arc<str>, u64)>,
    /// What was named for this opening alone: the log that it replays.
    named: BTreeMap<String, Vec<Range<u64>>>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self {
            is_on: AtomicBool::new(true),
            touched: Mutex::default(),
        }
    }

    /// Notes a read of a file.
    pub(super) fn note(&self, path: &Arc<str>, range: &Range<u64>) {
        if !self.is_on.load(Ordering::Relaxed) {
            return;
        }
        let mut touched = self.touched();
        for block in range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES) {
            if touched.blocks.len() >= limits::MOUNT_HOT_BLOCKS {
                // What is touched first is what the start waits for.
                self.is_on.store(false, Ordering::Relaxed);
                return;
            }
            let named = touched.named.get(path.as_ref());
            if named.is_none_or(|named| !named.iter().any(|range| range.contains(&block))) {
                touched.blocks.insert((Arc::clone(path), block));
            }
        }
    }

    /// Blocks that only this opening needs are not remembered.
    pub(super) fn except(&self, named: &Blocks) {
        let mut touched = self.touched();
        for (path, blocks) in named {
            let known = touched.named.entry(path.clone()).or_default();
            known.extend(blocks.iter().cloned());
        }
    }

    /// Ends, and returns what was touched.
    pub(super) fn end(&self) -> Blocks {
        self.is_on.store(false, Ordering::Relaxed);
        let mut found = Blocks::new();
        let touched = std::mem::take(&mut *self.touched());
        for (path, block) in touched.blocks {
            let runs = found.entry(path.to_string()).or_default();
            match runs.last_mut().filter(|run| run.end == block) {
                Some(run) => run.end = block.saturating_add(1),
                None => runs.push(block..block.saturating_add(1)),
            }
        }
        found
    }

    fn touched(&self) -> MutexGuard<'_, Touched> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the list of a source is in a folder.
pub(super) fn place(folder: &Path, source: &SourceName) -> PathBuf {
    folder.join(format!("{source}.hot"))
}

/// Writes a list beside the old one and gives it the old one's name.
pub(super) fn write(path: &Path, blocks: &Blocks) -> io::Result<()> {
    let mut body = String::new();
    for (path, runs) in blocks.iter().filter(|(path, _)| is_fit(path)) {
        for run in runs {
            body.push_str(&format!("{} {} {path}\n", run.start, run.end));
        }
    }
    let sum = crc32c::crc32c(body.as_bytes());
    if let Some(folder) = path.parent() {
        holdfast_store::durable::make_folder(folder)?;
    }
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(format!("{TITLE}{sum:08x}\n{body}").as_bytes())?;
        fs::rename(&fresh, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

/// Reads a list; one that is absent, damaged or too long is empty.
pub(super) fn read(path: &Path) -> Blocks {
    let mut text = String::new();
    let limit = limits::MOUNT_HOT_BYTES;
    let read = File::open(path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_string(&mut text));
    let is_short = u64::try_from(text.len()).is_ok_and(|length| length <= limit);
    match read.is_ok() && is_short {
        true => parse(&text).unwrap_or_default(),
        false => Blocks::new(),
    }
}

fn parse(text: &str) -> Option<Blocks> {
    let (first, body) = text.split_once('\n')?;
    let sum = u32::from_str_radix(first.strip_prefix(TITLE)?, 16).ok()?;
    if crc32c::crc32c(body.as_bytes()) != sum {
        return None;
    }
    let mut blocks = Blocks::new();
    let mut count = 0_u64;
    for line in body.lines() {
        let (start, rest) = line.split_once(' ')?;
        let (end, path) = rest.split_once(' ')?;
        let run: Range<u64> = start.parse().ok()?..end.parse().ok()?;
        count = count.saturating_add(run.end.checked_sub(run.start)?);
        let is_within = usize::try_from(count).is_ok_and(|count| count <= limits::MOUNT_HOT_BLOCKS);
        if !is_within || !is_fit(path) {
            return None;
        }
        blocks.entry(path.to_owned()).or_default().push(run);
    }
    Some(blocks)
}

/// Whether a path can be in a list, and leads nowhere else.
fn is_fit(path: &str) -> bool {
    !path.is_empty()
        && !path.contains('\n')
        && relative_path(path.as_bytes()).as_deref() == Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(recorder: &Recorder, path: &str, blocks: Range<u64>) {
        let bytes = blocks.start * BLOCK_BYTES + 1..blocks.end * BLOCK_BYTES - 1;
        recorder.note(&Arc::from(path), &bytes);
    }

    #[test]
    fn what_is_touched_is_remembered_in_runs_without_what_was_named() {
        let recorder = Recorder::new();
        recorder.except(&Blocks::from([("base/1/2".to_owned(), vec![5..6, 6..7])]));
        touch(&recorder, "base/1/2", 0..1);
        touch(&recorder, "base/1/2", 4..8);
        touch(&recorder, "base/1/2", 1..2);
        touch(&recorder, "PG_VERSION", 0..1);
        touch(&recorder, "PG_VERSION", 2..3);
        let found = recorder.end();
        let expected = Blocks::from([
            ("PG_VERSION".to_owned(), vec![0..1, 2..3]),
            ("base/1/2".to_owned(), vec![0..2, 4..5, 7..8]),
        ]);
        assert_eq!(found, expected);
        touch(&recorder, "later", 0..1);
        assert!(recorder.end().is_empty());

        let folder = tempfile::tempdir().unwrap();
        let path = place(&folder.path().join("hot"), &"prod".parse().unwrap());
        assert!(read(&path).is_empty());
        write(&path, &expected).unwrap();
        assert_eq!(read(&path), expected);
        write(&path, &expected).unwrap();
        let names = fs::read_dir(folder.path().join("hot")).unwrap().count();
        assert_eq!(names, 1);
    }

    #[test]
    fn a_list_is_bounded() {
        let recorder = Recorder::new();
        for number in 0..10 {
            touch(&recorder, &format!("base/1/{number}"), 0..100_000);
        }
        let blocks: u64 = recorder
            .end()
            .values()
            .flatten()
            .map(|run| run.end - run.start)
            .sum();
        assert_eq!(usize::try_from(blocks).unwrap(), limits::MOUNT_HOT_BLOCKS);
    }

    #[test]
    fn a_list_that_is_damaged_or_hostile_counts_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prod.hot");
        let signed = |body: &str| format!("{TITLE}{:08x}\n{body}", crc32c::crc32c(body.as_bytes()));
        fs::write(&path, signed("0 1 base/1/2\n")).unwrap();
        assert_eq!(read(&path).len(), 1);
        for body in [
            "0 1 ../../etc/passwd\n",
            "0 1 /etc/passwd\n",
            "0 1 base//2\n",
            "0 1 \n",
            "1 0 base/1/2\n",
            "0 18446744073709551615 base/1/2\n",
            "-1 1 base/1/2\n",
            "0 base/1/2\n",
            "x\n",
        ] {
            fs::write(&path, signed(body)).unwrap();
            assert!(read(&path).is_empty(), "{body}");
        }
        let many = "0 4000 base/1/2\n".repeat(10);
        fs::write(&path, signed(&many)).unwrap();
        assert!(read(&path).is_empty());
        let long = "0 0 base/1/2\n".repeat(100_000);
        fs::write(&path, signed(&long)).unwrap();
        assert!(read(&path).is_empty());
        let whole = signed("0 1 base/1/2\n");
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(read(&path).is_empty(), "{cut}");
        }
        fs::write(&path, [0xff; 100]).unwrap();
        assert!(read(&path).is_empty());
    }
}
