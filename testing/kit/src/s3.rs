//! A real object storage with Object Lock: Ceph's gateway over one storage daemon in memory.
//!
//! Starting it takes some ten seconds, so one serves every test of a run: the first test that needs it
//! starts it, and a watcher ends it together with the test runner, however that ends. What a test does
//! there is kept apart by buckets of its own.

mod bucket;
mod fault;
mod raw;
mod storage;
mod tls;

pub use bucket::StoredVersion;
pub use fault::{Fault, S3Proxy};
pub use raw::{Ask, Reply};
pub use storage::ObjectStorage;
pub use tls::S3Tls;
