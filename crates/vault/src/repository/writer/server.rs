//! Checking what came from a PostgreSQL server against its own manifest.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_core::{Digest, Lsn};
use holdfast_wire::pg::basebackup::{BackupManifest, Sum};

use super::changes::Changes;
use crate::repository::{PostgresStart, RepositoryError};

/// Sizes and checksums of the files that were written whole.
#[derive(Default)]
pub(super) struct Sums {
    /// Size, CRC-32C, and the SHA-256 of small files.
    files: BTreeMap<Arc<str>, (u64, u32, Option<Digest>)>,
}

impl Sums {
    pub(super) fn note(&mut self, path: &Arc<str>, sum: (u64, u32, Option<Digest>)) {
        self.files.insert(Arc::clone(path), sum);
    }

    /// Checks every file that the server's manifest names.
    pub(super) fn check(
        &self,
        manifest: &[u8],
        start: &PostgresStart,
        stop_lsn: Lsn,
        changes: &Changes,
    ) -> Result<(), RepositoryError> {
        let server = BackupManifest::parse(manifest)?;
        let mismatch = |what: String| Err(RepositoryError::BaseMismatch { what });
        let other = |id: u64| id != start.system_identifier;
        if server.system_identifier.is_some_and(other) {
            return mismatch("it is of another cluster".to_owned());
        }
        let first = server.wal.iter().map(|range| range.start).min();
        let last = server.wal.iter().map(|range| range.end).max();
        if first != Some(start.start_lsn) || last != Some(stop_lsn) {
            return mismatch("it needs another part of the log than was announced".to_owned());
        }
        for (path, stated) in &server.files {
            let known = self.files.get(path.as_str());
            let size = match known {
                Some((size, ..)) => Some(*size),
                None => changes.size_now(path)?,
            };
            let Some(size) = size else {
                return mismatch(format!("the file `{path}` is missing"));
            };
            if stated.size.0 != size {
                return mismatch(format!(
                    "the file `{path}` has {size} bytes instead of {}",
                    stated.size.0
                ));
            }
            let is_right = match (&stated.sum, known) {
                // What stayed as the parent has it was checked when it came.
                (_, None) | (Sum::None, Some(_)) => true,
                (Sum::Crc32c(stated), Some((_, crc32c, _))) => stated == crc32c,
                (Sum::Sha256(stated), Some((_, _, Some(sha256)))) => *stated == sha256.0,
                (Sum::Sha256(_), Some((_, _, None))) => {
                    return mismatch(format!(
                        "the file `{path}` has a checksum of another kind than was asked for"
                    ));
                }
            };
            if !is_right {
                return mismatch(format!("the file `{path}` has another checksum"));
            }
        }
        let unknown = self
            .files
            .keys()
            .find(|path| !server.files.contains_key(path.as_ref()) && !path.starts_with("pg_wal/"));
        match unknown {
            Some(path) => mismatch(format!("the file `{path}` is not in the manifest")),
            None => Ok(()),
        }
    }
}
