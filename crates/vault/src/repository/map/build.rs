//! Making the next block map out of one and what changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::node::{Child, Entry, Part, split};
use super::{Ahead, Map, MapRecord, Node, NodeRef};
use crate::limits;
use crate::repository::bundle::{Gathering, Packed};
use crate::repository::format::{Kind, frame_compressor};
use crate::repository::{RepositoryError, layout};

/// What changes, by key: the new value, or `None` for what is no more.
pub(crate) type Edits = BTreeMap<Vec<u8>, Option<Vec<u8>>>;
type Edit = (Vec<u8>, Option<Vec<u8>>);

/// Writes the nodes of one restore point's map.
pub(crate) struct MapWriter {
    map: Map,
    folder: String,
    compressor: zstd::bulk::Compressor<'static>,
    open: Gathering,
    /// The serial number of the object that is being gathered.
    serial: u32,
    /// Its number in the folder.
    number: u32,
    /// Nodes in use, by the object that they are in.
    live: BTreeMap<u32, u32>,
    stored_bytes: u64,
}

/// What a node consists of while it is not cut into nodes again.
enum Content {
    Inner(Vec<Child>),
    Leaf(Vec<Entry>),
}

/// A part of a level: as it was, or taken apart.
enum Piece {
    Kept(Child),
    Open(Content),
}

impl MapWriter {
    /// Begins with `map`; `next` is the first serial number that no object of the line has.
    pub(crate) fn new(map: Map, folder: String, next: u32) -> Result<Self, RepositoryError> {
        let live = map.maps.values().map(|map| (map.serial, map.live));
        Ok(Self {
            live: live.collect(),
            map,
            folder,
            compressor: frame_compressor()?,
            open: Gathering::begin(Vec::new()),
            serial: next,
            number: 1,
            stored_bytes: 0,
        })
    }

    /// Returns the map as it was when [`MapWriter::close`] was called last.
    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    /// Returns the map as it is now, with every object that is still used; what is open is stored.
    pub(crate) fn finish(mut self) -> Result<(Map, u32, u64), RepositoryError> {
        self.close()?;
        let live = &self.live;
        let maps = self.map.maps.values().filter_map(|record| {
            let live = live.get(&record.serial).copied().unwrap_or(0);
            let record = MapRecord {
                live,
                ..record.clone()
            };
            (live > 0).then_some(record)
        });
        let maps = maps.collect::<Vec<_>>();
        let map = Map::new(
            Arc::clone(&self.map.shelf),
            self.map.source.clone(),
            maps,
            self.map.root,
        );
        Ok((map, self.serial, self.stored_bytes))
    }

    /// Makes the map that has these changes.
    pub(crate) fn update(&mut self, edits: Edits) -> Result<(), RepositoryError> {
        self.close()?;
        let edits: Vec<Edit> = edits.into_iter().collect();
        if edits.is_empty() {
            return Ok(());
        }
        let content = match self.map.root {
            None => Content::Leaf(merge(&[], edits)),
            Some(root) => self.apply(&root, edits)?,
        };
        self.map.root = self.crown(content)?;
        Ok(())
    }

    /// Writes every node anew, so that no older object is needed.
    pub(crate) fn rewrite(&mut self) -> Result<(), RepositoryError> {
        self.close()?;
        if let Some(root) = self.map.root {
            self.map.root = Some(self.copy(&root)?);
        }
        self.close()
    }

    fn copy(&mut self, place: &NodeRef) -> Result<NodeRef, RepositoryError> {
        let node = self.map.node(place, Ahead::Many)?;
        self.release(place);
        match node.as_ref() {
            Node::Leaf(_) => self.put(&node),
            Node::Inner(children) => {
                let mut copied = Vec::with_capacity(children.len());
                for (key, child) in children {
                    copied.push((key.clone(), self.copy(child)?));
                }
                self.put(&Node::Inner(copied))
            }
        }
    }

    /// Takes a node apart and returns what it consists of after the changes.
    fn apply(&mut self, place: &NodeRef, edits: Vec<Edit>) -> Result<Content, RepositoryError> {
        let node = self.map.node(place, Ahead::One)?;
        self.release(place);
        let children = match node.as_ref() {
            Node::Leaf(entries) => return Ok(Content::Leaf(merge(entries, edits))),
            Node::Inner(children) => children,
        };
        let mut level = Vec::with_capacity(children.len());
        let mut rest = edits;
        for (at, child) in children.iter().enumerate() {
            let later = match children.get(at.saturating_add(1)) {
                Some((next, _)) => rest.split_off(rest.partition_point(|(key, _)| key < next)),
                None => Vec::new(),
            };
            let here = std::mem::replace(&mut rest, later);
            let piece = if here.is_empty() {
                Piece::Kept(child.clone())
            } else {
                Piece::Open(self.apply(&child.1, here)?)
            };
            self.join(&mut level, piece)?;
        }
        let mut children = Vec::with_capacity(level.len());
        for piece in level {
            match piece {
                Piece::Kept(child) => children.push(child),
                Piece::Open(content) => children.append(&mut self.write(content)?),
            }
        }
        Ok(Content::Inner(children))
    }

    /// Adds a piece to a level; small ones are joined with their neighbours.
    fn join(&mut self, level: &mut Vec<Piece>, piece: Piece) -> Result<(), RepositoryError> {
        match (level.last_mut(), piece) {
            (_, Piece::Open(content)) if content.is_empty() => {}
            (Some(Piece::Open(last)), Piece::Open(content)) => last.append(content)?,
            (Some(Piece::Open(last)), Piece::Kept(child)) if last.is_small() => {
                let content = self.take_apart(&child)?;
                last.append(content)?;
            }
            (Some(Piece::Kept(child)), Piece::Open(content)) if content.is_small() => {
                let child = child.clone();
                level.pop();
                let mut last = self.take_apart(&child)?;
                last.append(content)?;
                level.push(Piece::Open(last));
            }
            (_, piece) => level.push(piece),
        }
        Ok(())
    }

    fn take_apart(&mut self, (_, place): &Child) -> Result<Content, RepositoryError> {
        let node = self.map.node(place, Ahead::One)?;
        self.release(place);
        Ok(match node.as_ref() {
            Node::Inner(children) => Content::Inner(children.clone()),
            Node::Leaf(entries) => Content::Leaf(entries.clone()),
        })
    }

    /// Builds levels upon `content` until there is one node.
    fn crown(&mut self, mut content: Content) -> Result<Option<NodeRef>, RepositoryError> {
        loop {
            if content.is_empty() {
                return Ok(None);
            }
            // A root with one child is no root.
            if let Content::Inner(children) = &content
                && let [(_, only)] = children.as_slice()
            {
                return Ok(Some(*only));
            }
            let children = self.write(content)?;
            if let [(_, only)] = children.as_slice() {
                return Ok(Some(*only));
            }
            content = Content::Inner(children);
        }
    }

    /// Cuts content into nodes and writes them.
    fn write(&mut self, content: Content) -> Result<Vec<Child>, RepositoryError> {
        let nodes: Vec<Node> = match content {
            Content::Inner(children) => split(children).into_iter().map(Node::Inner).collect(),
            Content::Leaf(entries) => split(entries).into_iter().map(Node::Leaf).collect(),
        };
        let mut children = Vec::with_capacity(nodes.len());
        for node in nodes {
            let first = match &node {
                Node::Inner(children) => children.first().map(|(key, _)| key.clone()),
                Node::Leaf(entries) => entries.first().map(|(key, _)| key.clone()),
            };
            let place = self.put(&node)?;
            children.push((first.unwrap_or_default(), place));
        }
        Ok(children)
    }

    fn put(&mut self, node: &Node) -> Result<NodeRef, RepositoryError> {
        if self.open.is_full(limits::MAP_BYTES) {
            self.close()?;
        }
        let packed = Packed::pack(&mut self.compressor, &node.encode())?;
        let place = NodeRef {
            map: self.serial,
            frame: self.open.count(),
            sum: packed.sum(),
        };
        self.open.take(&packed);
        let live = self.live.entry(place.map).or_default();
        *live = live.saturating_add(1);
        Ok(place)
    }

    fn release(&mut self, place: &NodeRef) {
        if let Some(live) = self.live.get_mut(&place.map) {
            *live = live.saturating_sub(1);
        }
    }

    /// Stores the object that is being gathered, if it has nodes.
    pub(crate) fn close(&mut self) -> Result<(), RepositoryError> {
        if self.open.count() == 0 {
            return Ok(());
        }
        let open = std::mem::replace(&mut self.open, Gathering::begin(Vec::new()));
        let letters = layout::letters(&self.folder);
        let gathered = open.close(Kind::Map, letters, self.number)?;
        let key = layout::map(&self.map.source, &self.folder, self.number)?;
        self.map.shelf.store.create_new(&key, gathered.object())?;
        let size = gathered.size;
        let record = MapRecord {
            serial: self.serial,
            folder: self.folder.clone(),
            number: self.number,
            bytes: size.bytes,
            frames: size.frames,
            raw_bytes: size.raw_bytes,
            index_sha256: size.index_sha256,
            live: 0,
        };
        Arc::make_mut(&mut self.map.maps).insert(self.serial, record);
        self.stored_bytes = self.stored_bytes.saturating_add(size.bytes);
        self.serial = self.serial.saturating_add(1);
        self.number = self.number.saturating_add(1);
        Ok(())
    }
}

impl Content {
    fn is_empty(&self) -> bool {
        match self {
            Self::Inner(children) => children.is_empty(),
            Self::Leaf(entries) => entries.is_empty(),
        }
    }

    /// Says whether it would be a node of less than a quarter.
    fn is_small(&self) -> bool {
        fn bytes<P: Part>(parts: &[P]) -> usize {
            let each = |part: &P| part.key().len().min(12).saturating_add(part.bytes());
            parts.iter().map(each).sum()
        }
        let bytes = match self {
            Self::Inner(children) => bytes(children),
            Self::Leaf(entries) => bytes(entries),
        };
        bytes < limits::NODE_BYTES / 4
    }

    fn append(&mut self, other: Self) -> Result<(), RepositoryError> {
        match (self, other) {
            (Self::Inner(children), Self::Inner(mut more)) => children.append(&mut more),
            (Self::Leaf(entries), Self::Leaf(mut more)) => entries.append(&mut more),
            (Self::Inner(_), Self::Leaf(_)) | (Self::Leaf(_), Self::Inner(_)) => {
                return Err(RepositoryError::Misuse {
                    what: "the levels of a map do not match".to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// Returns entries with the changes made to them; both are in order.
fn merge(entries: &[Entry], edits: Vec<Edit>) -> Vec<Entry> {
    let mut merged = Vec::with_capacity(entries.len().saturating_add(edits.len()));
    let mut rest = entries;
    for (key, value) in edits {
        let before = rest.partition_point(|(found, _)| *found < key);
        let (smaller, later) = rest.split_at_checked(before).unwrap_or((rest, &[]));
        merged.extend_from_slice(smaller);
        rest = match later.split_first() {
            Some(((found, _), after)) if *found == key => after,
            _ => later,
        };
        if let Some(value) = value {
            merged.push((key, value));
        }
    }
    merged.extend_from_slice(rest);
    merged
}
