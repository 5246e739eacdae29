//! One entry as one line.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ledger::Frontier;
use crate::{ActionId, Code, Coded, Digest, LeaseId, Principal, SourceName, Timestamp};

/// The longest line that is written or read, in bytes with its line feed.
pub const LIMIT_LINE_BYTES: usize = 256 * 1024;

/// What the writer of an entry states; the ledger adds the number and the hash of the line before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// When it happened.
    pub at: Timestamp,
    /// What happened, as `noun.verb`: `action.held`, `lease.issued`, `drill.passed`.
    pub kind: String,
    /// Who did it.
    pub principal: Principal,
    /// The action it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<ActionId>,
    /// The lease it happened under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
    /// The source it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// Everything else, by kind; never contains a secret.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub body: Map<String, Value>,
}

impl Draft {
    /// Begins an entry.
    pub fn new(kind: impl Into<String>, principal: Principal, at: Timestamp) -> Self {
        Self {
            at,
            kind: kind.into(),
            principal,
            action: None,
            lease: None,
            source: None,
            body: Map::new(),
        }
    }

    /// States the source it is about.
    #[must_use]
    pub fn source(mut self, source: SourceName) -> Self {
        self.source = Some(source);
        self
    }

    /// States the action it is about.
    #[must_use]
    pub fn action(mut self, action: ActionId) -> Self {
        self.action = Some(action);
        self
    }

    /// States the lease it happened under.
    #[must_use]
    pub fn lease(mut self, lease: LeaseId) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Adds a field to the body.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.body.insert(key.to_owned(), value.into());
        self
    }
}

/// One entry of the ledger.
///
/// # Shape
/// JSON with the fields in this order: `seq`, `prev`, then those of [`Draft`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, from 0 without gaps.
    pub seq: u64,
    /// Leaf hash of the entry before; for entry 0 the digest of nothing.
    pub prev: Digest,
    /// What was stated.
    #[serde(flatten)]
    pub draft: Draft,
}

/// Returns the Merkle leaf hash of a line without its line feed.
///
/// # Source
/// RFC 6962, section 2.1: SHA-256 over a zero byte and the leaf.
pub fn leaf_hash(line: &[u8]) -> Digest {
    let mut bytes = Vec::with_capacity(line.len() + 1);
    bytes.push(0);
    bytes.extend_from_slice(line);
    Digest::of(&bytes)
}

/// The state after reading or writing lines in order.
#[derive(Clone, Debug)]
pub struct Chain {
    last: Digest,
    at: Timestamp,
    frontier: Frontier,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            last: Digest::of(b""),
            at: Timestamp(i64::MIN),
            frontier: Frontier::default(),
        }
    }
}

impl Chain {
    /// Returns the number of entries so far.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Returns the Merkle root over all entries so far.
    pub fn root(&self) -> Digest {
        self.frontier.root()
    }

    /// Returns the time of the newest entry, or `None` when there is none.
    pub fn newest(&self) -> Option<Timestamp> {
        (self.size() > 0).then_some(self.at)
    }

    /// Makes the next line, without its line feed, and advances.
    ///
    /// # Errors
    /// [`LineError::TooLong`]; the chain is then unchanged.
    pub fn append(&mut self, draft: Draft) -> Result<(Entry, String), LineError> {
        let entry = Entry {
            seq: self.size(),
            prev: self.last,
            draft,
        };
        let line =
            serde_json::to_string(&entry).map_err(|_| LineError::Malformed { seq: entry.seq })?;
        if line.len() >= LIMIT_LINE_BYTES {
            return Err(LineError::TooLong {
                seq: entry.seq,
                bytes: line.len(),
            });
        }
        self.push(line.as_bytes(), entry.draft.at);
        Ok((entry, line))
    }

    /// Reads the next line, without its line feed, checks it against the chain and advances.
    ///
    /// # Errors
    /// [`LineError`] names the entry; the chain is then unchanged.
    pub fn read(&mut self, line: &[u8]) -> Result<Entry, LineError> {
        let seq = self.size();
        if line.len() >= LIMIT_LINE_BYTES {
            return Err(LineError::TooLong {
                seq,
                bytes: line.len(),
            });
        }
        let entry: Entry =
            serde_json::from_slice(line).map_err(|_| LineError::Malformed { seq })?;
        if entry.seq != seq {
            return Err(LineError::WrongNumber {
                seq,
                found: entry.seq,
            });
        }
        if entry.prev != self.last {
            return Err(LineError::WrongPrevious { seq });
        }
        self.push(line, entry.draft.at);
        Ok(entry)
    }

    fn push(&mut self, line: &[u8], at: Timestamp) {
        self.last = leaf_hash(line);
        self.at = self.at.max(at);
        self.frontier.push(self.last);
    }
}

/// Why a line is not the next entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Not an entry as JSON.
    #[error("ledger entry {seq} is not readable")]
    Malformed {
        /// Its number.
        seq: u64,
    },
    /// Longer than [`LIMIT_LINE_BYTES`].
    #[error("ledger entry {seq} has {bytes} bytes, more than an entry may have")]
    TooLong {
        /// Its number.
        seq: u64,
        /// Its length.
        bytes: usize,
    },
    /// A line is missing or was inserted.
    #[error("ledger entry {seq} is missing: the next line says it is entry {found}")]
    WrongNumber {
        /// The number expected.
        seq: u64,
        /// The number found.
        found: u64,
    },
    /// The line before was changed.
    #[error("ledger entry {seq} does not follow from the entry before it: one of them was changed")]
    WrongPrevious {
        /// Its number.
        seq: u64,
    },
}

impl Coded for LineError {
    fn code(&self) -> Code {
        Code::ZI001
    }

    fn hint(&self) -> Option<String> {
        Some(
            "keep the file as it is and compare it with an exported copy; do not edit it"
                .to_owned(),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(count: u64) -> Vec<String> {
        let mut chain = Chain::default();
        (0..count)
            .map(|n| {
                let at = Timestamp(i64::try_from(n).unwrap());
                let draft = Draft::new("test.made", Principal::service("t"), at).with("n", n);
                chain.append(draft).unwrap().1
            })
            .collect()
    }

    fn verify(lines: &[String]) -> Result<Digest, LineError> {
        let mut chain = Chain::default();
        for line in lines {
            chain.read(line.as_bytes())?;
        }
        Ok(chain.root())
    }

    proptest! {
        #[test]
        fn any_changed_removed_or_swapped_line_is_noticed(count in 2_u64..20, at in 0_usize..20, how in 0..4) {
            let honest = lines(count);
            let root = verify(&honest).unwrap();
            let at = at % honest.len();
            let mut forged = honest.clone();
            match how {
                0 => forged[at] = forged[at].replace("test.made", "test.fake"),
                1 => { forged.remove(at); }
                2 => forged.insert(at, honest[at].clone()),
                _ => forged.swap(at, (at + 1) % honest.len()),
            }
            prop_assert_ne!(verify(&forged).ok(), Some(root));
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = Chain::default().read(&bytes);
        }
    }

    #[test]
    fn a_line_over_the_limit_is_refused_and_changes_nothing() {
        let mut chain = Chain::default();
        let draft = Draft::new("a.b", Principal::service("t"), Timestamp(0))
            .with("long", "x".repeat(LIMIT_LINE_BYTES));
        assert!(matches!(
            chain.append(draft),
            Err(LineError::TooLong { .. })
        ));
        assert_eq!(chain.size(), 0);
    }
}
