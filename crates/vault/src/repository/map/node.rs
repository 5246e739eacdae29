//! Nodes of a block map and their bytes.

use holdfast_core::Digest;

use super::number::{Numbers, put_number};
use crate::limits;

/// Where a node is and what it must sum up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeRef {
    /// The serial number of the map object.
    pub(crate) map: u32,
    /// The frame in it.
    pub(crate) frame: u32,
    /// SHA-256 of the node's bytes.
    pub(crate) sum: Digest,
}

/// What is stored under a key in a leaf.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);
/// The first key of a child and where the child is.
pub(crate) type Child = (Vec<u8>, NodeRef);

/// A node: entries, or children.
///
/// # Shape
/// Numbers are LEB128: seven bits a byte, the low ones first, the eighth says that more follow.
///
/// | field | bytes |
/// |---|---|
/// | kind: 0 leaf, 1 inner | 1 |
/// | number of entries | number |
/// | for each: bytes that its key shares with the one before | number |
/// | bytes that follow | number, then these |
/// | in a leaf: bytes of the value | number, then these |
/// | in an inner node: serial number of the map object, frame, SHA-256 of the child | number, number, 32 |
///
/// Keys ascend. The key of a child is the first key below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Inner(Vec<Child>),
    Leaf(Vec<Entry>),
}

impl Node {
    /// Returns the bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(limits::NODE_BYTES.saturating_mul(2));
        let mut before: &[u8] = &[];
        match self {
            Self::Inner(children) => {
                out.push(1);
                put_number(&mut out, number(children.len()));
                for (key, child) in children {
                    put_key(&mut out, before, key);
                    before = key;
                    put_number(&mut out, u64::from(child.map));
                    put_number(&mut out, u64::from(child.frame));
                    out.extend_from_slice(&child.sum.0);
                }
            }
            Self::Leaf(entries) => {
                out.push(0);
                put_number(&mut out, number(entries.len()));
                for (key, value) in entries {
                    put_key(&mut out, before, key);
                    before = key;
                    put_number(&mut out, number(value.len()));
                    out.extend_from_slice(value);
                }
            }
        }
        out
    }

    /// Reads a node back; `None` when it is not one, or its keys do not ascend.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let mut fields = Numbers(rest);
        let count = usize::try_from(fields.number()?).ok()?;
        // An entry has at least three bytes: a count beyond that cannot be true.
        if count == 0 || count > bytes.len() / 3 {
            return None;
        }
        let node = match kind {
            0 => Self::Leaf(read(&mut fields, count, |fields| {
                let length = usize::try_from(fields.number()?).ok()?;
                Some(fields.take(length)?.to_vec())
            })?),
            1 => Self::Inner(read(&mut fields, count, |fields| {
                Some(NodeRef {
                    map: u32::try_from(fields.number()?).ok()?,
                    frame: u32::try_from(fields.number()?).ok()?,
                    sum: Digest(fields.take(32)?.try_into().ok()?),
                })
            })?),
            _ => return None,
        };
        fields.0.is_empty().then_some(node)
    }
}

/// What a node consists of: keys with something behind them.
pub(super) trait Part {
    /// The key.
    fn key(&self) -> &[u8];
    /// How many bytes what is behind it takes, about.
    fn bytes(&self) -> usize;
}

impl Part for Entry {
    fn key(&self) -> &[u8] {
        &self.0
    }

    fn bytes(&self) -> usize {
        self.1.len().saturating_add(1)
    }
}

impl Part for Child {
    fn key(&self) -> &[u8] {
        &self.0
    }

    fn bytes(&self) -> usize {
        36
    }
}

/// Cuts what belongs together into nodes of about equal size, none above the limit if it can be.
pub(super) fn split<P: Part>(parts: Vec<P>) -> Vec<Vec<P>> {
    let mut sizes = Vec::with_capacity(parts.len());
    let mut last: &[u8] = &[];
    for part in &parts {
        let rest = part.key().len().saturating_sub(shared(last, part.key()));
        sizes.push(rest.saturating_add(part.bytes()).saturating_add(2));
        last = part.key();
    }
    let total: usize = sizes.iter().sum();
    if total <= limits::NODE_BYTES {
        return if parts.is_empty() {
            Vec::new()
        } else {
            vec![parts]
        };
    }
    // Three quarters full, so that the next few insertions do not split again.
    let pieces = total.div_ceil(limits::NODE_BYTES.saturating_mul(3) / 4);
    let mut nodes = Vec::with_capacity(pieces);
    let mut node = Vec::new();
    let mut before = 0_usize;
    for (part, size) in parts.into_iter().zip(sizes) {
        // Each part goes where its middle lies when the whole is cut evenly.
        let middle = before.saturating_add(size / 2);
        let piece = middle.saturating_mul(pieces) / total.max(1);
        if piece > nodes.len() && !node.is_empty() {
            nodes.push(std::mem::take(&mut node));
        }
        before = before.saturating_add(size);
        node.push(part);
    }
    if !node.is_empty() {
        nodes.push(node);
    }
    nodes
}

fn read<V>(
    fields: &mut Numbers<'_>,
    count: usize,
    value: impl Fn(&mut Numbers<'_>) -> Option<V>,
) -> Option<Vec<(Vec<u8>, V)>> {
    let mut parts: Vec<(Vec<u8>, V)> = Vec::with_capacity(count);
    for _ in 0..count {
        let shared = usize::try_from(fields.number()?).ok()?;
        let length = usize::try_from(fields.number()?).ok()?;
        let before = parts.last().map_or(&[][..], |(key, _)| key);
        let mut key = before.get(..shared)?.to_vec();
        key.extend_from_slice(fields.take(length)?);
        let ascends = parts.is_empty() || before < key.as_slice();
        if !ascends || key.len() > limits::KEY_BYTES {
            return None;
        }
        let value = value(fields)?;
        parts.push((key, value));
    }
    Some(parts)
}

fn put_key(out: &mut Vec<u8>, before: &[u8], key: &[u8]) {
    let shared = shared(before, key);
    let rest = key.get(shared..).unwrap_or_default();
    put_number(out, number(shared));
    put_number(out, number(rest.len()));
    out.extend_from_slice(rest);
}

fn shared(before: &[u8], key: &[u8]) -> usize {
    let same = |(left, right): &(&u8, &u8)| left == right;
    before.iter().zip(key).take_while(same).count()
}

fn number(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn child(byte: u8) -> NodeRef {
        NodeRef {
            map: u32::from(byte),
            frame: u32::MAX,
            sum: Digest([byte; 32]),
        }
    }

    proptest! {
        #[test]
        fn a_node_is_read_back_and_every_cut_is_refused(
            entries in proptest::collection::btree_map(
                proptest::collection::vec(0_u8..4, 0..9),
                proptest::collection::vec(any::<u8>(), 0..9),
                1..50,
            ),
        ) {
            let inner = entries.keys().map(|key| (key.clone(), child(key.len().to_le_bytes()[0])));
            for node in [Node::Inner(inner.collect()), Node::Leaf(entries.into_iter().collect())] {
                let bytes = node.encode();
                prop_assert_eq!(Node::decode(&bytes), Some(node));
                for cut in 0..bytes.len() {
                    prop_assert_eq!(Node::decode(&bytes[..cut]), None);
                }
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>, kind in 0_u8..2) {
            let _ = Node::decode(&bytes);
            let mut begun = vec![kind, 2];
            begun.extend(bytes);
            let _ = Node::decode(&begun);
        }

        #[test]
        fn what_is_split_stays_in_order_and_fits(keys in proptest::collection::btree_set(any::<u32>(), 0..5000)) {
            let all: Vec<Entry> = keys.iter().map(|key| (key.to_be_bytes().to_vec(), vec![0; 9])).collect();
            let nodes = split(all.clone());
            for node in &nodes {
                let bytes = Node::Leaf(node.clone()).encode().len();
                prop_assert!(bytes <= limits::NODE_BYTES + 64, "{}", bytes);
                prop_assert!(nodes.len() == 1 || bytes > limits::NODE_BYTES / 4, "{}", bytes);
            }
            prop_assert_eq!(nodes.concat(), all);
        }
    }

    #[test]
    fn keys_that_do_not_ascend_are_refused() {
        for keys in [[b"b", b"a"], [b"a", b"a"]] {
            let entries = keys.map(|key| (key.to_vec(), Vec::new())).to_vec();
            assert_eq!(Node::decode(&Node::Leaf(entries).encode()), None);
        }
    }
}
