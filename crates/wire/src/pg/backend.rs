//! Messages of a server: the few that a guard writes itself, and the few whose fields it must know.

/// An error as a client is told.
#[derive(Clone, Copy, Debug)]
pub struct ErrorFields<'a> {
    /// The session ends with it.
    pub is_fatal: bool,
    /// SQLSTATE.
    pub code: &'a str,
    /// What happened and what did not.
    pub message: &'a str,
    /// What to do; empty for nothing.
    pub hint: &'a str,
}

/// Writes an `ErrorResponse`.
///
/// # Source
/// <https://www.postgresql.org/docs/18/protocol-error-fields.html>
pub fn write_error(fields: ErrorFields<'_>, out: &mut Vec<u8>) {
    let severity = if fields.is_fatal { "FATAL" } else { "ERROR" };
    let mut body = Vec::new();
    for (kind, text) in [
        (b'S', severity),
        (b'V', severity),
        (b'C', fields.code),
        (b'M', fields.message),
        (b'H', fields.hint),
    ] {
        if !text.is_empty() {
            body.push(kind);
            body.extend(text.bytes().filter(|byte| *byte != 0));
            body.push(0);
        }
    }
    body.push(0);
    write_message(b'E', &body, out);
}

/// Writes a `ReadyForQuery` with the state of the transaction: `I`, `T` or `E`.
pub fn write_ready(status: u8, out: &mut Vec<u8>) {
    write_message(b'Z', &[status], out);
}

/// Writes any message.
pub fn write_message(tag: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    let length = u32::try_from(body.len().saturating_add(4)).unwrap_or(u32::MAX);
    out.extend(length.to_be_bytes());
    out.extend(body);
}

/// Writes `NegotiateProtocolVersion`: the newest minor version that is spoken, and what is not known.
///
/// # Source
/// <https://www.postgresql.org/docs/18/protocol-message-formats.html>
pub fn write_negotiation(minor: u32, unknown: &[&[u8]], out: &mut Vec<u8>) {
    let mut body = minor.to_be_bytes().to_vec();
    body.extend(u32::try_from(unknown.len()).unwrap_or(0).to_be_bytes());
    for name in unknown {
        body.extend(*name);
        body.push(0);
    }
    write_message(b'v', &body, out);
}

/// Reads a `ParameterStatus`: name and value.
pub fn parameter(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut fields = body.split(|byte| *byte == 0);
    let name = fields.next()?;
    let value = fields.next()?;
    fields.next().map(|_| (name, value))
}

/// Reads a `BackendKeyData`: the process and its secret.
pub fn key(body: &[u8]) -> Option<(u32, &[u8])> {
    let (process, secret) = body.split_first_chunk::<4>()?;
    (!secret.is_empty()).then(|| (u32::from_be_bytes(*process), secret))
}

/// Reads one field of an `ErrorResponse`.
pub fn error_field(body: &[u8], wanted: u8) -> Option<&[u8]> {
    body.split(|byte| *byte == 0)
        .take_while(|field| !field.is_empty())
        .find_map(|field| match field.split_first() {
            Some((kind, text)) if *kind == wanted => Some(text),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pg::replication::server_message;

    #[test]
    fn an_error_is_read_back_as_it_was_written() {
        let mut out = Vec::new();
        let fields = ErrorFields {
            is_fatal: false,
            code: "ZH001",
            message: "held\0 for approval",
            hint: "wait",
        };
        write_error(fields, &mut out);
        let read = server_message(&out[5..]);
        assert_eq!(
            (
                read.sqlstate.as_str(),
                read.message.as_str(),
                read.hint.as_str()
            ),
            ("ZH001", "held for approval", "wait")
        );
        assert_eq!(error_field(&out[5..], b'C'), Some(&b"ZH001"[..]));
        assert_eq!(error_field(&out[5..], b'P'), None);
    }

    #[test]
    fn fields_are_read_and_cut_ones_refused() {
        assert_eq!(parameter(b"a\0b\0"), Some((&b"a"[..], &b"b"[..])));
        assert_eq!(parameter(b"a\0b"), None);
        assert_eq!(key(b"\0\0\0\x07abcd"), Some((7, &b"abcd"[..])));
        assert_eq!(key(b"\0\0\0\x07"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = parameter(&bytes);
            let _ = key(&bytes);
            let _ = error_field(&bytes, b'C');
        }
    }
}
