//! Answers to simple queries and replication commands: rows, tags and errors, as text.

use std::fmt;

use bytes::Bytes;
use holdfast_core::Untrusted;

/// The most columns a row of ours may have.
pub const LIMIT_COLUMNS: usize = 256;

/// One value of a row in text form; `None` is SQL's NULL.
pub type Text = Option<Bytes>;

/// Why bytes are not an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Shorter than its own fields say.
    #[error("an answer of the server is cut off")]
    Short,
    /// More columns than [`LIMIT_COLUMNS`].
    #[error("an answer of the server has {0} columns")]
    Columns(usize),
}

/// An error or a notice as the server stated it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerMessage {
    /// Severity, never translated: `ERROR`, `FATAL`, `NOTICE`.
    pub severity: String,
    /// SQLSTATE, five characters.
    pub sqlstate: String,
    /// The primary text, in the server's language.
    pub message: String,
    /// More of it.
    pub detail: String,
    /// What the server suggests.
    pub hint: String,
}

impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({})",
            Untrusted(&self.message),
            Untrusted(&self.sqlstate)
        )
    }
}

impl std::error::Error for ServerMessage {}

/// Reads the fields of an `ErrorResponse` or `NoticeResponse`; what is malformed is left out.
///
/// # Source
/// <https://www.postgresql.org/docs/18/protocol-error-fields.html>
pub fn server_message(body: &[u8]) -> ServerMessage {
    let mut message = ServerMessage::default();
    for field in body.split(|byte| *byte == 0) {
        let Some((kind, text)) = field.split_first() else {
            break;
        };
        let text: String = String::from_utf8_lossy(text).chars().take(2_000).collect();
        match kind {
            b'V' => message.severity = text,
            b'C' => message.sqlstate = text,
            b'M' => message.message = text,
            b'D' => message.detail = text,
            b'H' => message.hint = text,
            _ => {}
        }
    }
    message
}

/// Reads the values of a `DataRow`.
///
/// # Errors
/// [`ReplyError`].
pub fn row(body: &Bytes) -> Result<Vec<Text>, ReplyError> {
    let count = count(body)?;
    let mut values = Vec::with_capacity(count);
    let mut at = 2_usize;
    for _ in 0..count {
        let length = body
            .get(at..)
            .and_then(|rest| rest.first_chunk::<4>())
            .map(|b| i32::from_be_bytes(*b))
            .ok_or(ReplyError::Short)?;
        at = at.saturating_add(4);
        let Ok(length) = usize::try_from(length) else {
            values.push(None);
            continue;
        };
        let end = at.saturating_add(length);
        if end > body.len() {
            return Err(ReplyError::Short);
        }
        values.push(Some(body.slice(at..end)));
        at = end;
    }
    Ok(values)
}

/// Reads the column names of a `RowDescription`.
///
/// # Errors
/// [`ReplyError`].
pub fn columns(body: &[u8]) -> Result<Vec<String>, ReplyError> {
    let count = count(body)?;
    let mut names = Vec::with_capacity(count);
    let mut rest = body.get(2..).ok_or(ReplyError::Short)?;
    for _ in 0..count {
        let end = rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(ReplyError::Short)?;
        let (name, tail) = rest.split_at_checked(end).ok_or(ReplyError::Short)?;
        names.push(String::from_utf8_lossy(name).into_owned());
        rest = tail.get(1 + 18..).ok_or(ReplyError::Short)?;
    }
    Ok(names)
}

/// Reads the tag of a `CommandComplete`.
pub fn command_tag(body: &[u8]) -> String {
    let tag = body.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(tag).chars().take(100).collect()
}

fn count(body: &[u8]) -> Result<usize, ReplyError> {
    let count = body
        .first_chunk::<2>()
        .map(|b| usize::from(u16::from_be_bytes(*b)))
        .ok_or(ReplyError::Short)?;
    if count > LIMIT_COLUMNS {
        return Err(ReplyError::Columns(count));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_with_nulls_are_read_and_cut_ones_refused() {
        let body = Bytes::from_static(b"\0\x02\0\0\0\x01a\xff\xff\xff\xff");
        assert_eq!(row(&body), Ok(vec![Some(Bytes::from_static(b"a")), None]));
        for cut in 0..body.len() {
            assert_eq!(row(&body.slice(..cut)), Err(ReplyError::Short), "{cut}");
        }
        assert_eq!(
            row(&Bytes::from_static(b"\xff\xff")),
            Err(ReplyError::Columns(65_535))
        );
    }

    #[test]
    fn an_error_keeps_code_and_text_and_cannot_forge_lines() {
        let message = server_message(b"SFEHLER\0VERROR\0C42501\0Mkeine\nRechte\0\0");
        assert_eq!(
            (message.severity.as_str(), message.sqlstate.as_str()),
            ("ERROR", "42501")
        );
        assert_eq!(message.to_string(), r"keine\u{a}Rechte (42501)");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = row(&Bytes::from(bytes.clone()));
            let _ = columns(&bytes);
            let _ = server_message(&bytes);
            let _ = command_tag(&bytes);
        }
    }
}
