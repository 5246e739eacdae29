//! Where an object storage is, as the configuration says it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::sign::Credentials;
use super::{S3Error, Timing};
use crate::object::{NearBlocks, ObjectKey, Promise};

/// How the bucket is named in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Addressing {
    /// In the path: `https://host/bucket/key`.
    #[default]
    Path,
    /// In the host: `https://bucket.host/key`.
    VirtualHost,
}

/// Whether requests may travel without TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainHttp {
    /// To anywhere; somebody said so.
    Anywhere,
    /// Only inside this machine.
    #[default]
    LoopbackOnly,
}

/// Reads the credentials from where they are kept; they may be renewed there at any time.
#[derive(Clone)]
pub struct CredentialSource(Arc<dyn Fn() -> Result<Credentials, String> + Send + Sync>);

impl CredentialSource {
    /// Takes the function that reads them; its error says what is wrong, never what they are.
    pub fn new(read: impl Fn() -> Result<Credentials, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Reads them now.
    ///
    /// # Errors
    /// Why they cannot be read.
    pub fn read(&self) -> Result<Credentials, String> {
        (self.0)()
    }
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[by reference]")
    }
}

/// The address of an object storage, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    scheme: &'static str,
    authority: String,
}

impl Endpoint {
    /// Reads `https://HOST[:PORT]` or, where it is permitted, `http://HOST[:PORT]`.
    ///
    /// # Errors
    /// [`S3Error::Location`] says what is wrong with it.
    pub fn parse(text: &str, plain: PlainHttp) -> Result<Self, S3Error> {
        let refused = |why: &str| S3Error::Location {
            place: text.chars().take(200).collect(),
            why: why.to_owned(),
        };
        let (scheme, authority) = match text.split_once("://") {
            Some(("https", rest)) => ("https", rest),
            Some(("http", rest)) => ("http", rest),
            _ => return Err(refused("an endpoint begins with `https://`")),
        };
        let authority = authority.trim_end_matches('/');
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
        if authority.is_empty() || !authority.chars().all(is_plain) {
            return Err(refused("an endpoint is a host and a port, nothing more"));
        }
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        let is_local = host == "localhost"
            || host.ends_with(".localhost")
            || host
                .parse()
                .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        if scheme == "http" && plain == PlainHttp::LoopbackOnly && !is_local {
            return Err(refused(
                "without TLS anybody on the way can read and change what is sent; use `https`",
            ));
        }
        Ok(Self {
            scheme,
            authority: authority.to_owned(),
        })
    }

    /// Returns Amazon's endpoint of a region.
    ///
    /// # Errors
    /// [`S3Error::Location`] when that is no name of a region.
    pub fn of_region(region: &str) -> Result<Self, S3Error> {
        Self::parse(
            &format!("https://s3.{region}.amazonaws.com"),
            PlainHttp::LoopbackOnly,
        )
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// A repository in a bucket.
#[derive(Clone, Debug)]
pub struct S3Location {
    /// Where requests go.
    pub endpoint: Endpoint,
    /// The region that requests are signed for.
    pub region: String,
    /// Bucket and prefix.
    pub bucket: BucketPath,
    /// How the bucket is named in a request.
    pub addressing: Addressing,
    /// What opens it.
    pub credentials: CredentialSource,
    /// How long a new object is locked.
    pub lock: Duration,
    /// A certificate authority to trust instead of the system's, PEM.
    pub authority_pem: Option<Vec<u8>>,
    /// Deadlines and retries.
    pub timing: Timing,
    /// What may be said of its locks.
    pub promise: Promise,
    /// Where parts of what mounts read are kept on this machine's disk.
    pub near: Option<NearBlocks>,
}

impl S3Location {
    /// Returns how the storage is named to people: the bucket and where it is.
    pub(in crate::object) fn place(&self) -> String {
        format!("{} at {}", self.bucket, self.endpoint)
    }

    /// Returns scheme and host of a request.
    pub(super) fn origin(&self) -> (String, String) {
        let authority = match self.addressing {
            Addressing::Path => self.endpoint.authority.clone(),
            Addressing::VirtualHost => {
                format!("{}.{}", self.bucket.bucket, self.endpoint.authority)
            }
        };
        (self.endpoint.scheme.to_owned(), authority)
    }

    /// Returns the path of a request, for a name in the bucket or for the bucket itself.
    pub(super) fn path(&self, name: &str) -> String {
        match self.addressing {
            Addressing::Path if name.is_empty() => format!("/{}", self.bucket.bucket),
            Addressing::Path => format!("/{}/{name}", self.bucket.bucket),
            Addressing::VirtualHost => format!("/{name}"),
        }
    }
}

impl PartialEq for S3Location {
    /// Two are one when they name the same place.
    fn eq(&self, other: &Self) -> bool {
        (&self.endpoint, &self.bucket) == (&other.endpoint, &other.bucket)
    }
}

impl Eq for S3Location {}

/// A bucket and what the names of all objects in it begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketPath {
    /// The bucket.
    pub bucket: String,
    /// Segments without a slash at the end, or empty.
    pub prefix: String,
}

impl BucketPath {
    /// Reads `s3://BUCKET[/PREFIX]`; `None` when the text begins otherwise.
    ///
    /// # Errors
    /// [`S3Error::Location`] says what is wrong with it.
    pub fn parse(text: &str) -> Option<Result<Self, S3Error>> {
        let rest = text.strip_prefix("s3://")?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
        let refused = |why: &str| {
            Some(Err(S3Error::Location {
                place: text.chars().take(200).collect(),
                why: why.to_owned(),
            }))
        };
        let is_edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if !(3..=63).contains(&bucket.len())
            || !bucket.chars().all(is_name)
            || !bucket.starts_with(is_edge)
            || !bucket.ends_with(is_edge)
        {
            return refused("the name of a bucket has 3 to 63 of `a-z`, `0-9`, `.` and `-`");
        }
        if prefix.len() > LIMIT_PREFIX_BYTES
            || (!prefix.is_empty() && prefix.parse::<ObjectKey>().is_err())
        {
            return refused("a prefix is segments of `A-Za-z0-9._-` joined by `/`");
        }
        Some(Ok(Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        }))
    }

    /// Returns the name in the bucket of what is called `name` in the repository.
    pub(in crate::object) fn full(&self, name: &str) -> String {
        match self.prefix.as_str() {
            "" => name.to_owned(),
            prefix => format!("{prefix}/{name}"),
        }
    }
}

impl fmt::Display for BucketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix.as_str() {
            "" => write!(f, "s3://{}", self.bucket),
            prefix => write!(f, "s3://{}/{prefix}", self.bucket),
        }
    }
}

/// The longest prefix, in bytes: a key and its prefix stay within S3's 1024.
const LIMIT_PREFIX_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_stays_inside_this_machine_unless_somebody_says_otherwise() {
        for (text, is_good) in [
            ("https://s3.example.com", true),
            ("http://127.0.0.1:9000", true),
            ("http://[::1]:9000/", true),
            ("http://localhost", true),
            ("http://s3.example.com", false),
            ("http://127.0.0.1.example.com", false),
            ("http://10.0.0.1:9000", false),
            ("ftp://x", false),
            ("https://", false),
            ("https://user:pw@host", false),
            ("https://host/path", false),
        ] {
            let read = Endpoint::parse(text, PlainHttp::LoopbackOnly);
            assert_eq!(read.is_ok(), is_good, "{text}");
        }
        assert!(Endpoint::parse("http://10.0.0.1:9000", PlainHttp::Anywhere).is_ok());
    }

    #[test]
    fn a_bucket_and_its_prefix_are_read() {
        let read = |text| BucketPath::parse(text).unwrap();
        let path = read("s3://my-bucket/a/b/").unwrap();
        assert_eq!(path.to_string(), "s3://my-bucket/a/b");
        assert_eq!(path.full("x/y"), "a/b/x/y");
        assert_eq!(read("s3://bkt").unwrap().full("x"), "x");
        for text in [
            "s3://",
            "s3://B/x",
            "s3://bkt/../x",
            "s3://bkt/a b",
            "s3://-bkt",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(BucketPath::parse("/a/directory").is_none());
    }

    #[test]
    fn the_bucket_is_in_the_path_or_in_the_host() {
        let mut location = S3Location {
            endpoint: Endpoint::parse("https://s3.example.com", PlainHttp::LoopbackOnly).unwrap(),
            region: "eu".to_owned(),
            bucket: BucketPath::parse("s3://bkt/p").unwrap().unwrap(),
            addressing: Addressing::Path,
            credentials: CredentialSource::new(|| Err("none".to_owned())),
            lock: Duration::from_secs(1),
            authority_pem: None,
            timing: Timing::default(),
            promise: Promise::Compliance,
            near: None,
        };
        assert_eq!(location.origin().1, "s3.example.com");
        assert_eq!(
            (location.path("p/k").as_str(), location.path("").as_str()),
            ("/bkt/p/k", "/bkt")
        );
        location.addressing = Addressing::VirtualHost;
        assert_eq!(location.origin().1, "bkt.s3.example.com");
        assert_eq!(
            (location.path("p/k").as_str(), location.path("").as_str()),
            ("/p/k", "/")
        );
    }
}
