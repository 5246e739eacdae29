//! A request of HTTP as the judge looks at it: whole, normalised, and nothing else.

mod chunk;
mod head;
mod query;

use holdfast_core::{Digest, DigestBuilder};

pub use chunk::{ChunkError, Chunks};
pub use head::{BodyFraming, Head, HeadError, Target, read_head};
pub use query::{percent_decode, query_pairs};

/// A request with its whole body, after transfer coding was taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method, as sent.
    pub method: String,
    /// `http` or `https`.
    pub scheme: String,
    /// The host, lower case, without port.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path, as sent, without query; begins with `/`.
    pub path: String,
    /// The query without `?`, as sent.
    pub query: Option<String>,
    /// Header names in lower case, and values, in the order they were sent.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl HttpRequest {
    /// Returns the value of the only header of this name, or `None` when there is none, are several,
    /// or it is not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => std::str::from_utf8(value).ok(),
            _ => None,
        }
    }

    /// Tells whether there is a header of this name.
    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known == name)
    }

    /// Returns the digest that an approval is bound to: where it goes, what it says, no credentials.
    pub fn digest(&self) -> Digest {
        let kind = self.header("content-type").unwrap_or_default();
        DigestBuilder::new("holdfast http request 1")
            .field(self.method.as_bytes())
            .field(self.scheme.as_bytes())
            .field(self.host.as_bytes())
            .field(&self.port.to_be_bytes())
            .field(self.path.as_bytes())
            .field(self.query.as_deref().unwrap_or_default().as_bytes())
            .field(kind.as_bytes())
            .field(&self.body)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> HttpRequest {
        HttpRequest {
            method: "POST".to_owned(),
            scheme: "https".to_owned(),
            host: "api.example".to_owned(),
            port: 443,
            path: "/graphql".to_owned(),
            query: None,
            headers: vec![("authorization".to_owned(), b"Bearer a".to_vec())],
            body: b"{}".to_vec(),
        }
    }

    #[test]
    fn the_digest_is_of_what_is_asked_and_not_of_who_asks() {
        let (first, mut second) = (request(), request());
        second.headers = vec![("authorization".to_owned(), b"Bearer b".to_vec())];
        assert_eq!(first.digest(), second.digest());
        second.body = b"{ }".to_vec();
        assert_ne!(first.digest(), second.digest());
        let mut other_host = request();
        other_host.host = "b.example".to_owned();
        assert_ne!(first.digest(), other_host.digest());
    }

    #[test]
    fn a_header_that_is_sent_twice_is_not_believed() {
        let mut twice = request();
        twice
            .headers
            .push(("authorization".to_owned(), b"Bearer b".to_vec()));
        assert_eq!(twice.header("authorization"), None);
        assert_eq!(request().header("authorization"), Some("Bearer a"));
    }
}
