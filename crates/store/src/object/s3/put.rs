//! Storing an object: once, as the oldest version of its name, and with its lock.
//!
//! The request asks for a free name, which not every storage honours, and none does where a delete marker
//! hides what is there. So the versions of the name are listed afterwards, while the lock is looked at:
//! three requests in two round trips.

use std::collections::HashSet;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_core::Timestamp;

use super::versions::{self, Version};
use super::{Answer, COMPLIANCE, Request, S3Error, S3Store, retention, seconds, version_of};
use crate::limits;

/// How a try to store an object ended.
enum Stored {
    /// As this version.
    As(Version),
    /// Something else has the name.
    Taken,
}

impl S3Store {
    /// The request that stores an object: only where nothing is, with its checksum, locked.
    pub(super) fn putting<'a>(
        &self,
        name: &'a str,
        body: &'a [u8],
    ) -> Result<Request<'a>, S3Error> {
        let until = self.client.time()?.plus(self.client.location().lock);
        Ok(Request::new("store an object", "PUT", name)
            .header("content-type", "application/octet-stream")
            .header("if-none-match", "*")
            .header("x-amz-object-lock-mode", COMPLIANCE)
            .header("x-amz-object-lock-retain-until-date", seconds(until))
            .body(body))
    }

    /// Stores an object if nobody has its name, and makes sure that it is the one that will be read and
    /// that it is locked; false when the name is taken, and what has it is then locked as well.
    pub(super) fn put(&self, name: &str, body: &[u8]) -> Result<bool, S3Error> {
        let until = self.client.time()?.plus(self.client.location().lock);
        let is_doubtful = self.doubtful().contains(name);
        let there = match is_doubtful {
            true => self.versions.look(&self.client, name)?,
            false => self.versions.known(name),
        };
        if let Some(there) = there {
            return self.taken(name, &there, until);
        }
        self.doubtful().insert(name.to_owned());
        let version = match self.store(name, body, until)? {
            Stored::As(version) => version,
            Stored::Taken => match self.versions.look(&self.client, name)? {
                Some(there) => return self.taken(name, &there, until),
                None => {
                    let why = "a name is taken, and nothing is there";
                    return Err(self.client.cut("list versions", why));
                }
            },
        };
        self.versions.keep(name, version);
        self.doubtful().remove(name);
        Ok(true)
    }

    /// Whoever stored it may have died before its lock was seen.
    fn taken(&self, name: &str, there: &Version, until: Timestamp) -> Result<bool, S3Error> {
        let locked = self.client.send(&versions::head(name, there))?;
        let half = until.minus(self.client.location().lock / 2);
        if versions::locked_until(&locked).is_none_or(|found| found < half) {
            let body = retention(COMPLIANCE, until);
            self.client
                .send(&versions::retain(name, there, body.as_bytes()))?;
        }
        self.doubtful().remove(name);
        Ok(false)
    }

    /// Stores it, and looks whether it is the first of its name and is locked.
    fn store(&self, name: &str, body: &[u8], until: Timestamp) -> Result<Stored, S3Error> {
        let Stored::As(version) = self.try_to_put(name, body)? else {
            return Ok(Stored::Taken);
        };
        let (oldest, locked) = both(
            || self.is_oldest(name, &version),
            || self.verify(name, &version, until),
        );
        if !oldest? {
            return Ok(Stored::Taken);
        }
        locked?;
        Ok(Stored::As(version))
    }

    fn is_oldest(&self, name: &str, version: &Version) -> Result<bool, S3Error> {
        match self.versions.look(&self.client, name)? {
            Some(oldest) => Ok(oldest == *version),
            None => Err(self
                .client
                .cut("list versions", "a stored object is not in the list")),
        }
    }

    /// Tries until it is stored; after a try whose outcome is unknown, looks before trying again.
    fn try_to_put(&self, name: &str, body: &[u8]) -> Result<Stored, S3Error> {
        let mut tried = 0;
        loop {
            let error = match self.client.send_once(&self.putting(name, body)?) {
                Ok(answer) => return self.stored_as(name, body, &answer),
                Err(error) => error,
            };
            if error.answer().is_some_and(|(status, _)| status == 412) {
                // Taken: by us, if an earlier try was performed after all.
                let found = if tried > 0 {
                    self.find(name, body)?
                } else {
                    None
                };
                return Ok(found.unwrap_or(Stored::Taken));
            }
            if !error.is_transient() {
                return Err(error);
            }
            tried += 1;
            self.client.pause(tried);
            let unknown = |source: S3Error| S3Error::Unknown {
                place: self.client.place(),
                key: name.to_owned(),
                source: Box::new(source),
            };
            match self.find(name, body) {
                Ok(Some(found)) => return Ok(found),
                Ok(None) if tried < self.client.location().timing.tries => {}
                Ok(None) => return Err(error),
                Err(look) if look.is_transient() => return Err(unknown(error)),
                Err(look) => return Err(look),
            }
        }
    }

    /// Names the version that the storage says it stored.
    fn stored_as(&self, name: &str, body: &[u8], answer: &Answer) -> Result<Stored, S3Error> {
        match version_of(answer, body) {
            Some(version) => Ok(Stored::As(version)),
            None => Err(S3Error::NotLocked {
                place: self.client.place(),
                key: name.to_owned(),
                why: "the bucket keeps no versions".to_owned(),
            }),
        }
    }

    /// Looks what lies under a name after a try whose outcome is unknown.
    fn find(&self, name: &str, body: &[u8]) -> Result<Option<Stored>, S3Error> {
        let Some(version) = self.versions.look(&self.client, name)? else {
            return Ok(None);
        };
        let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
        if version.bytes != length {
            return Ok(Some(Stored::Taken));
        }
        let there = self.client.send(&versions::read(name, &version, length))?;
        Ok(Some(if there.body == body {
            Stored::As(version)
        } else {
            Stored::Taken
        }))
    }

    /// Makes sure that the lock is there, whatever the storage said.
    fn verify(&self, name: &str, version: &Version, until: Timestamp) -> Result<(), S3Error> {
        let answer = self.client.send(&versions::head(name, version))?;
        let refused = |why: String| {
            Err(S3Error::NotLocked {
                place: self.client.place(),
                key: name.to_owned(),
                why,
            })
        };
        let stated = answer.header("content-length").unwrap_or_default();
        if stated != version.bytes.to_string() {
            return refused(format!("it has {stated} bytes, not {}", version.bytes));
        }
        match versions::locked_until(&answer) {
            // Both ends are known to the second only.
            Some(found) if found.plus(Duration::from_secs(1)) >= until => Ok(()),
            Some(found) => refused(format!("it is locked until {found}, not {until}")),
            None => refused("it has no lock in compliance mode".to_owned()),
        }
    }

    fn doubtful(&self) -> MutexGuard<'_, HashSet<String>> {
        let mut names = self.doubtful.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= limits::S3_DOUBTFUL {
            // A name that is forgotten may be stored twice; the older one is read then, as ever.
            names.clear();
        }
        names
    }
}

/// Does two things at the same time.
fn both<A: Send, B>(
    one: impl FnOnce() -> Result<A, S3Error> + Send,
    other: impl FnOnce() -> Result<B, S3Error>,
) -> (Result<A, S3Error>, Result<B, S3Error>) {
    std::thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        match one.join() {
            Ok(one) => (one, other),
            Err(defect) => std::panic::resume_unwind(defect),
        }
    })
}
