//! Reading the repository: beside a running vault, or years later, with the public key alone.

use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use holdfast_core::{ByteCount, PointId, SignedProof, SourceName};
use holdfast_store::object::{Keys, Location, ObjectError, ObjectKey, ObjectStore, Sealed};

use super::format::{self, Format, Kind, damaged};
use super::log::{self, Log, Piece};
use super::manifest::{self, Manifest};
use super::point::Point;
use super::shelf::Shelf;
use super::v1::BaseManifest;
use super::{BaseSummary, PointSummary, RepositoryError, WalPlace, layout};
use crate::limits;

/// What the names of the repository's own folders begin with.
const OWN_PREFIX: &str = "holdfast-";

/// The repository for reading: without the lock, without the writer's key, beside a running vault.
///
/// Reads formats 1 and 2 alike. Clones share what was read.
#[derive(Clone)]
pub struct Reader {
    shelf: Arc<Shelf>,
}

/// A manifest that was read and verified.
pub(crate) enum AnyManifest {
    V1(Box<BaseManifest>),
    V2(Box<Manifest>),
}

impl AnyManifest {
    fn summary(&self) -> PointSummary {
        match self {
            Self::V1(manifest) => manifest.summary(),
            Self::V2(manifest) => manifest.summary(),
        }
    }
}

impl Reader {
    /// Opens the repository at `location`; `key` is what manifests must be signed with, `None` trusts
    /// the one in the repository's marker. `keys` open its objects, from format 2 on.
    ///
    /// # Errors
    /// When there is none, or it has a newer format.
    pub fn open(
        location: &Location,
        key: Option<VerifyingKey>,
        keys: &Keys,
    ) -> Result<Self, RepositoryError> {
        let store = location.open()?;
        let stated = || {
            manifest::marker_key(&store.marker().vault_key).ok_or_else(|| ObjectError::Unreadable {
                place: location.to_string(),
            })
        };
        let key = key.map_or_else(stated, Ok)?;
        let format = Format::of_marker(store.marker().format);
        let store: Arc<dyn ObjectStore> = match format {
            Format::V1 => store,
            Format::V2 => Arc::new(Sealed::new(store, keys.clone())),
        };
        Ok(Self::of_format(store, key, format))
    }

    /// Reads from any store that has format 2.
    #[must_use]
    pub fn over(store: Arc<dyn ObjectStore>, key: VerifyingKey) -> Self {
        Self::of_format(store, key, Format::V2)
    }

    pub(crate) fn of_format(
        store: Arc<dyn ObjectStore>,
        key: VerifyingKey,
        format: Format,
    ) -> Self {
        let shelf = Arc::new(Shelf::new(store, key, format));
        Self { shelf }
    }

    /// Returns the key that everything is signed with.
    pub fn key(&self) -> &VerifyingKey {
        &self.shelf.vault
    }

    /// Returns the store that it reads from.
    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.shelf.store
    }

    /// Returns what the name of every object ends with.
    pub(crate) fn name_end(&self) -> &'static str {
        layout::end(self.shelf.format)
    }

    pub(crate) fn shelf(&self) -> &Arc<Shelf> {
        &self.shelf
    }

    /// Returns the sources that something is kept of, in order of their names.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn sources(&self) -> Result<Vec<SourceName>, RepositoryError> {
        let mut found: Vec<SourceName> = Vec::new();
        for (key, _) in self.shelf.store.list("")? {
            let first = key.as_str().split('/').next().unwrap_or_default();
            // What writers and retention leave of themselves; no source can have such a name.
            if first.starts_with(OWN_PREFIX)
                || found.last().is_some_and(|last| last.as_str() == first)
            {
                continue;
            }
            let name = first
                .parse()
                .map_err(|_| damaged(&key, "it belongs to no source"))?;
            found.push(name);
        }
        Ok(found)
    }

    /// Returns all restore points of a source, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read or a manifest does not verify.
    pub fn points(&self, source: &SourceName) -> Result<Vec<PointSummary>, RepositoryError> {
        let mut found = Vec::new();
        for key in self.manifests(source)? {
            found.push(self.summary(source, &key)?);
        }
        found.sort_by_key(|point| (point.at, point.postgres.as_ref().map(|p| p.stop_lsn)));
        Ok(found)
    }

    /// Returns the restore point with this id.
    ///
    /// # Errors
    /// [`RepositoryError::NoPoint`]; when the store cannot be read or its manifest does not verify.
    pub fn point(&self, source: &SourceName, point: &PointId) -> Result<Point, RepositoryError> {
        for key in self.manifests(source)?.iter().rev() {
            let folder = layout::folder_of_manifest(self.shelf.format, key).unwrap_or_default();
            if layout::letters(folder) == point.as_str() {
                let manifest = self.manifest(source, key)?;
                return Point::open(Arc::clone(&self.shelf), key.clone(), manifest);
            }
        }
        Err(RepositoryError::NoPoint(point.clone()))
    }

    /// Returns all restore points of a PostgreSQL cluster, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read or a manifest does not verify.
    pub fn bases(&self, source: &SourceName) -> Result<Vec<BaseSummary>, RepositoryError> {
        let points = self.points(source)?;
        Ok(points.iter().filter_map(PointSummary::base).collect())
    }

    /// Returns the newest restore point of a PostgreSQL cluster.
    ///
    /// # Errors
    /// When the store cannot be read or its manifest does not verify.
    pub fn newest_base(&self, source: &SourceName) -> Result<Option<BaseSummary>, RepositoryError> {
        for key in self.manifests(source)?.iter().rev() {
            if let Some(base) = self.summary(source, key)?.base() {
                return Ok(Some(base));
            }
        }
        Ok(None)
    }

    /// Returns the proofs that are kept of a source, oldest first; check each with `Proof::verify`.
    ///
    /// # Errors
    /// When the store cannot be read or an object is damaged.
    pub fn proofs(&self, source: &SourceName) -> Result<Vec<SignedProof>, RepositoryError> {
        let listed = self.shelf.store.list(&layout::proofs(source))?;
        listed.iter().map(|(key, _)| self.proof(key)).collect()
    }

    pub(super) fn proof(&self, key: &ObjectKey) -> Result<SignedProof, RepositoryError> {
        let limit = ByteCount(limits::NOTE_BYTES);
        let object = self.shelf.store.get(key, limit)?;
        let (_, text) = format::unseal(key, self.shelf.judge(), Kind::Proof, &object, limit)?;
        serde_json::from_slice(&text)
            .map_err(|error| damaged(key, &format!("its text is not readable: {error}")))
    }

    /// Lists what is kept of a timeline's log.
    pub(crate) fn log(&self, at: &WalPlace) -> Result<Log, RepositoryError> {
        log::list(&self.shelf, at)
    }

    /// Returns the bytes of a part of the log.
    pub(crate) fn read_log(
        &self,
        at: &WalPlace,
        piece: &Piece,
    ) -> Result<Vec<u8>, RepositoryError> {
        log::read(&self.shelf, at, piece)
    }

    /// Returns the timelines that have a history.
    pub(crate) fn histories(&self, at: &WalPlace) -> Result<Vec<u32>, RepositoryError> {
        log::histories(&self.shelf, at)
    }

    /// Returns the history of the timeline `at`.
    pub(crate) fn history(&self, at: &WalPlace) -> Result<Vec<u8>, RepositoryError> {
        log::read_history(&self.shelf, at)
    }

    /// Returns the names of all manifests of a source, oldest first.
    pub(crate) fn manifests(&self, source: &SourceName) -> Result<Vec<ObjectKey>, RepositoryError> {
        let format = self.shelf.format;
        let mut listed = self.shelf.store.list(&layout::points(format, source))?;
        listed.retain(|(key, _)| layout::folder_of_manifest(format, key).is_some());
        Ok(listed.into_iter().map(|(key, _)| key).collect())
    }

    pub(crate) fn summary(
        &self,
        source: &SourceName,
        key: &ObjectKey,
    ) -> Result<PointSummary, RepositoryError> {
        if let Some(summary) = self.shelf.summaries.get(key) {
            return Ok(summary.as_ref().clone());
        }
        let summary = self.manifest(source, key)?.summary();
        let kept = Arc::new(summary.clone());
        self.shelf.summaries.insert(key.clone(), kept, 1);
        Ok(summary)
    }

    fn manifest(
        &self,
        source: &SourceName,
        key: &ObjectKey,
    ) -> Result<AnyManifest, RepositoryError> {
        let shelf = &self.shelf;
        let read = |limit: u64| shelf.store.get(key, ByteCount(limit));
        let (found, folder, manifest) = match shelf.format {
            Format::V1 => {
                let object = read(limits::MANIFEST_V1_BYTES)?;
                let manifest = BaseManifest::unseal(key, &object, &shelf.vault)?;
                let (source, folder) = manifest.place();
                (source.clone(), folder, AnyManifest::V1(manifest.into()))
            }
            Format::V2 => {
                let object = read(limits::NOTE_BYTES)?;
                let manifest = Manifest::unseal(key, &object, &shelf.vault)?;
                let folder = layout::folder(manifest.began, &manifest.point);
                (
                    manifest.source.clone(),
                    folder,
                    AnyManifest::V2(manifest.into()),
                )
            }
        };
        // A signed manifest of another point or source that was copied here is not this one.
        if found != *source || layout::folder_of_manifest(shelf.format, key) != Some(&folder) {
            return Err(damaged(key, "it is the manifest of another restore point"));
        }
        Ok(manifest)
    }
}
