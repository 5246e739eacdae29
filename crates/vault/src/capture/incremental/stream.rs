//! A base backup that is read whole, of which only what changed is stored.

use std::collections::BTreeSet;

use holdfast_core::Lsn;
use holdfast_wire::pg::wal::{Changes, Relation};

use super::IncrementalError;
use super::files::{self, Kind};
use super::plan::BLOCK;
use crate::capture::CaptureError;
use crate::repository::{
    FileEntry, FileKind, FileMeta, PatchTo, Point, PointWriter, PostgresPoint, RecordKind,
};
use crate::source::{Connection, SourceError};

/// The restore point that another is built on, before the blocks that changed since are known.
pub(in crate::capture) struct Onto {
    pub(in crate::capture) parent: Point,
    known: PostgresPoint,
    segment_blocks: u32,
}

/// Looks at the source before a base backup that is built on `parent`.
pub(in crate::capture) fn onto(
    connection: &mut Connection,
    parent: &Point,
) -> Result<Onto, CaptureError> {
    const STEP: &str = "look at the source's pages";
    let Some(known) = parent.summary().postgres.clone() else {
        let what = "the parent is of something else";
        return Err(CaptureError::Incomplete { what });
    };
    let mut show = |setting: &str| -> Result<String, CaptureError> {
        let reply = connection.query(&format!("SHOW {setting}"), STEP)?;
        Ok(reply.single().unwrap_or_default().to_owned())
    };
    super::check_checksums(parent, show("data_checksums")? == "on")?;
    let block = bytes(&show("block_size")?).unwrap_or(0);
    if block != BLOCK {
        return Err(IncrementalError::Shape { block }.into());
    }
    let segment_blocks = bytes(&show("segment_size")?)
        .and_then(|bytes| u32::try_from(bytes / BLOCK).ok())
        .filter(|blocks| *blocks > 0)
        .ok_or_else(|| SourceError::nonsense(STEP, "no size of segments"))?;
    Ok(Onto {
        parent: parent.clone(),
        known,
        segment_blocks,
    })
}

impl Onto {
    /// Returns what the parent knows of its cluster.
    pub(in crate::capture) fn known(&self) -> &PostgresPoint {
        &self.known
    }

    /// Makes the filter, once the changes up to the start of the backup are known.
    pub(in crate::capture) fn filter(self, changes: Changes, start: Lsn) -> Filter {
        Filter {
            between: (self.known.start_lsn, start),
            parent: self.parent,
            changes,
            segment_blocks: self.segment_blocks,
            seen: BTreeSet::new(),
            open: None,
        }
    }
}

/// Reads a size as the server shows it: `8192`, `131072kB`, `1GB`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..)? {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// Lets through to a restore point what its parent does not have.
pub(in crate::capture) struct Filter {
    parent: Point,
    changes: Changes,
    /// Blocks of a relation in one file.
    segment_blocks: u32,
    /// Replay of the parent begins at the first, of the new point at the second.
    between: (Lsn, Lsn),
    seen: BTreeSet<String>,
    open: Option<Patch>,
}

/// A file of which only some blocks are stored.
struct Patch {
    relation: Relation,
    /// The number of the file's first block.
    first: u32,
    /// Bytes that the parent has.
    before: u64,
    /// Where `block` begins in the file.
    offset: u64,
    /// The block that is being collected.
    block: Vec<u8>,
}

impl Filter {
    /// Begins an entry.
    pub(in crate::capture) fn begin(
        &mut self,
        writer: &mut PointWriter,
        entry: FileEntry,
    ) -> Result<(), CaptureError> {
        self.seen.insert(entry.path.clone());
        let before = self.parent.file(&entry.path)?;
        let before = before.filter(|before| before.kind == RecordKind::File);
        let kind = files::kind(&entry.path, |_| false);
        match (kind, &entry.kind, before) {
            (Kind::Contents(part), FileKind::File { size }, Some(before))
                if !self.changes.is_whole(part.relation) =>
            {
                self.open = Some(Patch {
                    relation: part.relation,
                    first: part.segment.saturating_mul(self.segment_blocks),
                    before: before.size,
                    offset: 0,
                    block: Vec::new(),
                });
                let to = PatchTo {
                    size: *size,
                    mode: entry.mode,
                    meta: FileMeta::default(),
                };
                writer.begin_patch(&entry.path, to)?;
            }
            _ => writer.begin_file(entry)?,
        }
        Ok(())
    }

    /// Takes the next bytes of the entry.
    pub(in crate::capture) fn bytes(
        &mut self,
        writer: &mut PointWriter,
        bytes: &[u8],
    ) -> Result<(), CaptureError> {
        let Some(patch) = &mut self.open else {
            writer.write(bytes)?;
            return Ok(());
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let whole = usize::try_from(BLOCK).unwrap_or(0);
            let room = whole.saturating_sub(patch.block.len());
            let (now, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            rest = later;
            if patch.block.is_empty() && now.len() == whole {
                patch.block(writer, &self.changes, self.between, now)?;
                continue;
            }
            patch.block.extend_from_slice(now);
            if patch.block.len() == whole {
                let block = std::mem::take(&mut patch.block);
                patch.block(writer, &self.changes, self.between, &block)?;
            }
        }
        Ok(())
    }

    /// Ends the entry.
    pub(in crate::capture) fn end(&mut self, writer: &mut PointWriter) -> Result<(), CaptureError> {
        if let Some(mut patch) = self.open.take()
            && !patch.block.is_empty()
        {
            let rest = std::mem::take(&mut patch.block);
            writer.write_at(patch.offset, &rest)?;
        }
        writer.end_file()?;
        Ok(())
    }

    /// Leaves out what the source no longer has.
    pub(in crate::capture) fn finish(
        &mut self,
        writer: &mut PointWriter,
    ) -> Result<(), CaptureError> {
        for known in self.parent.files() {
            let (path, _) = known?;
            if !self.seen.contains(&path) && path != "backup_manifest" {
                writer.remove(&path)?;
            }
        }
        Ok(())
    }
}

impl Patch {
    /// Stores a whole block when it changed, and makes sure that it did not change otherwise.
    fn block(
        &mut self,
        writer: &mut PointWriter,
        changes: &Changes,
        (from, to): (Lsn, Lsn),
        block: &[u8],
    ) -> Result<(), CaptureError> {
        let offset = self.offset;
        let index = u32::try_from(offset / BLOCK).unwrap_or(u32::MAX);
        let number = self.first.saturating_add(index);
        self.offset = offset.saturating_add(BLOCK);
        let is_new = self.offset > self.before;
        if is_new || changes.contains(self.relation, number) {
            writer.write_at(offset, block)?;
            return Ok(());
        }
        // What was changed after the backup began comes again with replay.
        let lsn = page_lsn(block);
        if from < lsn && lsn < to {
            return Err(IncrementalError::Contradiction {
                relation: self.relation,
                block: number,
                lsn,
            }
            .into());
        }
        Ok(())
    }
}

/// Returns the position of the last change that a page states.
///
/// # Source
/// `storage/bufpage.h`, `PageXLogRecPtr`: the high half comes first
fn page_lsn(block: &[u8]) -> Lsn {
    let word = |at: usize| {
        let word = block.get(at..).and_then(|rest| rest.first_chunk::<4>());
        word.copied().map_or(0, u32::from_le_bytes)
    };
    Lsn(u64::from(word(0)) << 32 | u64::from(word(4)))
}
