//! Open files and listings: how the kernel may use them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fuser::{BackingId, FileHandle, FileType, FopenFlags, INodeNo};

use super::{Handing, Listing, Mounted};
use crate::mount::content::{Content, Layer};

impl Mounted {
    /// Opens a file once more.
    pub(super) fn open_file(&self, number: INodeNo) -> io::Result<Arc<Content>> {
        let content = self.file(number)?;
        let path = self.shared.tree.path(number.0).unwrap_or_default();
        self.layers().open(&content, &path)?;
        Ok(content)
    }

    /// Returns the file as the kernel can have it, when it is whole.
    pub(super) fn backing(
        &self,
        content: &Content,
        hand: impl FnOnce(&std::fs::File) -> io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        let mut body = content.change();
        if body.backing.is_none() && self.handing == Handing::Over {
            let file = body.file.clone()?;
            if body.layer != Layer::Whole && !body.presence.is_whole() {
                return None;
            }
            match hand(&file) {
                Ok(backing) => body.backing = Some(Arc::new(backing)),
                Err(error) => tracing::debug!(%error, "a whole file is not handed to the kernel"),
            }
        }
        body.backing.clone()
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
