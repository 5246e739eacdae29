//! Buckets for tests: made, opened to the guest, listed and copied by their owner.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::raw::moment;
use super::{Ask, ObjectStorage, Reply};

/// A version of an object in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredVersion {
    /// The name in the bucket.
    pub name: String,
    /// The id of the version.
    pub id: String,
}

impl ObjectStorage {
    /// Makes a bucket with Object Lock, owned by [`ObjectStorage::OWNER`], and returns its name.
    ///
    /// # Errors
    /// When the storage refuses.
    pub fn bucket(&self) -> Result<String> {
        self.make(&[("x-amz-bucket-object-lock-enabled", "true")])
    }

    /// Makes a bucket without versions and without locks.
    ///
    /// # Errors
    /// When the storage refuses.
    pub fn plain_bucket(&self) -> Result<String> {
        self.make(&[])
    }

    fn make(&self, headers: &[(&str, &str)]) -> Result<String> {
        let name = format!("test-{:016x}", rand::random::<u64>());
        let made = self.ask(&Ask {
            headers,
            ..Ask::owner("PUT", &format!("/{name}"))
        })?;
        ensure!(made.status == 200, "make a bucket: {made:?}");
        Ok(name)
    }

    /// Gives the guest the rights on a bucket that a vault needs, the account of expiry those that expiry
    /// needs, and no others.
    ///
    /// # Errors
    /// When the storage refuses.
    pub fn grant_least(&self, bucket: &str) -> Result<()> {
        let (guest, expiry) = (Self::GUEST_ARN, Self::EXPIRY_ARN);
        let policy = format!(
            r#"{{"Version":"2012-10-17","Statement":[
            {{"Effect":"Allow","Principal":{{"AWS":["{guest}","{expiry}"]}},
              "Action":["s3:ListBucket","s3:ListBucketVersions"],"Resource":["arn:aws:s3:::{bucket}"]}},
            {{"Effect":"Allow","Principal":{{"AWS":["{guest}"]}},
              "Action":["s3:PutObject","s3:GetObject","s3:GetObjectVersion","s3:PutObjectRetention","s3:GetObjectRetention"],
              "Resource":["arn:aws:s3:::{bucket}/*"]}},
            {{"Effect":"Allow","Principal":{{"AWS":["{expiry}"]}},
              "Action":["s3:GetObject","s3:GetObjectVersion","s3:GetObjectRetention","s3:DeleteObjectVersion"],
              "Resource":["arn:aws:s3:::{bucket}/*"]}}]}}"#
        );
        let put = self.ask(&Ask {
            query: "policy=",
            body: policy.as_bytes(),
            ..Ask::owner("PUT", &format!("/{bucket}"))
        })?;
        ensure!(put.status < 300, "set the policy: {put:?}");
        Ok(())
    }

    /// Returns all versions in a bucket.
    ///
    /// # Errors
    /// When the storage refuses.
    pub fn versions(&self, bucket: &str) -> Result<Vec<StoredVersion>> {
        let mut found: Vec<StoredVersion> = Vec::new();
        let mut query = "versions=".to_owned();
        loop {
            let path = format!("/{bucket}");
            let list = self.ask(&Ask {
                query: &query,
                ..Ask::owner("GET", &path)
            })?;
            ensure!(list.status == 200, "list versions: {list:?}");
            let versions = list.body.split("<Version>").skip(1);
            found.extend(versions.map(|text| StoredVersion {
                name: inside(text, "Key").to_owned(),
                id: inside(text, "VersionId").to_owned(),
            }));
            if inside(&list.body, "IsTruncated") != "true" {
                return Ok(found);
            }
            let (key, id) = (
                inside(&list.body, "NextKeyMarker"),
                inside(&list.body, "NextVersionIdMarker"),
            );
            let key = key.replace('/', "%2F");
            query = format!("key-marker={key}&version-id-marker={id}&versions=");
        }
    }

    /// Asks for an object in its newest version with the guest's key, as any tool would; one that is
    /// hidden is not there.
    ///
    /// # Errors
    /// When the storage refuses.
    pub fn get(&self, bucket: &str, name: &str) -> Result<Option<Vec<u8>>> {
        let path = format!("/{bucket}/{name}");
        let reply = self.ask(&Ask {
            key: Self::GUEST,
            ..Ask::owner("GET", &path)
        })?;
        if reply.status == 404 {
            return Ok(None);
        }
        ensure!(reply.status == 200, "read `{name}`: {}", reply.head);
        Ok(Some(reply.bytes))
    }

    /// Copies what is below a prefix of a bucket to a directory, names unchanged.
    ///
    /// # Errors
    /// When the storage refuses or the directory cannot be written.
    pub fn copy(&self, bucket: &str, prefix: &str, into: &Path) -> Result<usize> {
        let mut copied = 0;
        for version in self.versions(bucket)? {
            let Some(name) = version.name.strip_prefix(prefix) else {
                continue;
            };
            let path = into.join(name.trim_start_matches('/'));
            if path.exists() {
                continue;
            }
            let Some(content) = self.get(bucket, &version.name)? else {
                continue;
            };
            let folder = path.parent().context("no folder")?;
            fs::create_dir_all(folder).context("make a folder")?;
            fs::write(&path, content).context("write an object")?;
            copied += 1;
        }
        Ok(copied)
    }

    /// Lets everybody try to take away or to lock for a minute only what is below a prefix, where
    /// everything is locked for longer; returns what was permitted.
    ///
    /// # Errors
    /// When the storage does not answer.
    pub fn try_to_destroy(&self, bucket: &str, prefix: &str) -> Result<Vec<String>> {
        let mut permitted = Vec::new();
        let (date, time) = moment(SOONER)?;
        let sooner = format!(
            "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>{date}T{time}Z</RetainUntilDate></Retention>"
        );
        let bypass = &[("x-amz-bypass-governance-retention", "true")][..];
        for version in self.versions(bucket)? {
            if !version.name.starts_with(prefix) {
                continue;
            }
            let path = format!("/{bucket}/{}", version.name);
            let (delete, retain) = (
                format!("versionId={}", version.id),
                format!("retention=&versionId={}", version.id),
            );
            for key in [Self::GUEST, Self::EXPIRY, Self::OWNER] {
                for headers in [&[][..], bypass] {
                    let ask = Ask {
                        key,
                        headers,
                        ..Ask::owner("DELETE", &path)
                    };
                    let asks = [
                        Ask {
                            query: &delete,
                            ..ask
                        },
                        Ask {
                            method: "PUT",
                            query: &retain,
                            body: sooner.as_bytes(),
                            ..ask
                        },
                    ];
                    for ask in asks {
                        let reply: Reply = self.ask(&ask)?;
                        if reply.status < 400 {
                            permitted.push(format!("{} {path} to {key}", ask.method));
                        }
                    }
                }
            }
        }
        Ok(permitted)
    }
}

/// How long from now a shortened lock would last.
const SOONER: Duration = Duration::from_secs(60);

/// Returns the text of the first element of that name.
fn inside<'a>(text: &'a str, name: &str) -> &'a str {
    let after = text.split_once(&format!("<{name}>"));
    let found = after.and_then(|(_, rest)| rest.split_once("</"));
    found.map_or("", |(found, _)| found)
}
