//! A disk that forgets what was not synced: real files for a real process, faults on demand.
//!
//! It is a file system of this process, mounted through FUSE, that keeps two states: what programs
//! see, and what would be there after a power cut. A write, a new name, a rename reach the second
//! state with `fsync` of the file or folder; before that, a power cut keeps any part of them, in any
//! order, torn at sectors. Every step that changes something is counted and can be the one at which
//! the victim is killed, the disk fails or is full.
//!
//! ```no_run
//! # fn example() -> anyhow::Result<()> {
//! use holdfast_testing::disk::{Disk, Fault, Survives};
//! use holdfast_testing::signals;
//!
//! let disk = Disk::mount("spool")?;
//! let victim = std::process::Command::new("program").arg(disk.path()).spawn()?;
//! disk.arm(Fault::Kill { after: 17, victim: victim.id() });
//! signals::wait_until(std::time::Duration::from_secs(10), || disk.has_tripped())?;
//! // ... reap the victim ...
//! disk.power_cut(Survives::Random, 4711);
//! # Ok(())
//! # }
//! ```
//!
//! # Source
//! What POSIX and `fsync(2)` promise: <https://man7.org/linux/man-pages/man2/fsync.2.html>. Less is
//! promised than most file systems do; a rename alone is taken to be atomic, as journals make it.

mod fuse;
mod model;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use fuser::{BackgroundSession, Config, MountOption};

use crate::dirs::TestDir;
use fuse::Mounted;
use model::Model;
pub use model::{Step, Survives};

/// What goes wrong, and when. `after` counts steps from the moment it is armed: 0 is the very next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// One step fails with an I/O error and is not performed; a failed sync loses what it should keep.
    Error {
        /// How many steps succeed before.
        after: u64,
    },
    /// No step that needs room succeeds until [`Disk::heal`].
    Full {
        /// How many steps succeed before.
        after: u64,
    },
    /// The victim is killed with SIGKILL before the step, which is not performed, nor is any later one.
    Kill {
        /// How many steps succeed before.
        after: u64,
        /// The process.
        victim: u32,
    },
}

/// A mounted disk; unmounted and forgotten when it is dropped.
pub struct Disk {
    session: Option<BackgroundSession>,
    model: Arc<Mutex<Model>>,
    mountpoint: PathBuf,
    _dir: TestDir,
}

impl Disk {
    /// Mounts an empty disk.
    ///
    /// # Errors
    /// When this process may not mount: it needs `/dev/fuse` and root.
    pub fn mount(subject: &str) -> Result<Self> {
        detach_abandoned();
        let dir = TestDir::new(subject)?;
        let mountpoint = dir.path().join("disk");
        std::fs::create_dir(&mountpoint).context("make the mount point")?;
        let model = Arc::new(Mutex::new(Model::default()));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName(NAME.to_owned())];
        let session = fuser::spawn_mount(Mounted::new(model.clone()), &mountpoint, &config)
            .context("mount a test disk: this needs /dev/fuse and root")?;
        Ok(Self {
            session: Some(session),
            model,
            mountpoint,
            _dir: dir,
        })
    }

    /// The folder in which programs find it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// Prepares one fault; the one before is forgotten.
    pub fn arm(&self, fault: Fault) {
        self.model().arm(fault, None);
    }

    /// As [`Disk::arm`], but only steps of one kind count.
    pub fn arm_on(&self, step: Step, fault: Fault) {
        self.model().arm(fault, Some(step));
    }

    /// Whether the armed fault has happened.
    #[must_use]
    pub fn has_tripped(&self) -> bool {
        self.model().tripped().is_some()
    }

    /// The step at which the fault happened.
    #[must_use]
    pub fn tripped(&self) -> Option<(Step, String)> {
        self.model().tripped()
    }

    /// How many steps there have been.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.model().steps()
    }

    /// Ends every fault; what programs see stays as it is.
    pub fn heal(&self) {
        self.model().heal();
    }

    /// What a power cut leaves becomes what programs see, and every fault ends.
    ///
    /// All programs that used the disk must be gone.
    pub fn power_cut(&self, survives: Survives, seed: u64) {
        self.model().power_cut(survives, seed);
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        // A program that still holds a file must not keep the folder from being removed.
        if session.umount_and_join().is_err() {
            detach(&self.mountpoint);
        }
    }
}

/// Detaches the disks of test processes that were killed.
fn detach_abandoned() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let is_ours = fields.next() == Some(NAME);
        let Some(path) = fields.next().filter(|_| is_ours).map(PathBuf::from) else {
            continue;
        };
        // Nobody answers any more.
        let gone = std::fs::metadata(&path).err();
        if gone.is_some_and(|error| error.raw_os_error() == Some(ENOTCONN)) {
            detach(&path);
        }
    }
}

fn detach(path: &Path) {
    let _ = Command::new("umount").arg("-l").arg(path).status();
}

/// What the disks are called in the mount table.
const NAME: &str = "holdfast-test-disk";
const ENOTCONN: i32 = 107;
