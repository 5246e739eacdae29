//! Names: making, removing and renaming files and folders.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;

use super::content::{Content, Layer};
use super::layers::Layers;
use super::lower::LowerKind;
use super::tree::{NodeKind, missing};

impl Layers {
    /// Makes an empty file that the overlay alone has, open once.
    pub(super) fn create(&self, path: &str, mode: u32) -> io::Result<Arc<Content>> {
        let data = self.overlay.data(path);
        self.overlay.make_parents(&data)?;
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&data)?;
        self.overlay.own(&data)?;
        let content = Content::whole();
        {
            let mut body = content.change();
            body.file = Some(Arc::new(file));
            body.opens = 1;
        }
        Ok(Arc::new(content))
    }

    pub(super) fn make_folder(&self, path: &str, mode: u32) -> io::Result<()> {
        let data = self.overlay.data(path);
        self.overlay.make_parents(&data)?;
        DirBuilder::new().mode(mode).create(&data)?;
        self.overlay.own(&data)
    }

    /// Makes a folder that every cluster needs, unless it is there or was taken away.
    pub(super) fn make_needed(&self, path: &str) -> io::Result<()> {
        match self.overlay.is_gone(path) || self.find(path)?.is_some() {
            true => Ok(()),
            false => self.make_folder(path, 0o700),
        }
    }

    /// Makes a folder of the restore point one of the data directory, when it is seen.
    pub(super) fn make_seen(&self, path: &str) -> io::Result<()> {
        if self.overlay.is_gone(path) || self.facts(path).is_some() {
            return Ok(());
        }
        let data = self.overlay.data(path);
        self.overlay.make_parents(&data.join("x"))
    }

    pub(super) fn make_link(&self, path: &str, target: &std::path::Path) -> io::Result<()> {
        let data = self.overlay.data(path);
        self.overlay.make_parents(&data)?;
        symlink(target, &data)?;
        match self.overlay.owner() {
            Some((user, group)) => std::os::unix::fs::lchown(&data, Some(user), Some(group)),
            None => Ok(()),
        }
    }

    /// Makes a socket or a pipe.
    pub(super) fn make_special(&self, path: &str, mode: u32) -> io::Result<()> {
        let kind = FileType::from_raw_mode(mode);
        if !matches!(kind, FileType::Socket | FileType::Fifo) {
            return Err(Errno::PERM.into());
        }
        let data = self.overlay.data(path);
        self.overlay.make_parents(&data)?;
        mknodat(CWD, &data, kind, Mode::from_raw_mode(mode & 0o7777), 0)?;
        self.overlay.own(&data)
    }

    /// Removes a file; those who have it open keep it.
    pub(super) fn take_file(&self, path: &str, kind: &NodeKind) -> io::Result<()> {
        if matches!(kind, NodeKind::Folder) {
            return Err(Errno::ISDIR.into());
        }
        // Hidden before it is removed: a crash in between must not show the restore point's again.
        if self.lower_entry(path)?.is_some() {
            self.overlay.hide(path)?;
        }
        if let NodeKind::File(content) = kind {
            content.set_nameless();
        }
        super::overlay::remove(&self.overlay.data(path))?;
        if self.partials().remove(path).is_some() {
            self.overlay.forget_partial(path)?;
        }
        Ok(())
    }

    pub(super) fn remove_folder(&self, path: &str) -> io::Result<()> {
        if !self.list(path)?.is_empty() {
            return Err(Errno::NOTEMPTY.into());
        }
        if self.lower_entry(path)?.is_some() {
            self.overlay.hide(path)?;
        }
        match fs::remove_dir(self.overlay.data(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Gives something another name, atomically; a file or an empty folder there is replaced.
    pub(super) fn rename(
        &self,
        (from, kind): (&str, &NodeKind),
        (to, replaced): (&str, Option<&NodeKind>),
    ) -> io::Result<()> {
        let (source, target) = (self.overlay.data(from), self.overlay.data(to));
        let is_folder = matches!(kind, NodeKind::Folder);
        match replaced {
            Some(NodeKind::Folder) if !is_folder => return Err(Errno::ISDIR.into()),
            Some(NodeKind::Folder) if !self.list(to)?.is_empty() => {
                return Err(Errno::NOTEMPTY.into());
            }
            Some(NodeKind::File(_) | NodeKind::Other) if is_folder => {
                return Err(Errno::NOTDIR.into());
            }
            _ => {}
        }
        let below = self.lower_entry(from)?;
        match (kind, below) {
            // As every overlay file system says of a folder that lies below: copy it.
            (NodeKind::Folder, Some(_)) => return Err(Errno::XDEV.into()),
            (NodeKind::File(content), _) => self.complete(content, from)?,
            _ => {}
        }
        // What is in `data/` counts before what is gone, so that nothing is lost in between.
        if matches!(below, Some(LowerKind::File { .. })) {
            self.overlay.hide(from)?;
        }
        if is_folder && self.lower_entry(to)?.is_some() {
            self.overlay.hide(to)?;
        }
        self.overlay.make_parents(&target)?;
        // Whoever brings it into the data directory must not put it over what is renamed.
        if let Some(NodeKind::File(content)) = replaced {
            content.set_nameless();
        }
        let renamed = fs::rename(&source, &target);
        if let (Some(NodeKind::File(content)), Err(_)) = (replaced, &renamed) {
            content.set_named();
        }
        renamed?;
        if self.partials().remove(to).is_some() {
            self.overlay.forget_partial(to)?;
        }
        Ok(())
    }

    /// Gives a file a second name.
    pub(super) fn link(&self, from: (&Arc<Content>, &str), to: &str) -> io::Result<Arc<Content>> {
        self.complete(from.0, from.1)?;
        let target = self.overlay.data(to);
        self.overlay.make_parents(&target)?;
        fs::hard_link(self.overlay.data(from.1), target)?;
        Ok(Arc::new(Content::whole()))
    }

    /// Makes the names of a folder durable.
    pub(super) fn sync_folder(&self, path: &str) -> io::Result<()> {
        self.overlay.sync_names()?;
        match File::open(self.overlay.data(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            folder => folder?.sync_all(),
        }
    }

    /// Returns a path of the host whose rights and times are those of `path`, making it if need be.
    pub(super) fn host_path(&self, path: &str, kind: &NodeKind) -> io::Result<std::path::PathBuf> {
        match kind {
            NodeKind::Folder => {
                let data = self.overlay.data(path);
                self.overlay.make_parents(&data.join("x"))?;
                Ok(data)
            }
            NodeKind::Other => Ok(self.overlay.data(path)),
            NodeKind::File(content) => {
                let mut body = content.change();
                if body.layer == Layer::Lower {
                    self.file(content, &mut body)?;
                    if body.opens == 0 {
                        body.file = None;
                    }
                }
                match (body.layer, content.origin()) {
                    (Layer::Whole, _) => Ok(self.overlay.data(path)),
                    (_, Some(origin)) => Ok(self.overlay.partial(&origin.path)),
                    (_, None) => Err(missing()),
                }
            }
        }
    }
}
