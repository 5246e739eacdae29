//! The block map: a persistent copy-on-write tree of keys and values, whose nodes are frames.
//!
//! A node names its children by place and SHA-256, so a signed root vouches for everything below it.
//! A new restore point writes only the nodes on the paths to what changed.

mod build;
pub(crate) mod key;
mod node;
mod number;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_core::{Digest, SourceName};
use serde::{Deserialize, Serialize};

use super::bundle::{FrameOpener, FramesSize, Stated};
use super::format::{Format, Kind, damaged};
use super::shelf::Shelf;
use super::{RepositoryError, layout};
use crate::limits;

pub(crate) use build::{Edits, MapWriter};
pub(crate) use node::{Entry, Node, NodeRef};

/// One object with nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MapRecord {
    /// By which nodes name it; never given twice in a line of restore points.
    pub(crate) serial: u32,
    /// The last part of the folder of the point that wrote it.
    pub(crate) folder: String,
    /// From 1, in that folder.
    pub(crate) number: u32,
    pub(crate) bytes: u64,
    pub(crate) frames: u32,
    pub(crate) raw_bytes: u64,
    pub(crate) index_sha256: Digest,
    /// Nodes of it that the restore point uses.
    pub(crate) live: u32,
}

impl MapRecord {
    fn stated(&self, source: &SourceName) -> Result<Stated, RepositoryError> {
        Ok(Stated {
            key: layout::map(source, &self.folder, self.number)?,
            format: Format::V2,
            kind: Kind::Map,
            letters: layout::letters(&self.folder).to_owned(),
            number: self.number,
            size: FramesSize {
                bytes: self.bytes,
                frames: self.frames,
                raw_bytes: self.raw_bytes,
                index_sha256: self.index_sha256,
            },
            frame_bytes: limits::NODE_BYTES_MAX,
        })
    }
}

/// A block map as it was when a restore point was made. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Map {
    shelf: Arc<Shelf>,
    source: SourceName,
    maps: Arc<BTreeMap<u32, MapRecord>>,
    root: Option<NodeRef>,
}

/// How many nodes are read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ahead {
    /// The ones that follow as well: a scan will want them.
    Many,
    /// The one that is asked for.
    One,
}

impl Map {
    /// Returns the map with this root.
    pub(crate) fn new(
        shelf: Arc<Shelf>,
        source: SourceName,
        maps: impl IntoIterator<Item = MapRecord>,
        root: Option<NodeRef>,
    ) -> Self {
        let maps = maps.into_iter().map(|map| (map.serial, map)).collect();
        Self {
            shelf,
            source,
            maps: Arc::new(maps),
            root,
        }
    }

    /// Returns the root; an empty map has none.
    pub(crate) fn root(&self) -> Option<NodeRef> {
        self.root
    }

    /// Returns the objects that its nodes are in.
    pub(crate) fn maps(&self) -> &BTreeMap<u32, MapRecord> {
        &self.maps
    }

    /// Returns the value under `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RepositoryError> {
        let found = self.floor(key)?.filter(|(found, _)| found == key);
        Ok(found.map(|(_, value)| value))
    }

    /// Returns the entry with the greatest key that is not greater than `key`.
    pub(crate) fn floor(&self, key: &[u8]) -> Result<Option<Entry>, RepositoryError> {
        let mut next = self.root;
        while let Some(place) = next {
            match self.node(&place, Ahead::One)?.as_ref() {
                Node::Inner(children) => {
                    let after = children.partition_point(|(first, _)| first.as_slice() <= key);
                    let child = after.checked_sub(1).and_then(|at| children.get(at));
                    next = child.map(|(_, child)| *child);
                }
                Node::Leaf(entries) => {
                    let after = entries.partition_point(|(found, _)| found.as_slice() <= key);
                    let entry = after.checked_sub(1).and_then(|at| entries.get(at));
                    return Ok(entry.cloned());
                }
            }
        }
        Ok(None)
    }

    /// Returns the entries from `key` on, in order; many are wanted.
    pub(crate) fn scan(&self, key: &[u8]) -> Scan {
        self.entries(key, Ahead::Many)
    }

    /// Returns the entries from `key` on, in order; few are wanted.
    pub(crate) fn near(&self, key: &[u8]) -> Scan {
        self.entries(key, Ahead::One)
    }

    fn entries(&self, key: &[u8], ahead: Ahead) -> Scan {
        Scan {
            map: self.clone(),
            ahead,
            path: Vec::new(),
            begin: Some(key.to_vec()),
        }
    }

    /// Reads one node, and perhaps those that follow it in its object.
    fn node(&self, place: &NodeRef, ahead: Ahead) -> Result<Arc<Node>, RepositoryError> {
        if let Some(node) = self.shelf.nodes.get(&place.sum) {
            return Ok(node);
        }
        let record = self
            .maps
            .get(&place.map)
            .ok_or_else(|| RepositoryError::Misuse {
                what: format!("the map object {} is not in the manifest", place.map),
            })?;
        let frames = self.shelf.frames(&record.stated(&self.source)?)?;
        let stated = frames.record(place.frame)?;
        if stated.sum != place.sum.0 {
            return Err(damaged(
                &frames.key,
                "a node of it is not what its map says",
            ));
        }
        let last = match ahead {
            Ahead::One => place.frame,
            Ahead::Many => place
                .frame
                .saturating_add(limits::NODES_AHEAD)
                .min(record.frames)
                .saturating_sub(1)
                .max(place.frame),
        };
        let stored = self.shelf.stored(&frames, (place.frame, last))?;
        let mut opener = FrameOpener::new()?;
        let mut rest = stored.as_slice();
        let mut wanted = None;
        for number in place.frame..=last {
            let stated = frames.record(number)?;
            let length = usize::try_from(stated.stored_bytes).unwrap_or(usize::MAX);
            let (bytes, later) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = later;
            let raw = opener.open(&frames.key, stated, bytes)?;
            let node = Node::decode(raw)
                .ok_or_else(|| damaged(&frames.key, "a node of it is not readable"))?;
            let (node, weight) = (Arc::new(node), raw.len());
            let weight = weight.saturating_mul(4);
            wanted.get_or_insert_with(|| Arc::clone(&node));
            self.shelf.nodes.insert(Digest(stated.sum), node, weight);
        }
        wanted.ok_or_else(|| damaged(&frames.key, "a node of it is not readable"))
    }
}

/// Entries of a map in order of their keys.
pub(crate) struct Scan {
    map: Map,
    ahead: Ahead,
    /// From the root to a leaf: the nodes and what comes next in each.
    path: Vec<(Arc<Node>, usize)>,
    /// Where to begin, when it is not known yet to which place that leads.
    begin: Option<Vec<u8>>,
}

impl Scan {
    /// Goes on from `key`.
    pub(crate) fn seek(&mut self, key: &[u8]) {
        self.path.clear();
        self.begin = Some(key.to_vec());
    }

    fn step(&mut self) -> Result<Option<Entry>, RepositoryError> {
        if let Some(key) = self.begin.take() {
            self.descend(self.map.root, &key)?;
        }
        while let Some((node, at)) = self.path.last_mut() {
            let here = *at;
            *at = at.saturating_add(1);
            let child = match node.as_ref() {
                Node::Leaf(entries) => match entries.get(here) {
                    Some(entry) => return Ok(Some(entry.clone())),
                    None => None,
                },
                Node::Inner(children) => children.get(here).map(|(_, child)| *child),
            };
            match child {
                Some(_) => self.descend(child, &[])?,
                None => {
                    self.path.pop();
                }
            }
        }
        Ok(None)
    }

    /// Goes down to the leaf where `key` is or would be.
    fn descend(&mut self, from: Option<NodeRef>, key: &[u8]) -> Result<(), RepositoryError> {
        let mut next = from;
        while let Some(place) = next {
            let node = self.map.node(&place, self.ahead)?;
            let at = match node.as_ref() {
                Node::Leaf(entries) => {
                    next = None;
                    entries.partition_point(|(found, _)| found.as_slice() < key)
                }
                Node::Inner(children) => {
                    let after = children.partition_point(|(first, _)| first.as_slice() <= key);
                    let at = after.saturating_sub(1);
                    next = children.get(at).map(|(_, child)| *child);
                    at.saturating_add(1)
                }
            };
            self.path.push((node, at));
        }
        Ok(())
    }
}

impl Iterator for Scan {
    type Item = Result<Entry, RepositoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.path.clear();
        }
        step.transpose()
    }
}
