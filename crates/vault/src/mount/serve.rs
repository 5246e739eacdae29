//! The kernel's questions, answered from the layers.
//!
//! Files that are not whole are served with direct I/O: their pages are cached once, as those of the
//! overlay's file, and whoever fills that file is seen at once. Whole files are handed to the kernel,
//! which then reads and writes them without us. Names and sizes are remembered by the kernel for
//! long: nobody changes them but through it.

mod handles;
mod names;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};
use rustix::fs::FallocateFlags;

use super::attributes::{Change, blank};
use super::blocks::Read;
use super::hot::Recorder;
use super::layers::Layers;
use super::pool::{Pool, Rank};
use super::tree::{NodeKind, TOP, Tree};
use handles::{HANDED, NO_HANDLE, SERVED};

/// What all threads of a mount share.
pub(super) struct Shared {
    pub(super) layers: Layers,
    pub(super) tree: Tree,
    pub(super) pool: Pool,
    pub(super) hot: Recorder,
}

/// Whether whole files are handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handing {
    Over,
    Never,
}

/// The file system.
pub(super) struct Mounted {
    shared: Arc<Shared>,
    handing: Handing,
    listings: Mutex<HashMap<u64, Arc<Listing>>>,
    last: AtomicU64,
}

type Listing = Vec<(String, FileType)>;

impl Mounted {
    pub(super) fn new(shared: Arc<Shared>, handing: Handing) -> Self {
        Self {
            shared,
            handing,
            listings: Mutex::default(),
            last: AtomicU64::new(0),
        }
    }

    fn listings(&self) -> MutexGuard<'_, HashMap<u64, Arc<Listing>>> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layers(&self) -> &Layers {
        &self.shared.layers
    }
}

impl Filesystem for Mounted {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_PARALLEL_DIROPS | InitFlags::FUSE_ASYNC_DIO;
        let _ = config.add_capabilities(wanted & config.capabilities());
        let can_hand = config.capabilities().contains(InitFlags::FUSE_PASSTHROUGH)
            && config.set_max_stack_depth(STACK_DEPTH).is_ok()
            && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok();
        if !can_hand {
            self.handing = Handing::Never;
        }
        let _ = config.set_max_write(WRITE_BYTES);
        let _ = config.set_max_background(BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.look_up(parent, name) {
            Ok(Some(attributes)) => reply.entry(&LONG, &attributes, Generation(0)),
            // The kernel remembers that there is nothing: nobody makes it but through the kernel.
            Ok(None) => reply.entry(&LONG, &blank(), Generation(0)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        self.shared.tree.forget(number.0, lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.shared.attributes(number.0) {
            Ok(attributes) => reply.attr(&LONG, &attributes),
            Err(error) => reply.error(error.into()),
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
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change {
            mode,
            owner: (uid, gid),
            size,
            times: (atime, mtime),
        };
        match self.shared.change(number.0, &change) {
            Ok(attributes) => reply.attr(&LONG, &attributes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let path = self.shared.tree.path(number.0);
        let target = path.and_then(|path| std::fs::read_link(self.layers().overlay.data(&path)));
        match target {
            Ok(target) => reply.data(target.as_os_str().as_encoded_bytes()),
            Err(error) => reply.error(error.into()),
        }
    }

    fn mknod(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let made = self.path(parent, name).and_then(|(path, _)| {
            if mode & FORMAT == REGULAR || mode & FORMAT == 0 {
                let content = self.layers().create(&path, mode & !umask & 0o7777)?;
                self.layers().close(&content);
                return Ok(NodeKind::File(content));
            }
            self.layers().make_special(&path, mode & !umask)?;
            Ok(NodeKind::Other)
        });
        entry(made.and_then(|kind| self.made(parent, name, kind)), reply);
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let path = self.path(parent, name);
        let made = path.and_then(|(path, _)| self.layers().make_folder(&path, mode & !umask));
        entry(
            made.and_then(|()| self.made(parent, name, NodeKind::Folder)),
            reply,
        );
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.take_away(parent, name, false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.take_away(parent, name, true), reply);
    }

    fn symlink(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let path = self.path(parent, name);
        let made = path.and_then(|(path, _)| self.layers().make_link(&path, target));
        entry(
            made.and_then(|()| self.made(parent, name, NodeKind::Other)),
            reply,
        );
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        answer(
            self.rename_to((parent, name), (newparent, newname), flags),
            reply,
        );
    }

    fn link(
        &self,
        _: &Request,
        number: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let linked = (|| {
            let (to, _) = self.path(newparent, newname)?;
            let from = self.shared.tree.path(number.0)?;
            let content = self.file(number)?;
            self.layers().link((&content, &from), &to)
        })();
        let made =
            linked.and_then(|content| self.made(newparent, newname, NodeKind::File(content)));
        entry(made, reply);
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.open_file(number) {
            Ok(content) => match self.admit(&content, |file| reply.open_backing(file)) {
                Ok(backing) => reply.opened_passthrough(NO_HANDLE, HANDED, &backing),
                Err(handle) => reply.opened(handle, SERVED),
            },
            Err(error) => reply.error(error.into()),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let made = (|| {
            let (path, _) = self.path(parent, name)?;
            let content = self.layers().create(&path, mode & !umask & 0o7777)?;
            let attributes = self.made(parent, name, NodeKind::File(Arc::clone(&content)))?;
            Ok::<_, io::Error>((content, attributes))
        })();
        match made {
            Ok((content, found)) => {
                let generation = Generation(0);
                match self.admit(&content, |file| reply.open_backing(file)) {
                    Ok(backing) => reply.created_passthrough(
                        &LONG, &found, generation, NO_HANDLE, HANDED, &backing,
                    ),
                    Err(handle) => reply.created(&LONG, &found, generation, handle, SERVED),
                }
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let range = offset..offset.saturating_add(u64::from(size));
        let content = match self.file(number) {
            Ok(content) => content,
            Err(error) => return reply.error(error.into()),
        };
        Self::seen(&content, handle);
        self.shared.follow(&content, &range);
        match self.layers().read_here(&content, range.clone()) {
            Ok(Read::Done(bytes)) => reply.data(&bytes),
            Ok(Read::Wait) => {
                let shared = Arc::clone(&self.shared);
                self.shared.pool.push(Rank::First, move || {
                    match shared.layers.read(&content, range) {
                        Ok(bytes) => reply.data(&bytes),
                        Err(error) => reply.error(error.into()),
                    }
                });
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let content = self.file(number);
        let written = content.and_then(|content| {
            Self::seen(&content, handle);
            self.layers().write(&content, offset, data)
        });
        match written {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        if let Ok(content) = self.file(number) {
            Self::seen(&content, handle);
            self.layers().close(&content);
        }
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let content = self.file(number);
        answer(
            content.and_then(|content| self.layers().sync(&content)),
            reply,
        );
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.open_listing(number) {
            Ok(handle) => reply.opened(handle, FopenFlags::empty()),
            Err(error) => reply.error(error.into()),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Some(listing) = self.listings().get(&handle.0).cloned() else {
            return reply.error(Errno::EBADF);
        };
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for ((name, kind), next) in listing.iter().zip(1_u64..).skip(skip) {
            // The kernel asks for the real number when it looks the name up.
            if reply.add(INodeNo(UNKNOWN), next, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.listings().remove(&handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let path = self.shared.tree.path(number.0);
        answer(
            path.and_then(|path| self.layers().sync_folder(&path)),
            reply,
        );
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match rustix::fs::statvfs(self.layers().overlay.root()) {
            Ok(found) => reply.statfs(
                found.f_blocks,
                found.f_bfree,
                found.f_bavail,
                found.f_files,
                found.f_ffree,
                u32::try_from(found.f_bsize).unwrap_or(4096),
                u32::try_from(found.f_namemax).unwrap_or(255),
                u32::try_from(found.f_frsize).unwrap_or(4096),
            ),
            Err(error) => reply.error(io::Error::from(error).into()),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let range = offset..offset.saturating_add(length);
        let flags = u32::try_from(mode).unwrap_or(u32::MAX);
        let flags = FallocateFlags::from_bits_retain(flags);
        let content = self.file(number);
        let done = content.and_then(|content| self.layers().allocate(&content, range, flags));
        answer(done, reply);
    }
}

fn entry(made: io::Result<FileAttr>, reply: ReplyEntry) {
    match made {
        Ok(attributes) => reply.entry(&LONG, &attributes, Generation(0)),
        Err(error) => reply.error(error.into()),
    }
}

fn answer(done: io::Result<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.into()),
    }
}

/// How long the kernel may remember names and attributes.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);
/// The most bytes of one write.
const WRITE_BYTES: u32 = 1 << 20;
/// Requests that the kernel may have under way without anybody waiting.
const BACKGROUND: u16 = 64;
/// An overlay may itself lie on a file system that lies over another.
const STACK_DEPTH: u32 = 2;
/// The number that a listing gives where none is known.
const UNKNOWN: u64 = u64::MAX;
/// What a mode says of the kind, and the kind of files.
const FORMAT: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;

const _: () = assert!(TOP == 1, "the top folder has the number that FUSE gives it");
