//! What is on the disk, what would be after a power cut, and which step fails.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;

use super::Fault;
use crate::signals;

/// The folder that the disk begins with.
pub(super) const ROOT: u64 = 1;
/// What a disk writes as a whole or not at all.
const SECTOR: usize = 512;

/// A step that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A new file or folder.
    Create,
    /// Another name for a file.
    Link,
    /// A rename.
    Rename,
    /// A file's sync.
    Sync,
    /// A folder's sync.
    SyncFolder,
    /// A file gets another length.
    Truncate,
    /// A name is removed.
    Unlink,
    /// Bytes are written.
    Write,
}

impl Step {
    fn needs_room(self) -> bool {
        matches!(self, Self::Create | Self::Link | Self::Write)
    }
}

/// What a power cut leaves of the steps that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survives {
    /// All of them: the process died and the machine did not.
    All,
    /// None of them.
    None,
    /// The first ones, in order.
    Prefix,
    /// Any of them, in any order; writes torn at sectors.
    Random,
}

/// Why a step is not performed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Exists,
    Failed,
    Full,
    IsFolder,
    Missing,
    NoFolder,
    NotEmpty,
}

type Done<T> = Result<T, Refused>;

pub(super) enum Content {
    File(FileNode),
    Folder(FolderNode),
}

#[derive(Default)]
pub(super) struct FileNode {
    pub(super) live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<FileChange>,
}

enum FileChange {
    Length(usize),
    Write { offset: usize, bytes: Vec<u8> },
}

#[derive(Default)]
pub(super) struct FolderNode {
    pub(super) live: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
    pending: Vec<NameChange>,
}

struct NameChange {
    /// Both halves of a rename have the same number: they survive together.
    group: u64,
    name: OsString,
    to: Option<u64>,
}

pub(super) struct Node {
    pub(super) content: Content,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
}

/// A fault that has yet to happen.
#[derive(Clone, Copy)]
struct Armed {
    fault: Fault,
    /// Only steps of this kind count.
    on: Option<Step>,
    /// How many of them succeed before.
    left: u64,
}

/// The whole disk.
pub(super) struct Model {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    groups: u64,
    steps: u64,
    armed: Option<Armed>,
    tripped: Option<(Step, String)>,
    is_dead: bool,
    is_full: bool,
}

impl Default for Model {
    fn default() -> Self {
        let root = Node {
            content: Content::Folder(FolderNode::default()),
            // The kernel lets nobody else in; the bits say so.
            mode: 0o700,
            owner: (0, 0),
        };
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            groups: 0,
            steps: 0,
            armed: None,
            tripped: None,
            is_dead: false,
            is_full: false,
        }
    }
}

/// Faults.
impl Model {
    pub(super) fn arm(&mut self, fault: Fault, on: Option<Step>) {
        let (Fault::Error { after } | Fault::Full { after } | Fault::Kill { after, .. }) = fault;
        let left = after;
        self.armed = Some(Armed { fault, on, left });
        self.tripped = None;
    }

    pub(super) fn tripped(&self) -> Option<(Step, String)> {
        self.tripped.clone()
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn heal(&mut self) {
        self.armed = None;
        self.is_dead = false;
        self.is_full = false;
    }

    /// Counts a step and decides whether it happens.
    fn step(&mut self, step: Step, what: &str) -> Done<()> {
        if self.is_dead {
            return Err(Refused::Failed);
        }
        self.steps = self.steps.saturating_add(1);
        if let Some(fault) = self.due(step) {
            self.tripped = Some((step, what.to_owned()));
            match fault {
                Fault::Error { .. } => return Err(Refused::Failed),
                Fault::Full { .. } => self.is_full = true,
                Fault::Kill { victim, .. } => {
                    self.is_dead = true;
                    let _ = signals::send(victim, Signal::KILL);
                    return Err(Refused::Failed);
                }
            }
        }
        if self.is_full && step.needs_room() {
            return Err(Refused::Full);
        }
        Ok(())
    }

    /// Returns the fault that happens at this step.
    fn due(&mut self, step: Step) -> Option<Fault> {
        let armed = self.armed.as_mut()?;
        let is_full = matches!(armed.fault, Fault::Full { .. });
        if armed.on.is_some_and(|on| on != step) || (is_full && !step.needs_room()) {
            return None;
        }
        if let Some(left) = armed.left.checked_sub(1) {
            armed.left = left;
            return None;
        }
        self.armed.take().map(|armed| armed.fault)
    }

    pub(super) fn power_cut(&mut self, survives: Survives, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let groups: BTreeSet<u64> = surviving_groups(&self.nodes, survives, &mut random);
        for node in self.nodes.values_mut() {
            match &mut node.content {
                Content::File(file) => file.cut(survives, &mut random),
                Content::Folder(folder) => folder.cut(&groups),
            }
        }
        let reached = self.reached();
        self.nodes.retain(|number, _| reached.contains(number));
        self.heal();
    }

    /// Returns everything that has a name.
    fn reached(&self) -> BTreeSet<u64> {
        let mut reached = BTreeSet::from([ROOT]);
        let mut next = vec![ROOT];
        while let Some(number) = next.pop() {
            let Some(Content::Folder(folder)) = self.nodes.get(&number).map(|n| &n.content) else {
                continue;
            };
            next.extend(folder.live.values().filter(|child| reached.insert(**child)));
        }
        reached
    }
}

fn surviving_groups(
    nodes: &BTreeMap<u64, Node>,
    survives: Survives,
    random: &mut StdRng,
) -> BTreeSet<u64> {
    let folders = nodes.values().filter_map(|node| match &node.content {
        Content::Folder(folder) => Some(folder),
        Content::File(_) => None,
    });
    let mut groups: BTreeSet<u64> = folders
        .flat_map(|folder| folder.pending.iter().map(|change| change.group))
        .collect();
    match survives {
        Survives::All => {}
        Survives::None => groups.clear(),
        Survives::Prefix => {
            let keep = random.random_range(0..=groups.len());
            groups = groups.into_iter().take(keep).collect();
        }
        Survives::Random => groups.retain(|_| random.random_bool(0.5)),
    }
    groups
}

impl FileNode {
    fn cut(&mut self, survives: Survives, random: &mut StdRng) {
        let pending = std::mem::take(&mut self.pending);
        let keep = match survives {
            Survives::All | Survives::Random => pending.len(),
            Survives::None => 0,
            Survives::Prefix => random.random_range(0..=pending.len()),
        };
        let is_torn = survives == Survives::Random;
        for change in pending.into_iter().take(keep) {
            match change {
                FileChange::Length(length) if !is_torn || random.random_bool(0.5) => {
                    self.durable.resize(length, 0);
                }
                FileChange::Length(_) => {}
                FileChange::Write { offset, bytes } if is_torn => {
                    for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                        if random.random_bool(0.5) {
                            put(&mut self.durable, offset + index * SECTOR, sector);
                        }
                    }
                }
                FileChange::Write { offset, bytes } => put(&mut self.durable, offset, &bytes),
            }
        }
        self.live = self.durable.clone();
    }
}

impl FolderNode {
    fn cut(&mut self, groups: &BTreeSet<u64>) {
        for change in std::mem::take(&mut self.pending) {
            if groups.contains(&change.group) {
                change.apply(&mut self.durable);
            }
        }
        self.live = self.durable.clone();
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<OsString, u64>) {
        match self.to {
            Some(number) => names.insert(self.name, number),
            None => names.remove(&self.name),
        };
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset.saturating_add(bytes.len());
    if content.len() < end {
        content.resize(end, 0);
    }
    if let Some(place) = content.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

/// Looking.
impl Model {
    pub(super) fn node(&self, number: u64) -> Done<&Node> {
        self.nodes.get(&number).ok_or(Refused::Missing)
    }

    pub(super) fn node_mut(&mut self, number: u64) -> Done<&mut Node> {
        self.nodes.get_mut(&number).ok_or(Refused::Missing)
    }

    pub(super) fn folder(&self, number: u64) -> Done<&FolderNode> {
        match &self.node(number)?.content {
            Content::Folder(folder) => Ok(folder),
            Content::File(_) => Err(Refused::NoFolder),
        }
    }

    pub(super) fn find(&self, folder: u64, name: &OsStr) -> Done<u64> {
        let names = &self.folder(folder)?.live;
        names.get(name).copied().ok_or(Refused::Missing)
    }

    pub(super) fn file(&self, number: u64) -> Done<&FileNode> {
        match &self.node(number)?.content {
            Content::File(file) => Ok(file),
            Content::Folder(_) => Err(Refused::IsFolder),
        }
    }

    fn file_mut(&mut self, number: u64) -> Done<&mut FileNode> {
        match &mut self.node_mut(number)?.content {
            Content::File(file) => Ok(file),
            Content::Folder(_) => Err(Refused::IsFolder),
        }
    }

    pub(super) fn links(&self, number: u64) -> u32 {
        let names = self.nodes.values().filter_map(|node| match &node.content {
            Content::Folder(folder) => Some(folder),
            Content::File(_) => None,
        });
        let links = names
            .flat_map(|folder| folder.live.values())
            .filter(|child| **child == number)
            .count();
        u32::try_from(links).unwrap_or(u32::MAX).max(1)
    }
}

/// Changing: each is one step.
impl Model {
    pub(super) fn create(&mut self, folder: u64, name: &OsStr, node: Node) -> Done<u64> {
        if self.folder(folder)?.live.contains_key(name) {
            return Err(Refused::Exists);
        }
        self.step(Step::Create, &name.to_string_lossy())?;
        let number = self.next;
        self.next = number.saturating_add(1);
        self.nodes.insert(number, node);
        self.rename_to(folder, name, Some(number))?;
        Ok(number)
    }

    pub(super) fn link(&mut self, number: u64, folder: u64, name: &OsStr) -> Done<()> {
        if self.folder(folder)?.live.contains_key(name) {
            return Err(Refused::Exists);
        }
        self.file(number)?;
        self.step(Step::Link, &name.to_string_lossy())?;
        self.rename_to(folder, name, Some(number))
    }

    pub(super) fn unlink(&mut self, folder: u64, name: &OsStr) -> Done<()> {
        let number = self.find(folder, name)?;
        if let Content::Folder(node) = &self.node(number)?.content
            && !node.live.is_empty()
        {
            return Err(Refused::NotEmpty);
        }
        self.step(Step::Unlink, &name.to_string_lossy())?;
        self.rename_to(folder, name, None)
    }

    pub(super) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Done<()> {
        let number = self.find(from.0, from.1)?;
        self.folder(to.0)?;
        self.step(Step::Rename, &to.1.to_string_lossy())?;
        self.rename_to(to.0, to.1, Some(number))?;
        // One number for both halves.
        self.groups = self.groups.saturating_sub(1);
        self.rename_to(from.0, from.1, None)
    }

    pub(super) fn write(&mut self, number: u64, offset: usize, bytes: &[u8]) -> Done<()> {
        self.file(number)?;
        self.step(Step::Write, &format!("{} bytes", bytes.len()))?;
        let file = self.file_mut(number)?;
        put(&mut file.live, offset, bytes);
        file.pending.push(FileChange::Write {
            offset,
            bytes: bytes.to_vec(),
        });
        Ok(())
    }

    pub(super) fn truncate(&mut self, number: u64, length: usize) -> Done<()> {
        self.file(number)?;
        self.step(Step::Truncate, &format!("to {length}"))?;
        let file = self.file_mut(number)?;
        file.live.resize(length, 0);
        file.pending.push(FileChange::Length(length));
        Ok(())
    }

    pub(super) fn sync(&mut self, number: u64) -> Done<()> {
        let stepped = self.step(Step::Sync, "");
        let is_dead = self.is_dead;
        let file = self.file_mut(number)?;
        if stepped.is_err() && !is_dead {
            // As Linux does: what could not be written is called clean and is tried no more.
            file.pending.clear();
        }
        stepped?;
        file.pending.clear();
        file.durable.clone_from(&file.live);
        Ok(())
    }

    pub(super) fn sync_folder(&mut self, number: u64) -> Done<()> {
        self.folder(number)?;
        self.step(Step::SyncFolder, "")?;
        let groups: BTreeSet<u64> = self
            .folder(number)?
            .pending
            .iter()
            .map(|change| change.group)
            .collect();
        // The other half of a rename is kept with it.
        for node in self.nodes.values_mut() {
            let Content::Folder(folder) = &mut node.content else {
                continue;
            };
            let pending = std::mem::take(&mut folder.pending);
            for change in pending {
                if groups.contains(&change.group) {
                    change.apply(&mut folder.durable);
                } else {
                    folder.pending.push(change);
                }
            }
        }
        Ok(())
    }

    fn rename_to(&mut self, folder: u64, name: &OsStr, to: Option<u64>) -> Done<()> {
        self.groups = self.groups.saturating_add(1);
        let change = |group| NameChange {
            group,
            name: name.to_owned(),
            to,
        };
        let (shown, kept) = (change(self.groups), change(self.groups));
        match &mut self.node_mut(folder)?.content {
            Content::Folder(folder) => {
                shown.apply(&mut folder.live);
                folder.pending.push(kept);
                Ok(())
            }
            Content::File(_) => Err(Refused::NoFolder),
        }
    }
}

#[cfg(test)]
mod tests;
