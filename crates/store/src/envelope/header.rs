//! The header of an envelope: who can open it, and a MAC over that.
//!
//! # Source
//! <https://age-encryption.org/v1>, sections on the header, the recipient stanza and X25519.

use aws_lc_rs::hmac;
use data_encoding::{BASE64_NOPAD, Encoding};
use holdfast_core::Secret;

use super::key::{Identity, Recipient};
use super::{EnvelopeError, FILE_KEY_BYTES, derive};
use crate::limits::{ENVELOPE_HEADER_BYTES_MAX, ENVELOPE_STANZAS_MAX};

/// The first line, with its end.
const VERSION: &[u8] = b"age-encryption.org/v1\n";
/// The kind of stanza that we write and open.
const X25519: &[u8] = b"X25519";
/// The kind that must be alone, because a passphrase also tells who wrote.
const SCRYPT: &[u8] = b"scrypt";
/// Columns of a full line of a stanza's body.
const COLUMNS: usize = 64;
/// Bytes of a file key that is wrapped.
const WRAPPED_BYTES: usize = FILE_KEY_BYTES + 16;
/// Canonical: no padding, no other alphabet, unused bits are zero.
const BASE64: Encoding = BASE64_NOPAD;

/// A header as it was read.
#[derive(Debug)]
pub struct Header<'a> {
    wrapped: Vec<Wrapped>,
    authenticated: &'a [u8],
    mac: [u8; 32],
    /// Its length.
    pub bytes: usize,
}

/// A file key that one X25519 recipient can unwrap.
#[derive(Debug)]
struct Wrapped {
    share: [u8; 32],
    body: [u8; WRAPPED_BYTES],
}

impl<'a> Header<'a> {
    /// Reads the header at the front of `bytes`. Stanzas of other kinds are checked for form and ignored.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let known = bytes.get(..VERSION.len()).unwrap_or(bytes);
        if !VERSION.starts_with(known) {
            return Err(EnvelopeError::Damaged(
                "it does not begin like an age v1 file",
            ));
        }
        let mut lines = Lines { bytes, at: 0 };
        lines.next()?;
        let mut header = Self {
            wrapped: Vec::new(),
            authenticated: &[],
            mac: [0; 32],
            bytes: 0,
        };
        let (mut stanzas, mut has_scrypt) = (0_usize, false);
        loop {
            let begin = lines.at;
            let line = lines.next()?;
            if let Some(mac) = line.strip_prefix(b"---") {
                header.mac = mac
                    .strip_prefix(b" ")
                    .and_then(exactly)
                    .ok_or(EnvelopeError::Damaged("its MAC is malformed"))?;
                let end = begin.saturating_add(3);
                header.authenticated = bytes.get(..end).unwrap_or_default();
                header.bytes = lines.at;
                break;
            }
            let stanza = Stanza::parse(line, &mut lines)?;
            stanzas = stanzas.saturating_add(1);
            has_scrypt |= stanza.kind() == SCRYPT;
            if stanza.kind() == X25519 {
                header.wrapped.push(stanza.wrapped()?);
            }
        }
        if stanzas == 0 || stanzas > ENVELOPE_STANZAS_MAX || (has_scrypt && stanzas > 1) {
            return Err(EnvelopeError::Damaged("its recipients cannot be"));
        }
        Ok(header)
    }

    /// Unwraps the file key with the first of `identities` that can.
    pub fn unwrap(&self, identities: &[Identity]) -> Result<Secret, EnvelopeError> {
        for identity in identities {
            for wrapped in &self.wrapped {
                let key = identity
                    .unwrap(&wrapped.share, &wrapped.body)
                    .map_err(|()| EnvelopeError::Damaged("a recipient's share is not a point"))?;
                if let Some(key) = key {
                    return Ok(key);
                }
            }
        }
        Err(EnvelopeError::NoKey(identities.len()))
    }

    /// Checks the MAC, in constant time.
    pub fn verify(&self, file_key: &Secret) -> Result<(), EnvelopeError> {
        hmac::verify(&mac_key(file_key)?, self.authenticated, &self.mac)
            .map_err(|_| EnvelopeError::Damaged("its header is not what was sealed"))
    }
}

/// Writes the header that wraps `file_key` for `recipients`.
pub fn write(file_key: &Secret, recipients: &[Recipient]) -> Result<Vec<u8>, EnvelopeError> {
    let mut header = VERSION.to_vec();
    for recipient in recipients {
        let (share, body) = recipient.wrap(file_key)?;
        header.extend_from_slice(b"-> X25519 ");
        header.extend_from_slice(BASE64.encode(&share).as_bytes());
        header.push(b'\n');
        // 32 bytes are 43 columns, so the line is the short one that ends a body.
        header.extend_from_slice(BASE64.encode(&body).as_bytes());
        header.push(b'\n');
    }
    header.extend_from_slice(b"---");
    let mac = hmac::sign(&mac_key(file_key)?, &header);
    header.push(b' ');
    header.extend_from_slice(BASE64.encode(mac.as_ref()).as_bytes());
    header.push(b'\n');
    Ok(header)
}

fn mac_key(file_key: &Secret) -> Result<hmac::Key, EnvelopeError> {
    let key = derive(file_key.expose_bytes(), &[], b"header")?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, key.expose_bytes()))
}

/// Decodes canonical base64 of exactly `N` bytes.
fn exactly<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

/// One recipient, as it stands in the header.
struct Stanza<'a> {
    arguments: Vec<&'a [u8]>,
    body: Vec<u8>,
}

impl<'a> Stanza<'a> {
    /// Reads the stanza that begins with `line`.
    fn parse(line: &'a [u8], lines: &mut Lines<'a>) -> Result<Self, EnvelopeError> {
        let malformed = EnvelopeError::Damaged("a recipient is malformed");
        let arguments = line.strip_prefix(b"-> ").ok_or(malformed)?;
        let arguments: Vec<_> = arguments.split(|byte| *byte == b' ').collect();
        let is_visible =
            |argument: &&[u8]| !argument.is_empty() && argument.iter().all(u8::is_ascii_graphic);
        if !arguments.iter().all(is_visible) {
            return Err(malformed);
        }
        let mut text = Vec::new();
        loop {
            let line = lines.next()?;
            if line.len() > COLUMNS {
                return Err(malformed);
            }
            text.extend_from_slice(line);
            if line.len() < COLUMNS {
                break;
            }
        }
        let body = BASE64.decode(&text).map_err(|_| malformed)?;
        Ok(Self { arguments, body })
    }

    fn kind(&self) -> &'a [u8] {
        self.arguments.first().copied().unwrap_or_default()
    }

    /// Takes it as an X25519 stanza.
    fn wrapped(self) -> Result<Wrapped, EnvelopeError> {
        let malformed = EnvelopeError::Damaged("an X25519 recipient is malformed");
        let [_, share] = self.arguments.as_slice() else {
            return Err(malformed);
        };
        Ok(Wrapped {
            share: exactly(share).ok_or(malformed)?,
            body: self.body.try_into().map_err(|_| malformed)?,
        })
    }
}

/// The lines of a header, one after the other, within its limit.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// Returns the next line without its end.
    fn next(&mut self) -> Result<&'a [u8], EnvelopeError> {
        let end = self.bytes.len().min(ENVELOPE_HEADER_BYTES_MAX);
        let rest = self.bytes.get(self.at..end).unwrap_or_default();
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
            return Err(match self.bytes.len() > ENVELOPE_HEADER_BYTES_MAX {
                true => EnvelopeError::Damaged("its header is too long"),
                false => EnvelopeError::Cut("header"),
            });
        };
        self.at = self.at.saturating_add(length).saturating_add(1);
        Ok(rest.get(..length).unwrap_or_default())
    }
}
