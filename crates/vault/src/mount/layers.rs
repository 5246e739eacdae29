//! The two layers together: what is under a path, and opening it.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use super::content::{Body, Content, Layer, Origin};
use super::lower::{Lower, LowerKind, join};
use super::overlay::{Overlay, open_file, remove};
use super::record;
use super::tree::{NodeKind, missing};
use crate::limits;

/// The restore point and the overlay over it.
pub(super) struct Layers {
    pub(super) lower: Lower,
    pub(super) overlay: Overlay,
    /// Files that have blocks of both, by path: also those that nobody has open.
    partials: Mutex<BTreeMap<Arc<str>, Arc<Content>>>,
    /// Files that were never touched and that somebody has: nobody gets a second one.
    known: Mutex<BTreeMap<Arc<str>, Weak<Content>>>,
    flights: Flights,
}

/// What is being fetched: a second one who wants it waits for the first.
#[derive(Default)]
struct Flights {
    under_way: Mutex<HashSet<(Arc<str>, u64)>>,
    landed: Condvar,
}

/// The turn to fetch something.
pub(super) struct Flight<'a> {
    flights: &'a Flights,
    what: (Arc<str>, u64),
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let flights = &self.flights.under_way;
        let mut under_way = flights.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.remove(&self.what);
        self.flights.landed.notify_all();
    }
}

impl Layers {
    pub(super) fn new(lower: Lower, overlay: Overlay) -> Self {
        Self {
            lower,
            overlay,
            partials: Mutex::default(),
            known: Mutex::default(),
            flights: Flights::default(),
        }
    }

    pub(super) fn partials(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<Content>>> {
        self.partials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the turn to fetch the window that begins at `start`, unless somebody else has it.
    pub(super) fn try_flight(&self, path: &Arc<str>, start: u64) -> Option<Flight<'_>> {
        let what = (Arc::clone(path), start);
        let flights = &self.flights;
        let under_way = flights.under_way.lock();
        let mut under_way = under_way.unwrap_or_else(PoisonError::into_inner);
        let is_ours = under_way.insert(what.clone());
        is_ours.then(|| Flight { flights, what })
    }

    /// Takes the turn to fetch the window that begins at `start`; `None` after somebody else had it.
    pub(super) fn flight(&self, path: &Arc<str>, start: u64) -> Option<Flight<'_>> {
        let what = (Arc::clone(path), start);
        let flights = &self.flights;
        let mut under_way = flights
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if under_way.insert(what.clone()) {
            return Some(Flight { flights, what });
        }
        while under_way.contains(&what) {
            under_way = flights
                .landed
                .wait(under_way)
                .unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// Returns what the restore point shows under a path.
    pub(super) fn lower_entry(&self, path: &str) -> io::Result<Option<LowerKind>> {
        match self.overlay.is_gone(path) {
            true => Ok(None),
            false => self.lower.entry(path),
        }
    }

    /// Returns what is under a path.
    pub(super) fn find(&self, path: &str) -> io::Result<Option<NodeKind>> {
        loop {
            let found = self.find_once(path)?;
            let is_lower = matches!(&found, Some(NodeKind::File(content)) if !content.is_whole());
            // It may have become whole meanwhile, and then the restore point's does not count.
            if !is_lower || self.facts(path).is_none() {
                return Ok(found);
            }
        }
    }

    fn find_once(&self, path: &str) -> io::Result<Option<NodeKind>> {
        match fs::symlink_metadata(self.overlay.data(path)) {
            Ok(found) if found.is_dir() => return Ok(Some(NodeKind::Folder)),
            Ok(found) if found.is_file() => {
                return Ok(Some(NodeKind::File(Arc::new(Content::whole()))));
            }
            Ok(_) => return Ok(Some(NodeKind::Other)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) => {}
        }
        if let Some(content) = self.partials().get(path) {
            return Ok(Some(NodeKind::File(Arc::clone(content))));
        }
        match self.lower_entry(path)? {
            None => Ok(None),
            Some(LowerKind::Folder) => Ok(Some(NodeKind::Folder)),
            Some(LowerKind::File { size }) => {
                let origin = Origin {
                    path: Arc::from(path),
                    size,
                };
                self.recall(origin).map(NodeKind::File).map(Some)
            }
        }
    }

    /// Returns a file of the restore point, with the blocks of it that an earlier mount has kept.
    fn recall(&self, origin: Origin) -> io::Result<Arc<Content>> {
        let (note, partial) = (
            self.overlay.note(&origin.path),
            self.overlay.partial(&origin.path),
        );
        let kept = record::read(&note, origin.size, self.overlay.id()).inspect_err(|error| {
            tracing::error!(record = %note.display(), %error, "a file of a mount cannot be used");
        })?;
        let Some(kept) = kept else {
            // Blocks that were never recorded count for nothing.
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(content) = known.get(&origin.path).and_then(Weak::upgrade)
                && !content.is_unlinked()
            {
                return Ok(content);
            }
            if known.len() > limits::MOUNT_KNOWN {
                known.retain(|_, content| content.strong_count() > 0);
            }
            let path = Arc::clone(&origin.path);
            let content = Arc::new(Content::lower(origin));
            known.insert(path, Arc::downgrade(&content));
            return Ok(content);
        };
        let file = open_file(&partial)?;
        if let Some(cut) = kept.cut {
            file.set_len(cut)?;
        }
        let length = file.metadata()?.len();
        let mut partials = self.partials();
        let path = Arc::clone(&origin.path);
        let content = partials
            .entry(path)
            .or_insert_with(|| Arc::new(Content::partial(origin, kept, length)));
        Ok(Arc::clone(content))
    }

    /// Opens a file once more; `path` is where it is now.
    pub(super) fn open(&self, content: &Content, path: &str) -> io::Result<()> {
        let mut body = content.change();
        if body.file.is_none() {
            body.file = match (body.layer, content.origin()) {
                // It was unlinked while the kernel was on its way to open it.
                (Layer::Whole, _) if path.is_empty() => return Err(missing()),
                (Layer::Whole, _) => Some(Arc::new(open_file(&self.overlay.data(path))?)),
                (Layer::Partial, Some(origin)) => {
                    Some(Arc::new(open_file(&self.overlay.partial(&origin.path))?))
                }
                (Layer::Partial, None) => return Err(missing()),
                (Layer::Lower, _) => None,
            };
        }
        body.opens = body.opens.saturating_add(1);
        Ok(())
    }

    /// Closes a file once.
    pub(super) fn close(&self, content: &Content) {
        let mut body = content.change();
        body.opens = body.opens.saturating_sub(1);
        if body.opens == 0 {
            body.backing = None;
            body.file = None;
        }
    }

    /// Returns the overlay's file of one that is open, and makes it when there is none yet.
    pub(super) fn file(&self, content: &Arc<Content>, body: &mut Body) -> io::Result<Arc<File>> {
        if let Some(file) = &body.file {
            return Ok(Arc::clone(file));
        }
        let origin = content.origin().ok_or_else(missing)?;
        let path = self.overlay.partial(&origin.path);
        if body.layer == Layer::Lower {
            self.overlay.make_parents(&path)?;
            remove(&path)?;
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            self.overlay.own(&path)?;
            file.set_len(body.length)?;
            if content.is_unlinked() {
                remove(&path)?;
            } else {
                let key = Arc::clone(&origin.path);
                self.partials().insert(key, Arc::clone(content));
            }
            body.layer = Layer::Partial;
            body.file = Some(Arc::new(file));
        } else {
            body.file = Some(Arc::new(open_file(&path)?));
        }
        body.file.clone().ok_or_else(missing)
    }

    /// Returns the overlay's own facts of a path, when it has it.
    pub(super) fn facts(&self, path: &str) -> Option<Metadata> {
        fs::symlink_metadata(self.overlay.data(path)).ok()
    }

    /// Returns what lies in a folder.
    pub(super) fn list(&self, folder: &str) -> io::Result<BTreeMap<String, fuser::FileType>> {
        let mut found = BTreeMap::new();
        if !self.overlay.is_gone(folder) {
            for (name, kind) in self.lower.children(folder)? {
                if !self.overlay.is_gone(&join(folder, &name)) {
                    let kind = match kind {
                        LowerKind::Folder => fuser::FileType::Directory,
                        LowerKind::File { .. } => fuser::FileType::RegularFile,
                    };
                    found.insert(name, kind);
                }
            }
        }
        let own = match fs::read_dir(self.overlay.data(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            own => own?,
        };
        for entry in own {
            let entry = entry?;
            let kind = fuser::FileType::from_std(entry.file_type()?);
            let kind = kind.unwrap_or(fuser::FileType::RegularFile);
            if let Ok(name) = entry.file_name().into_string() {
                found.insert(name, kind);
            }
        }
        Ok(found)
    }
}
