//! Requests to an object storage: signed, with a deadline, read to a limit, tried again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use data_encoding::BASE64;
use holdfast_core::Timestamp;
use ureq::http::{HeaderMap, Request as HttpRequest};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

use super::sign::{self, Credentials, Unsigned};
use super::xml::Element;
use super::{S3Error, S3Location};
use crate::limits;

/// Deadlines and retries; the defaults are in `limits.rs`.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a request may take, besides the time its bytes need at the slowest rate.
    pub request: Duration,
    /// How often a request is tried.
    pub tries: u32,
    /// The pause before the second try; it doubles with each.
    pub pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            request: limits::S3_REQUEST,
            tries: limits::S3_TRIES,
            pause: limits::S3_PAUSE,
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// What an error calls it: `to store an object`.
    pub step: &'static str,
    /// `GET`, `HEAD`, `PUT`, `POST` or `DELETE`.
    pub method: &'static str,
    /// The name in the bucket; empty for the bucket itself.
    pub name: &'a str,
    /// The query, not escaped.
    pub query: Vec<(&'static str, String)>,
    /// Headers besides those that every request has.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: &'a [u8],
    /// The longest answer that is read, in bytes.
    pub limit: u64,
}

impl<'a> Request<'a> {
    /// Asks for an object or, with an empty name, for the bucket.
    pub fn new(step: &'static str, method: &'static str, name: &'a str) -> Self {
        Self {
            step,
            method,
            name,
            query: Vec::new(),
            headers: Vec::new(),
            body: &[],
            limit: limits::S3_ANSWER_BYTES,
        }
    }

    /// Adds to the query.
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sends a body, and its checksum in a header of its own.
    pub fn body(self, body: &'a [u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body);
        let mut request = self
            .header("x-amz-checksum-sha256", BASE64.encode(digest.as_ref()))
            .header("x-amz-sdk-checksum-algorithm", "SHA256");
        request.body = body;
        request
    }
}

/// What came back, with a status below 300.
#[derive(Debug)]
pub struct Answer {
    headers: HeaderMap,
    /// The body, whole.
    pub body: Vec<u8>,
    /// The status.
    pub status: u16,
}

impl Answer {
    /// Returns a header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A connection pool to one bucket; shared by all threads.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    location: S3Location,
    credentials: Mutex<Arc<Credentials>>,
    clock: Mutex<Option<(Instant, Timestamp)>>,
}

impl Client {
    /// Prepares to ask; nothing is sent.
    ///
    /// # Errors
    /// [`S3Error::Credentials`] when they cannot be read, [`S3Error::Location`] for a bad certificate.
    pub fn new(location: &S3Location) -> Result<Self, S3Error> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .no_delay(true)
            .user_agent("holdfast")
            .max_response_header_size(limits::S3_HEAD_BYTES)
            .max_idle_connections(limits::S3_CONNECTIONS)
            .max_idle_connections_per_host(limits::S3_CONNECTIONS)
            .max_idle_age(limits::S3_IDLE)
            .timeout_connect(Some(limits::S3_CONNECT.min(location.timing.request)))
            .tls_config(tls(location)?)
            .build();
        let client = Self {
            agent: ureq::Agent::new_with_config(config),
            location: location.clone(),
            credentials: Mutex::new(Arc::new(read_credentials(location)?)),
            clock: Mutex::new(None),
        };
        Ok(client)
    }

    /// Returns where it asks.
    pub fn location(&self) -> &S3Location {
        &self.location
    }

    /// Returns how an error names the storage.
    pub fn place(&self) -> String {
        self.location.place()
    }

    /// Asks; tries again what is transient. Only for requests that may be performed twice.
    ///
    /// # Errors
    /// The last try's.
    pub fn send(&self, request: &Request<'_>) -> Result<Answer, S3Error> {
        let mut tried = 0;
        loop {
            match self.send_once(request) {
                Err(error) if error.is_transient() => {
                    tried += 1;
                    if tried >= self.location.timing.tries {
                        return Err(error);
                    }
                    self.pause(tried);
                }
                done => return done,
            }
        }
    }

    /// Waits before the next try, longer each time and not in step with others.
    pub fn pause(&self, tried: u32) {
        let doubled = self.location.timing.pause * 2_u32.saturating_pow(tried.saturating_sub(1));
        let longest = doubled.min(limits::S3_PAUSE_MAX);
        let nanos = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.subsec_nanos() % 512);
        std::thread::sleep(longest / 2 + longest * nanos / 1024);
    }

    /// Asks once; renewed credentials and a corrected clock are not a second try.
    ///
    /// # Errors
    /// [`S3Error`].
    pub fn send_once(&self, request: &Request<'_>) -> Result<Answer, S3Error> {
        match self.exchange(request) {
            Err(S3Error::Credentials { place, why }) => {
                let renewed = Arc::new(read_credentials(&self.location)?);
                let mut kept = lock(&self.credentials);
                if *kept == renewed {
                    return Err(S3Error::Credentials { place, why });
                }
                *kept = renewed;
                drop(kept);
                self.exchange(request)
            }
            // The answer's own date has set the clock.
            Err(S3Error::Answered { code, .. }) if code == "RequestTimeTooSkewed" => {
                self.exchange(request)
            }
            done => done,
        }
    }

    /// Returns the storage's time as it is known from its last answer, or this machine's before that.
    pub fn known_time(&self) -> Timestamp {
        let known = *lock(&self.clock);
        known.map_or_else(
            || SystemTime::now().into(),
            |(then, time)| time.plus(then.elapsed()),
        )
    }

    /// Returns the storage's time, asking for it when the last answer is too old.
    ///
    /// # Errors
    /// When the storage does not answer or states no date.
    pub fn time(&self) -> Result<Timestamp, S3Error> {
        let is_fresh = |known: &Option<(Instant, Timestamp)>| {
            known.is_some_and(|(then, _)| then.elapsed() < limits::S3_CLOCK_AGE)
        };
        if !is_fresh(&lock(&self.clock)) {
            // What it answers does not matter, only when.
            let asked = self.send(&Request::new("tell the time", "HEAD", ""));
            if !is_fresh(&lock(&self.clock)) {
                asked?;
                return Err(self.cut("tell the time", "it states no date"));
            }
        }
        Ok(self.known_time())
    }

    /// Makes the error of an answer that is another than asked for.
    pub fn cut(&self, step: &'static str, why: impl Into<String>) -> S3Error {
        S3Error::Cut {
            place: self.place(),
            step,
            why: why.into(),
        }
    }

    fn exchange(&self, request: &Request<'_>) -> Result<Answer, S3Error> {
        let (http, deadline) = self.signed(request)?;
        let answer = if request.body.is_empty() && request.method != "PUT" {
            let http = http.body(()).map_err(|error| self.unsendable(&error))?;
            let http = self.agent.configure_request(http);
            self.agent.run(http.timeout_global(Some(deadline)).build())
        } else {
            let http = http
                .body(request.body)
                .map_err(|error| self.unsendable(&error))?;
            let http = self.agent.configure_request(http);
            self.agent.run(http.timeout_global(Some(deadline)).build())
        };
        let answer = answer.map_err(|error| self.trouble(request.step, deadline, error))?;
        let (parts, body) = answer.into_parts();
        self.set_clock(&parts.headers);
        let stated = parts
            .headers
            .get("content-length")
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let body = if request.method == "HEAD" {
            Vec::new()
        } else {
            self.read(request, deadline, body)?
        };
        let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
        if request.method != "HEAD" && stated.is_some_and(|stated| stated != length) {
            return Err(self.cut(request.step, format!("it ended after {length} bytes")));
        }
        let answer = Answer {
            headers: parts.headers,
            body,
            status: parts.status.as_u16(),
        };
        self.judge(request.step, answer)
    }

    /// Builds the request with its signature, and says how long it may take.
    fn signed(
        &self,
        request: &Request<'_>,
    ) -> Result<(ureq::http::request::Builder, Duration), S3Error> {
        let (scheme, authority) = self.location.origin();
        let path = self.location.path(request.name);
        let mut pairs: Vec<(String, String)> = request
            .query
            .iter()
            .map(|(name, value)| (sign::escape(name), sign::escape(value)))
            .collect();
        pairs.sort();
        let pairs: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let query = pairs.join("&");
        let mut headers = vec![("host".to_owned(), authority.clone())];
        for (name, value) in &request.headers {
            headers.push(((*name).to_owned(), value.clone()));
        }
        let credentials = Arc::clone(&lock(&self.credentials));
        let body_sha256 = sign::sha256_hex(request.body);
        let unsigned = Unsigned {
            method: request.method,
            path: &path,
            query: &query,
            headers: &headers,
            body_sha256: &body_sha256,
        };
        let region = &self.location.region;
        let added = sign::sign(&unsigned, &credentials, region, self.known_time());
        let uri = match query.as_str() {
            "" => format!("{scheme}://{authority}{path}"),
            query => format!("{scheme}://{authority}{path}?{query}"),
        };
        let mut http = HttpRequest::builder().method(request.method).uri(uri);
        for (name, value) in headers.iter().skip(1).chain(&added) {
            http = http.header(name, value);
        }
        let sent = u64::try_from(request.body.len()).unwrap_or(u64::MAX);
        let bytes = request.limit.max(sent);
        let seconds = bytes / limits::S3_BYTES_PER_S_MIN;
        let deadline = self
            .location
            .timing
            .request
            .saturating_add(Duration::from_secs(seconds));
        Ok((http, deadline))
    }

    fn read(
        &self,
        request: &Request<'_>,
        deadline: Duration,
        mut body: ureq::Body,
    ) -> Result<Vec<u8>, S3Error> {
        // An answer that is an error has words of its own, even where few bytes were asked for.
        let limit = request.limit.max(limits::S3_ERROR_BYTES);
        let read = body
            .with_config()
            .limit(limit.saturating_add(1))
            .read_to_vec();
        let bytes = read.map_err(|error| self.trouble(request.step, deadline, error))?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
            return Err(self.cut(request.step, format!("it is longer than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// Turns an answer that is an error into one.
    fn judge(&self, step: &'static str, answer: Answer) -> Result<Answer, S3Error> {
        let (place, status) = (self.place(), answer.status);
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        if (300..400).contains(&status) {
            let to = answer.header("location").unwrap_or("another place");
            return Err(S3Error::Location {
                place,
                why: format!(
                    "it redirects to `{}`; name that endpoint and its region",
                    holdfast_core::Untrusted(to)
                ),
            });
        }
        let told = Element::read(&answer.body).unwrap_or_default();
        let (code, message) = (told.text_of("Code"), told.text_of("Message"));
        let words = |text: &str| text.chars().take(limits::S3_WORDS).collect::<String>();
        let refused = |why: &str| S3Error::Credentials {
            place: place.clone(),
            why: words(why),
        };
        Err(match (status, code) {
            (
                _,
                "ExpiredToken"
                | "InvalidAccessKeyId"
                | "InvalidToken"
                | "SignatureDoesNotMatch"
                | "TokenRefreshRequired",
            ) => refused(code),
            (401, _) => refused("it answered 401"),
            (_, "RequestTimeTooSkewed") => S3Error::Answered {
                place,
                step,
                status,
                code: words(code),
                message: words(message),
            },
            (403, _) => S3Error::Denied {
                place,
                step,
                message: words(if message.is_empty() { "403" } else { message }),
            },
            (_, "NoSuchBucket") => S3Error::Location {
                place,
                why: "there is no such bucket".to_owned(),
            },
            (_, "AuthorizationHeaderMalformed" | "PermanentRedirect") => S3Error::Location {
                place,
                why: format!("the bucket is in another region: {}", words(message)),
            },
            _ => S3Error::Answered {
                place,
                step,
                status,
                code: words(code),
                message: words(message),
            },
        })
    }

    fn set_clock(&self, headers: &HeaderMap) {
        let date = headers.get("date").and_then(|value| value.to_str().ok());
        if let Some(Ok(time)) = date.map(httpdate::parse_http_date) {
            *lock(&self.clock) = Some((Instant::now(), time.into()));
        }
    }

    fn unsendable(&self, error: &ureq::http::Error) -> S3Error {
        S3Error::Location {
            place: self.place(),
            why: error.to_string(),
        }
    }

    fn trouble(&self, step: &'static str, within: Duration, error: ureq::Error) -> S3Error {
        let place = self.place();
        match error {
            ureq::Error::Timeout(_) => S3Error::Timeout {
                place,
                step,
                within,
            },
            ureq::Error::Io(error)
                if error.kind() == std::io::ErrorKind::TimedOut
                    || error.kind() == std::io::ErrorKind::WouldBlock =>
            {
                S3Error::Timeout {
                    place,
                    step,
                    within,
                }
            }
            ureq::Error::Io(error)
                if !matches!(
                    error.kind(),
                    std::io::ErrorKind::UnexpectedEof
                        | std::io::ErrorKind::ConnectionReset
                        | std::io::ErrorKind::ConnectionAborted
                        | std::io::ErrorKind::BrokenPipe
                ) =>
            {
                S3Error::Unreachable {
                    place,
                    why: error.to_string(),
                }
            }
            error @ (ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Rustls(_)
            | ureq::Error::Tls(_)) => S3Error::Unreachable {
                place,
                why: error.to_string(),
            },
            error => S3Error::Cut {
                place,
                step,
                why: error.to_string(),
            },
        }
    }
}

fn read_credentials(location: &S3Location) -> Result<Credentials, S3Error> {
    location
        .credentials
        .read()
        .map_err(|why| S3Error::Credentials {
            place: location.bucket.to_string(),
            why,
        })
}

fn tls(location: &S3Location) -> Result<TlsConfig, S3Error> {
    let refused = |why: &str| S3Error::Location {
        place: location.bucket.to_string(),
        why: why.to_owned(),
    };
    let roots: Vec<Certificate<'static>> = match &location.authority_pem {
        Some(pem) => ureq::tls::parse_pem(pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect(),
        None => rustls_native_certs::load_native_certs()
            .certs
            .iter()
            .map(|certificate| Certificate::from_der(certificate).to_owned())
            .collect(),
    };
    let is_needed = location.endpoint.to_string().starts_with("https:");
    if roots.is_empty() && is_needed {
        return Err(refused("there is no certificate authority to trust"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::from(roots))
        .unversioned_rustls_crypto_provider(provider)
        .build())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
