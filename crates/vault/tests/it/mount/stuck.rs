//! The process that serves a mount is killed while it waits for an answer of its own mount.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use holdfast_testing::signals;
use holdfast_vault::mount::sweep;

use super::scene::Scene;

const LIMIT: Duration = Duration::from_secs(20);
/// A file with bytes of its own.
const FILE: &str = "base/1/10";

/// A process whose reading of its own mount never ends: the repository does not answer.
struct Stuck {
    scene: Scene,
    child: Child,
}

impl Stuck {
    fn new(seed: u64, watched: Option<(&str, &str)>) -> Self {
        let scene = Scene::new(seed);
        let state = scene.dir.path().join("state");
        crate::keys::keep(&state.join("keys"));
        let own = std::env::current_exe().unwrap();
        let target = own.parent().and_then(Path::parent).unwrap();
        let repository = scene.dir.path().join("repository");
        let mut child = Command::new(target.join("examples/mount_one"))
            .args([&state, &repository])
            .arg("prod")
            .args([scene.overlay(), scene.mountpoint()])
            .envs(watched)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 8];
        let stdout = child.stdout.as_mut().unwrap();
        stdout.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"mounted\n");
        silence(&repository);
        writeln!(child.stdin.as_mut().unwrap(), "read {FILE}").unwrap();
        let stuck = Self { scene, child };
        let mut seen = 0;
        // Not one that is about to be answered.
        signals::wait_until(LIMIT, || {
            seen = if stuck.waits() { seen + 1 } else { 0 };
            seen > 20
        })
        .unwrap();
        stuck
    }

    /// Our line of the system's table of mounts.
    fn line(&self) -> Option<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let place = format!(" {} ", self.scene.mountpoint().display());
        let mut lines = table.lines().filter(|line| line.contains(&place));
        lines.next().map(str::to_owned)
    }

    /// Tells whether the mount was asked something that it has not answered.
    fn waits(&self) -> bool {
        let line = self.line().unwrap();
        let device = line.split(' ').nth(2).unwrap();
        let minor = device.strip_prefix("0:").unwrap();
        let waiting = format!("/sys/fs/fuse/connections/{minor}/waiting");
        fs::read_to_string(waiting).unwrap().trim() != "0"
    }

    fn is_mounted(&self) -> bool {
        self.line().is_some()
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Everything that the process held is free: the point can be mounted over the same overlay.
    fn assert_free(&self) {
        let lock = File::open(self.scene.overlay().join("lock")).unwrap();
        lock.try_lock().unwrap();
        assert!(!self.is_mounted());
        assert_eq!(fs::read_dir(self.scene.mountpoint()).unwrap().count(), 0);
    }
}

/// Whatever happened, nothing is left that waits.
impl Drop for Stuck {
    fn drop(&mut self) {
        use rustix::mount::{UnmountFlags, unmount};
        let _ = self.child.kill();
        if self.is_mounted() {
            let _ = unmount(
                self.scene.mountpoint(),
                UnmountFlags::FORCE | UnmountFlags::DETACH,
            );
        }
        let _ = self.child.wait();
    }
}

/// Replaces every bundle by a pipe that nobody opens to write: opening one to read never returns.
fn silence(repository: &Path) {
    let mut folders = vec![repository.to_owned()];
    let mut silent = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.contains("bundle-") {
                fs::remove_file(&path).unwrap();
                let made = Command::new("mkfifo").arg(&path).status().unwrap();
                assert!(made.success());
                silent += 1;
            }
        }
    }
    assert!(silent > 0);
}

#[test]
fn a_killed_process_that_waits_for_its_own_mount_ends_and_the_mount_is_taken_away() {
    let mut stuck = Stuck::new(41, Some(("MOUNT_ONE_WATCHED", "1")));
    assert!(stuck.is_mounted());
    stuck.child.kill().unwrap();
    signals::wait_until(LIMIT, || stuck.has_ended()).unwrap();
    signals::wait_until(LIMIT, || !stuck.is_mounted()).unwrap();
    stuck.assert_free();
}

#[test]
fn sweeping_does_not_ask_a_mount_whose_process_was_killed_and_frees_it() {
    let mut stuck = Stuck::new(42, None);
    let folder = stuck.scene.dir.path().to_owned();
    // One that lives is left alone, however long it takes to answer.
    assert!(sweep(&folder).unwrap().is_empty());
    stuck.child.kill().unwrap();
    let swept = || sweep(&folder).unwrap() == [stuck.scene.mountpoint()];
    signals::wait_until(LIMIT, swept).unwrap();
    signals::wait_until(LIMIT, || stuck.has_ended()).unwrap();
    stuck.assert_free();
}
