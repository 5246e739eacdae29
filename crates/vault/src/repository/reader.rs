//! Reading the repository: beside a running vault, or years later, with the public key alone.

use std::path::Path;
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use holdfast_core::{ByteCount, PointId, SignedProof, SourceName};
use holdfast_store::object::{DirectoryStore, ObjectError, ObjectKey, ObjectStore, Range};

use super::bundle::{self, FrameRecord};
use super::format::{self, Kind, damaged};
use super::log::{self, Log, Piece};
use super::manifest::{self, BundleRecord, Manifest};
use super::{BaseSummary, RepositoryError, WalPlace, layout};
use crate::limits;

/// The repository for reading: without the lock, without the writer's key, beside a running vault.
#[derive(Clone)]
pub struct Reader {
    store: Arc<dyn ObjectStore>,
    key: VerifyingKey,
}

/// A base whose manifest was read and verified.
pub(crate) struct Base {
    pub(crate) folder: String,
    pub(crate) manifest: Manifest,
}

impl Reader {
    /// Opens the repository in `directory`; `key` is what manifests must be signed with, `None` trusts
    /// the one in the repository's marker.
    ///
    /// # Errors
    /// When there is none, or it has a newer format.
    pub fn open(directory: &Path, key: Option<VerifyingKey>) -> Result<Self, RepositoryError> {
        let store = DirectoryStore::open(directory)?;
        let stated = || {
            manifest::marker_key(&store.marker().vault_key).ok_or_else(|| ObjectError::Unreadable {
                path: directory.to_owned(),
            })
        };
        let key = key.map_or_else(stated, Ok)?;
        Ok(Self::over(Arc::new(store), key))
    }

    /// Reads from any store.
    #[must_use]
    pub fn over(store: Arc<dyn ObjectStore>, key: VerifyingKey) -> Self {
        Self { store, key }
    }

    /// Returns the key that manifests and proofs are signed with.
    pub fn key(&self) -> &VerifyingKey {
        &self.key
    }

    /// Returns the sources that something is kept of, in order of their names.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn sources(&self) -> Result<Vec<SourceName>, RepositoryError> {
        let mut found: Vec<SourceName> = Vec::new();
        for (key, _) in self.store.list("")? {
            let first = key.as_str().split('/').next().unwrap_or_default();
            if found.last().is_some_and(|last| last.as_str() == first) {
                continue;
            }
            let name = first
                .parse()
                .map_err(|_| damaged(&key, "it belongs to no source"))?;
            found.push(name);
        }
        Ok(found)
    }

    /// Returns all bases of a source, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read or a manifest does not verify.
    pub fn bases(&self, source: &SourceName) -> Result<Vec<BaseSummary>, RepositoryError> {
        let mut found = Vec::new();
        for key in self.manifests(source)? {
            found.push(self.read_manifest(source, &key)?.manifest.summary());
        }
        found.sort_by_key(|base| (base.at, base.stop_lsn));
        Ok(found)
    }

    /// Returns the newest base of a source.
    ///
    /// # Errors
    /// When the store cannot be read or its manifest does not verify.
    pub fn newest_base(&self, source: &SourceName) -> Result<Option<BaseSummary>, RepositoryError> {
        match self.manifests(source)?.last() {
            Some(key) => Ok(Some(self.read_manifest(source, key)?.manifest.summary())),
            None => Ok(None),
        }
    }

    /// Returns the proofs that are kept of a source, oldest first; check each with `Proof::verify`.
    ///
    /// # Errors
    /// When the store cannot be read or an object is damaged.
    pub fn proofs(&self, source: &SourceName) -> Result<Vec<SignedProof>, RepositoryError> {
        let listed = self.store.list(&layout::proofs(source))?;
        listed.iter().map(|(key, _)| self.proof(key)).collect()
    }

    pub(super) fn proof(&self, key: &ObjectKey) -> Result<SignedProof, RepositoryError> {
        let limit = ByteCount(limits::NOTE_BYTES);
        let object = self.store.get(key, limit)?;
        let (_, text) = format::unseal(key, Kind::Proof, &object, limit)?;
        serde_json::from_slice(&text)
            .map_err(|error| damaged(key, &format!("its text is not readable: {error}")))
    }

    /// Returns the base with this id.
    pub(crate) fn base(
        &self,
        source: &SourceName,
        point: &PointId,
    ) -> Result<Base, RepositoryError> {
        for key in self.manifests(source)?.iter().rev() {
            let folder = layout::folder_of_manifest(key).unwrap_or_default();
            if folder.ends_with(point.as_str()) {
                return self.read_manifest(source, key);
            }
        }
        Err(RepositoryError::NoPoint(point.clone()))
    }

    /// Lists what is kept of a timeline's log.
    pub(crate) fn log(&self, at: &WalPlace) -> Result<Log, RepositoryError> {
        log::list(self.store.as_ref(), at)
    }

    /// Returns the bytes of a part of the log.
    pub(crate) fn read_log(
        &self,
        at: &WalPlace,
        piece: &Piece,
    ) -> Result<Vec<u8>, RepositoryError> {
        log::read(self.store.as_ref(), at, piece)
    }

    /// Returns the timelines that have a history.
    pub(crate) fn histories(&self, at: &WalPlace) -> Result<Vec<u32>, RepositoryError> {
        log::histories(self.store.as_ref(), at)
    }

    /// Returns the history of the timeline `at`.
    pub(crate) fn history(&self, at: &WalPlace) -> Result<Vec<u8>, RepositoryError> {
        log::read_history(self.store.as_ref(), at)
    }

    /// Returns the frames of a bundle, checked against the manifest.
    pub(crate) fn frames(
        &self,
        base: &Base,
        record: &BundleRecord,
    ) -> Result<(ObjectKey, Vec<FrameRecord>), RepositoryError> {
        let key = layout::bundle(&base.folder, record.number)?;
        let found = self.store.head(&key)?;
        if found != Some(ByteCount(record.bytes)) {
            return Err(match found {
                None => ObjectError::Missing(key).into(),
                Some(_) => damaged(&key, "it does not have the length that the manifest says"),
            });
        }
        let length = bundle::index_bytes(record);
        let offset = record
            .bytes
            .saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
        let head = self.store.get_range(&key, bundle::head_range())?;
        let tail = self.store.get_range(&key, Range { offset, length })?;
        let point = &base.manifest.point;
        let frames = bundle::read_index(&key, point, record, (&head, &tail))?;
        Ok((key, frames))
    }

    /// Returns the stored bytes of frames that follow each other in a bundle.
    pub(crate) fn stored(&self, key: &ObjectKey, range: Range) -> Result<Vec<u8>, RepositoryError> {
        Ok(self.store.get_range(key, range)?)
    }

    fn manifests(&self, source: &SourceName) -> Result<Vec<ObjectKey>, RepositoryError> {
        let mut listed = self.store.list(&layout::bases(source))?;
        listed.retain(|(key, _)| layout::folder_of_manifest(key).is_some());
        Ok(listed.into_iter().map(|(key, _)| key).collect())
    }

    fn read_manifest(&self, source: &SourceName, key: &ObjectKey) -> Result<Base, RepositoryError> {
        let object = self.store.get(key, ByteCount(limits::MANIFEST_BYTES))?;
        let manifest = Manifest::unseal(key, &object, &self.key)?;
        let folder = layout::base_folder(source, manifest.began, &manifest.point);
        // A signed manifest of another base or source that was copied here is not this one.
        if manifest.source != *source || layout::folder_of_manifest(key) != Some(folder.as_str()) {
            return Err(damaged(key, "it is the manifest of another base"));
        }
        Ok(Base { folder, manifest })
    }
}
