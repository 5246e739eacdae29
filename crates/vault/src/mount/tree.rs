//! The names that the kernel knows, and what is behind each.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::content::Content;
use super::lower::join;

/// The number of the top folder, as FUSE has it.
pub(super) const TOP: u64 = 1;

/// What a name stands for.
#[derive(Clone)]
pub(super) enum NodeKind {
    Folder,
    File(Arc<Content>),
    /// A link or a socket, which the overlay alone has.
    Other,
}

struct Node {
    parent: u64,
    name: String,
    kind: NodeKind,
    lookups: u64,
    /// It was unlinked; whoever has it open still has it.
    is_unlinked: bool,
}

#[derive(Default)]
struct Nodes {
    by_number: HashMap<u64, Node>,
    by_name: HashMap<u64, HashMap<String, u64>>,
    last: u64,
}

/// All nodes that the kernel has been told of and has not forgotten.
pub(super) struct Tree(Mutex<Nodes>);

impl Tree {
    pub(super) fn new() -> Self {
        let nodes = Nodes {
            last: TOP,
            ..Nodes::default()
        };
        Self(Mutex::new(nodes))
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the path of a node; one that was unlinked has none.
    pub(super) fn path(&self, number: u64) -> io::Result<String> {
        let nodes = self.nodes();
        let mut names = Vec::new();
        let mut at = number;
        while at != TOP {
            let node = nodes.by_number.get(&at).ok_or_else(missing)?;
            if node.is_unlinked {
                return Err(missing());
            }
            names.push(node.name.as_str());
            at = node.parent;
        }
        Ok(names
            .iter()
            .rev()
            .fold(String::new(), |path, name| join(&path, name)))
    }

    /// Returns what a number stands for.
    pub(super) fn kind(&self, number: u64) -> io::Result<NodeKind> {
        if number == TOP {
            return Ok(NodeKind::Folder);
        }
        let nodes = self.nodes();
        let node = nodes.by_number.get(&number).ok_or_else(missing)?;
        Ok(node.kind.clone())
    }

    /// Returns a name that is known already, and counts that it was asked for.
    pub(super) fn known(&self, parent: u64, name: &str) -> Option<(u64, NodeKind)> {
        let mut nodes = self.nodes();
        let number = *nodes.by_name.get(&parent)?.get(name)?;
        let node = nodes.by_number.get_mut(&number)?;
        node.lookups = node.lookups.saturating_add(1);
        Some((number, node.kind.clone()))
    }

    /// Returns what is known under a name, without the kernel hearing of it.
    pub(super) fn peek(&self, parent: u64, name: &str) -> Option<NodeKind> {
        let nodes = self.nodes();
        let number = nodes.by_name.get(&parent)?.get(name)?;
        Some(nodes.by_number.get(number)?.kind.clone())
    }

    /// Makes a name known that the kernel has asked for.
    pub(super) fn add(&self, parent: u64, name: &str, kind: NodeKind) -> (u64, NodeKind) {
        if let Some(known) = self.known(parent, name) {
            return known;
        }
        let mut nodes = self.nodes();
        nodes.last = nodes.last.saturating_add(1);
        let number = nodes.last;
        let node = Node {
            parent,
            name: name.to_owned(),
            kind: kind.clone(),
            lookups: 1,
            is_unlinked: false,
        };
        nodes.by_number.insert(number, node);
        let names = nodes.by_name.entry(parent).or_default();
        names.insert(name.to_owned(), number);
        (number, kind)
    }

    /// Takes a name away; the node stays for those who have it open.
    pub(super) fn take(&self, parent: u64, name: &str) -> Option<NodeKind> {
        let mut nodes = self.nodes();
        let number = nodes.by_name.get_mut(&parent)?.remove(name)?;
        let node = nodes.by_number.get_mut(&number)?;
        node.is_unlinked = true;
        Some(node.kind.clone())
    }

    /// Gives a node another name; what had that name is unlinked.
    pub(super) fn rename(&self, from: (u64, &str), to: (u64, &str)) {
        self.take(to.0, to.1);
        let mut nodes = self.nodes();
        let number = nodes
            .by_name
            .get_mut(&from.0)
            .and_then(|names| names.remove(from.1));
        let Some(number) = number else { return };
        if let Some(node) = nodes.by_number.get_mut(&number) {
            node.parent = to.0;
            to.1.clone_into(&mut node.name);
        }
        let names = nodes.by_name.entry(to.0).or_default();
        names.insert(to.1.to_owned(), number);
    }

    /// The kernel forgets a node as often as it has asked for it.
    pub(super) fn forget(&self, number: u64, lookups: u64) {
        let mut nodes = self.nodes();
        let Some(node) = nodes.by_number.get_mut(&number) else {
            return;
        };
        node.lookups = node.lookups.saturating_sub(lookups);
        if node.lookups > 0 {
            return;
        }
        let Some(node) = nodes.by_number.remove(&number) else {
            return;
        };
        if node.is_unlinked {
            return;
        }
        if let Some(names) = nodes.by_name.get_mut(&node.parent) {
            names.remove(&node.name);
            if names.is_empty() {
                nodes.by_name.remove(&node.parent);
            }
        }
    }
}

/// Nothing is there.
pub(super) fn missing() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error())
}
