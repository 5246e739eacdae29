//! The signed summary of the ledger.

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::{Code, Coded, Digest, DigestBuilder, Timestamp};

/// What a tree head states: at that time the ledger had so many entries with this root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeHeadStatement {
    /// Which ledger: the digest of its first line.
    pub ledger: Digest,
    /// Number of entries.
    pub size: u64,
    /// Merkle root over them.
    pub root: Digest,
    /// When it was signed.
    pub at: Timestamp,
}

/// A statement with the ledger key's signature. Kept elsewhere, it makes a rewritten ledger visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeHead {
    /// What is stated.
    #[serde(flatten)]
    pub statement: TreeHeadStatement,
    /// Ed25519 signature, 128 lower-case hexadecimal digits.
    pub signature: String,
}

impl TreeHead {
    /// Signs a statement.
    pub fn sign(statement: TreeHeadStatement, key: &SigningKey) -> Self {
        let signature = key.sign(&digest(&statement).0);
        Self {
            statement,
            signature: HEXLOWER.encode(&signature.to_bytes()),
        }
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`HeadError`] when the head was changed or signed by another key.
    pub fn verify(&self, key: &VerifyingKey) -> Result<(), HeadError> {
        let bytes = HEXLOWER
            .decode(self.signature.as_bytes())
            .ok()
            .and_then(|bytes| <[u8; 64]>::try_from(bytes).ok())
            .ok_or(HeadError)?;
        key.verify_strict(&digest(&self.statement).0, &Signature::from_bytes(&bytes))
            .map_err(|_| HeadError)
    }
}

fn digest(statement: &TreeHeadStatement) -> Digest {
    DigestBuilder::new("holdfast tree head 1")
        .field(&statement.ledger.0)
        .field(&statement.size.to_be_bytes())
        .field(&statement.root.0)
        .field(&statement.at.0.to_be_bytes())
        .finish()
}

/// A tree head that this ledger's key did not sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tree head was not signed by this ledger's key")]
pub struct HeadError;

impl Coded for HeadError {
    fn code(&self) -> Code {
        Code::ZI001
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_head_is_refused() {
        let key = SigningKey::from_bytes(&[9; 32]);
        let statement = TreeHeadStatement {
            ledger: Digest::of(b"l"),
            size: 3,
            root: Digest::of(b"r"),
            at: Timestamp(5),
        };
        let head = TreeHead::sign(statement, &key);
        assert_eq!(head.verify(&key.verifying_key()), Ok(()));
        let mut changed = head.clone();
        changed.statement.size = 2;
        assert_eq!(changed.verify(&key.verifying_key()), Err(HeadError));
        let stranger = SigningKey::from_bytes(&[1; 32]).verifying_key();
        assert_eq!(head.verify(&stranger), Err(HeadError));
    }
}
