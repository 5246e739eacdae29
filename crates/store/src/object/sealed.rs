//! A store whose objects are envelopes, used as if they were not.

mod flights;
mod near;

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::ops;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use holdfast_core::{ByteCount, Timestamp};

use super::{
    Backend, BlockCache, Head, Marker, ObjectError, ObjectKey, ObjectStore, Promise, Range,
    WriterLock,
};
use crate::envelope::{self, CHUNK_BYTES, Envelope, EnvelopeError, Identity, Recipient};
use crate::limits::{CHUNKS_KEPT, ENVELOPE_PREFIX_BYTES, ENVELOPES_KEPT};
use flights::Flights;

/// The keys of a repository's objects. Clones share them: what is exchanged in one is so in all.
#[derive(Clone, Debug, Default)]
pub struct Keys(Arc<RwLock<Arc<Set>>>);

/// Keys that are used together.
#[derive(Debug, Default)]
struct Set {
    recipients: Vec<Recipient>,
    identities: Vec<Identity>,
}

impl Keys {
    /// Takes what new objects are sealed to, none for a reader, and what objects are opened with, the
    /// likeliest first.
    pub fn new(recipients: Vec<Recipient>, identities: Vec<Identity>) -> Self {
        let set = Set {
            recipients,
            identities,
        };
        Self(Arc::new(RwLock::new(Arc::new(set))))
    }

    /// Takes the keys of `other` from now on.
    pub fn exchange(&self, other: &Self) {
        let set = other.set();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = set;
    }

    /// Returns what new objects are sealed to.
    pub fn recipients(&self) -> Vec<Recipient> {
        self.set().recipients.clone()
    }

    /// Tells whether anything can be opened.
    pub fn can_open(&self) -> bool {
        !self.set().identities.is_empty()
    }

    fn set(&self) -> Arc<Set> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Seals what is stored in `S` and opens what is read from it; above it nobody deals with keys.
///
/// The sizes that [`ObjectStore::head`] and [`ObjectStore::list`] tell are those of the envelopes, which is
/// what the storage holds and what it costs; ranges and limits are of the content.
///
/// Only the content is secret and cannot be changed unnoticed. Whoever knows a recipient can make an
/// envelope, so what must come from the vault is signed above.
#[derive(Debug)]
pub struct Sealed<S> {
    inner: S,
    keys: Keys,
    kept: Mutex<Kept>,
    near: OnceLock<Arc<BlockCache>>,
    /// Objects whose header, or whose chunk with this number, is being fetched.
    flights: Flights<(ObjectKey, Option<u64>)>,
}

/// What is kept of objects that were read, so that the next range costs one request.
#[derive(Debug)]
struct Kept {
    envelopes: Recent<ObjectKey, Arc<Envelope>>,
    chunks: Recent<(ObjectKey, u64), Arc<Vec<u8>>>,
}

impl<S: ObjectStore> Sealed<S> {
    /// Seals and opens the objects of `inner` with `keys`.
    pub fn new(inner: S, keys: Keys) -> Self {
        let kept = Kept {
            envelopes: Recent::new(ENVELOPES_KEPT),
            chunks: Recent::new(CHUNKS_KEPT),
        };
        Self {
            inner,
            keys,
            kept: Mutex::new(kept),
            near: OnceLock::new(),
            flights: Flights::default(),
        }
    }

    /// Returns the opened envelope of an object; the first time costs two requests.
    fn envelope(&self, key: &ObjectKey) -> Result<Arc<Envelope>, ObjectError> {
        let _turn = loop {
            if let Some(known) = self.kept().envelopes.get(key) {
                return Ok(known);
            }
            if let Some(turn) = self.flights.take((key.clone(), None)) {
                break turn;
            }
        };
        if let Some(envelope) = self.near_envelope(key) {
            let envelope = Arc::new(envelope);
            let kept = Arc::clone(&envelope);
            self.kept().envelopes.put(key.clone(), kept);
            return Ok(envelope);
        }
        let total = self.inner.size(key)?;
        let total = total.ok_or_else(|| ObjectError::Missing(key.clone()))?.0;
        // Longer than any header, and with a header of ours also than the first chunk.
        let length = usize_of(total).min(ENVELOPE_PREFIX_BYTES);
        let prefix = self.inner.get_range(key, Range { offset: 0, length })?;
        let opened = Envelope::open(&prefix, total, &self.keys.set().identities);
        let envelope = Arc::new(opened.map_err(|source| refused(key, source))?);
        let first = envelope.stored(&(0..1));
        let first = prefix.get(usize_of(first.start)..usize_of(first.end));
        let chunk = first.map(|stored| envelope.decrypt(0, stored)).transpose();
        let chunk = chunk.map_err(|source| refused(key, source))?;
        self.keep_envelope(key, &envelope, (total, &prefix));
        let mut kept = self.kept();
        kept.envelopes.put(key.clone(), Arc::clone(&envelope));
        if let Some(chunk) = chunk {
            kept.chunks.put((key.clone(), 0), Arc::new(chunk));
        }
        Ok(envelope)
    }

    /// Returns the content of whole chunks: from memory at both ends, from farther away between.
    fn chunks(
        &self,
        key: &ObjectKey,
        envelope: &Envelope,
        wanted: ops::Range<u64>,
    ) -> Result<Vec<u8>, ObjectError> {
        let (mut first, mut end) = (wanted.start, wanted.end);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        loop {
            let mut kept = self.kept();
            while first < end
                && let Some(chunk) = kept.chunks.get(&(key.clone(), first))
            {
                before.extend_from_slice(&chunk);
                first = first.saturating_add(1);
            }
            if first < end
                && after.is_empty()
                && let Some(chunk) = kept.chunks.get(&(key.clone(), end.saturating_sub(1)))
            {
                after.extend_from_slice(&chunk);
                end = end.saturating_sub(1);
            }
            drop(kept);
            if first >= end {
                break;
            }
            if let Some(_turn) = self.flights.take((key.clone(), Some(first))) {
                let opened = self.chunks_near(key, envelope, first..end)?;
                self.keep_ends(key, first..end, &opened);
                before.extend_from_slice(&opened);
                break;
            }
        }
        before.extend_from_slice(&after);
        Ok(before)
    }

    /// Keeps the first and the last chunk, which the ranges before and after this one also touch.
    fn keep_ends(&self, key: &ObjectKey, chunks: ops::Range<u64>, opened: &[u8]) {
        let pieces = opened.chunks(usize_of(CHUNK_BYTES));
        let last = chunks.end.saturating_sub(1);
        let ends = chunks.clone().zip(pieces);
        let ends = ends.filter(|(number, _)| *number == chunks.start || *number == last);
        let mut kept = self.kept();
        for (number, piece) in ends {
            let chunk = Arc::new(piece.to_vec());
            kept.chunks.put((key.clone(), number), chunk);
        }
    }

    /// Reads a range.
    fn range(&self, key: &ObjectKey, range: Range) -> Result<Vec<u8>, ObjectError> {
        let envelope = self.envelope(key)?;
        let length = u64::try_from(range.length).unwrap_or(u64::MAX);
        let plain = range.offset..range.offset.saturating_add(length);
        let wanted = envelope
            .chunks_of(&plain)
            .ok_or_else(|| ObjectError::Short(key.clone()))?;
        let begin = wanted.start.saturating_mul(CHUNK_BYTES);
        let body = self.chunks(key, &envelope, wanted)?;
        let skip = usize_of(range.offset.saturating_sub(begin));
        let body = body.get(skip..skip.saturating_add(range.length));
        Ok(body.unwrap_or_default().to_vec())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: ObjectStore> ObjectStore for Sealed<S> {
    fn create_new(&self, key: &ObjectKey, body: &[u8]) -> Result<(), ObjectError> {
        let sealed = envelope::seal(body, &self.keys.set().recipients);
        let sealed = sealed.map_err(|source| refused(key, source))?;
        self.inner.create_new(key, &sealed)
    }

    fn get(&self, key: &ObjectKey, limit: ByteCount) -> Result<Vec<u8>, ObjectError> {
        let most = ByteCount(envelope::sealed_bytes_max(limit.0));
        let sealed = self.inner.get(key, most)?;
        let body = envelope::open(&sealed, &self.keys.set().identities);
        let body = body.map_err(|source| refused(key, source))?;
        let found = ByteCount(u64::try_from(body.len()).unwrap_or(u64::MAX));
        if found > limit {
            let key = key.clone();
            return Err(ObjectError::TooLarge { key, found, limit });
        }
        Ok(body)
    }

    fn get_range(&self, key: &ObjectKey, range: Range) -> Result<Vec<u8>, ObjectError> {
        match self.range(key, range) {
            // What the cache said of the object may have been wrong.
            Err(ObjectError::Envelope { .. } | ObjectError::Short(_)) if self.forget_near(key) => {
                self.range(key, range)
            }
            read => read,
        }
    }

    fn head(&self, key: &ObjectKey) -> Result<Option<Head>, ObjectError> {
        self.inner.head(key)
    }

    fn size(&self, key: &ObjectKey) -> Result<Option<ByteCount>, ObjectError> {
        self.inner.size(key)
    }

    fn list(&self, prefix: &str) -> Result<Vec<(ObjectKey, ByteCount)>, ObjectError> {
        self.inner.list(prefix)
    }

    fn lock_until(&self, key: &ObjectKey, until: Timestamp) -> Result<(), ObjectError> {
        self.inner.lock_until(key, until)
    }

    fn now(&self) -> Result<Timestamp, ObjectError> {
        self.inner.now()
    }

    fn promise(&self) -> Promise {
        self.inner.promise()
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    fn open_near(&self) -> io::Result<Option<BlockCache>> {
        self.inner.open_near()
    }

    fn keep_near(&self, cache: &Arc<BlockCache>) {
        if self.inner.is_remote() {
            // The first one stays: what is being read goes on with it.
            let _ = self.near.set(Arc::clone(cache));
        }
    }
}

impl<S: Backend> Backend for Sealed<S> {
    fn marker(&self) -> &Marker {
        self.inner.marker()
    }

    fn make_immutable(&self) -> Result<(), ObjectError> {
        self.inner.make_immutable()
    }

    fn lock(&self, holder: &str) -> Result<WriterLock, ObjectError> {
        self.inner.lock(holder)
    }
}

fn refused(key: &ObjectKey, source: EnvelopeError) -> ObjectError {
    ObjectError::Envelope {
        key: key.clone(),
        source,
    }
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The values that were used last, a bounded number.
#[derive(Debug)]
struct Recent<K, V> {
    values: HashMap<K, (V, u64)>,
    uses: u64,
    most: usize,
}

impl<K: Clone + Eq + Hash, V: Clone> Recent<K, V> {
    fn new(most: usize) -> Self {
        Self {
            values: HashMap::new(),
            uses: 0,
            most,
        }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        self.uses = self.uses.saturating_add(1);
        let (value, used) = self.values.get_mut(key)?;
        *used = self.uses;
        Some(value.clone())
    }

    fn take(&mut self, key: &K) {
        self.values.remove(key);
    }

    fn put(&mut self, key: K, value: V) {
        self.uses = self.uses.saturating_add(1);
        if self.values.len() >= self.most && !self.values.contains_key(&key) {
            let oldest = self.values.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.values.remove(&oldest);
            }
        }
        self.values.insert(key, (value, self.uses));
    }
}

#[cfg(test)]
mod tests;
