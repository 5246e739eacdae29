//! Signals and the process table, for processes that this crate started.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::limits;

/// Sends a signal to a process; a process that is already gone is no error.
///
/// # Errors
/// When the signal is refused.
pub fn send(pid: u32, signal: Signal) -> Result<()> {
    match kill_process(to_pid(pid)?, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("signal the process {pid}")),
    }
}

/// Whether a process runs; one that has ended and waits to be reaped does not.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    table::find(pid).is_some_and(|row| !row.ended)
}

/// Every process below `pid`, nearest first.
///
/// # Errors
/// When the process table cannot be read.
pub fn descendants(pid: u32) -> Result<Vec<u32>> {
    let rows = table::all()?;
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(
            rows.iter()
                .filter(|row| row.parent == parent && !row.ended)
                .map(|r| r.pid),
        );
        next += 1;
    }
    found.remove(0);
    Ok(found)
}

/// Kills a process and all below it with SIGKILL and waits until none of them runs.
///
/// The tree is stopped first, so that nothing is born between looking and killing.
/// The caller still has to reap the process if it is its child.
///
/// # Errors
/// When a signal is refused or a process is still there after [`limits::KILLED_GONE`].
pub fn kill_tree(pid: u32) -> Result<()> {
    send(pid, Signal::STOP)?;
    let mut below = descendants(pid)?;
    for &process in &below {
        send(process, Signal::STOP)?;
    }
    below = descendants(pid)?;
    send(pid, Signal::KILL)?;
    for &process in &below {
        send(process, Signal::KILL)?;
    }
    below.push(pid);
    wait_until(limits::KILLED_GONE, || {
        below.iter().all(|&process| !is_running(process))
    })
    .with_context(|| format!("processes of {pid} survive SIGKILL: {below:?}"))
}

/// Looks at a condition again and again until it holds.
///
/// # Errors
/// When it does not hold before the deadline.
pub fn wait_until(limit: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
    let started = Instant::now();
    while !holds() {
        if started.elapsed() > limit {
            bail!("not so after {limit:?}");
        }
        std::thread::sleep(limits::POLL);
    }
    Ok(())
}

fn to_pid(pid: u32) -> Result<Pid> {
    let raw = i32::try_from(pid).context("a process id is too large")?;
    Pid::from_raw(raw).context("0 is no process id")
}

struct Row {
    pid: u32,
    parent: u32,
    ended: bool,
}

#[cfg(target_os = "linux")]
mod table {
    use anyhow::{Context, Result};

    use super::Row;

    pub(super) fn find(pid: u32) -> Option<Row> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // SOURCE: proc_pid_stat(5): the name is in parentheses and may itself contain any byte.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let ended = matches!(fields.next()?, "Z" | "X");
        let parent = fields.next()?.parse().ok()?;
        Some(Row { pid, parent, ended })
    }

    pub(super) fn all() -> Result<Vec<Row>> {
        let entries = std::fs::read_dir("/proc").context("read the process table")?;
        let pids = entries
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse().ok());
        Ok(pids.filter_map(find).collect())
    }
}

#[cfg(not(target_os = "linux"))]
mod table {
    use std::process::Command;

    use anyhow::{Context, Result};

    use super::Row;

    pub(super) fn find(pid: u32) -> Option<Row> {
        all().ok()?.into_iter().find(|row| row.pid == pid)
    }

    pub(super) fn all() -> Result<Vec<Row>> {
        let listed = Command::new("ps")
            .args(["-axo", "pid=,ppid=,stat="])
            .output()
            .context("run `ps` to read the process table")?;
        let parse = |line: &str| {
            let mut fields = line.split_whitespace();
            let pid = fields.next()?.parse().ok()?;
            let parent = fields.next()?.parse().ok()?;
            Some(Row {
                pid,
                parent,
                ended: fields.next()?.starts_with('Z'),
            })
        };
        Ok(String::from_utf8_lossy(&listed.stdout)
            .lines()
            .filter_map(parse)
            .collect())
    }
}
