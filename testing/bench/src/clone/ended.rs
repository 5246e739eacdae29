//! Ending whatever still uses a folder, also after a run that was killed.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use holdfast_testing::signals;

/// Processes that begin while others are ended are found in the next round.
const ROUNDS: u32 = 5;

/// Kills every process that names the folder on its command line, with all below it, and takes away
/// what is mounted in the folder.
pub fn end_all(folder: &Path) {
    for _ in 0..ROUNDS {
        let pids = naming(folder);
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            // One that has ended meanwhile is what was wanted.
            let _ = signals::kill_tree(pid);
        }
    }
    for mount in mounts(folder) {
        let _ = Command::new("umount").arg("-l").arg(mount).status();
    }
}

/// The processes that name a folder on their command line, without ourselves.
pub fn naming(folder: &Path) -> Vec<u32> {
    let wanted = folder.as_os_str().as_encoded_bytes();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let names = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(wanted.len()).any(|part| part == wanted)
    };
    pids.filter(|pid| *pid != std::process::id())
        .filter(names)
        .collect()
}

/// What is mounted below a folder, the newest first.
fn mounts(folder: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(1));
    let below = points.map(PathBuf::from);
    let mut below: Vec<PathBuf> = below.filter(|point| point.starts_with(folder)).collect();
    below.reverse();
    below
}

/// A process that ends everything in a folder and removes it as soon as we are gone, however.
pub struct Watch(Child);

impl Watch {
    /// Starts it.
    pub fn over(folder: &Path) -> Result<Self> {
        let own = std::env::current_exe().context("find the running program")?;
        let mut command = Command::new(own);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command
            .args(["child", "watch"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start the watch")?;
        Ok(Self(child))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Waits for the end of whoever started us, and cleans up behind it.
pub fn watch(folder: &Path) -> Result<()> {
    let mut rest = Vec::new();
    std::io::stdin()
        .read_to_end(&mut rest)
        .context("wait for the end")?;
    end_all(folder);
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
