//! What must be read of the source, file by file, so that a restore point can be built on another.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use holdfast_wire::pg::wal::{Changes, Relation};

use super::files::{self, Kind, Part};
use crate::repository::{FileRecord, RecordKind, RepositoryError};

/// Bytes of a block.
pub(super) const BLOCK: u64 = 8192;
/// A file of which more than this many quarters changed is read whole.
const WHOLE_QUARTERS: u64 = 3;
/// A file of at most this size is read whole when anything of it changed.
const SMALL_CONTENTS: u64 = 128 << 10;
/// A larger file is not held in memory.
const SMALL: u64 = 1 << 20;

/// What the source has at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    File { bytes: u64 },
    Folder,
}

/// Everything that the source has, by path.
pub(super) type Listing = BTreeMap<String, Listed>;

/// Something to do with a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) path: String,
    /// What the parent says of its permissions, if it has it.
    pub(super) mode: Option<u32>,
    pub(super) what: What,
}

/// What is done with a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Folder,
    /// Read from front to back; what is missing at its end reads as zeros.
    Large {
        bytes: u64,
    },
    Link {
        target: String,
    },
    /// Some parts are read; the rest is as it was.
    Patch {
        bytes: u64,
        parts: Vec<Range<u64>>,
    },
    Remove,
    /// Read at once, as long as it is by then.
    Small {
        bytes: u64,
    },
}

/// Decides for every path what is done with it.
pub(super) struct Planner<'a> {
    pub(super) changes: &'a Changes,
    /// Blocks of a relation in one file.
    pub(super) segment_blocks: u32,
    /// Links of tablespaces, by path.
    pub(super) links: &'a BTreeMap<String, String>,
}

impl Planner<'_> {
    /// Returns what to do, given what the source has and what the parent has, in order of paths.
    ///
    /// What is not mentioned stays as the parent has it.
    pub(super) fn plan(
        &self,
        listing: &Listing,
        mut parent: impl Iterator<Item = Result<(String, FileRecord), RepositoryError>>,
    ) -> Result<Vec<Job>, RepositoryError> {
        let unlogged: BTreeSet<Relation> = listing
            .keys()
            .filter_map(|path| files::unlogged(path))
            .collect();
        let mut jobs = Vec::new();
        let mut before = parent.next().transpose()?;
        for (path, listed) in listing {
            while let Some((old, _)) = before.take_if(|(old, _)| *old < *path) {
                jobs.extend(gone(old));
                before = parent.next().transpose()?;
            }
            let record = before.take_if(|(old, _)| old == path);
            if record.is_some() {
                before = parent.next().transpose()?;
            }
            let record = record.map(|(_, record)| record);
            let what = match listed {
                Listed::Folder => self.folder(path, record.as_ref()),
                Listed::File { bytes } => {
                    let kind = files::kind(path, |relation| unlogged.contains(&relation));
                    self.file(kind, *bytes, record.as_ref())
                }
            };
            match what {
                Some(What::Remove) => jobs.extend(gone(path.clone())),
                Some(what) => jobs.push(Job {
                    path: path.clone(),
                    mode: record.map(|record| record.mode),
                    what,
                }),
                None => {}
            }
        }
        while let Some((old, _)) = before {
            jobs.extend(gone(old));
            before = parent.next().transpose()?;
        }
        Ok(jobs)
    }

    fn folder(&self, path: &str, record: Option<&FileRecord>) -> Option<What> {
        match (record.map(|record| record.kind), self.links.get(path)) {
            (Some(RecordKind::Directory | RecordKind::Symlink), _) => None,
            (_, Some(target)) => Some(What::Link {
                target: target.clone(),
            }),
            (_, None) => Some(What::Folder),
        }
    }

    fn file(&self, kind: Kind, bytes: u64, record: Option<&FileRecord>) -> Option<What> {
        let before = record.filter(|record| record.kind == RecordKind::File);
        let whole = if bytes <= SMALL {
            What::Small { bytes }
        } else {
            What::Large { bytes }
        };
        match (kind, before) {
            (Kind::LeftOut, None) => None,
            (Kind::LeftOut, Some(_)) => Some(What::Remove),
            (Kind::Contents(part), Some(before)) if !self.changes.is_whole(part.relation) => {
                let parts = self.parts(part, bytes, before.size);
                let changed: u64 = parts.iter().map(|part| part.end - part.start).sum();
                if parts.is_empty() && bytes == before.size {
                    return None;
                }
                let is_most = changed.saturating_mul(4) > bytes.saturating_mul(WHOLE_QUARTERS);
                if is_most || bytes <= SMALL_CONTENTS {
                    return Some(whole);
                }
                Some(What::Patch { bytes, parts })
            }
            (Kind::Contents(_) | Kind::Whole, _) => Some(whole),
        }
    }

    /// Returns the parts of a file of `bytes` bytes, `before` of which the parent has, that changed.
    fn parts(&self, part: Part, bytes: u64, before: u64) -> Vec<Range<u64>> {
        let first = part.segment.saturating_mul(self.segment_blocks);
        let count = u32::try_from(bytes.div_ceil(BLOCK)).unwrap_or(u32::MAX);
        let within = first..first.saturating_add(count);
        let at = |block: u32| u64::from(block.saturating_sub(first)).saturating_mul(BLOCK);
        let mut parts: Vec<Range<u64>> = self
            .changes
            .ranges(part.relation, within)
            .into_iter()
            .map(|blocks| at(blocks.start)..at(blocks.end).min(bytes))
            .collect();
        // What the parent does not have was perhaps never logged: pages of zeros are not.
        let fresh = before.min(bytes) / BLOCK * BLOCK;
        if before < bytes {
            parts.retain(|part| part.start < fresh);
            match parts.last_mut().filter(|last| last.end >= fresh) {
                Some(last) => last.end = bytes,
                None => parts.push(fresh..bytes),
            }
        }
        parts
    }
}

/// What becomes of a path that the source no longer has, or that is not copied.
fn gone(path: String) -> Option<Job> {
    (!files::lies_in_emptied(&path) && !files::is_made_anew(&path)).then_some(Job {
        path,
        mode: None,
        what: What::Remove,
    })
}

#[cfg(test)]
mod tests {
    use holdfast_wire::pg::wal::{WalReader, WalShape};

    use super::*;

    fn record(kind: RecordKind, size: u64) -> FileRecord {
        FileRecord {
            kind,
            mode: 0o640,
            size,
            sha256: None,
            target: None,
            meta: crate::repository::FileMeta::default(),
        }
    }

    /// Changes of relation 1663/5/1: these blocks.
    fn changes(blocks: &[u32]) -> Changes {
        let mut log = vec![0_u8; 8192];
        log[0..2].copy_from_slice(&0xD118_u16.to_le_bytes());
        log[2] = 2;
        log[4] = 1;
        log[8..16].copy_from_slice(&(1_u64 << 20).to_le_bytes());
        log[32..36].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        log[36..40].copy_from_slice(&8192_u32.to_le_bytes());
        let mut at = 40;
        let mut previous = 0_u64;
        for block in blocks {
            let mut body = vec![0, 0, 0, 0];
            for word in [1663, 5, 1, *block] {
                body.extend(word.to_le_bytes());
            }
            let mut head = u32::try_from(24 + body.len())
                .unwrap()
                .to_le_bytes()
                .to_vec();
            head.extend(1_u32.to_le_bytes());
            head.extend(previous.to_le_bytes());
            head.extend([0, 10, 0, 0]);
            let crc = crc32c::crc32c_append(crc32c::crc32c(&body), &head);
            head.extend(crc.to_le_bytes());
            head.extend(body);
            log[at..at + head.len()].copy_from_slice(&head);
            previous = (1 << 20) + u64::try_from(at).unwrap();
            at += head.len().next_multiple_of(8);
        }
        let mut reader = WalReader::new(WalShape {
            segment_bytes: 1 << 20,
            system_identifier: None,
        });
        let mut changes = Changes::default();
        reader
            .feed(holdfast_core::Lsn(1 << 20), &log[..at], &mut |record| {
                changes.apply(record)
            })
            .unwrap();
        changes
    }

    fn plan(
        blocks: &[u32],
        now: &[(&str, Listed)],
        before: &[(&str, FileRecord)],
    ) -> Vec<(String, What)> {
        let changes = changes(blocks);
        let links = BTreeMap::from([("pg_tblspc/9".to_owned(), "/srv/nine".to_owned())]);
        let planner = Planner {
            changes: &changes,
            segment_blocks: 100,
            links: &links,
        };
        let listing: Listing = now
            .iter()
            .map(|(path, listed)| ((*path).to_owned(), *listed))
            .collect();
        let mut before: Vec<(String, FileRecord)> = before
            .iter()
            .map(|(path, record)| ((*path).to_owned(), record.clone()))
            .collect();
        before.sort_by(|one, two| one.0.cmp(&two.0));
        let jobs = planner.plan(&listing, before.into_iter().map(Ok)).unwrap();
        jobs.into_iter().map(|job| (job.path, job.what)).collect()
    }

    fn contents(blocks: &[u32], now: u64, before: u64) -> Option<What> {
        let now = [("base/5/1", Listed::File { bytes: now })];
        let before = [("base/5/1", record(RecordKind::File, before))];
        plan(blocks, &now, &before).pop().map(|(_, what)| what)
    }

    const K: u64 = BLOCK;

    fn patch(bytes: u64, parts: &[(u64, u64)]) -> Option<What> {
        let parts = parts.iter().map(|(from, to)| from * K..to * K).collect();
        Some(What::Patch { bytes, parts })
    }

    #[test]
    fn of_a_relation_only_what_changed_is_read() {
        assert_eq!(contents(&[], 50 * K, 50 * K), None);
        assert_eq!(contents(&[120], 50 * K, 50 * K), None);
        assert_eq!(
            contents(&[3, 4, 9], 50 * K, 50 * K),
            patch(50 * K, &[(3, 5), (9, 10)])
        );
        // Grown: all that is new is read, whatever the log says.
        assert_eq!(
            contents(&[3], 60 * K, 50 * K),
            patch(60 * K, &[(3, 4), (50, 60)])
        );
        assert_eq!(
            contents(&[49, 55], 60 * K, 50 * K),
            patch(60 * K, &[(49, 60)])
        );
        assert_eq!(
            contents(&[], 60 * K, 50 * K + 1),
            patch(60 * K, &[(50, 60)])
        );
        // Shrunk: nothing is read, and it is cut.
        assert_eq!(contents(&[45], 40 * K, 50 * K), patch(40 * K, &[]));
        // Mostly changed, or small: read whole.
        let most: Vec<u32> = (0..40).collect();
        assert_eq!(
            contents(&most, 50 * K, 50 * K),
            Some(What::Small { bytes: 50 * K })
        );
        assert_eq!(
            contents(&[1], 16 * K, 16 * K),
            Some(What::Small { bytes: 16 * K })
        );
        assert_eq!(contents(&[], 0, 0), None);
        // A block that is not whole.
        let parts = std::iter::once(49 * K..49 * K + 100).collect();
        let cut = What::Patch {
            bytes: 49 * K + 100,
            parts,
        };
        assert_eq!(contents(&[49], 49 * K + 100, 49 * K + 100), Some(cut));
    }

    #[test]
    fn blocks_of_later_files_of_a_relation_are_found_in_them() {
        let now = [
            ("base/5/1", Listed::File { bytes: 100 * K }),
            ("base/5/1.1", Listed::File { bytes: 50 * K }),
        ];
        let before = [
            ("base/5/1", record(RecordKind::File, 100 * K)),
            ("base/5/1.1", record(RecordKind::File, 50 * K)),
        ];
        let jobs = plan(&[107], &now, &before);
        assert_eq!(
            jobs,
            [("base/5/1.1".to_owned(), patch(50 * K, &[(7, 8)]).unwrap())]
        );
    }

    #[test]
    fn what_is_new_or_gone_or_not_a_relation_is_made_removed_or_read_whole() {
        let now = [
            ("PG_VERSION", Listed::File { bytes: 3 }),
            ("base/5", Listed::Folder),
            ("base/5/2", Listed::File { bytes: 2 << 20 }),
            ("base/5/3_vm", Listed::File { bytes: K }),
            ("base/5/4", Listed::File { bytes: K }),
            ("base/5/4_init", Listed::File { bytes: 0 }),
            ("base/6", Listed::Folder),
            ("pg_tblspc/9", Listed::Folder),
            ("pg_wal", Listed::Folder),
            ("postmaster.pid", Listed::File { bytes: 90 }),
        ];
        let folder = || record(RecordKind::Directory, 0);
        let before = [
            ("PG_VERSION", record(RecordKind::File, 3)),
            ("backup_label", record(RecordKind::File, 200)),
            ("backup_manifest", record(RecordKind::File, 200)),
            ("base/5", folder()),
            ("base/5/4", record(RecordKind::File, K)),
            ("base/5/77", record(RecordKind::File, K)),
            ("pg_wal", folder()),
            ("pg_wal/archive_status", folder()),
            ("zz", folder()),
        ];
        let expected = [
            ("PG_VERSION", What::Small { bytes: 3 }),
            ("base/5/2", What::Large { bytes: 2 << 20 }),
            ("base/5/3_vm", What::Small { bytes: K }),
            ("base/5/4", What::Remove),
            ("base/5/4_init", What::Small { bytes: 0 }),
            ("base/5/77", What::Remove),
            ("base/6", What::Folder),
            (
                "pg_tblspc/9",
                What::Link {
                    target: "/srv/nine".to_owned(),
                },
            ),
            ("zz", What::Remove),
        ];
        let expected: Vec<(String, What)> = expected
            .into_iter()
            .map(|(path, what)| (path.to_owned(), what))
            .collect();
        assert_eq!(plan(&[], &now, &before), expected);
    }
}
