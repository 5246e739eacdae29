//! Messages of a client: where each ends, and the few fields that a guard must know.

/// What stands in front of every message after the start of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What kind of message it is, an ASCII letter.
    pub tag: u8,
    /// Bytes of the whole message, this header included.
    pub total: usize,
}

/// Bytes of a header.
pub const HEADER_BYTES: usize = 5;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The length is below its own size or above the limit.
    #[error("a message states {bytes} bytes, and 4 to {limit} are possible")]
    Length {
        /// The length that it states.
        bytes: u32,
        /// The most that is taken.
        limit: usize,
    },
    /// Fields end before they should, or have no end.
    #[error("a message of the kind `{}` is cut off or malformed", char::from(*tag).escape_default())]
    Malformed {
        /// The kind.
        tag: u8,
    },
}

/// Reads the header at the front of `bytes`, or returns `None` while it is not complete.
///
/// # Shape
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 1 | tag, ASCII |
/// | 1 | 4 | length, big-endian, counts itself, 4..=`limit` |
///
/// # Errors
/// [`MessageError::Length`]; the session must close.
///
/// # Source
/// <https://www.postgresql.org/docs/18/protocol-message-formats.html>
pub fn header(bytes: &[u8], limit: usize) -> Result<Option<Header>, MessageError> {
    let Some((tag, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let Some(length) = rest.first_chunk::<4>() else {
        return Ok(None);
    };
    let stated = u32::from_be_bytes(*length);
    let bad = MessageError::Length {
        bytes: stated,
        limit,
    };
    match usize::try_from(stated) {
        Ok(length) if (4..=limit).contains(&length) => Ok(Some(Header {
            tag: *tag,
            total: length.saturating_add(1),
        })),
        _ => Err(bad),
    }
}

/// `Parse`: a text gets a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The name; empty for the unnamed statement.
    pub name: &'a [u8],
    /// The text.
    pub text: &'a [u8],
    /// The parameter types, as they stand in the message.
    pub types: &'a [u8],
}

/// `Bind`: a statement gets its parameters and becomes a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The statement.
    pub statement: &'a [u8],
    /// Formats and parameters, as they stand in the message.
    pub parameters: &'a [u8],
}

/// `Describe` or `Close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// It is about a statement, not a portal.
    pub is_statement: bool,
    /// Which one.
    pub name: &'a [u8],
}

/// `FunctionCall`: a function is called by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionCall<'a> {
    /// The number of the function.
    pub function: u32,
    /// How many arguments it gets.
    pub count: u16,
    /// Formats and arguments, as they would stand in a `Bind`.
    pub arguments: &'a [u8],
    /// The format of the result.
    pub format: u16,
}

/// Reads the body of a `Query`: its text.
///
/// # Errors
/// [`MessageError::Malformed`] when it does not end with its only zero byte.
pub fn query(body: &[u8]) -> Result<&[u8], MessageError> {
    let (text, rest) = text(b'Q', body)?;
    if rest.is_empty() {
        Ok(text)
    } else {
        Err(MessageError::Malformed { tag: b'Q' })
    }
}

/// Reads the body of a `Parse`.
///
/// # Errors
/// [`MessageError::Malformed`].
pub fn parse(body: &[u8]) -> Result<Parse<'_>, MessageError> {
    let (name, rest) = text(b'P', body)?;
    let (text, types) = text(b'P', rest)?;
    Ok(Parse { name, text, types })
}

/// Reads the body of a `Bind`.
///
/// # Errors
/// [`MessageError::Malformed`].
pub fn bind(body: &[u8]) -> Result<Bind<'_>, MessageError> {
    let (portal, rest) = text(b'B', body)?;
    let (statement, parameters) = text(b'B', rest)?;
    Ok(Bind {
        portal,
        statement,
        parameters,
    })
}

/// Reads the body of an `Execute`: the portal and the most rows, zero for all.
///
/// # Errors
/// [`MessageError::Malformed`].
pub fn execute(body: &[u8]) -> Result<(&[u8], u32), MessageError> {
    let (portal, rest) = text(b'E', body)?;
    match <[u8; 4]>::try_from(rest) {
        Ok(rows) => Ok((portal, u32::from_be_bytes(rows))),
        Err(_) => Err(MessageError::Malformed { tag: b'E' }),
    }
}

/// Reads the body of a `Describe` or `Close`, whose `tag` is only for the error.
///
/// # Errors
/// [`MessageError::Malformed`].
pub fn named(tag: u8, body: &[u8]) -> Result<Named<'_>, MessageError> {
    let malformed = MessageError::Malformed { tag };
    let (kind, rest) = body.split_first().ok_or_else(|| malformed.clone())?;
    let (name, rest) = text(tag, rest)?;
    let is_statement = match kind {
        b'S' => true,
        b'P' => false,
        _ => return Err(malformed),
    };
    if rest.is_empty() {
        Ok(Named { is_statement, name })
    } else {
        Err(malformed)
    }
}

/// Reads the body of a `FunctionCall`.
///
/// # Shape
/// | bytes | field |
/// |---|---|
/// | 4 | number of the function |
/// | 2 + 2 each | formats of its arguments, as in `Bind` |
/// | 2 + (4 + length) each | arguments, as in `Bind` |
/// | 2 | format of the result |
///
/// # Errors
/// [`MessageError::Malformed`].
///
/// # Source
/// <https://www.postgresql.org/docs/18/protocol-message-formats.html>
pub fn function_call(body: &[u8]) -> Result<FunctionCall<'_>, MessageError> {
    let malformed = || MessageError::Malformed { tag: b'F' };
    let (function, rest) = body.split_first_chunk::<4>().ok_or_else(malformed)?;
    let (arguments, format) = rest.split_last_chunk::<2>().ok_or_else(malformed)?;
    let (formats, values) = counted(arguments).ok_or_else(malformed)?;
    let mut rest = values
        .get(usize::from(formats).saturating_mul(2)..)
        .ok_or_else(malformed)?;
    let count;
    (count, rest) = counted(rest).ok_or_else(malformed)?;
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        let length = i32::from_be_bytes(*length);
        // -1 is NULL, and no bytes follow.
        let length = usize::try_from(length.max(0)).map_err(|_| malformed())?;
        rest = after.get(length..).ok_or_else(malformed)?;
    }
    if !rest.is_empty() {
        return Err(malformed());
    }
    Ok(FunctionCall {
        function: u32::from_be_bytes(*function),
        count,
        arguments,
        format: u16::from_be_bytes(*format),
    })
}

fn counted(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*count), rest))
}

/// Takes a text up to its zero byte.
fn text(tag: u8, bytes: &[u8]) -> Result<(&[u8], &[u8]), MessageError> {
    let malformed = || MessageError::Malformed { tag };
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .ok_or_else(malformed)?;
    let (text, rest) = bytes.split_at_checked(end).ok_or_else(malformed)?;
    Ok((text, rest.get(1..).ok_or_else(malformed)?))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use postgres_protocol::IsNull;
    use postgres_protocol::message::frontend;
    use proptest::prelude::*;

    use super::*;

    /// Cuts what another implementation wrote into header and body.
    fn body(written: &BytesMut) -> (Header, &[u8]) {
        let found = header(written, 1 << 20).unwrap().unwrap();
        assert_eq!(found.total, written.len());
        (found, &written[HEADER_BYTES..])
    }

    #[test]
    fn what_another_implementation_writes_is_read() {
        let mut out = BytesMut::new();
        frontend::query("SELECT 1", &mut out).unwrap();
        let (found, rest) = body(&out);
        assert_eq!((found.tag, query(rest).unwrap()), (b'Q', &b"SELECT 1"[..]));

        let mut out = BytesMut::new();
        frontend::parse("s1", "SELECT $1", [23], &mut out).unwrap();
        let read = parse(body(&out).1).unwrap();
        assert_eq!((read.name, read.text), (&b"s1"[..], &b"SELECT $1"[..]));

        let mut out = BytesMut::new();
        let one = |_: i32, buf: &mut BytesMut| {
            buf.extend_from_slice(b"7");
            Ok(IsNull::No)
        };
        let bound = frontend::bind("p", "s1", [0], [1], one, [0], &mut out);
        assert!(bound.is_ok());
        let read = bind(body(&out).1).unwrap();
        assert_eq!((read.portal, read.statement), (&b"p"[..], &b"s1"[..]));

        let mut out = BytesMut::new();
        frontend::execute("p", 9, &mut out).unwrap();
        assert_eq!(execute(body(&out).1).unwrap(), (&b"p"[..], 9));

        let mut out = BytesMut::new();
        frontend::describe(b'S', "s1", &mut out).unwrap();
        let read = named(b'D', body(&out).1).unwrap();
        assert_eq!((read.is_statement, read.name), (true, &b"s1"[..]));
    }

    #[test]
    fn a_function_call_is_read_and_every_cut_of_it_refused() {
        let arguments = [&[0, 1, 0, 1, 0, 2][..], &[0, 0, 0, 1, 7], &[255; 4]].concat();
        let body = [&[0, 0, 3, 197][..], &arguments, &[0, 1]].concat();
        let call = function_call(&body).unwrap();
        let expected = FunctionCall {
            function: 965,
            count: 2,
            arguments: &arguments,
            format: 1,
        };
        assert_eq!(call, expected);
        for cut in 0..body.len() {
            assert!(function_call(&body[..cut]).is_err(), "cut at {cut}");
        }
        assert!(function_call(&[&body[..], &[0]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>, tag: u8) {
            let _ = header(&bytes, 1 << 20);
            let _ = query(&bytes);
            let _ = parse(&bytes);
            let _ = bind(&bytes);
            let _ = execute(&bytes);
            let _ = function_call(&bytes);
            let _ = named(tag, &bytes);
        }

        #[test]
        fn a_cut_message_is_refused(text in "[a-z ]{0,40}", cut in 0_usize..60) {
            let mut whole = b"name\0".to_vec();
            whole.extend(text.as_bytes());
            whole.extend(b"\0\0\0");
            prop_assert!(parse(&whole).is_ok());
            let cut = cut.min(text.len() + 4);
            prop_assert!(parse(&whole[..cut]).is_err());
        }
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for length in [0_u32, 3, 101, u32::MAX] {
            let mut bytes = vec![b'Q'];
            bytes.extend(length.to_be_bytes());
            assert!(header(&bytes, 100).is_err(), "{length}");
        }
        assert_eq!(header(b"Q\0\0\0", 100), Ok(None));
        assert_eq!(
            header(b"S\0\0\0\x04", 100),
            Ok(Some(Header {
                tag: b'S',
                total: 5
            }))
        );
    }

    #[test]
    fn a_zero_byte_inside_a_text_or_none_at_all_is_refused() {
        assert!(query(b"SELECT 1\0; DROP TABLE t\0").is_err());
        assert!(query(b"SELECT 1").is_err());
        assert!(query(b"").is_err());
        assert!(execute(b"p\0\0\0\0").is_err());
        assert!(named(b'C', b"Xs\0").is_err());
        assert!(named(b'C', b"Ss\0more").is_err());
    }
}
