//! Statements of the door's own, in the extended protocol under names of their own.
//!
//! A simple query would destroy the client's unnamed statement; a name that stays could be replaced
//! by the client. So each statement is parsed, run and closed at once, and nothing of the client's
//! runs in between.

use bytes::{BufMut, BytesMut};

/// Writes `Parse`, `Bind`, `Execute` and two `Close` for one statement.
pub(super) fn write(sql: &str, number: u64, out: &mut BytesMut) {
    let name = format!("holdfast_{number}\0");
    let name = name.as_bytes();
    message(b'P', &[name, sql.as_bytes(), &[0, 0, 0]], out);
    // No parameter formats, no parameters, one result format: text.
    message(b'B', &[name, name, &[0, 0, 0, 0, 0, 1, 0, 0]], out);
    message(b'E', &[name, &[0, 0, 0, 0]], out);
    message(b'C', &[b"P", name], out);
    message(b'C', &[b"S", name], out);
}

/// Writes `Parse` and `Close` of a text that is not to be run.
pub(super) fn write_probe(text: &[u8], number: u64, out: &mut BytesMut) {
    let name = format!("holdfast_{number}\0");
    message(b'P', &[name.as_bytes(), text, &[0, 0, 0]], out);
    message(b'C', &[b"S", name.as_bytes()], out);
}

/// Writes `Close` of a statement of the client's.
pub(super) fn write_close(name: &[u8], out: &mut BytesMut) {
    message(b'C', &[b"S", name, &[0]], out);
}

/// Writes a `Query`.
pub(super) fn write_query(text: &[u8], out: &mut BytesMut) {
    message(b'Q', &[text, &[0]], out);
}

/// Writes `Sync`.
pub(super) fn write_sync(out: &mut BytesMut) {
    message(b'S', &[], out);
}

/// Writes `Flush`.
pub(super) fn write_flush(out: &mut BytesMut) {
    message(b'H', &[], out);
}

/// Writes any message from its parts.
pub(super) fn message(tag: u8, parts: &[&[u8]], out: &mut BytesMut) {
    let length = parts
        .iter()
        .fold(4_usize, |sum, part| sum.saturating_add(part.len()));
    out.put_u8(tag);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    for part in parts {
        out.put_slice(part);
    }
}
