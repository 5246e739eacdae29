//! Processes that work in a data directory, found by where they are and not by a number that somebody
//! wrote down.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::limits;

/// Ends every process that works in `directory`, at once; what is there is thrown away or recovered.
pub(super) fn end(directory: &Path) {
    let deadline = Instant::now() + limits::CLONE_STOP;
    loop {
        let there = holders(directory);
        if there.is_empty() || Instant::now() >= deadline {
            return;
        }
        for pid in there {
            // Taken by handle and looked at again, so that no number can change hands in between.
            let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
                continue;
            };
            if works_in(pid, directory) {
                let _ = pidfd_send_signal(&handle, Signal::KILL);
            }
        }
        std::thread::sleep(limits::CLONE_POLL);
    }
}

/// Returns the processes that work in `directory`.
pub(super) fn holders(directory: &Path) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(|pid| works_in(*pid, directory))
        .collect()
}

/// Compared by what the folder is: a process with its own view of the files has other names for it.
fn works_in(pid: Pid, directory: &Path) -> bool {
    let place = PathBuf::from(format!("/proc/{}/cwd", pid.as_raw_nonzero()));
    match (fs::metadata(&place), fs::metadata(directory)) {
        (Ok(place), Ok(there)) => (place.dev(), place.ino()) == (there.dev(), there.ino()),
        // Where a mount's process was killed there is only the name left.
        (Err(error), _) if error.kind() != io::ErrorKind::NotFound => {
            fs::read_link(place).is_ok_and(|place| place == directory)
        }
        _ => false,
    }
}

/// Returns what the processes in `directory` take of the memory together: what they share counts once.
pub(super) fn memory(directory: &Path) -> u64 {
    let of = |pid: &Pid| {
        let path = format!("/proc/{}/smaps_rollup", pid.as_raw_nonzero());
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut fields = text.lines().filter_map(|line| line.strip_prefix("Pss:"));
        let kibibytes = fields.next()?.trim().strip_suffix("kB")?.trim();
        kibibytes.parse::<u64>().ok()
    };
    let each = holders(directory);
    let each = each.iter().filter_map(of);
    each.fold(0, u64::saturating_add).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn who_works_in_a_folder_is_found_and_ended_and_others_stay() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sleeper = |folder: &Path| {
            let mut command = Command::new("sleep");
            command.arg("60").current_dir(folder).spawn().unwrap()
        };
        let (mut one, mut other) = (sleeper(here.path()), sleeper(there.path()));
        let pid = Pid::from_child(&one);
        assert_eq!(holders(here.path()), [pid]);
        assert!(memory(here.path()) > 0);
        // The parent must reap it, or it stays as what it was.
        let reaped = std::thread::spawn(move || one.wait());
        end(here.path());
        assert!(!reaped.join().unwrap().unwrap().success());
        assert!(holders(here.path()).is_empty());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
