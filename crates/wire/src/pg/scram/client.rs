//! SCRAM-SHA-256 as the client speaks it, with keys that are computed once.
//!
//! What a login costs is thousands of hashes over the password. They depend on password, salt and
//! number only, so whoever logs in often keeps their result.

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::{Binding, LIMIT_SCRAM_BYTES, ScramError, hmac};

/// The most hashes that a server may ask for.
pub const LIMIT_ITERATIONS: u32 = 1 << 20;

/// What a server says that the keys are to be computed with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Salted {
    /// Its salt.
    pub salt: Vec<u8>,
    /// How many hashes.
    pub iterations: u32,
}

/// What a client needs instead of its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    client_key: [u8; 32],
    server_key: [u8; 32],
}

impl Keys {
    /// Computes the keys; this takes milliseconds. The password must be printable ASCII.
    ///
    /// # Source
    /// RFC 5802 sections 2.2 and 3.
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    pub fn compute(password: &[u8], salted: &Salted) -> Self {
        // INVARIANT: `new_from_slice` of HMAC never refuses a length.
        let keyed = Hmac::<Sha256>::new_from_slice(password).expect("HMAC takes any key");
        let mut first = keyed.clone();
        first.update(&salted.salt);
        first.update(&1_u32.to_be_bytes());
        let mut last: [u8; 32] = first.finalize().into_bytes().into();
        let mut sum = last;
        for _ in 1..salted.iterations {
            let mut next = keyed.clone();
            next.update(&last);
            last = next.finalize().into_bytes().into();
            for (byte, other) in sum.iter_mut().zip(last) {
                *byte ^= other;
            }
        }
        Self {
            client_key: hmac(&sum, b"Client Key"),
            server_key: hmac(&sum, b"Server Key"),
        }
    }
}

/// A conversation that the client has begun.
pub struct Opened {
    gs2: Vec<u8>,
    bound: Vec<u8>,
    nonce: String,
}

/// A conversation in which the server has said what it wants.
pub struct Asked {
    opened: Opened,
    server_first: Vec<u8>,
    whole_nonce: Vec<u8>,
    salted: Salted,
}

/// A conversation in which only the server's proof is missing.
pub struct Proving {
    signature: [u8; 32],
}

impl Opened {
    /// Begins; `nonce` is random printable text without a comma.
    pub fn new(nonce: String, binding: &Binding) -> Self {
        let (gs2, bound) = match binding {
            Binding::Absent => (&b"n,,"[..], Vec::new()),
            // A server that has offered one after all will notice.
            Binding::Unoffered => (&b"y,,"[..], Vec::new()),
            Binding::EndPoint(hash) => (&b"p=tls-server-end-point,,"[..], hash.clone()),
        };
        Self {
            gs2: gs2.to_vec(),
            bound,
            nonce,
        }
    }

    /// Returns the client's first message.
    pub fn first(&self) -> Vec<u8> {
        [&self.gs2[..], &self.bare()].concat()
    }

    fn bare(&self) -> Vec<u8> {
        format!("n=,r={}", self.nonce).into_bytes()
    }

    /// Reads the server's first message.
    ///
    /// # Errors
    /// [`ScramError::Malformed`], also when the server wants more hashes than [`LIMIT_ITERATIONS`].
    pub fn asked(self, server_first: &[u8]) -> Result<Asked, ScramError> {
        if server_first.len() > LIMIT_SCRAM_BYTES {
            return Err(ScramError::Malformed);
        }
        let mut fields = server_first.split(|byte| *byte == b',');
        let mut field = |name: &[u8]| {
            let field = fields.next().and_then(|field| field.strip_prefix(name));
            field.ok_or(ScramError::Malformed)
        };
        let (whole_nonce, salt, iterations) = (field(b"r=")?, field(b"s=")?, field(b"i=")?);
        let added = whole_nonce.strip_prefix(self.nonce.as_bytes());
        let iterations = std::str::from_utf8(iterations).ok();
        let iterations = iterations.and_then(|text| text.parse::<u32>().ok());
        let iterations = iterations.filter(|count| (1..=LIMIT_ITERATIONS).contains(count));
        let salt = BASE64.decode(salt).ok();
        match (added, iterations, salt, fields.next()) {
            (Some([_, ..]), Some(iterations), Some(salt), None) => Ok(Asked {
                server_first: server_first.to_vec(),
                whole_nonce: whole_nonce.to_vec(),
                salted: Salted { salt, iterations },
                opened: self,
            }),
            _ => Err(ScramError::Malformed),
        }
    }
}

impl Asked {
    /// What the keys are to be computed with.
    pub fn salted(&self) -> &Salted {
        &self.salted
    }

    /// Returns the client's last message, and what the server must prove.
    pub fn prove(self, keys: &Keys) -> (Vec<u8>, Proving) {
        let bound = [&self.opened.gs2[..], &self.opened.bound].concat();
        let mut last = format!("c={},r=", BASE64.encode(&bound)).into_bytes();
        last.extend(&self.whole_nonce);
        let message = [&self.opened.bare()[..], &self.server_first, &last].join(&b","[..]);
        let stored: [u8; 32] = Sha256::digest(keys.client_key).into();
        let signature = hmac(&stored, &message);
        let mut proof = keys.client_key;
        for (byte, other) in proof.iter_mut().zip(signature) {
            *byte ^= other;
        }
        last.extend(format!(",p={}", BASE64.encode(&proof)).bytes());
        let signature = hmac(&keys.server_key, &message);
        (last, Proving { signature })
    }
}

impl Proving {
    /// Checks that the server knows the password as well.
    ///
    /// # Errors
    /// [`ScramError`].
    pub fn finish(self, server_final: &[u8]) -> Result<(), ScramError> {
        let proof = server_final
            .strip_prefix(b"v=")
            .and_then(|proof| BASE64.decode(proof).ok())
            .and_then(|proof| <[u8; 32]>::try_from(proof).ok())
            .ok_or(ScramError::Malformed)?;
        let pairs = proof.iter().zip(self.signature);
        match pairs.fold(0, |sum, (a, b)| sum | (a ^ b)) {
            0 => Ok(()),
            _ => Err(ScramError::Password),
        }
    }
}

#[cfg(test)]
mod tests {
    use postgres_protocol::password::scram_sha_256;
    use proptest::prelude::*;

    use super::super::{Verifier, begin};
    use super::*;

    fn log_in(client: &Binding, server: &Binding, password: &[u8]) -> Result<(), ScramError> {
        let verifier = Verifier::parse(&scram_sha_256(b"pencil")).unwrap();
        let opened = Opened::new("client-nonce".to_owned(), client);
        let (begun, answer) = begin(verifier, &opened.first(), "server-nonce", server)?;
        let asked = opened.asked(&answer)?;
        let keys = Keys::compute(password, asked.salted());
        let (last, proving) = asked.prove(&keys);
        proving.finish(&begun.finish(&last)?)
    }

    #[test]
    fn the_right_password_is_let_in_with_and_without_a_binding() {
        let bound = Binding::EndPoint(vec![7; 32]);
        assert_eq!(
            log_in(&Binding::Absent, &Binding::Absent, b"pencil"),
            Ok(())
        );
        assert_eq!(log_in(&bound, &bound, b"pencil"), Ok(()));
        assert_eq!(
            log_in(&bound, &bound, b"pencils"),
            Err(ScramError::Password)
        );
    }

    #[test]
    fn a_login_bound_to_another_connection_is_refused() {
        let (one, other) = (
            Binding::EndPoint(vec![7; 32]),
            Binding::EndPoint(vec![8; 32]),
        );
        assert!(log_in(&one, &other, b"pencil").is_err());
        assert!(log_in(&one, &Binding::Absent, b"pencil").is_err());
        assert!(log_in(&Binding::Absent, &one, b"pencil").is_err());
        assert!(log_in(&Binding::Unoffered, &one, b"pencil").is_err());
        let unoffered = log_in(&Binding::Unoffered, &Binding::Absent, b"pencil");
        assert_eq!(unoffered, Ok(()));
    }

    #[test]
    fn the_keys_are_those_of_the_standard() {
        // SOURCE: RFC 7677 section 3.
        let salted = Salted {
            salt: BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(),
            iterations: 4096,
        };
        let keys = Keys::compute(b"pencil", &salted);
        let message = b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = hmac(&keys.server_key, message);
        assert_eq!(
            BASE64.encode(&signature),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }

    #[test]
    fn hostile_servers_are_refused() {
        for first in [
            &b""[..],
            b"r=n",
            b"r=n,s=,i=4096",
            b"r=other,s=AAAA,i=4096",
            b"r=n+,s=*,i=4096",
            b"r=n+,s=AAAA,i=0",
            b"r=n+,s=AAAA,i=4294967295",
            b"r=n+,s=AAAA,i=-1",
            b"r=n+,s=AAAA,i=4096,x=1",
            b"e=other-error",
        ] {
            let opened = Opened::new("n".to_owned(), &Binding::Absent);
            assert!(opened.asked(first).is_err(), "{first:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_a_panic(first: Vec<u8>, last: Vec<u8>) {
            let opened = Opened::new("n".to_owned(), &Binding::Absent);
            prop_assert!(opened.asked(&first).is_err());
            let proving = Proving { signature: [1; 32] };
            prop_assert!(proving.finish(&last).is_err());
        }
    }
}
