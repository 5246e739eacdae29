//! Binding a login to the TLS connection that it runs in: `tls-server-end-point`.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

/// Object identifiers of signatures, as their DER contents, with the hash that the binding takes.
const SIGNATURES: [(&[u8], Hash); 12] = [
    // MD5 and SHA-1 are replaced by SHA-256 in the binding.
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04", Hash::Sha256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", Hash::Sha256),
    (b"\x2a\x86\x48\xce\x3d\x04\x01", Hash::Sha256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", Hash::Sha256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", Hash::Sha384),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", Hash::Sha512),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0e", Hash::Sha224),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x01", Hash::Sha224),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x02", Hash::Sha256),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x03", Hash::Sha384),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x04", Hash::Sha512),
    (b"\x60\x86\x48\x01\x65\x03\x04\x03\x02", Hash::Sha256),
];

#[derive(Clone, Copy)]
enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// Returns the hash of a certificate that both ends of a connection bind a login to, or `None` when
/// the certificate is signed in a way for which no hash is agreed on (Ed25519, RSA-PSS).
///
/// # Shape
/// A certificate is `SEQUENCE { what is signed, SEQUENCE { OBJECT IDENTIFIER, … }, signature }`.
///
/// # Source
/// RFC 5929 section 4.1; RFC 5280 section 4.1.
pub fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (whole, _) = element(certificate, 0x30)?;
    let (_, rest) = element(whole, 0x30)?;
    let (algorithm, _) = element(rest, 0x30)?;
    let (identifier, _) = element(algorithm, 0x06)?;
    let (_, hash) = SIGNATURES.iter().find(|(known, _)| *known == identifier)?;
    Some(match hash {
        Hash::Sha224 => Sha224::digest(certificate).to_vec(),
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

/// Takes one DER element with `tag` off the front: its contents, and what follows.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(*short), rest),
        long @ 0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            let length = digits.iter().try_fold(0_usize, |sum, digit| {
                sum.checked_mul(256)?.checked_add(usize::from(*digit))
            })?;
            (length, rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    (*found == tag).then_some((contents, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A certificate of nothing, signed in the way that `identifier` names.
    fn certificate(identifier: &[u8]) -> Vec<u8> {
        let wrap = |tag: u8, contents: &[u8]| {
            let mut out = vec![tag, 0x82];
            out.extend(u16::try_from(contents.len()).unwrap().to_be_bytes());
            out.extend(contents);
            out
        };
        let signed = wrap(0x30, b"anything");
        let algorithm = wrap(0x30, &wrap(0x06, identifier));
        let signature = wrap(0x03, b"\0signature");
        wrap(0x30, &[signed, algorithm, signature].concat())
    }

    #[test]
    fn the_hash_follows_the_signature() {
        for (identifier, bytes) in [
            (&b"\x2a\x86\x48\xce\x3d\x04\x03\x02"[..], 32),
            (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", 32),
            (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", 48),
            (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", 64),
        ] {
            let found = server_end_point(&certificate(identifier)).unwrap();
            assert_eq!(found.len(), bytes);
        }
        // Ed25519, and something that is no certificate.
        assert_eq!(server_end_point(&certificate(b"\x2b\x65\x70")), None);
        assert_eq!(server_end_point(b"-----BEGIN"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(
            bytes: Vec<u8>,
            cut in 0_usize..80,
            at in 0_usize..80,
            byte: u8,
        ) {
            let _ = server_end_point(&bytes);
            let mut whole = certificate(b"\x2a\x86\x48\xce\x3d\x04\x03\x02");
            if let Some(found) = whole.get_mut(at) {
                *found = byte;
            }
            let _ = server_end_point(&whole);
            whole.truncate(cut);
            let _ = server_end_point(&whole);
        }
    }
}
