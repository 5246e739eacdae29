//! The kernel's questions, answered from the model. Nothing is cached outside of it.

use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::model::{Content, FileNode, FolderNode, Model, Node, ROOT, Refused};

/// The model as a file system.
pub(super) struct Mounted {
    model: Arc<Mutex<Model>>,
    made: SystemTime,
}

impl From<Refused> for Errno {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Exists => Self::EEXIST,
            Refused::Failed => Self::EIO,
            Refused::Full => Self::ENOSPC,
            Refused::IsFolder => Self::EISDIR,
            Refused::Missing => Self::ENOENT,
            Refused::NoFolder => Self::ENOTDIR,
            Refused::NotEmpty => Self::ENOTEMPTY,
        }
    }
}

impl Mounted {
    pub(super) fn new(model: Arc<Mutex<Model>>) -> Self {
        Self {
            model,
            made: SystemTime::now(),
        }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attributes(&self, model: &Model, number: u64) -> Result<FileAttr, Refused> {
        let node = model.node(number)?;
        let (kind, size) = match &node.content {
            Content::File(file) => (FileType::RegularFile, length(&file.live)),
            Content::Folder(_) => (FileType::Directory, 4096),
        };
        Ok(FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: self.made,
            mtime: self.made,
            ctime: self.made,
            crtime: self.made,
            kind,
            perm: u16::try_from(node.mode & 0o7777).unwrap_or(0o600),
            nlink: model.links(number),
            uid: node.owner.0,
            gid: node.owner.1,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    /// Makes a node of this kind and returns its attributes.
    fn make(
        &self,
        req: &Request,
        (parent, name): (INodeNo, &OsStr),
        content: Content,
        mode: u32,
    ) -> Result<FileAttr, Refused> {
        let node = Node {
            content,
            mode,
            owner: (req.uid(), req.gid()),
        };
        let mut model = self.model();
        let number = model.create(parent.0, name, node)?;
        self.attributes(&model, number)
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let model = self.model();
        let found = model.find(parent.0, name);
        match found.and_then(|number| self.attributes(&model, number)) {
            Ok(attributes) => reply.entry(&NOT_AT_ALL, &attributes, Generation(0)),
            Err(refused) => reply.error(refused.into()),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(&self.model(), number.0) {
            Ok(attributes) => reply.attr(&NOT_AT_ALL, &attributes),
            Err(refused) => reply.error(refused.into()),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut model = self.model();
        let mut change = || {
            if let Some(size) = size {
                model.truncate(number.0, usize::try_from(size).unwrap_or(usize::MAX))?;
            }
            let node = model.node_mut(number.0)?;
            node.mode = mode.unwrap_or(node.mode);
            node.owner = (uid.unwrap_or(node.owner.0), gid.unwrap_or(node.owner.1));
            self.attributes(&model, number.0)
        };
        match change() {
            Ok(attributes) => reply.attr(&NOT_AT_ALL, &attributes),
            Err(refused) => reply.error(refused.into()),
        }
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let content = Content::Folder(FolderNode::default());
        match self.make(req, (parent, name), content, mode & !umask) {
            Ok(attributes) => reply.entry(&NOT_AT_ALL, &attributes, Generation(0)),
            Err(refused) => reply.error(refused.into()),
        }
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let content = Content::File(FileNode::default());
        match self.make(req, (parent, name), content, mode & !umask) {
            Ok(attributes) => {
                let handle = FileHandle(attributes.ino.0);
                let flags = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&NOT_AT_ALL, &attributes, Generation(0), handle, flags);
            }
            Err(refused) => reply.error(refused.into()),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.model().unlink(parent.0, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.model().unlink(parent.0, name), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self
            .model()
            .rename((parent.0, name), (newparent.0, newname));
        answer(renamed, reply);
    }

    fn link(
        &self,
        _: &Request,
        number: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let mut model = self.model();
        let linked = model.link(number.0, newparent.0, newname);
        match linked.and_then(|()| self.attributes(&model, number.0)) {
            Ok(attributes) => reply.entry(&NOT_AT_ALL, &attributes, Generation(0)),
            Err(refused) => reply.error(refused.into()),
        }
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Without it the kernel would answer from its own memory what a power cut has taken.
        reply.opened(FileHandle(number.0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.model().file(number.0) {
            Ok(file) => {
                let from = position(offset).min(file.live.len());
                let to = from.saturating_add(position(u64::from(size)));
                let bytes = file.live.get(from..to.min(file.live.len()));
                reply.data(bytes.unwrap_or_default());
            }
            Err(refused) => reply.error(refused.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.model().write(number.0, position(offset), data) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(refused) => reply.error(refused.into()),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(self.model().sync(number.0), reply);
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(self.model().sync_folder(number.0), reply);
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let model = self.model();
        let folder = match model.folder(number.0) {
            Ok(folder) => folder,
            Err(refused) => return reply.error(refused.into()),
        };
        let dots = [(OsStr::new("."), number.0), (OsStr::new(".."), ROOT)];
        let names = folder.live.iter().map(|(name, of)| (name.as_os_str(), *of));
        let all = dots.into_iter().chain(names).zip(1_u64..);
        for ((name, of), next) in all.skip(position(offset)) {
            let kind = match model.node(of).map(|node| &node.content) {
                Ok(Content::Folder(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(INodeNo(of), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}

fn answer(done: Result<(), Refused>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(refused) => reply.error(refused.into()),
    }
}

fn position(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// How long the kernel may remember an answer.
const NOT_AT_ALL: Duration = Duration::ZERO;
/// 16 GiB in blocks of 4 KiB: what the disk claims to have.
const BLOCKS: u64 = 4 << 20;
