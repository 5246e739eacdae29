//! The head of a request of HTTP/1.1, read strictly: what two parsers could read differently is refused.

use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};

/// What stands between method and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `http://host:port/path`, as a proxy is asked.
    Absolute {
        /// `http` or `https`, lower case.
        scheme: String,
        /// Host, lower case, without port.
        host: String,
        /// Port, by the scheme where none is stated.
        port: u16,
        /// Path; begins with `/`.
        path: String,
        /// Query without `?`.
        query: Option<String>,
    },
    /// `host:port`, of `CONNECT`.
    Authority {
        /// Host, lower case.
        host: String,
        /// Port.
        port: u16,
    },
    /// `/path`, as a server is asked.
    Origin {
        /// Path; begins with `/`.
        path: String,
        /// Query without `?`.
        query: Option<String>,
    },
}

/// How the end of the body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// In chunks.
    Chunked,
    /// By its length in bytes; 0 when there is none.
    Length(u64),
}

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The method.
    pub method: String,
    /// What is asked for.
    pub target: Target,
    /// Whether it is HTTP/1.1; otherwise 1.0.
    pub is_1_1: bool,
    /// Header names in lower case, and values without surrounding white space.
    pub headers: Vec<(String, Vec<u8>)>,
    /// How the end of the body is told.
    pub framing: BodyFraming,
    /// The host and port of the header `Host`, if a port is stated.
    pub host: Option<(String, Option<u16>)>,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Two statements about the length of the body.
    #[error("the length of the body is stated twice")]
    Framing,
    /// A header line that parsers read differently.
    #[error("a header line is malformed")]
    Header,
    /// No host, several, or one that is none.
    #[error("the header `host` is missing, stands twice or names no host")]
    Host,
    /// A request line that parsers read differently.
    #[error("the request line is malformed")]
    Line,
    /// The head is too long.
    #[error(
        "the head is longer than {HTTP_HEAD_BYTES_MAX} bytes or has more than {HTTP_HEADERS_MAX} headers"
    )]
    TooLong,
    /// Another protocol than HTTP/1.
    #[error("the protocol is not HTTP/1.1")]
    Version,
}

impl Head {
    /// Returns the value of the only header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => std::str::from_utf8(value).ok(),
            _ => None,
        }
    }

    /// Tells whether a header of this name lists `word`, whatever its case.
    pub fn lists(&self, name: &str, word: &str) -> bool {
        let of_name = self.headers.iter().filter(|(known, _)| known == name);
        of_name
            .filter_map(|(_, value)| std::str::from_utf8(value).ok())
            .flat_map(|value| value.split(','))
            .any(|one| one.trim().eq_ignore_ascii_case(word))
    }
}

/// Reads a head from the front of `bytes`; `None` when its end has not come yet. Returns its length too.
///
/// # Errors
/// [`HeadError`]; the connection must then be closed, because nobody knows where the next request begins.
///
/// # Source
/// RFC 9112, sections 2 to 6, without what it tolerates: bare line feeds, folded lines, spaces before
/// the colon, a length twice.
pub fn read_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        if bytes.len() > HTTP_HEAD_BYTES_MAX {
            return Err(HeadError::TooLong);
        }
        return Ok(None);
    };
    if end > HTTP_HEAD_BYTES_MAX {
        return Err(HeadError::TooLong);
    }
    let text = bytes.get(..end).ok_or(HeadError::Line)?;
    let mut lines = text.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let (method, target, is_1_1) = request_line(first.strip_suffix(b"\r").unwrap_or(first))?;
    let mut headers = Vec::new();
    for line in lines {
        if headers.len() >= HTTP_HEADERS_MAX {
            return Err(HeadError::TooLong);
        }
        headers.push(header_line(line.strip_suffix(b"\r").unwrap_or(line))?);
    }
    // Every line but the last, which the blank line ended, must end in CR LF.
    let (feeds, pairs) = text
        .windows(2)
        .fold((0_usize, 0_usize), |(feeds, pairs), two| {
            let feed = usize::from(two.last() == Some(&b'\n'));
            let pair = usize::from(two == b"\r\n");
            (feeds.saturating_add(feed), pairs.saturating_add(pair))
        });
    if feeds != pairs || text.first() == Some(&b'\n') {
        return Err(HeadError::Header);
    }
    let framing = framing(&headers)?;
    let host = host(&headers, is_1_1)?;
    let head = Head {
        method,
        target,
        is_1_1,
        headers,
        framing,
        host,
    };
    Ok(Some((head, end.saturating_add(4))))
}

fn request_line(line: &[u8]) -> Result<(String, Target, bool), HeadError> {
    let line = std::str::from_utf8(line).map_err(|_| HeadError::Line)?;
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(HeadError::Line);
    };
    let is_1_1 = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ => return Err(HeadError::Version),
    };
    if !(1..=32).contains(&method.len()) || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(HeadError::Line);
    }
    if !target.bytes().all(|byte| (0x21..0x7f).contains(&byte)) || target.contains('#') {
        return Err(HeadError::Line);
    }
    Ok((method.to_owned(), read_target(method, target)?, is_1_1))
}

fn read_target(method: &str, target: &str) -> Result<Target, HeadError> {
    let split = |rest: &str| match rest.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (rest.to_owned(), None),
    };
    if method == "CONNECT" {
        let (host, port) = authority(target).ok_or(HeadError::Line)?;
        let port = port.ok_or(HeadError::Line)?;
        return Ok(Target::Authority { host, port });
    }
    if target.starts_with('/') {
        let (path, query) = split(target);
        return Ok(Target::Origin { path, query });
    }
    let (scheme, rest) = target.split_once("://").ok_or(HeadError::Line)?;
    let scheme = scheme.to_ascii_lowercase();
    let default = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return Err(HeadError::Line),
    };
    let cut = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, rest) = rest.split_at_checked(cut).ok_or(HeadError::Line)?;
    let (host, port) = authority(host).ok_or(HeadError::Line)?;
    let (path, query) = split(rest);
    let path = if path.is_empty() {
        "/".to_owned()
    } else {
        path
    };
    Ok(Target::Absolute {
        scheme,
        host,
        port: port.unwrap_or(default),
        path,
        query,
    })
}

/// Splits `host`, `host:port` or `[v6]:port`; user names and empty hosts are refused.
fn authority(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (format!("[{host}]"), rest)
        }
        None => {
            let cut = text.find(':').unwrap_or(text.len());
            let (host, rest) = text.split_at_checked(cut)?;
            let known =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            if host.is_empty() || host.len() > 253 || !host.bytes().all(known) {
                return None;
            }
            (host.to_owned(), rest)
        }
    };
    let port = match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse::<u16>().ok()?)
        }
        None if port.is_empty() => None,
        _ => return None,
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    (!host.is_empty() && port != Some(0)).then_some((host, port))
}

fn header_line(line: &[u8]) -> Result<(String, Vec<u8>), HeadError> {
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = line
        .split_at_checked(colon.ok_or(HeadError::Header)?)
        .ok_or(HeadError::Header)?;
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if name.is_empty() || !name.iter().all(token) {
        return Err(HeadError::Header);
    }
    let value = value.get(1..).unwrap_or_default();
    if !value
        .iter()
        .all(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f))
    {
        return Err(HeadError::Header);
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    Ok((name, value.trim_ascii().to_vec()))
}

fn framing(headers: &[(String, Vec<u8>)]) -> Result<BodyFraming, HeadError> {
    let of = |name: &str| {
        let name = name.to_owned();
        headers.iter().filter(move |(known, _)| *known == name)
    };
    let mut lengths = of("content-length");
    let mut codings = of("transfer-encoding");
    match (lengths.next(), codings.next()) {
        (None, None) => Ok(BodyFraming::Length(0)),
        (Some((_, length)), None) if lengths.next().is_none() => {
            let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(length).ok().filter(|_| digits);
            let length = length.and_then(|length| length.parse().ok());
            length.map(BodyFraming::Length).ok_or(HeadError::Framing)
        }
        (None, Some((_, coding)))
            if codings.next().is_none() && coding.eq_ignore_ascii_case(b"chunked") =>
        {
            Ok(BodyFraming::Chunked)
        }
        _ => Err(HeadError::Framing),
    }
}

fn host(
    headers: &[(String, Vec<u8>)],
    is_1_1: bool,
) -> Result<Option<(String, Option<u16>)>, HeadError> {
    let mut hosts = headers.iter().filter(|(name, _)| name == "host");
    match (hosts.next(), hosts.next()) {
        (Some((_, host)), None) => {
            let host = std::str::from_utf8(host).map_err(|_| HeadError::Host)?;
            authority(host).map(Some).ok_or(HeadError::Host)
        }
        (None, _) if !is_1_1 => Ok(None),
        _ => Err(HeadError::Host),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Head, HeadError> {
        read_head(text.as_bytes()).map(|found| found.unwrap().0)
    }

    fn with(headers: &str) -> Result<Head, HeadError> {
        read(&format!(
            "POST /graphql/v2?a=b HTTP/1.1\r\nHost: Api.Example.\r\n{headers}\r\n"
        ))
    }

    #[test]
    fn an_ordinary_request_is_read() {
        let head = with("Content-Length: 12\r\nAuthorization:  Bearer x \r\n").unwrap();
        assert_eq!(head.framing, BodyFraming::Length(12));
        assert_eq!(head.header("authorization"), Some("Bearer x"));
        assert_eq!(head.host, Some(("api.example".to_owned(), None)));
        let (path, query) = ("/graphql/v2".to_owned(), Some("a=b".to_owned()));
        assert_eq!(head.target, Target::Origin { path, query });
        assert_eq!(
            with("Transfer-Encoding: Chunked\r\n").unwrap().framing,
            BodyFraming::Chunked
        );
    }

    #[test]
    fn a_body_whose_length_is_stated_twice_is_refused() {
        for headers in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
        ] {
            assert_eq!(with(headers), Err(HeadError::Framing), "{headers:?}");
        }
    }

    #[test]
    fn what_parsers_read_differently_is_refused() {
        for (text, why) in [
            (
                "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
                HeadError::Header,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
                HeadError::Header,
            ),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", HeadError::Header),
            ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", HeadError::Header),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
                HeadError::Header,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
                HeadError::Header,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
                HeadError::Header,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
                HeadError::Host,
            ),
            ("GET / HTTP/1.1\r\nX: a\r\n\r\n", HeadError::Host),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", HeadError::Host),
            ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", HeadError::Host),
            ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", HeadError::Host),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", HeadError::Version),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::Line),
            ("get / HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::Line),
            ("GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::Line),
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::Line),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::Line),
            ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::Line),
            (
                "GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
                HeadError::Line,
            ),
            ("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::Line),
            ("CONNECT a:0 HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::Line),
            (
                "CONNECT [::1:443 HTTP/1.1\r\nHost: a\r\n\r\n",
                HeadError::Line,
            ),
        ] {
            assert_eq!(read(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn a_proxy_is_asked_in_both_forms() {
        let head =
            read("CONNECT Api.Example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n").unwrap();
        let host = "api.example".to_owned();
        assert_eq!(
            head.target,
            Target::Authority {
                host: host.clone(),
                port: 443
            }
        );
        let head = read("GET HTTP://api.example?q HTTP/1.1\r\nHost: api.example\r\n\r\n").unwrap();
        let (scheme, path, query) = ("http".to_owned(), "/".to_owned(), Some("q".to_owned()));
        assert_eq!(
            head.target,
            Target::Absolute {
                scheme,
                host,
                port: 80,
                path,
                query
            }
        );
    }

    #[test]
    fn a_head_without_end_is_waited_for_and_not_for_ever() {
        assert_eq!(read_head(b"GET / HTTP/1.1\r\nHost: a\r\n"), Ok(None));
        assert_eq!(
            read_head(&vec![b'a'; HTTP_HEAD_BYTES_MAX + 1]),
            Err(HeadError::TooLong)
        );
        let many = "X: y\r\n".repeat(HTTP_HEADERS_MAX + 1);
        assert_eq!(with(&many), Err(HeadError::TooLong));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _ = read_head(&bytes);
            let mut framed = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
            framed.extend(&bytes);
            framed.extend(b"\r\n\r\n");
            let _ = read_head(&framed);
        }
    }
}
