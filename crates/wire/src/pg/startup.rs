//! The first packet of a session: who comes, or what else is wanted.

/// The longest first packet, in bytes; PostgreSQL's own limit.
pub const LIMIT_STARTUP_BYTES: usize = 10_000;

/// Name and value of a parameter of the session.
pub type Parameter = (Vec<u8>, Vec<u8>);

/// What a first packet asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Startup {
    /// End what a session is doing.
    Cancel {
        /// Its process.
        process: u32,
        /// Its secret.
        secret: Vec<u8>,
    },
    /// Encryption by GSSAPI.
    Gss,
    /// A session.
    Session {
        /// The minor version of the protocol 3.
        minor: u16,
        /// Names and values in their order.
        parameters: Vec<Parameter>,
    },
    /// Encryption by TLS.
    Tls,
}

/// Why bytes are no first packet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The length is impossible.
    #[error("the first packet states {0} bytes")]
    Length(u32),
    /// Its fields are cut off.
    #[error("the first packet is malformed")]
    Malformed,
    /// Another protocol.
    #[error("the first packet asks for the protocol {major}.{minor}, and only 3 is spoken")]
    Version {
        /// Its major version.
        major: u16,
        /// Its minor version.
        minor: u16,
    },
}

/// Reads the first packet and returns it with its length, or `None` while it is not complete.
///
/// # Shape
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 4 | length, big-endian, counts itself, 8..=`LIMIT_STARTUP_BYTES` |
/// | 4 | 4 | code: 80877102 cancel, 80877103 TLS, 80877104 GSS, else major and minor version |
/// | 8 | length - 8 | names and values, each with a zero byte, and a zero byte at the end |
///
/// # Errors
/// [`StartupError`]; the connection must close.
///
/// # Source
/// <https://www.postgresql.org/docs/18/protocol-message-formats.html>
pub fn startup(bytes: &[u8]) -> Result<Option<(Startup, usize)>, StartupError> {
    let Some(stated) = bytes.first_chunk::<4>().map(|b| u32::from_be_bytes(*b)) else {
        return Ok(None);
    };
    let length = usize::try_from(stated).map_err(|_| StartupError::Length(stated))?;
    if !(8..=LIMIT_STARTUP_BYTES).contains(&length) {
        return Err(StartupError::Length(stated));
    }
    let Some(packet) = bytes.get(4..length) else {
        return Ok(None);
    };
    let (code, body) = packet
        .split_first_chunk::<4>()
        .ok_or(StartupError::Malformed)?;
    let code = u32::from_be_bytes(*code);
    let wanted = match code {
        CANCEL => cancel(body)?,
        TLS if body.is_empty() => Startup::Tls,
        GSS if body.is_empty() => Startup::Gss,
        TLS | GSS => return Err(StartupError::Malformed),
        other => {
            let [a, b, c, d] = other.to_be_bytes();
            let (major, minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            if major != 3 {
                return Err(StartupError::Version { major, minor });
            }
            Startup::Session {
                minor,
                parameters: parameters(body)?,
            }
        }
    };
    Ok(Some((wanted, length)))
}

const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// The longest secret of a session, in bytes.
const LIMIT_SECRET_BYTES: usize = 256;

/// Writes a packet that asks a server to end what a session is doing.
pub fn write_cancel(process: u32, secret: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(secret.len().saturating_add(12)).unwrap_or(u32::MAX);
    out.extend(length.to_be_bytes());
    out.extend(CANCEL.to_be_bytes());
    out.extend(process.to_be_bytes());
    out.extend(secret);
}

/// Writes the first packet of a session of the protocol 3, with its minor version.
pub fn write_session(minor: u16, parameters: &[Parameter], out: &mut Vec<u8>) {
    let mut body = vec![0, 3];
    body.extend(minor.to_be_bytes());
    for (name, value) in parameters {
        body.extend(name);
        body.push(0);
        body.extend(value);
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len().saturating_add(4)).unwrap_or(u32::MAX);
    out.extend(length.to_be_bytes());
    out.extend(body);
}

fn cancel(body: &[u8]) -> Result<Startup, StartupError> {
    let (process, secret) = body
        .split_first_chunk::<4>()
        .ok_or(StartupError::Malformed)?;
    if !(4..=LIMIT_SECRET_BYTES).contains(&secret.len()) {
        return Err(StartupError::Malformed);
    }
    Ok(Startup::Cancel {
        process: u32::from_be_bytes(*process),
        secret: secret.to_vec(),
    })
}

fn parameters(body: &[u8]) -> Result<Vec<Parameter>, StartupError> {
    let body = body.strip_suffix(&[0]).ok_or(StartupError::Malformed)?;
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let body = body.strip_suffix(&[0]).ok_or(StartupError::Malformed)?;
    let fields: Vec<&[u8]> = body.split(|byte| *byte == 0).collect();
    let (pairs, rest) = fields.as_chunks::<2>();
    if !rest.is_empty() || pairs.iter().any(|[name, _]| name.is_empty()) {
        return Err(StartupError::Malformed);
    }
    Ok(pairs
        .iter()
        .map(|[name, value]| (name.to_vec(), value.to_vec()))
        .collect())
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use postgres_protocol::message::frontend;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_another_implementation_writes_is_read() {
        let mut out = BytesMut::new();
        frontend::startup_message([("user", "u"), ("database", "d")], &mut out).unwrap();
        let (read, length) = startup(&out).unwrap().unwrap();
        assert_eq!(length, out.len());
        let Startup::Session { minor, parameters } = read else {
            panic!("a session")
        };
        assert_eq!(minor, 0);
        assert!(parameters.contains(&(b"user".to_vec(), b"u".to_vec())));
        let mut again = Vec::new();
        write_session(0, &parameters, &mut again);
        assert_eq!(&again[..], &out[..]);

        let mut out = BytesMut::new();
        frontend::ssl_request(&mut out);
        assert_eq!(startup(&out), Ok(Some((Startup::Tls, 8))));
        let mut out = Vec::new();
        write_cancel(9, b"abcd", &mut out);
        let cancel = Startup::Cancel {
            process: 9,
            secret: b"abcd".to_vec(),
        };
        assert_eq!(startup(&out), Ok(Some((cancel, 16))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>, body: Vec<u8>) {
            let _ = startup(&bytes);
            let mut framed = u32::try_from(body.len() + 8).unwrap().to_be_bytes().to_vec();
            framed.extend([0, 3, 0, 0]);
            framed.extend(&body);
            if let Ok(Some((_, length))) = startup(&framed) {
                prop_assert_eq!(length, framed.len());
            }
        }
    }

    #[test]
    fn hostile_first_packets_are_refused() {
        for bytes in [
            &b"\0\0\0\x07\0\x03\0"[..],
            b"\0\0\x27\x11\0\x03\0\0",
            b"\xff\xff\xff\xff\0\x03\0\0",
            b"\0\0\0\x08\0\x02\0\0",
            b"\0\0\0\x08\0\x03\0\0",
            b"\0\0\0\x0e\0\x03\0\0user\0\0",
            b"\0\0\0\x0c\x04\xd2\x16\x2fjunk",
            b"\0\0\0\x0c\x04\xd2\x16\x2e\0\0\0\x01",
            b"GET / HTTP/1.1\r\n",
        ] {
            let refused = match startup(bytes) {
                Err(_) => true,
                Ok(found) => found.is_none() && bytes.len() < 10,
            };
            assert!(refused, "{bytes:?}: {:?}", startup(bytes));
        }
    }
}
