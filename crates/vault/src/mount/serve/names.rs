//! What a request means by a name or a number.

use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use fuser::{FileAttr, INodeNo, RenameFlags};

use super::{Mounted, Shared};
use crate::mount::attributes::Change;
use crate::mount::bring;
use crate::mount::content::{Content, Layer};
use crate::mount::lower::join;
use crate::mount::tree::{NodeKind, missing};

impl Mounted {
    /// Returns the path that a name in a folder has.
    pub(super) fn path(&self, parent: INodeNo, name: &OsStr) -> io::Result<(String, String)> {
        let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = self.shared.tree.path(parent.0)?;
        Ok((join(&folder, name), name.to_owned()))
    }

    pub(super) fn file(&self, number: INodeNo) -> io::Result<Arc<Content>> {
        match self.shared.tree.kind(number.0)? {
            NodeKind::File(content) => Ok(content),
            NodeKind::Folder => Err(rustix::io::Errno::ISDIR.into()),
            NodeKind::Other => Err(rustix::io::Errno::INVAL.into()),
        }
    }

    pub(super) fn look_up(&self, parent: INodeNo, name: &OsStr) -> io::Result<Option<FileAttr>> {
        let (path, name) = self.path(parent, name)?;
        let tree = &self.shared.tree;
        let known = match tree.known(parent.0, &name) {
            Some(known) => Some(known),
            None => self
                .layers()
                .find(&path)?
                .map(|kind| tree.add(parent.0, &name, kind)),
        };
        known
            .map(|(number, kind)| self.layers().attributes(number, &kind, Some(&path)))
            .transpose()
    }

    /// Makes something with a new name known.
    pub(super) fn made(
        &self,
        parent: INodeNo,
        name: &OsStr,
        kind: NodeKind,
    ) -> io::Result<FileAttr> {
        let (path, name) = self.path(parent, name)?;
        let (number, kind) = self.shared.tree.add(parent.0, &name, kind);
        self.layers().attributes(number, &kind, Some(&path))
    }

    /// Returns what is under a name that is about to go, without the kernel hearing of it.
    pub(super) fn there(
        &self,
        parent: INodeNo,
        path: &str,
        name: &str,
    ) -> io::Result<Option<NodeKind>> {
        match self.shared.tree.peek(parent.0, name) {
            Some(kind) => Ok(Some(kind)),
            None => self.layers().find(path),
        }
    }

    pub(super) fn take_away(
        &self,
        parent: INodeNo,
        name: &OsStr,
        is_folder: bool,
    ) -> io::Result<()> {
        let (path, name) = self.path(parent, name)?;
        let kind = self.there(parent, &path, &name)?.ok_or_else(missing)?;
        match (&kind, is_folder) {
            (NodeKind::Folder, true) => self.layers().remove_folder(&path)?,
            (_, true) => return Err(rustix::io::Errno::NOTDIR.into()),
            (_, false) => self.layers().take_file(&path, &kind)?,
        }
        self.shared.tree.take(parent.0, &name);
        Ok(())
    }

    pub(super) fn rename_to(
        &self,
        from: (INodeNo, &OsStr),
        to: (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> io::Result<()> {
        let (source, source_name) = self.path(from.0, from.1)?;
        let (target, target_name) = self.path(to.0, to.1)?;
        let kind = self
            .there(from.0, &source, &source_name)?
            .ok_or_else(missing)?;
        let replaced = self.there(to.0, &target, &target_name)?;
        if flags.contains(RenameFlags::RENAME_NOREPLACE) && replaced.is_some() {
            return Err(rustix::io::Errno::EXIST.into());
        }
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return Err(rustix::io::Errno::INVAL.into());
        }
        if source == target {
            return Ok(());
        }
        self.layers()
            .rename((&source, &kind), (&target, replaced.as_ref()))?;
        self.shared
            .tree
            .rename((from.0.0, &source_name), (to.0.0, &target_name));
        Ok(())
    }
}

impl Shared {
    /// Notes a read: for the next opening, and to bring what will probably be read next.
    pub(super) fn follow(self: &Arc<Self>, content: &Arc<Content>, range: &Range<u64>) {
        let Some(origin) = content.origin() else {
            return;
        };
        let size = origin.size;
        self.hot
            .note(&origin.path, &(range.start..range.end.min(size)));
        let is_here = {
            let body = content.look();
            body.layer == Layer::Whole || body.presence.is_whole()
        };
        if is_here {
            return;
        }
        let ahead = content.reads.note(range);
        let ahead = ahead.map(|ahead| ahead.start..ahead.end.min(size));
        if let Some(ahead) = ahead.filter(|ahead| ahead.start < ahead.end) {
            bring::ahead(self, content, ahead);
        }
    }

    /// Returns the attributes of a number.
    pub(super) fn attributes(&self, number: u64) -> io::Result<FileAttr> {
        let kind = self.tree.kind(number)?;
        let path = self.tree.path(number).ok();
        self.layers.attributes(number, &kind, path.as_deref())
    }

    pub(super) fn change(&self, number: u64, change: &Change) -> io::Result<FileAttr> {
        let kind = self.tree.kind(number)?;
        let path = self.tree.path(number).ok();
        self.layers.apply(&kind, path.as_deref(), change)?;
        self.attributes(number)
    }
}
