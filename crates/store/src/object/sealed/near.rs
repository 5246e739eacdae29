//! Parts of envelopes that are kept on this machine's disk, and reading each only once at a time.

use std::ops;
use std::sync::Arc;

use super::{Sealed, refused, usize_of};
use crate::envelope::{CHUNK_BYTES, Envelope};
use crate::limits::CACHE_PUSH_CHUNKS;
use crate::object::cache::{Part, Push};
use crate::object::{BlockCache, ObjectError, ObjectKey, ObjectStore, Range};

impl<S: ObjectStore> Sealed<S> {
    /// Returns the envelope of an object as the cache on the disk has it.
    pub(super) fn near_envelope(&self, key: &ObjectKey) -> Option<Envelope> {
        let head = self.near.get()?.get(key, Part::Head)?;
        let (total, header) = head.split_first_chunk::<8>()?;
        let total = u64::from_le_bytes(*total);
        Envelope::open(header, total, &self.keys.set().identities).ok()
    }

    /// Keeps what opens an envelope, and its first chunk.
    pub(super) fn keep_envelope(
        &self,
        key: &ObjectKey,
        envelope: &Envelope,
        (total, prefix): (u64, &[u8]),
    ) {
        let Some(cache) = self.near.get() else { return };
        let first = envelope.stored(&(0..1));
        let header = prefix.get(..usize_of(first.start));
        let mut head = total.to_le_bytes().to_vec();
        head.extend_from_slice(header.unwrap_or_default());
        cache.put(key, Part::Head, &head, Push::Yes);
        if let Some(chunk) = prefix.get(usize_of(first.start)..usize_of(first.end)) {
            cache.put(key, Part::Chunk(0), chunk, Push::Yes);
        }
    }

    /// Forgets what the cache says of an object; tells whether it said anything.
    pub(super) fn forget_near(&self, key: &ObjectKey) -> bool {
        let forgotten = self
            .near
            .get()
            .is_some_and(|near| near.remove(key, Part::Head));
        if forgotten {
            self.kept().envelopes.take(key);
        }
        forgotten
    }

    /// Returns the content of whole chunks: from the cache on the disk what that has, and the rest from
    /// the store.
    pub(super) fn chunks_near(
        &self,
        key: &ObjectKey,
        envelope: &Envelope,
        wanted: ops::Range<u64>,
    ) -> Result<Vec<u8>, ObjectError> {
        let Some(cache) = self.near.get() else {
            return Ok(self.chunks_far(key, envelope, wanted)?.1);
        };
        let here = |number| chunk_here(cache, key, envelope, number);
        let mut found: Vec<Option<Vec<u8>>> = wanted.clone().map(here).collect();
        join_gaps(&mut found);
        let push = match found.len() > CACHE_PUSH_CHUNKS {
            true => Push::No,
            false => Push::Yes,
        };
        let mut out = Vec::new();
        let mut parts = (wanted.start..).zip(found).peekable();
        while let Some((number, part)) = parts.next() {
            if let Some(part) = part {
                out.extend_from_slice(&part);
                continue;
            }
            let mut end = number.saturating_add(1);
            while parts.next_if(|(_, part)| part.is_none()).is_some() {
                end = end.saturating_add(1);
            }
            let (stored, opened) = self.chunks_far(key, envelope, number..end)?;
            let mut rest = stored.as_slice();
            for chunk in number..end {
                let place = envelope.stored(&(chunk..chunk.saturating_add(1)));
                let length = usize_of(place.end.saturating_sub(place.start)).min(rest.len());
                let (here, later) = rest.split_at(length);
                cache.put(key, Part::Chunk(chunk), here, push);
                rest = later;
            }
            out.extend_from_slice(&opened);
        }
        Ok(out)
    }

    /// Asks the store for whole chunks; returns them as they are stored and as they are opened.
    fn chunks_far(
        &self,
        key: &ObjectKey,
        envelope: &Envelope,
        chunks: ops::Range<u64>,
    ) -> Result<(Vec<u8>, Vec<u8>), ObjectError> {
        let stored = envelope.stored(&chunks);
        let range = Range {
            offset: stored.start,
            length: usize_of(stored.end.saturating_sub(stored.start)),
        };
        let stored = self.inner.get_range(key, range)?;
        let opened = envelope.decrypt(chunks.start, &stored);
        let opened = opened.map_err(|source| refused(key, source))?;
        Ok((stored, opened))
    }
}

/// Returns a chunk that the cache has; one that does not open counts as absent.
fn chunk_here(
    cache: &Arc<BlockCache>,
    key: &ObjectKey,
    envelope: &Envelope,
    number: u64,
) -> Option<Vec<u8>> {
    let stored = cache.get(key, Part::Chunk(number))?;
    let opened = envelope.decrypt(number, &stored).ok();
    let opened = opened.filter(|opened| usize_of(CHUNK_BYTES) >= opened.len());
    if opened.is_none() {
        cache.remove(key, Part::Chunk(number));
    }
    opened
}

/// Where what is absent lies in many pieces, one request for all of it is quicker than one for each.
fn join_gaps(found: &mut [Option<Vec<u8>>]) {
    let pieces = found.chunk_by(|one, next| one.is_none() == next.is_none());
    let absent = pieces.filter(|piece| piece.first().is_some_and(Option::is_none));
    if absent.count() <= 2 {
        return;
    }
    let first = found.iter().position(Option::is_none);
    let last = found.iter().rposition(Option::is_none);
    if let (Some(first), Some(last)) = (first, last) {
        let between = found.get_mut(first..last).into_iter().flatten();
        between.for_each(|part| *part = None);
    }
}
