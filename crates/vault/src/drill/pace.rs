//! How much of the machine a drill takes: a low priority, and a limit on what it reads and writes.

use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{getpriority_process, setpriority_process};

/// Lets so many bytes through in a second, whichever thread asks.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_s: u64,
    next: Mutex<Instant>,
}

impl Pace {
    /// Begins now.
    pub(crate) fn new(bytes_per_s: u64) -> Self {
        Self {
            bytes_per_s: bytes_per_s.max(1),
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits until so many bytes fit.
    pub(crate) fn take(&self, bytes: u64) {
        let wait = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let micros = u128::from(bytes) * 1_000_000 / u128::from(self.bytes_per_s);
            let costs = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
            let from = (*next).max(now);
            *next = from.checked_add(costs).unwrap_or(from);
            from.saturating_duration_since(now)
        };
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }
}

/// Lowers the priority of the calling thread, and so of every thread and process that it begins.
///
/// It cannot be raised again, so that the thread must be one for this alone. Where the system refuses,
/// the drill runs all the same.
pub(super) fn be_nice(nice: i32) {
    if nice <= 0 {
        return;
    }
    // SOURCE: setpriority(2): on Linux the process 0 is the calling thread.
    let now = getpriority_process(None).unwrap_or(0);
    let lowered = setpriority_process(None, now.saturating_add(nice).min(19));
    if let Err(error) = lowered {
        tracing::debug!(%error, "the priority of a drill cannot be lowered");
    }
    #[cfg(target_os = "linux")]
    {
        // Best effort at the lowest level: the idle class would stop a drill on a busy disk for good.
        let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
        let asked = Command::new("ionice")
            .args(["-c", "2", "-n", "7", "-p", &thread])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !asked.is_ok_and(|status| status.success()) {
            tracing::debug!("the priority of a drill's input and output cannot be lowered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_no_faster_than_the_rate() {
        let pace = Pace::new(10 << 20);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5).for_each(|_| pace.take(100 << 10)));
            }
        });
        // 2 MB at 10 MiB a second; the last piece has not to be waited for.
        assert!(begun.elapsed() >= Duration::from_millis(180));
    }

    #[test]
    fn what_a_nice_thread_begins_is_nice_too() {
        let before = getpriority_process(None).unwrap();
        let (thread, child) = std::thread::spawn(|| {
            be_nice(7);
            let child = Command::new("nice").output().unwrap();
            let child = String::from_utf8(child.stdout).unwrap();
            (getpriority_process(None).unwrap(), child)
        })
        .join()
        .unwrap();
        let wanted = (before + 7).min(19);
        assert_eq!(thread, wanted);
        assert_eq!(child.trim(), wanted.to_string());
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
