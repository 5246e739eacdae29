//! A process of its own beside each mount, which takes the mount away when the process that serves it
//! was killed.
//!
//! A thread that waits for an answer of its own process's mount does not end before the answer comes or
//! the mount is given up. When the process is killed the answer never comes, and the mount is never
//! given up: the thread keeps the descriptors of the threads that should have answered. The process
//! would hold its locks and sockets for ever.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;

use super::holder::Holder;
use super::stale;
use crate::limits;

/// How this program is called to watch.
static CALLED: OnceLock<&'static [&'static str]> = OnceLock::new();

/// Says that this program, called with these arguments and one more behind them, runs [`watch`] with
/// that one. Mounts that are opened before are not watched.
pub fn watched_by(arguments: &'static [&'static str]) {
    // Whoever says it first has said it: a program has one command line.
    let _ = CALLED.set(arguments);
}

/// Waits until the process that `holder` names was killed or has ended, and takes its mounts away.
/// Whoever closes a mount in order ends its watcher before.
///
/// # Errors
/// When `holder` names none, or a mount cannot be detached.
pub fn watch(holder: &str) -> io::Result<()> {
    let holder: Holder = holder.parse()?;
    loop {
        match holder.is_over() {
            Some(true) => return stale::take_away_of(holder),
            Some(false) => thread::sleep(limits::MOUNT_WATCH),
            None => return Err(io::Error::other("it cannot be seen from here")),
        }
    }
}

/// The process that watches over a mount; it ends when this is dropped.
pub(super) struct Watcher(Child);

impl Watcher {
    /// Starts one, if this program has said how.
    pub(super) fn start(holder: Holder) -> io::Result<Option<Self>> {
        let Some(arguments) = CALLED.get() else {
            return Ok(None);
        };
        // Whatever has become of the file: the program that runs. Nothing of ours is inherited, so
        // nothing lives longer by it.
        let started = Command::new("/proc/self/exe")
            .args(*arguments)
            .arg(holder.to_string())
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        started.map(Self).map(Some)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
