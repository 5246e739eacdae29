//! Which version of a key is ours: the oldest one, which nobody can put anything before.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_core::Timestamp;

use super::xml::Element;
use super::{Answer, COMPLIANCE, Client, Request, S3Error};
use crate::limits;

/// A version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its id.
    pub id: String,
    /// Its size.
    pub bytes: u64,
}

/// The versions that are known to be the oldest of their names; a bounded cache of the bucket.
#[derive(Debug, Default)]
pub struct Versions {
    known: Mutex<HashMap<String, Version>>,
}

impl Versions {
    /// Returns the oldest version of a name, from memory if it is known.
    ///
    /// # Errors
    /// What the storage says.
    pub fn oldest(&self, client: &Client, name: &str) -> Result<Option<Version>, S3Error> {
        match self.known(name) {
            Some(version) => Ok(Some(version)),
            None => self.look(client, name),
        }
    }

    /// Returns the oldest version of a name if it was seen before.
    pub fn known(&self, name: &str) -> Option<Version> {
        self.lock().get(name).cloned()
    }

    /// Returns the oldest version of a name, from the bucket.
    ///
    /// # Errors
    /// What the storage says.
    pub fn look(&self, client: &Client, name: &str) -> Result<Option<Version>, S3Error> {
        let mut found = None;
        let mut pages = Pages::new(client, name);
        while let Some(page) = pages.turn()? {
            let mut is_past = false;
            for (key, version) in page {
                match (key == name, version) {
                    (true, Some(version)) => found = Some(version),
                    (true, None) => {}
                    (false, _) => is_past = true,
                }
            }
            if is_past {
                break;
            }
        }
        if let Some(version) = &found {
            self.keep(name, version.clone());
        }
        Ok(found)
    }

    /// Tells the oldest version of each name that begins with `prefix`, in order, and remembers them.
    ///
    /// # Errors
    /// What the storage says.
    pub fn each(
        &self,
        client: &Client,
        prefix: &str,
        mut tell: impl FnMut(&str, &Version),
    ) -> Result<(), S3Error> {
        let mut open: Option<(String, Version)> = None;
        let mut pages = Pages::new(client, prefix);
        while let Some(page) = pages.turn()? {
            for (key, version) in page {
                let Some(version) = version else { continue };
                if let Some((before, oldest)) = open.take_if(|(before, _)| *before != key) {
                    if before > key {
                        return Err(client.cut("list versions", "the names are not in order"));
                    }
                    tell(&before, &oldest);
                    self.keep(&before, oldest);
                }
                open = Some((key, version));
            }
        }
        if let Some((name, oldest)) = open {
            tell(&name, &oldest);
            self.keep(&name, oldest);
        }
        Ok(())
    }

    /// Returns the name of one object in the place of the repository that is not below `but`.
    ///
    /// # Errors
    /// What the storage says.
    pub fn any(&self, client: &Client, but: &[&str]) -> Result<Option<String>, S3Error> {
        let root = client.location().bucket.full("");
        let mut pages = Pages::new(client, &root);
        while let Some(page) = pages.turn()? {
            for (key, version) in page {
                let name = key.strip_prefix(&root).unwrap_or(&key);
                if version.is_some() && !but.iter().any(|but| name.starts_with(but)) {
                    return Ok(Some(name.to_owned()));
                }
            }
        }
        Ok(None)
    }

    /// Remembers that this is the oldest version of a name.
    pub fn keep(&self, name: &str, version: Version) {
        let mut known = self.lock();
        if known.len() >= limits::S3_VERSIONS_KNOWN {
            known.clear();
        }
        known.insert(name.to_owned(), version);
    }

    /// Forgets a name whose version is gone.
    pub fn forget(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Version>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The list of all versions below a prefix, newest first within a name, page by page.
pub struct Pages<'a> {
    client: &'a Client,
    prefix: &'a str,
    after: Option<(String, String)>,
    read: u32,
    ended: bool,
}

/// A name with a version of it, or with a delete marker.
pub type Entry = (String, Option<Version>);

impl<'a> Pages<'a> {
    /// Begins a list.
    pub fn new(client: &'a Client, prefix: &'a str) -> Self {
        Self {
            client,
            prefix,
            after: None,
            read: 0,
            ended: false,
        }
    }

    /// Returns the next page.
    ///
    /// # Errors
    /// What the storage says; [`S3Error::Cut`] when the list is not readable or does not end.
    pub fn turn(&mut self) -> Result<Option<Vec<Entry>>, S3Error> {
        const STEP: &str = "list versions";
        if self.ended {
            return Ok(None);
        }
        self.read += 1;
        if self.read > limits::S3_PAGES {
            let why = "somebody put more versions there than are read";
            return Err(self.client.cut(STEP, why));
        }
        let mut request = Request::new(STEP, "GET", "")
            .query("versions", "")
            .query("encoding-type", "url")
            .query("prefix", self.prefix);
        if let Some((key, version)) = &self.after {
            request = request
                .query("key-marker", key)
                .query("version-id-marker", version);
        }
        let answer = self.client.send(&request)?;
        let unreadable = || self.client.cut(STEP, "the list is not readable");
        let list = Element::read(&answer.body).ok_or_else(unreadable)?;
        if list.name != "ListVersionsResult" {
            return Err(unreadable());
        }
        let mut page = Vec::new();
        for element in &list.inside {
            let version = match element.name.as_str() {
                "DeleteMarker" => None,
                "Version" => Some(Version {
                    id: element.text_of("VersionId").to_owned(),
                    bytes: element.text_of("Size").parse().map_err(|_| unreadable())?,
                }),
                _ => continue,
            };
            let key = plain(element.text_of("Key")).ok_or_else(unreadable)?;
            page.push((key, version));
        }
        self.ended = list.text_of("IsTruncated") != "true";
        if !self.ended {
            let key = plain(list.text_of("NextKeyMarker")).ok_or_else(unreadable)?;
            let after = (key, list.text_of("NextVersionIdMarker").to_owned());
            if self.after.as_ref() == Some(&after) || after.0.is_empty() {
                return Err(unreadable());
            }
            self.after = Some(after);
        }
        Ok(Some(page))
    }
}

/// Asks for the content of a version.
pub fn read<'a>(name: &'a str, version: &Version, limit: u64) -> Request<'a> {
    let mut request = Request::new("read an object", "GET", name).query("versionId", &version.id);
    request.limit = limit;
    request
}

/// Asks for what is known of a version.
pub fn head<'a>(name: &'a str, version: &Version) -> Request<'a> {
    Request::new("look at an object", "HEAD", name).query("versionId", &version.id)
}

/// Locks a version.
pub fn retain<'a>(name: &'a str, version: &Version, body: &'a [u8]) -> Request<'a> {
    Request::new("lock an object", "PUT", name)
        .query("retention", "")
        .query("versionId", &version.id)
        .header("content-type", "application/xml")
        .body(body)
}

/// Until when an object is locked so that nobody can take it back.
pub fn locked_until(answer: &Answer) -> Option<Timestamp> {
    if answer.header("x-amz-object-lock-mode") != Some(COMPLIANCE) {
        return None;
    }
    let until = answer.header("x-amz-object-lock-retain-until-date")?;
    until.parse().ok()
}

/// Takes `%XX` back.
fn plain(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let digits = part.get(..2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
