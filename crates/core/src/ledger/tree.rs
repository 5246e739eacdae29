//! The Merkle tree of RFC 6962 over leaf hashes.
//!
//! # Source
//! RFC 6962, sections 2.1, 2.1.1 and 2.1.2; verification as in RFC 9162, sections 2.1.3.2 and 2.1.4.2.

use crate::Digest;

/// The roots of the complete subtrees of a growing tree: what must be kept to append and to know the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Roots of complete subtrees, largest first; one for each bit set in `size`.
    roots: Vec<Digest>,
}

impl Frontier {
    /// Returns the number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Digest) {
        let mut node = leaf;
        let mut size = self.size;
        while size & 1 == 1 {
            if let Some(left) = self.roots.pop() {
                node = parent(left, node);
            }
            size >>= 1;
        }
        self.roots.push(node);
        self.size += 1;
    }

    /// Returns the root; for the empty tree the digest of nothing.
    pub fn root(&self) -> Digest {
        let mut roots = self.roots.iter().rev().copied();
        match roots.next() {
            None => Digest::of(b""),
            Some(first) => roots.fold(first, |right, left| parent(left, right)),
        }
    }
}

/// Returns the hashes that lead from leaf `index` to the root over `leaves`, or `None` if there is no such leaf.
pub fn inclusion_proof(leaves: &[Digest], index: usize) -> Option<Vec<Digest>> {
    if index >= leaves.len() {
        return None;
    }
    let mut proof = Vec::new();
    let (mut leaves, mut index) = (leaves, index);
    while leaves.len() > 1 {
        let (left, right) = leaves.split_at(split(leaves.len()));
        if index < left.len() {
            proof.push(root_of(right));
            leaves = left;
        } else {
            proof.push(root_of(left));
            index -= left.len();
            leaves = right;
        }
    }
    proof.reverse();
    Some(proof)
}

/// Tells whether `proof` leads from `leaf` at `index` to `root` in a tree of `size` leaves.
pub fn verify_inclusion(
    leaf: Digest,
    index: u64,
    size: u64,
    proof: &[Digest],
    root: Digest,
) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut at, mut last) = (leaf, index, size - 1);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            node = parent(*sibling, node);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            node = parent(node, *sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && node == root
}

/// Returns the hashes that show that the tree over `leaves` extends the tree over its first `old` leaves.
pub fn consistency_proof(leaves: &[Digest], old: usize) -> Option<Vec<Digest>> {
    if old == 0 || old > leaves.len() {
        return None;
    }
    let mut proof = Vec::new();
    let (mut leaves, mut old, mut whole) = (leaves, old, true);
    while old != leaves.len() {
        let (left, right) = leaves.split_at(split(leaves.len()));
        if old <= left.len() {
            proof.push(root_of(right));
            leaves = left;
        } else {
            proof.push(root_of(left));
            old -= left.len();
            leaves = right;
            whole = false;
        }
    }
    if !whole {
        proof.push(root_of(leaves));
    }
    proof.reverse();
    Some(proof)
}

/// Tells whether `proof` shows that the tree `new` (size, root) extends the tree `old`.
pub fn verify_consistency(old: (u64, Digest), new: (u64, Digest), proof: &[Digest]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size == 0 || old_size > new_size {
        return false;
    }
    if old_size == new_size {
        return proof.is_empty() && old_root == new_root;
    }
    let mut path = proof.iter().copied();
    let mut first = old_root;
    if !old_size.is_power_of_two() {
        let Some(node) = path.next() else {
            return false;
        };
        first = node;
    }
    let (mut at, mut last) = (old_size - 1, new_size - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old_node, mut new_node) = (first, first);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_node = parent(sibling, old_node);
            new_node = parent(sibling, new_node);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_node = parent(new_node, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old_node == old_root && new_node == new_root
}

fn parent(left: Digest, right: Digest) -> Digest {
    let mut bytes = [1_u8; 65];
    let (_, halves) = bytes.split_at_mut(1);
    let (first, second) = halves.split_at_mut(32);
    first.copy_from_slice(&left.0);
    second.copy_from_slice(&right.0);
    Digest::of(&bytes)
}

/// The largest power of two smaller than `count`, which is at least 2.
fn split(count: usize) -> usize {
    count.next_power_of_two() / 2
}

fn root_of(leaves: &[Digest]) -> Digest {
    let mut frontier = Frontier::default();
    for leaf in leaves {
        frontier.push(*leaf);
    }
    frontier.root()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::leaf_hash;

    fn leaves(count: usize) -> Vec<Digest> {
        (0..count)
            .map(|n| leaf_hash(n.to_string().as_bytes()))
            .collect()
    }

    fn size(count: usize) -> u64 {
        u64::try_from(count).unwrap()
    }

    #[test]
    fn roots_are_those_of_rfc_6962() {
        // SOURCE: the test vectors of certificate-transparency-go, merkle/testonly.
        let inputs: [&[u8]; 3] = [b"", b"\x00", b"\x10"];
        let expected = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        ];
        let mut frontier = Frontier::default();
        assert_eq!(
            frontier.root().to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        for (input, root) in inputs.into_iter().zip(expected) {
            frontier.push(leaf_hash(input));
            assert_eq!(frontier.root().to_string(), root);
        }
    }

    proptest! {
        #[test]
        fn inclusion_is_proven_for_the_right_leaf_only(count in 1_usize..70, at in 0_usize..70, other in 0_usize..70) {
            let all = leaves(count);
            let (at, other) = (at % count, other % count);
            let root = root_of(&all);
            let proof = inclusion_proof(&all, at).unwrap();
            prop_assert!(verify_inclusion(all[at], size(at), size(count), &proof, root));
            if at != other {
                prop_assert!(!verify_inclusion(all[other], size(at), size(count), &proof, root));
                prop_assert!(!verify_inclusion(all[at], size(other), size(count), &proof, root));
            }
            prop_assert!(!verify_inclusion(all[at], size(at), size(count) * 2 + 1, &proof, root));
        }

        #[test]
        fn consistency_is_proven_for_a_real_extension_only(new in 1_usize..70, old in 1_usize..70, forged in 0_usize..70) {
            let old = (old - 1) % new + 1;
            let all = leaves(new);
            let proof = consistency_proof(&all, old).unwrap();
            let old_root = root_of(&all[..old]);
            prop_assert!(verify_consistency((size(old), old_root), (size(new), root_of(&all)), &proof));
            let mut changed = all.clone();
            let forged = forged % old;
            changed[forged] = leaf_hash(b"forged");
            let proof = consistency_proof(&changed, old).unwrap();
            prop_assert!(!verify_consistency((size(old), old_root), (size(new), root_of(&changed)), &proof));
        }
    }

    #[test]
    fn there_is_no_proof_for_what_is_not_there() {
        assert_eq!(inclusion_proof(&leaves(3), 3), None);
        assert_eq!(consistency_proof(&leaves(3), 4), None);
        assert_eq!(consistency_proof(&leaves(3), 0), None);
        assert!(!verify_inclusion(
            leaf_hash(b"a"),
            0,
            0,
            &[],
            leaf_hash(b"a")
        ));
    }
}
