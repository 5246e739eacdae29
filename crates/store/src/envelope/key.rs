//! The keys of envelopes: identities open, recipients are sealed to.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use holdfast_core::{Code, Coded, Secret, Untrusted};
use serde::{Deserialize, Serialize};

use super::{EnvelopeError, bech32, derive, random};

/// What the text of an identity begins with, in lower case and before the digit 1.
const IDENTITY: &str = "age-secret-key-";
/// What the text of a recipient begins with.
const RECIPIENT: &str = "age";
/// What the key that wraps a file key is derived for.
const PURPOSE: &[u8] = b"age-encryption.org/v1/X25519";

/// A text that is not a key. It is never shown where it could be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    /// Not `AGE-SECRET-KEY-1` and its letters.
    #[error(
        "the text is not an identity (`AGE-SECRET-KEY-1` and 58 letters), or a letter of it is wrong"
    )]
    NotAnIdentity,
    /// Not `age1` and its letters.
    #[error("`{}` is not a recipient (`age1` and 58 letters), or a letter of it is wrong", Untrusted(.0))]
    NotARecipient(String),
    /// An identity where a recipient is wanted.
    #[error("this is a secret identity, not a recipient")]
    Swapped,
}

impl Coded for KeyTextError {
    fn code(&self) -> Code {
        Code::ZU270
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotAnIdentity => "compare it with the copy you kept, letter by letter",
            Self::NotARecipient(_) => "`age-keygen -y FILE` prints the recipient of an identity",
            Self::Swapped => {
                "give its recipient, which `age-keygen -y` prints; keep the identity where only you can read it"
            }
        };
        Some(text.to_owned())
    }
}

/// A secret key that opens what was sealed to its recipient.
#[derive(Clone)]
pub struct Identity {
    secret: Secret,
    recipient: Recipient,
}

impl Identity {
    /// Makes a new one.
    ///
    /// # Errors
    /// [`EnvelopeError::Primitive`] when the system has no randomness.
    pub fn generate() -> Result<Self, EnvelopeError> {
        let secret = Secret::from_bytes(random::<32>()?.to_vec());
        Self::new(secret).ok_or(EnvelopeError::Primitive("make a key"))
    }

    /// Reads the identities in `text`, one a line; lines that begin with `#` are comments.
    ///
    /// # Errors
    /// [`KeyTextError::NotAnIdentity`], also when there is none.
    pub fn read_all(text: &str) -> Result<Vec<Self>, KeyTextError> {
        let lines = text.lines().map(str::trim);
        let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let identities: Vec<Self> = keys.map(str::parse).collect::<Result<_, _>>()?;
        match identities.is_empty() {
            true => Err(KeyTextError::NotAnIdentity),
            false => Ok(identities),
        }
    }

    /// Returns what is sealed to, to be opened by this.
    pub fn recipient(&self) -> Recipient {
        self.recipient
    }

    /// Returns its text, which is as secret as itself.
    pub fn to_text(&self) -> Secret {
        let secret = self.secret.expose_bytes();
        Secret::new(bech32::encode(IDENTITY, secret).to_ascii_uppercase())
    }

    fn new(secret: Secret) -> Option<Self> {
        let private = PrivateKey::from_private_key(&X25519, secret.expose_bytes()).ok()?;
        let public = private.compute_public_key().ok()?;
        let recipient = Recipient(public.as_ref().try_into().ok()?);
        Some(Self { secret, recipient })
    }

    /// Unwraps a file key: `None` when it was wrapped for another, an error when `share` is not a point.
    pub(super) fn unwrap(&self, share: &[u8; 32], body: &[u8; 32]) -> Result<Option<Secret>, ()> {
        let private = PrivateKey::from_private_key(&X25519, self.secret.expose_bytes());
        let wrap = agreed(&private.map_err(|_| ())?, share, share, &self.recipient).ok_or(())?;
        let mut key = vec![0; 16];
        let (sealed, tag) = body.split_at(16);
        let opened = wrap.open_separate_gather(only_once(), Aad::empty(), sealed, tag, &mut key);
        let key = Secret::from_bytes(key);
        Ok(opened.is_ok().then_some(key))
    }
}

impl FromStr for Identity {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(KeyTextError::NotAnIdentity);
        }
        // The copy in lower case is zeroed with its owner.
        let lower = Secret::new(text.to_ascii_lowercase());
        let secret = bech32::decode(IDENTITY, lower.expose());
        secret
            .and_then(|secret| Self::new(Secret::from_bytes(secret.to_vec())))
            .ok_or(KeyTextError::NotAnIdentity)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity([secret] of {})", self.recipient)
    }
}

/// A public key that anybody may know and seal to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Recipient([u8; 32]);

impl Recipient {
    /// Wraps a file key with a share that is made for it alone; returns share and wrapped key.
    pub(super) fn wrap(&self, file_key: &Secret) -> Result<([u8; 32], Vec<u8>), EnvelopeError> {
        let failed = EnvelopeError::Primitive("wrap a key");
        let private = PrivateKey::generate(&X25519).map_err(|_| failed)?;
        let public = private.compute_public_key().map_err(|_| failed)?;
        let share: [u8; 32] = public.as_ref().try_into().map_err(|_| failed)?;
        let wrap = agreed(&private, &self.0, &share, self).ok_or(failed)?;
        let mut body = file_key.expose_bytes().to_vec();
        wrap.seal_in_place_append_tag(only_once(), Aad::empty(), &mut body)
            .map_err(|_| failed)?;
        Ok((share, body))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bech32::encode(RECIPIENT, &self.0))
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Recipient {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        if text.to_ascii_lowercase().starts_with(IDENTITY) {
            return Err(KeyTextError::Swapped);
        }
        let bytes = bech32::decode(RECIPIENT, text);
        bytes.map(Self).ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            KeyTextError::NotARecipient(shown)
        })
    }
}

impl TryFrom<String> for Recipient {
    type Error = KeyTextError;

    fn try_from(text: String) -> Result<Self, KeyTextError> {
        text.parse()
    }
}

impl From<Recipient> for String {
    fn from(recipient: Recipient) -> Self {
        recipient.to_string()
    }
}

/// Returns the key that both sides derive: from the agreed secret, the share and the recipient.
fn agreed(
    private: &PrivateKey,
    public: &[u8; 32],
    share: &[u8; 32],
    recipient: &Recipient,
) -> Option<LessSafeKey> {
    let salt = [share.as_slice(), recipient.0.as_slice()].concat();
    // The agreement itself refuses a secret of zeros.
    let key = agree(
        private,
        UnparsedPublicKey::new(&X25519, public),
        (),
        |secret| derive(secret, &salt, PURPOSE).map_err(|_| ()),
    );
    let key = UnboundKey::new(&CHACHA20_POLY1305, key.ok()?.expose_bytes());
    key.ok().map(LessSafeKey::new)
}

/// The nonce of a key that encrypts once.
fn only_once() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}
