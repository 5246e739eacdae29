//! A store that is shared is a store.

use std::io;
use std::sync::Arc;

use holdfast_core::{ByteCount, Timestamp};

use super::{
    Backend, BlockCache, Head, Marker, ObjectError, ObjectKey, ObjectStore, Promise, Range,
    WriterLock,
};

impl<S: ObjectStore + ?Sized> ObjectStore for Arc<S> {
    fn create_new(&self, key: &ObjectKey, body: &[u8]) -> Result<(), ObjectError> {
        self.as_ref().create_new(key, body)
    }

    fn get(&self, key: &ObjectKey, limit: ByteCount) -> Result<Vec<u8>, ObjectError> {
        self.as_ref().get(key, limit)
    }

    fn get_range(&self, key: &ObjectKey, range: Range) -> Result<Vec<u8>, ObjectError> {
        self.as_ref().get_range(key, range)
    }

    fn head(&self, key: &ObjectKey) -> Result<Option<Head>, ObjectError> {
        self.as_ref().head(key)
    }

    fn size(&self, key: &ObjectKey) -> Result<Option<ByteCount>, ObjectError> {
        self.as_ref().size(key)
    }

    fn list(&self, prefix: &str) -> Result<Vec<(ObjectKey, ByteCount)>, ObjectError> {
        self.as_ref().list(prefix)
    }

    fn lock_until(&self, key: &ObjectKey, until: Timestamp) -> Result<(), ObjectError> {
        self.as_ref().lock_until(key, until)
    }

    fn now(&self) -> Result<Timestamp, ObjectError> {
        self.as_ref().now()
    }

    fn promise(&self) -> Promise {
        self.as_ref().promise()
    }

    fn is_remote(&self) -> bool {
        self.as_ref().is_remote()
    }

    fn open_near(&self) -> io::Result<Option<BlockCache>> {
        self.as_ref().open_near()
    }

    fn keep_near(&self, cache: &Arc<BlockCache>) {
        self.as_ref().keep_near(cache);
    }
}

impl<S: Backend + ?Sized> Backend for Arc<S> {
    fn marker(&self) -> &Marker {
        self.as_ref().marker()
    }

    fn make_immutable(&self) -> Result<(), ObjectError> {
        self.as_ref().make_immutable()
    }

    fn lock(&self, holder: &str) -> Result<WriterLock, ObjectError> {
        self.as_ref().lock(holder)
    }
}
