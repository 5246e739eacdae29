//! The provider's answer on its way to the agent, and what it says about how the action ended.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::exchange::{Door, ProviderAnswer};
use super::headers::is_hop_by_hop;
use super::upstream::Line;
use crate::decide::Outcome;
use crate::limits::{HTTP_ANSWER_READ_BYTES_MAX, HTTP_PIECE_WAITS_MAX};

/// The first pieces of an answer, looked into before the agent gets them.
#[derive(Default)]
pub(super) struct Beginning {
    pub pieces: Vec<Bytes>,
    pub is_whole: bool,
    pub is_broken: bool,
}

/// Reads the beginning of an answer, as much as is looked into.
pub(super) async fn beginning(body: &mut Incoming, line: &mut Line) -> Beginning {
    let mut begun = Beginning::default();
    let mut length = 0_usize;
    while length < HTTP_ANSWER_READ_BYTES_MAX {
        match piece(body, line).await {
            Ok(Some(bytes)) => {
                length = length.saturating_add(bytes.len());
                begun.pieces.push(bytes);
            }
            Ok(None) => {
                begun.is_whole = true;
                break;
            }
            Err(()) => {
                begun.is_broken = true;
                break;
            }
        }
    }
    begun
}

async fn piece(body: &mut Incoming, line: &mut Line) -> Result<Option<Bytes>, ()> {
    loop {
        match timeout(HTTP_PIECE_WAITS_MAX, line.drive(body.frame())).await {
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Ok(Some(bytes)),
                Err(_trailers) => {}
            },
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) | Err(_) => return Err(()),
        }
    }
}

/// Tells how an action ended by the provider's answer: what is not clear counts as done or unknown.
pub(super) fn outcome(status: u16, begun: &Beginning) -> (Outcome, String) {
    let detail = format!("the provider answered with status {status}");
    if begun.is_broken {
        return (
            Outcome::Unknown,
            format!("{detail}, and the answer broke off"),
        );
    }
    match status {
        200..400 if says_nothing_was_done(begun) => {
            (Outcome::NotDone, format!("{detail} and errors only"))
        }
        200..400 => (Outcome::Done, detail),
        400..500 => (Outcome::NotDone, detail),
        _ => (Outcome::Unknown, detail),
    }
}

/// GraphQL: errors, and no data at all.
fn says_nothing_was_done(begun: &Beginning) -> bool {
    if !begun.is_whole {
        return false;
    }
    let text: Vec<u8> = begun.pieces.concat();
    let Ok(serde_json::Value::Object(answer)) = serde_json::from_slice(&text) else {
        return false;
    };
    let errors = answer.get("errors").and_then(serde_json::Value::as_array);
    let no_data = answer.get("data").is_none_or(serde_json::Value::is_null);
    errors.is_some_and(|errors| !errors.is_empty()) && no_data
}

/// Writes an answer to the agent; returns whether the agent's connection can go on.
pub(super) async fn relay<S: AsyncWrite + Unpin>(
    door: &Door,
    answer: ProviderAnswer,
    to: &mut S,
    (head_only, is_1_1, close): (bool, bool, bool),
) -> bool {
    let ProviderAnswer {
        response,
        begun,
        line: mut upstream,
        destination,
    } = answer;
    let (parts, mut body) = response.into_parts();
    let status = parts.status.as_u16();
    let bodiless = head_only || status == 204 || status == 304 || status < 200;
    let length = parts.headers.get(CONTENT_LENGTH).cloned();
    let chunked = !bodiless && length.is_none() && is_1_1;
    let keep = !close && (bodiless || chunked || length.is_some());
    let mut head = format!("HTTP/1.1 {}\r\n", parts.status).into_bytes();
    for (name, value) in &parts.headers {
        if !is_hop_by_hop(name.as_str()) && *name != CONTENT_LENGTH {
            line(&mut head, name, value.as_bytes());
        }
    }
    if let Some(length) = &length {
        line(&mut head, &CONTENT_LENGTH, length.as_bytes());
    } else if chunked {
        line(&mut head, &TRANSFER_ENCODING, b"chunked");
    }
    let word: &[u8] = if keep { b"keep-alive" } else { b"close" };
    line(&mut head, &hyper::header::CONNECTION, word);
    head.extend(b"\r\n");

    let mut pieces = begun.pieces.into_iter();
    let mut ended = begun.is_whole;
    let mut out = head;
    loop {
        let next = match pieces.next() {
            Some(bytes) => Some(bytes),
            None if ended => None,
            None => match piece(&mut body, &mut upstream).await {
                Ok(next) => next,
                // The agent must see that the answer is cut: the connection closes without its end.
                Err(()) => return false,
            },
        };
        match &next {
            Some(bytes) if chunked => {
                out.extend(format!("{:x}\r\n", bytes.len()).bytes());
                out.extend(bytes);
                out.extend(b"\r\n");
            }
            Some(bytes) if !bodiless => out.extend(bytes),
            Some(_) => {}
            None => {
                ended = true;
                if chunked {
                    out.extend(b"0\r\n\r\n");
                }
            }
        }
        let last = next.is_none();
        if write(to, &out, HTTP_PIECE_WAITS_MAX).await.is_err() {
            return false;
        }
        out.clear();
        if last {
            break;
        }
    }
    door.upstreams.give_back(&destination, upstream);
    keep
}

fn line(head: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    head.extend(name.as_str().bytes());
    head.extend(b": ");
    head.extend(value);
    head.extend(b"\r\n");
}

async fn write<S: AsyncWrite + Unpin>(to: &mut S, bytes: &[u8], wait: Duration) -> Result<(), ()> {
    let writing = async {
        to.write_all(bytes).await?;
        to.flush().await
    };
    match timeout(wait, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}
