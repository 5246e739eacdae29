//! A restore point as a writable data directory, without bringing it back first.
//!
//! [`Mount::open`] shows a cluster's restore point under a path. What is read comes from the repository
//! when it is first touched; what is written goes to an overlay beside it and never anywhere else. The
//! time to open does not depend on the size: nothing is walked, nothing is created file by file.
//!
//! An overlay is durable: what was synced through the mount is there after the process that serves it
//! was killed, or the machine lost its power; [`Mount::open`] with the same overlay goes on. When every
//! block of every file has come, `OVERLAY/data` is an ordinary data directory.
//!
//! # How to use it
//! - All changes go through [`Mount::path`]; nobody writes in the overlay's folder.
//! - A server on it is started with `recovery_init_sync_method=syncfs` (PostgreSQL 14 and later), or it
//!   would open every file at its start.
//! - The process that serves it must outlive the server. When it ends early, the server's files answer
//!   with errors, and its watcher ([`watched_by`]) or [`sweep`] detaches what is left.
//!
//! # Invariants
//! - A block that cannot be read is an error, never zeros.
//! - A durable record never names a block whose bytes are not durable.
//! - Nothing of the repository is written.

mod ahead;
mod attributes;
mod blocks;
mod bring;
mod content;
mod durable;
mod error;
mod holder;
mod hot;
mod hydrate;
mod layers;
mod lower;
mod names;
mod overlay;
mod pool;
mod presence;
mod record;
mod serve;
mod stale;
mod tree;
mod watch;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use fuser::{BackgroundSession, Config, MountOption, SessionACL};

use holdfast_core::{ByteCount, ErrorChain};
use holdfast_store::object::BlockCache;

use crate::limits;
use crate::repository::Point;
use crate::restore::NEEDED_FOLDERS;

pub use error::{MountError, WhyNot};
pub use hydrate::Hydration;
pub use overlay::FilesOwner;
pub use stale::{free, possible, sweep};
pub use watch::{watch, watched_by};

use holder::Holder;
use hot::Recorder;
use hydrate::Hydrating;
use lower::Lower;
use overlay::Overlay;
use pool::Pool;
use serve::{Handing, Mounted, Shared};
use tree::Tree;
use watch::Watcher;

/// What to mount, and where.
#[derive(Clone)]
pub struct MountRequest {
    /// The restore point of a cluster.
    pub point: Point,
    /// The folder of the overlay: absent, empty, or that of an earlier mount of the same point.
    pub overlay: PathBuf,
    /// Where the data directory shall appear; made when it is absent.
    pub mountpoint: PathBuf,
    /// Who owns the files: the account that PostgreSQL runs as.
    pub owner: FilesOwner,
}

/// What makes the next opening quicker than the first. Without any of it everything works as well.
#[derive(Clone, Debug, Default)]
pub struct Near {
    /// Where parts of a repository that is far away are kept, for all mounts and processes; if absent,
    /// where the repository's location says.
    pub cache: Option<Arc<BlockCache>>,
    /// The folder in which it is remembered what a server touches when it starts, for each source.
    pub hot: Option<PathBuf>,
}

/// A restore point that is mounted; unmounted when it is dropped.
pub struct Mount {
    session: Option<BackgroundSession>,
    shared: Arc<Shared>,
    mountpoint: PathBuf,
    hydrating: Mutex<Hydrating>,
    /// The list of what is touched until the server serves.
    hot: Option<PathBuf>,
    /// Brings what was on that list.
    bringing: Option<JoinHandle<()>>,
    /// Takes the mount away when this process is killed.
    _watcher: Option<Watcher>,
}

impl Mount {
    /// Mounts a restore point.
    ///
    /// # Errors
    /// [`MountError`]; nothing is mounted then, and an overlay that was there is as it was.
    pub fn open(request: MountRequest) -> Result<Self, MountError> {
        Self::open_near(request, Near::default())
    }

    /// Mounts a restore point, with what earlier mounts have left.
    ///
    /// # Errors
    /// As [`Mount::open`].
    pub fn open_near(request: MountRequest, near: Near) -> Result<Self, MountError> {
        possible().map_err(|why| MountError::NotPossible { why })?;
        let summary = request.point.summary().clone();
        if summary.postgres.is_none() {
            return Err(MountError::NoCluster(summary.point));
        }
        let failed = |step: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| MountError::Overlay { step, path, source }
        };
        let mountpoint = request.mountpoint.as_path();
        stale::take_away(mountpoint).map_err(failed("detach", mountpoint))?;
        fs::create_dir_all(mountpoint).map_err(failed("make", mountpoint))?;
        if let Some(cache) = near.cache.or_else(|| request.point.open_near()) {
            request.point.keep_near(&cache);
        }
        let overlay = Overlay::open(&request.overlay, &summary, request.owner)?;
        let layers = layers::Layers::new(Lower::new(request.point), overlay);
        for folder in NEEDED_FOLDERS {
            let made = layers.make_needed(folder);
            made.map_err(failed("make", &request.overlay))?;
        }
        raise_open_files();
        let pool = Pool::start();
        let shared = Arc::new(Shared {
            layers,
            tree: Tree::new(),
            pool: pool.map_err(failed("serve", mountpoint))?,
            hot: Recorder::new(),
        });
        let handing = match rustix::process::geteuid().is_root() {
            true => Handing::Over,
            false => Handing::Never,
        };
        let mounted = Mounted::new(Arc::clone(&shared), handing);
        let holder = Holder::own().map_err(failed("serve", mountpoint))?;
        let watcher = Watcher::start(holder).map_err(failed("watch over", mountpoint))?;
        let session = fuser::spawn_mount(mounted, mountpoint, &configuration(holder));
        let hot = near.hot.map(|folder| hot::place(&folder, &summary.source));
        let mut mount = Self {
            session: Some(session.map_err(failed("mount", mountpoint))?),
            shared,
            mountpoint: request.mountpoint,
            hydrating: Mutex::default(),
            hot,
            bringing: None,
            _watcher: watcher,
        };
        mount
            .bring_hot()
            .map_err(failed("serve", &mount.mountpoint))?;
        Ok(mount)
    }

    /// Begins to bring what the server touched when it was started the last time.
    fn bring_hot(&mut self) -> io::Result<()> {
        let known = self.hot.as_deref().map(hot::read).unwrap_or_default();
        if known.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let work = move || {
            if let Err(error) = bring::prefetch(&shared, &known) {
                // Whoever wants it will ask for it, and be told then.
                tracing::debug!(error = %ErrorChain(&error), "what a server touches does not come");
            }
        };
        let named = std::thread::Builder::new().name("mount-hot".to_owned());
        self.bringing = Some(named.spawn(work)?);
        Ok(())
    }

    /// Says that the server on it takes writes: what it has touched until now is what the next opening
    /// of any restore point of this source brings at once. What [`Mount::prefetch`] named is left out.
    ///
    /// # Errors
    /// When the list cannot be written; the one before stays.
    pub fn keep_hot(&self) -> io::Result<()> {
        let touched = self.shared.hot.end();
        match &self.hot {
            Some(path) if !touched.is_empty() => hot::write(path, &touched),
            _ => Ok(()),
        }
    }

    /// Where the data directory is.
    pub fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// Brings blocks of 8 KiB of files before they are asked for, several at once, and returns how many
    /// were fetched: those that the log names which a server is about to replay. Files that are not
    /// there are passed over.
    ///
    /// # Errors
    /// When the repository does not give one, or the overlay's disk is full; the mount goes on.
    pub fn prefetch(&self, blocks: &BTreeMap<String, Vec<Range<u64>>>) -> io::Result<u64> {
        self.shared.hot.except(blocks);
        bring::prefetch(&self.shared, blocks)
    }

    /// Begins to bring everything, beside what is asked for and behind it; with an earlier mount's
    /// overlay it goes on where that ended. Called again, it only sets the bound.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn hydrate(&self, bytes_per_second: Option<ByteCount>) -> io::Result<()> {
        let rate = bytes_per_second.map(|bytes| bytes.0);
        self.hydrating().begin(&self.shared, rate)
    }

    /// Tells how far [`Mount::hydrate`] has come.
    pub fn hydration(&self) -> Hydration {
        let total = self.shared.layers.lower.bytes();
        self.hydrating().how_far(total)
    }

    fn hydrating(&self) -> std::sync::MutexGuard<'_, Hydrating> {
        self.hydrating
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Unmounts; the overlay stays, with everything that was written.
    ///
    /// The server on it must have stopped. Files that somebody still has open stay readable until they
    /// are closed.
    ///
    /// # Errors
    /// When the overlay cannot be made durable.
    pub fn close(mut self) -> Result<(), MountError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), MountError> {
        let Some(session) = self.session.take() else {
            return Ok(());
        };
        self.hydrating().stop();
        let unmounted = session.umount_and_join();
        if unmounted.is_err() {
            // Somebody has files open: from here on nobody finds it, and it ends with the last.
            let _ = stale::detach(&self.mountpoint);
        }
        self.shared.pool.close();
        if let Some(bringing) = self.bringing.take() {
            let _ = bringing.join();
        }
        let overlay = self.shared.layers.overlay.root();
        let noted = self.shared.layers.note_all();
        noted.map_err(|source| MountError::Overlay {
            step: "make durable",
            path: overlay.to_owned(),
            source,
        })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(error = %ErrorChain(&error), "a mount has not ended well");
        }
    }
}

fn configuration(holder: Holder) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(stale::name(holder)),
        MountOption::Subtype("holdfast".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoAtime,
        MountOption::NoDev,
        MountOption::NoSuid,
    ];
    config.acl = match rustix::process::geteuid().is_root() {
        true => SessionACL::All,
        false => SessionACL::Owner,
    };
    config.n_threads = Some(limits::MOUNT_THREADS);
    config.clone_fd = true;
    config
}

/// A server has many files open, and each of them is one of ours as well.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where that is refused, opening too many fails with an error that says so.
    let _ = setrlimit(Resource::Nofile, limit);
}
