//! Signature Version 4: a request is bound to a key, a day, a region and its content.
//!
//! # Source
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>

use aws_lc_rs::{digest, hmac};
use data_encoding::HEXLOWER;
use holdfast_core::{Secret, Timestamp};

/// What opens the storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The key's public name.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: Secret,
    /// What temporary credentials carry as well.
    pub session_token: Option<Secret>,
}

/// A request as it will be sent. Names of headers are in lower case; all of them are signed.
#[derive(Clone, Copy, Debug)]
pub struct Unsigned<'a> {
    /// `GET`, `PUT`, …
    pub method: &'a str,
    /// The path, escaped.
    pub path: &'a str,
    /// The query, escaped and in order.
    pub query: &'a str,
    /// The headers, `host` among them.
    pub headers: &'a [(String, String)],
    /// The digest of the body.
    pub body_sha256: &'a str,
}

/// Returns the headers that a signed request carries besides its own.
pub fn sign(
    request: &Unsigned<'_>,
    credentials: &Credentials,
    region: &str,
    now: Timestamp,
) -> Vec<(String, String)> {
    let time = compact(now);
    let day = time.get(..8).unwrap_or_default();
    let mut added = vec![
        (
            "x-amz-content-sha256".to_owned(),
            request.body_sha256.to_owned(),
        ),
        ("x-amz-date".to_owned(), time.clone()),
    ];
    if let Some(token) = &credentials.session_token {
        added.push(("x-amz-security-token".to_owned(), token.expose().to_owned()));
    }
    let mut headers: Vec<&(String, String)> = request.headers.iter().chain(&added).collect();
    headers.sort();
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}:{}\n", value.trim()))
        .collect();
    let canonical = format!(
        "{}\n{}\n{}\n{lines}\n{names}\n{}",
        request.method, request.path, request.query, request.body_sha256
    );
    let scope = format!("{day}/{region}/s3/aws4_request");
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{time}\n{scope}\n{}",
        sha256_hex(canonical.as_bytes())
    );
    let first = format!("AWS4{}", credentials.secret_access_key.expose());
    let mut key = mac(first.as_bytes(), day.as_bytes());
    for part in [region, "s3", "aws4_request"] {
        key = mac(key.as_ref(), part.as_bytes());
    }
    let signature = HEXLOWER.encode(mac(key.as_ref(), to_sign.as_bytes()).as_ref());
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}",
        credentials.access_key_id
    );
    added.push(("authorization".to_owned(), authorization));
    added
}

/// Returns the SHA-256 of `bytes` as hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Escapes everything but unreserved characters, `/` too.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

fn mac(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
}

/// Writes a time as `20130524T000000Z`.
fn compact(time: Timestamp) -> String {
    let text = time.to_string();
    let whole = text.split('.').next().unwrap_or_default();
    let mut compact: String = whole.chars().filter(|c| !"-:Z".contains(*c)).collect();
    compact.push('Z');
    compact
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked examples of the specification.
    #[test]
    fn signatures_are_those_of_the_specification() {
        let credentials = Credentials {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            session_token: None,
        };
        let now: Timestamp = "2013-05-24T00:00:00Z".parse().unwrap();
        let host = ("host", "examplebucket.s3.amazonaws.com");
        let range = ("range", "bytes=0-9");
        for (path, query, headers, expected) in [
            (
                "/test.txt",
                "",
                vec![host, range],
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                "/",
                "lifecycle=",
                vec![host],
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                "/",
                "max-keys=2&prefix=J",
                vec![host],
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            let request = Unsigned {
                method: "GET",
                path,
                query,
                headers: &headers,
                body_sha256: &sha256_hex(b""),
            };
            let signed = sign(&request, &credentials, "us-east-1", now);
            let (_, value) = signed.last().unwrap();
            assert!(value.ends_with(expected), "{path}?{query}: {value}");
        }
    }

    #[test]
    fn a_secret_is_in_no_header() {
        let credentials = Credentials {
            access_key_id: "id".to_owned(),
            secret_access_key: Secret::new("hunter2"),
            session_token: Some(Secret::new("token")),
        };
        let request = Unsigned {
            method: "GET",
            path: "/",
            query: "",
            headers: &[],
            body_sha256: "x",
        };
        let signed = sign(&request, &credentials, "r", Timestamp(0));
        assert!(!format!("{signed:?}{credentials:?}").contains("hunter2"));
        assert!(signed.contains(&("x-amz-security-token".to_owned(), "token".to_owned())));
    }
}
