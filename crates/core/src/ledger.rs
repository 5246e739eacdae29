//! The ledger's arithmetic: lines, hashes, trees and signed heads. Files are `holdfast-store`'s.
//!
//! An entry is one line of JSON. Its leaf hash covers the exact bytes of the line without the line
//! feed, and each line names the leaf hash of the line before it, so that a changed, removed or
//! inserted line is visible to anybody with `sha256sum`. Over the leaf hashes stands the Merkle tree
//! of RFC 6962, whose signed root ([`TreeHead`]) fixes everything before it.

mod head;
mod line;
mod tree;

pub use head::{HeadError, TreeHead, TreeHeadStatement};
pub use line::{Chain, Draft, Entry, LIMIT_LINE_BYTES, LineError, leaf_hash};
pub use tree::{
    Frontier, consistency_proof, inclusion_proof, verify_consistency, verify_inclusion,
};
