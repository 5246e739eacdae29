//! Requests to the storage as anybody with a key could send them, signed without the product's code.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::ObjectStorage;

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The head as text, in lower case.
    pub head: String,
    /// The body as text.
    pub body: String,
    /// The body, not decoded.
    pub bytes: Vec<u8>,
}

impl Reply {
    /// Returns the value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines();
        let found = lines.filter_map(|line| line.split_once(": "));
        let mut found = found.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.trim().to_owned())
    }
}

/// A request: `PUT /bucket/key?query`, its headers in lower case, its body.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Whose key signs it.
    pub key: &'a str,
    /// The method.
    pub method: &'a str,
    /// `/bucket` or `/bucket/key`.
    pub path: &'a str,
    /// The query in order and escaped, such as `versionId=x`.
    pub query: &'a str,
    /// More headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Ask<'a> {
    /// Begins a request of the owner of all buckets.
    #[must_use]
    pub fn owner(method: &'a str, path: &'a str) -> Self {
        Self {
            key: ObjectStorage::OWNER,
            method,
            path,
            query: "",
            headers: &[],
            body: b"",
        }
    }
}

impl ObjectStorage {
    /// Sends one request.
    ///
    /// # Errors
    /// When there is no answer at all; an answer that is an error is a reply.
    pub fn ask(&self, ask: &Ask<'_>) -> Result<Reply> {
        let mut stream = TcpStream::connect(self.address()).context("connect")?;
        let (time, day) = stamp()?;
        let host = self.address().to_string();
        let digest = hex(&Sha256::digest(ask.body));
        let mut headers: Vec<(String, String)> = vec![
            ("host".to_owned(), host),
            ("x-amz-content-sha256".to_owned(), digest.clone()),
            ("x-amz-date".to_owned(), time.clone()),
        ];
        let more = ask.headers.iter();
        headers.extend(more.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        headers.sort();
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let lines: String = headers.iter().map(|(n, v)| format!("{n}:{v}\n")).collect();
        let canonical = format!(
            "{}\n{}\n{}\n{lines}\n{names}\n{digest}",
            ask.method, ask.path, ask.query
        );
        let scope = format!("{day}/us-east-1/s3/aws4_request");
        let hashed = hex(&Sha256::digest(canonical.as_bytes()));
        let mut key = format!("AWS4{}", Self::SECRET).into_bytes();
        for part in [day.as_str(), "us-east-1", "s3", "aws4_request"] {
            key = mac(&key, part)?;
        }
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashed}");
        let signature = hex(&mac(&key, &text)?);
        let lines: String = headers
            .iter()
            .map(|(n, v)| format!("{n}: {v}\r\n"))
            .collect();
        let query = match ask.query {
            "" => String::new(),
            query => format!("?{query}"),
        };
        let head = format!(
            "{} {}{query} HTTP/1.1\r\n{lines}authorization: AWS4-HMAC-SHA256 \
             Credential={}/{scope},SignedHeaders={names},Signature={signature}\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            ask.method,
            ask.path,
            ask.key,
            ask.body.len()
        );
        stream.write_all(head.as_bytes()).context("send")?;
        stream.write_all(ask.body).context("send the body")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).context("read the answer")?;
        let at = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let (head, bytes) = answer.split_at(at.context("no answer")?);
        let (head, bytes) = (String::from_utf8_lossy(head).into_owned(), bytes.get(4..));
        let bytes = bytes.unwrap_or_default().to_vec();
        let status = head.split(' ').nth(1).context("no status")?;
        Ok(Reply {
            status: status.parse().context("no status")?,
            head,
            body: String::from_utf8_lossy(&bytes).into_owned(),
            bytes,
        })
    }
}

fn mac(key: &[u8], text: &str) -> Result<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).context("use a key")?;
    mac.update(text.as_bytes());
    Ok(mac.finalize().into_bytes().to_vec())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The time as `20130524T000000Z`, and its day.
fn stamp() -> Result<(String, String)> {
    let (date, time) = moment(Duration::ZERO)?;
    let date = date.replace('-', "");
    Ok((format!("{date}T{}Z", time.replace(':', "")), date))
}

/// The date and the time of day, some time from now: `2013-05-24` and `00:00:00`.
pub(super) fn moment(from_now: Duration) -> Result<(String, String)> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let now = now.saturating_add(from_now).as_secs();
    let (days, second) = (now / 86_400, now % 86_400);
    // Days to a date of the proleptic Gregorian calendar: eras of 400 years begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    Ok((
        format!("{year:04}-{month:02}-{day:02}"),
        format!("{hour:02}:{minute:02}:{:02}", second % 60),
    ))
}
