//! What all readers of a repository share: the store, how to judge what is in it, what was read.

use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use holdfast_core::Digest;
use holdfast_store::object::{ObjectError, ObjectKey, ObjectStore};

use super::bundle::{Frames, Stated};
use super::cache::Cache;
use super::format::{Format, Judge, damaged};
use super::map::Node;
use super::{PointSummary, RepositoryError};
use crate::limits;

/// A store with what was read from it lately.
pub(crate) struct Shelf {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) vault: VerifyingKey,
    pub(crate) format: Format,
    /// Nodes of maps by their SHA-256: the same bytes are the same node, wherever they are.
    pub(crate) nodes: Cache<Digest, Node>,
    /// Indexes by name and the SHA-256 that they were checked against.
    indexes: Cache<(ObjectKey, Digest), Frames>,
    /// What restore points are, by the names of their manifests.
    pub(crate) summaries: Cache<ObjectKey, PointSummary>,
    /// Decompressed frames by object and number.
    pub(crate) raw: Cache<(ObjectKey, u32), Vec<u8>>,
}

impl Shelf {
    /// Makes one with nothing read.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, vault: VerifyingKey, format: Format) -> Self {
        Self {
            store,
            vault,
            format,
            nodes: Cache::new(limits::NODES_KEPT_BYTES),
            indexes: Cache::new(limits::INDEXES_KEPT_BYTES),
            summaries: Cache::new(limits::SUMMARIES_KEPT),
            raw: Cache::new(limits::FRAMES_KEPT_BYTES),
        }
    }

    /// Returns by what objects are judged.
    pub(crate) fn judge(&self) -> Judge<'_> {
        Judge {
            format: self.format,
            vault: &self.vault,
        }
    }

    /// Opens an object of frames, or returns it as it was opened before.
    pub(crate) fn frames(&self, stated: &Stated) -> Result<Arc<Frames>, RepositoryError> {
        let key = (stated.key.clone(), stated.size.index_sha256);
        if let Some(frames) = self.indexes.get(&key) {
            return Ok(frames);
        }
        let frames = Frames::open(self.store.as_ref(), stated)?;
        let weight = frames.records.len().saturating_mul(64).saturating_add(256);
        self.indexes.insert(key, Arc::clone(&frames), weight);
        Ok(frames)
    }

    /// Returns the stored bytes of the frames from the first to the last.
    pub(crate) fn stored(
        &self,
        frames: &Frames,
        (first, last): (u32, u32),
    ) -> Result<Vec<u8>, RepositoryError> {
        let range = frames.range(first, last)?;
        self.store
            .get_range(&frames.key, range)
            .map_err(|error| match error {
                ObjectError::Short(key) => damaged(&key, "it is cut short"),
                error => error.into(),
            })
    }
}
