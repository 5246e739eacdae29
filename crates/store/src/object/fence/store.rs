//! A store that writes only while the fence holds.

use std::io;
use std::sync::Arc;

use holdfast_core::{ByteCount, Timestamp};

use super::super::{BlockCache, Head, ObjectError, ObjectKey, ObjectStore, Promise, Range};
use super::Fence;

/// A store behind a fence: what it confirms was written by the one writer.
pub struct FencedStore {
    store: Arc<dyn ObjectStore>,
    fence: Fence,
    /// Which objects make others count, such as manifests: before these it looks every time.
    decides: fn(&ObjectKey) -> bool,
}

impl FencedStore {
    /// Puts `store` behind `fence`.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, fence: Fence, decides: fn(&ObjectKey) -> bool) -> Self {
        Self {
            store,
            fence,
            decides,
        }
    }
}

impl ObjectStore for FencedStore {
    fn create_new(&self, key: &ObjectKey, body: &[u8]) -> Result<(), ObjectError> {
        match (self.decides)(key) {
            true => self.fence.check()?,
            false => self.fence.ensure()?,
        }
        self.store.create_new(key, body)
    }

    fn get(&self, key: &ObjectKey, limit: ByteCount) -> Result<Vec<u8>, ObjectError> {
        self.store.get(key, limit)
    }

    fn get_range(&self, key: &ObjectKey, range: Range) -> Result<Vec<u8>, ObjectError> {
        self.store.get_range(key, range)
    }

    fn head(&self, key: &ObjectKey) -> Result<Option<Head>, ObjectError> {
        self.store.head(key)
    }

    fn size(&self, key: &ObjectKey) -> Result<Option<ByteCount>, ObjectError> {
        self.store.size(key)
    }

    fn list(&self, prefix: &str) -> Result<Vec<(ObjectKey, ByteCount)>, ObjectError> {
        self.store.list(prefix)
    }

    fn lock_until(&self, key: &ObjectKey, until: Timestamp) -> Result<(), ObjectError> {
        self.fence.ensure()?;
        self.store.lock_until(key, until)
    }

    fn now(&self) -> Result<Timestamp, ObjectError> {
        self.store.now()
    }

    fn promise(&self) -> Promise {
        self.store.promise()
    }

    fn is_remote(&self) -> bool {
        self.store.is_remote()
    }

    fn open_near(&self) -> io::Result<Option<BlockCache>> {
        self.store.open_near()
    }

    fn keep_near(&self, cache: &Arc<BlockCache>) {
        self.store.keep_near(cache);
    }
}
