//! Open files and listings: how the kernel may use them.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fuser::{BackingId, FileHandle, FileType, FopenFlags, INodeNo};

use super::{Handing, Listing, Mounted};
use crate::limits;
use crate::mount::content::{Content, Layer};

impl Mounted {
    /// Opens a file once more.
    pub(super) fn open_file(&self, number: INodeNo) -> io::Result<Arc<Content>> {
        let content = self.file(number)?;
        let path = self.shared.tree.path(number.0).unwrap_or_default();
        self.layers().open(&content, &path)?;
        Ok(content)
    }

    /// Decides how an open file is used: handed to the kernel when it is whole, or served by us.
    ///
    /// The kernel refuses an open file that we serve once it has the same file handed over, also when
    /// our answer was on its way before. So nothing is handed over while the kernel may not have taken
    /// such an answer yet, which shows when it asks for something with its handle.
    pub(super) fn admit(
        &self,
        content: &Content,
        hand: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> Result<Arc<BackingId>, FileHandle> {
        let mut body = content.change();
        let is_whole = body.layer == Layer::Whole || body.presence.is_whole();
        let can_hand = self.handing == Handing::Over && is_whole && body.unseen.is_empty();
        if body.backing.is_none()
            && can_hand
            && let Some(file) = &body.file
        {
            match hand(file) {
                Ok(backing) => body.backing = Some(Arc::new(backing)),
                Err(error) => tracing::debug!(%error, "a whole file is not handed to the kernel"),
            }
        }
        match &body.backing {
            Some(backing) => {
                // What is read of it is not seen; of a small file it is what has come.
                if let Some(origin) = content.origin() {
                    let first = origin.size.min(u64::from(limits::FRAME_BYTES_U32));
                    self.shared.hot.note(&origin.path, &(0..first));
                }
                Ok(Arc::clone(backing))
            }
            None => {
                // Zero is the handle of those that were handed over.
                let last = self.last.fetch_add(1, Ordering::Relaxed);
                let handle = last.saturating_add(1);
                if self.handing == Handing::Over {
                    body.unseen.insert(handle);
                    content.set_unseen(body.unseen.len());
                }
                Err(FileHandle(handle))
            }
        }
    }

    /// Notes that the kernel has taken an open file as it was answered.
    pub(super) fn seen(content: &Content, handle: FileHandle) {
        if content.has_unseen() && content.look().unseen.contains(&handle.0) {
            let mut body = content.change();
            body.unseen.remove(&handle.0);
            content.set_unseen(body.unseen.len());
        }
    }

    /// Remembers what a folder has, for as long as it is open.
    pub(super) fn open_listing(&self, number: INodeNo) -> io::Result<FileHandle> {
        let path = self.shared.tree.path(number.0)?;
        let found = self.layers().list(&path)?;
        let handle = self.last.fetch_add(1, Ordering::Relaxed);
        let dots = [".", ".."].map(|name| (name.to_owned(), FileType::Directory));
        let listing: Listing = dots.into_iter().chain(found).collect();
        self.listings().insert(handle, Arc::new(listing));
        Ok(FileHandle(handle))
    }
}

/// How files that are not whole are opened.
pub(super) const SERVED: FopenFlags = FopenFlags::FOPEN_DIRECT_IO
    .union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES)
    .union(FopenFlags::FOPEN_NOFLUSH);
/// How whole files are.
pub(super) const HANDED: FopenFlags = FopenFlags::FOPEN_NOFLUSH;
/// Nothing is remembered of an open file but the file.
pub(super) const NO_HANDLE: FileHandle = FileHandle(0);
