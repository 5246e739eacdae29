//! Object storage that speaks S3, with Object Lock in compliance mode.
//!
//! The bucket keeps every version of an object, and nobody can take away a locked one before its time.
//! What others can still do is to put a newer version or a delete marker over it. Both change nothing
//! here: a key is written once, so the *oldest* version of a key is ours, and it alone is read.

mod client;
mod error;
mod location;
mod put;
mod sign;
pub(super) mod versions;
pub(super) mod xml;

use std::collections::HashSet;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use holdfast_core::{ByteCount, Timestamp};

use super::marker::{LIMIT_MARKER_BYTES, MARKER};
use super::{
    Backend, BlockCache, Head, Marker, NearBlocks, ObjectError, ObjectKey, ObjectStore, Promise,
    Range, WriterLock,
};

pub use client::Timing;
pub(super) use client::{Answer, Client, Request};
pub use error::S3Error;
pub use location::{Addressing, BucketPath, CredentialSource, Endpoint, PlainHttp, S3Location};
pub use sign::Credentials;
pub(super) use versions::Version;
use versions::Versions;

/// The mode that nobody can take back.
pub(super) const COMPLIANCE: &str = "COMPLIANCE";

/// A repository in a bucket.
#[derive(Debug)]
pub struct S3Store {
    client: Client,
    versions: Versions,
    marker: Marker,
    /// Names that may be taken, by a try whose end is not known.
    doubtful: Mutex<HashSet<String>>,
}

impl S3Store {
    /// Opens an existing repository.
    ///
    /// # Errors
    /// [`ObjectError::NotARepository`], [`ObjectError::NewerFormat`], [`ObjectError::Unreadable`], and
    /// what the storage says.
    pub fn open(location: &S3Location) -> Result<Self, ObjectError> {
        let place = location.bucket.to_string();
        let mut store = Self::at(location)?;
        let Some(text) = store.read_marker()? else {
            return Err(ObjectError::NotARepository {
                place,
                found: format!("no {MARKER}"),
            });
        };
        store.marker = Marker::read(&text, &place)?;
        Ok(store)
    }

    /// Opens the repository that is there, or makes one where no object is.
    ///
    /// # Errors
    /// As [`S3Store::open`]; nothing is written when something else lies there.
    pub fn create_or_open(location: &S3Location, fresh: &Marker) -> Result<Self, ObjectError> {
        let place = location.bucket.to_string();
        let mut store = Self::at(location)?;
        if store.read_marker()?.is_none() {
            if let Some(found) = store.versions.any(&store.client, &[PROBES])? {
                return Err(ObjectError::NotARepository { place, found });
            }
            let text = fresh.text(&place)?;
            let name = location.bucket.full(MARKER);
            store.put(&name, &text)?;
        }
        let Some(text) = store.read_marker()? else {
            return Err(ObjectError::Unreadable { place });
        };
        store.marker = Marker::read(&text, &place)?;
        Ok(store)
    }

    fn at(location: &S3Location) -> Result<Self, ObjectError> {
        Ok(Self {
            client: Client::new(location)?,
            versions: Versions::default(),
            marker: Marker {
                format: 0,
                id: String::new(),
                created: Timestamp(0),
                vault_key: String::new(),
                recipients: Vec::new(),
            },
            doubtful: Mutex::default(),
        })
    }

    fn read_marker(&self) -> Result<Option<Vec<u8>>, ObjectError> {
        let name = self.client.location().bucket.full(MARKER);
        let Some(version) = self.versions.oldest(&self.client, &name)? else {
            return Ok(None);
        };
        let request = versions::read(&name, &version, LIMIT_MARKER_BYTES);
        Ok(Some(self.client.send(&request)?.body))
    }

    fn full(&self, key: &ObjectKey) -> String {
        self.client.location().bucket.full(key.as_str())
    }

    fn version(&self, key: &ObjectKey) -> Result<Version, ObjectError> {
        self.versions
            .oldest(&self.client, &self.full(key))?
            .ok_or_else(|| ObjectError::Missing(key.clone()))
    }

    /// Reads from the version that is ours.
    fn read(&self, key: &ObjectKey, request: &Request<'_>) -> Result<Answer, ObjectError> {
        self.client
            .send(request)
            .map_err(|error| match error.answer() {
                Some((404, _)) => {
                    self.versions.forget(&self.full(key));
                    ObjectError::Missing(key.clone())
                }
                Some((416, _)) => ObjectError::Short(key.clone()),
                _ => error.into(),
            })
    }
}

impl Backend for S3Store {
    fn marker(&self) -> &Marker {
        &self.marker
    }

    /// A bucket has no such flag: its locks are worth more.
    fn make_immutable(&self) -> Result<(), ObjectError> {
        Err(ObjectError::NotImmutable {
            place: self.client.location().bucket.to_string(),
            why: "a bucket has no immutable flag; Object Lock keeps what is stored".to_owned(),
        })
    }

    /// A bucket has no lock that ends with a process; two writers notice each other by what they store.
    fn lock(&self, _holder: &str) -> Result<WriterLock, ObjectError> {
        Ok(WriterLock::none())
    }
}

impl ObjectStore for S3Store {
    fn create_new(&self, key: &ObjectKey, body: &[u8]) -> Result<(), ObjectError> {
        if self.put(&self.full(key), body)? {
            Ok(())
        } else {
            Err(ObjectError::Exists(key.clone()))
        }
    }

    fn get(&self, key: &ObjectKey, limit: ByteCount) -> Result<Vec<u8>, ObjectError> {
        let version = self.version(key)?;
        if version.bytes > limit.0 {
            return Err(ObjectError::TooLarge {
                key: key.clone(),
                found: ByteCount(version.bytes),
                limit,
            });
        }
        let name = self.full(key);
        let answer = self.read(key, &versions::read(&name, &version, version.bytes))?;
        let length = u64::try_from(answer.body.len()).unwrap_or(u64::MAX);
        if length != version.bytes {
            let why = format!("{length} bytes of {}", version.bytes);
            return Err(self.client.cut("read an object", why).into());
        }
        Ok(answer.body)
    }

    fn get_range(&self, key: &ObjectKey, range: Range) -> Result<Vec<u8>, ObjectError> {
        let version = self.version(key)?;
        let length = u64::try_from(range.length).unwrap_or(u64::MAX);
        let end = range.offset.saturating_add(length);
        if end > version.bytes {
            return Err(ObjectError::Short(key.clone()));
        }
        if length == 0 {
            return Ok(Vec::new());
        }
        let name = self.full(key);
        let request = versions::read(&name, &version, length).header(
            "range",
            format!("bytes={}-{}", range.offset, end.saturating_sub(1)),
        );
        let answer = self.read(key, &request)?;
        let stated = answer.header("content-range").unwrap_or_default();
        let wanted = format!("bytes {}-{}/", range.offset, end.saturating_sub(1));
        if answer.status != 206 || !stated.starts_with(&wanted) || answer.body.len() != range.length
        {
            let why = format!("status {} and `{stated}`", answer.status);
            return Err(self.client.cut("read a part of an object", why).into());
        }
        Ok(answer.body)
    }

    fn head(&self, key: &ObjectKey) -> Result<Option<Head>, ObjectError> {
        let name = self.full(key);
        let Some(version) = self.versions.oldest(&self.client, &name)? else {
            return Ok(None);
        };
        let answer = match self.read(key, &versions::head(&name, &version)) {
            Ok(answer) => answer,
            Err(ObjectError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Head {
            bytes: ByteCount(version.bytes),
            locked_until: versions::locked_until(&answer),
        }))
    }

    fn size(&self, key: &ObjectKey) -> Result<Option<ByteCount>, ObjectError> {
        let version = self.versions.oldest(&self.client, &self.full(key))?;
        Ok(version.map(|version| ByteCount(version.bytes)))
    }

    fn list(&self, prefix: &str) -> Result<Vec<(ObjectKey, ByteCount)>, ObjectError> {
        let prefix = prefix.trim_matches('/');
        let root = self.client.location().bucket.full("");
        let below = match prefix {
            "" => root.clone(),
            prefix => format!("{root}{prefix}/"),
        };
        let mut found = Vec::new();
        self.versions.each(&self.client, &below, |name, version| {
            let key = name.strip_prefix(&root).and_then(|name| name.parse().ok());
            // What has no folder is about the repository, not in it; what is no key is not ours.
            let key = key.filter(|key: &ObjectKey| key.as_str().contains('/'));
            if let Some(key) = key.filter(|key| !key.as_str().starts_with(PROBES)) {
                found.push((key, ByteCount(version.bytes)));
            }
        })?;
        found.sort();
        Ok(found)
    }

    fn lock_until(&self, key: &ObjectKey, until: Timestamp) -> Result<(), ObjectError> {
        let is_locked = |found: Option<Head>| {
            let found = found.ok_or_else(|| ObjectError::Missing(key.clone()))?;
            Ok::<_, ObjectError>(found.locked_until.is_some_and(|found| found >= until))
        };
        if is_locked(self.head(key)?)? {
            return Ok(());
        }
        let name = self.full(key);
        let body = retention(COMPLIANCE, until);
        let request = versions::retain(&name, &self.version(key)?, body.as_bytes());
        match self.client.send(&request) {
            Ok(_) => Ok(()),
            // Somebody may have locked it for longer in the meantime.
            Err(S3Error::Denied { .. }) if is_locked(self.head(key)?)? => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn now(&self) -> Result<Timestamp, ObjectError> {
        Ok(self.client.time()?)
    }

    fn promise(&self) -> Promise {
        self.client.location().promise.clone()
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn open_near(&self) -> io::Result<Option<BlockCache>> {
        let location = self.client.location();
        let open =
            |near: &NearBlocks| BlockCache::open(&near.dir, near.bytes_max, &location.place());
        location.near.as_ref().map(open).transpose()
    }
}

/// Names the version that the storage says it stored; nothing where the bucket keeps none.
pub(super) fn version_of(answer: &Answer, body: &[u8]) -> Option<Version> {
    let id = answer.header("x-amz-version-id")?;
    (id != "null").then(|| Version {
        id: id.to_owned(),
        bytes: u64::try_from(body.len()).unwrap_or(u64::MAX),
    })
}

/// Returns all versions of a name, newest first.
pub(super) fn all_versions(client: &Client, name: &str) -> Result<Vec<Version>, S3Error> {
    let mut found = Vec::new();
    let mut pages = versions::Pages::new(client, name);
    while let Some(page) = pages.turn()? {
        let ours = page.into_iter().filter(|(key, _)| key == name);
        found.extend(ours.filter_map(|(_, version)| version));
    }
    Ok(found)
}

/// Returns until when a version is locked in compliance mode.
pub(super) fn locked(
    client: &Client,
    name: &str,
    version: &Version,
) -> Result<Option<Timestamp>, S3Error> {
    let answer = client.send(&versions::head(name, version))?;
    Ok(versions::locked_until(&answer))
}

/// The text that locks a version.
pub(super) fn retention(mode: &str, until: Timestamp) -> String {
    format!(
        "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{mode}</Mode>\
         <RetainUntilDate>{}</RetainUntilDate></Retention>",
        seconds(until)
    )
}

/// A time in whole seconds, later rather than earlier: not every storage keeps less than a second.
pub(super) fn seconds(time: Timestamp) -> String {
    let later = time.plus(Duration::from_micros(999_999)).to_string();
    let whole = later.split('.').next().unwrap_or_default();
    format!("{whole}Z")
}

/// Where throw-away objects of the probe are.
pub(super) const PROBES: &str = "holdfast-probe/";
