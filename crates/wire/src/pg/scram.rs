//! SCRAM-SHA-256 as the server speaks it: whoever knows the password behind a verifier is let in.
//!
//! The arithmetic of hashes is that of well-known crates; here are only the messages.

pub mod binding;
pub mod client;

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The longest message of a client that is read, in bytes.
pub const LIMIT_SCRAM_BYTES: usize = 2_048;

/// The mechanism's name.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// The name of the mechanism that binds the login to the TLS connection.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// How a login is bound to the TLS connection that it runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Not at all.
    Absent,
    /// By the hash of the server's certificate: `tls-server-end-point`.
    EndPoint(Vec<u8>),
    /// Not at all, although the client could: the server has offered none.
    Unoffered,
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// The message is not what the mechanism prescribes.
    #[error("the SCRAM message is malformed")]
    Malformed,
    /// The password is another one.
    #[error("the password is wrong")]
    Password,
}

/// What a server keeps of a password.
///
/// # Shape
/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, the last three in base 64.
///
/// # Source
/// <https://www.postgresql.org/docs/18/catalog-pg-authid.html>
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl Verifier {
    /// Reads a verifier in PostgreSQL's form.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("SCRAM-SHA-256$")?;
        let (made, keys) = rest.split_once('$')?;
        let (iterations, salt) = made.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let decode = |text: &str| BASE64.decode(text.as_bytes()).ok();
        Some(Self {
            iterations: iterations.parse().ok()?,
            salt: decode(salt)?,
            stored_key: decode(stored)?.try_into().ok()?,
            server_key: decode(server)?.try_into().ok()?,
        })
    }

    /// Makes a verifier that no password fits, so that a name nobody has looks like any other.
    pub fn of_nobody(random: [u8; 32]) -> Self {
        let salt: [u8; 32] = Sha256::digest([&random[..], b"salt"].concat()).into();
        Self {
            iterations: 4096,
            salt: salt.iter().copied().take(16).collect(),
            stored_key: random,
            server_key: random,
        }
    }
}

/// A conversation after the client's first message.
pub struct Begun {
    verifier: Verifier,
    /// What the client must say that it is bound to.
    bound: Vec<u8>,
    client_first_bare: Vec<u8>,
    server_first: Vec<u8>,
    nonce: Vec<u8>,
}

/// Answers the client's first message; `nonce` is random printable text without a comma.
///
/// `binding` is that of the mechanism which the client has chosen. What the client says of it must be
/// the same, so nobody in between can talk the two out of a binding.
///
/// # Errors
/// [`ScramError::Malformed`].
///
/// # Source
/// RFC 5802 section 5, RFC 7677.
pub fn begin(
    verifier: Verifier,
    client_first: &[u8],
    nonce: &str,
    binding: &Binding,
) -> Result<(Begun, Vec<u8>), ScramError> {
    if client_first.len() > LIMIT_SCRAM_BYTES {
        return Err(ScramError::Malformed);
    }
    // PostgreSQL takes the user from the first packet and wants no authorization identity.
    let (gs2, bound) = match (client_first, binding) {
        ([b'n', b',', b',', ..], Binding::Absent) => (&b"n,,"[..], &[][..]),
        // It would bind, but thinks that we cannot; who offers a binding must not accept this.
        ([b'y', b',', b',', ..], Binding::Absent) => (&b"y,,"[..], &[][..]),
        (_, Binding::EndPoint(hash)) => (&b"p=tls-server-end-point,,"[..], &hash[..]),
        _ => return Err(ScramError::Malformed),
    };
    let bare = client_first
        .strip_prefix(gs2)
        .ok_or(ScramError::Malformed)?;
    let mut fields = bare.split(|byte| *byte == b',');
    let user = fields.next().ok_or(ScramError::Malformed)?;
    let client_nonce = fields
        .next()
        .and_then(|field| field.strip_prefix(b"r="))
        .filter(|nonce| !nonce.is_empty() && nonce.iter().all(u8::is_ascii_graphic))
        .ok_or(ScramError::Malformed)?;
    if !user.starts_with(b"n=") || fields.next().is_some() {
        return Err(ScramError::Malformed);
    }
    let mut whole_nonce = client_nonce.to_vec();
    whole_nonce.extend(nonce.as_bytes());
    let mut server_first = b"r=".to_vec();
    server_first.extend(&whole_nonce);
    server_first.extend(
        format!(
            ",s={},i={}",
            BASE64.encode(&verifier.salt),
            verifier.iterations
        )
        .bytes(),
    );
    let begun = Begun {
        verifier,
        bound: [gs2, bound].concat(),
        client_first_bare: bare.to_vec(),
        server_first: server_first.clone(),
        nonce: whole_nonce,
    };
    Ok((begun, server_first))
}

impl Begun {
    /// Checks the client's proof and returns the server's own.
    ///
    /// # Errors
    /// [`ScramError`].
    pub fn finish(self, client_final: &[u8]) -> Result<Vec<u8>, ScramError> {
        if client_final.len() > LIMIT_SCRAM_BYTES {
            return Err(ScramError::Malformed);
        }
        let at = find_last(client_final, b",p=").ok_or(ScramError::Malformed)?;
        let (without_proof, proof) = client_final
            .split_at_checked(at)
            .ok_or(ScramError::Malformed)?;
        let proof = proof.strip_prefix(b",p=").ok_or(ScramError::Malformed)?;
        let proof: [u8; 32] = BASE64
            .decode(proof)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(ScramError::Malformed)?;
        let mut expected = b"c=".to_vec();
        expected.extend(BASE64.encode(&self.bound).bytes());
        expected.extend(b",r=");
        expected.extend(&self.nonce);
        if without_proof != expected {
            return Err(ScramError::Malformed);
        }
        let message = [
            &self.client_first_bare[..],
            &self.server_first[..],
            without_proof,
        ]
        .join(&b","[..]);
        let signature = hmac(&self.verifier.stored_key, &message);
        let mut client_key = [0_u8; 32];
        for ((byte, proof), signature) in client_key.iter_mut().zip(proof).zip(signature) {
            *byte = proof ^ signature;
        }
        let stored: [u8; 32] = Sha256::digest(client_key).into();
        let difference = stored
            .iter()
            .zip(self.verifier.stored_key)
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        if difference != 0 {
            return Err(ScramError::Password);
        }
        let own = hmac(&self.verifier.server_key, &message);
        Ok(format!("v={}", BASE64.encode(&own)).into_bytes())
    }
}

fn find_last(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .rposition(|window| window == wanted)
}

#[expect(
    clippy::expect_used,
    reason = "HMAC takes keys of every length, and this one has 32 bytes"
)]
fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    // INVARIANT: `new_from_slice` of HMAC never refuses a length.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any key");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use postgres_protocol::password::scram_sha_256;
    use proptest::prelude::*;

    use super::*;

    fn log_in(password: &str, offered: &str) -> Result<(), ScramError> {
        let verifier = Verifier::parse(&scram_sha_256(password.as_bytes())).unwrap();
        let mut client = ScramSha256::new(offered.as_bytes(), ChannelBinding::unsupported());
        let (begun, answer) = begin(verifier, client.message(), "server-nonce", &Binding::Absent)?;
        client.update(&answer).unwrap();
        let answer = begun.finish(client.message())?;
        client.finish(&answer).unwrap();
        Ok(())
    }

    #[test]
    fn the_right_password_is_let_in_and_both_sides_prove_it() {
        assert_eq!(log_in("hfl_token", "hfl_token"), Ok(()));
    }

    #[test]
    fn a_wrong_password_is_not_let_in() {
        assert_eq!(log_in("hfl_token", "hfl_tokem"), Err(ScramError::Password));
        assert_eq!(log_in("hfl_token", ""), Err(ScramError::Password));
    }

    #[test]
    fn nobody_is_let_in_by_no_password() {
        let mut client = ScramSha256::new(b"x", ChannelBinding::unsupported());
        let verifier = Verifier::of_nobody([7; 32]);
        let (begun, answer) = begin(verifier, client.message(), "n", &Binding::Absent).unwrap();
        client.update(&answer).unwrap();
        assert_eq!(begun.finish(client.message()), Err(ScramError::Password));
    }

    #[test]
    fn a_message_of_another_conversation_is_refused() {
        let verifier = Verifier::parse(&scram_sha_256(b"p")).unwrap();
        let mut client = ScramSha256::new(b"p", ChannelBinding::unsupported());
        let (_, answer) =
            begin(verifier.clone(), client.message(), "one", &Binding::Absent).unwrap();
        let (other, _) = begin(verifier, client.message(), "two", &Binding::Absent).unwrap();
        client.update(&answer).unwrap();
        assert_eq!(other.finish(client.message()), Err(ScramError::Malformed));
    }

    #[test]
    fn hostile_first_messages_are_refused() {
        let long = [b"n,,n=,r=".to_vec(), vec![b'x'; LIMIT_SCRAM_BYTES]].concat();
        for message in [
            &b""[..],
            b"n",
            b"n,",
            b"n,,",
            b"n,,n=",
            b"n,,n=,r=",
            b"n,,n=,r=a,x=1",
            b"n,a=admin,n=,r=abc",
            b"p=tls-server-end-point,,n=,r=abc",
            b"n,,n=,r=a\0b",
            &long,
        ] {
            let verifier = Verifier::of_nobody([1; 32]);
            assert!(
                begin(verifier, message, "n", &Binding::Absent).is_err(),
                "{message:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_a_panic(first: Vec<u8>, last: Vec<u8>, text: String) {
            let _ = Verifier::parse(&text);
            let verifier = Verifier::of_nobody([1; 32]);
            let _ = begin(verifier.clone(), &first, "n", &Binding::Absent);
            let (begun, _) = begin(verifier, b"n,,n=,r=abc", "n", &Binding::Absent).unwrap();
            prop_assert!(begun.finish(&last).is_err());
        }
    }
}
