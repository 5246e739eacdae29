//! Wall time, processor time and memory of processes, from `/proc`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use holdfast_testing::process::tail;
use serde::Serialize;

use crate::limits;

/// What one measured piece of work took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Used {
    /// Seconds on the wall.
    pub wall_s: f64,
    /// Seconds of processor time of the engine's own processes.
    pub cpu_s: f64,
    /// Seconds of processor time of the source's server meanwhile.
    pub server_cpu_s: f64,
    /// The most memory that the engine's processes had at once.
    pub peak_bytes: u64,
}

/// A process under measurement; killed when dropped.
pub struct Measured {
    child: Child,
    log: PathBuf,
    began: Instant,
    reaped_before: f64,
    server: Option<(u32, f64)>,
    peak_bytes: u64,
    looked: Option<Instant>,
}

impl Measured {
    /// Starts a command with its output in the file `log`; `server` is the source's postmaster.
    pub fn start(mut command: Command, log: &Path, server: Option<u32>) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("write {}", log.display()))?;
        let err = out.try_clone().context("share the log")?;
        let reaped_before = reaped_cpu_s()?;
        let server = match server {
            Some(pid) => Some((pid, tree_cpu_s(pid)?)),
            None => None,
        };
        let began = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("start {}", command.get_program().to_string_lossy()))?;
        Ok(Self {
            child,
            log: log.to_owned(),
            began,
            reaped_before,
            server,
            peak_bytes: 0,
            looked: None,
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything the process has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the process has ended well, and tells what it took.
    pub fn finish(mut self) -> Result<Used> {
        let status = self.until(|measured| Ok(measured.child.try_wait()?))?;
        self.check(status)?;
        let mut used = self.used_so_far()?;
        used.cpu_s = reaped_cpu_s()? - self.reaped_before;
        Ok(used)
    }

    /// Waits for a line with `text` in the log, and tells what was used up to then.
    pub fn line(&mut self, text: &str) -> Result<(String, Used)> {
        let line = self.line_that(|line| line.contains(text))?;
        Ok((line, self.used_so_far()?))
    }

    /// Waits for the newest lines of the log to hold one that is wanted.
    pub fn line_that(&mut self, wanted: impl Fn(&str) -> bool) -> Result<String> {
        self.until(|measured| {
            let log = measured.log();
            if let Some(line) = log.lines().rev().find(|line| wanted(line)) {
                return Ok(Some(line.to_owned()));
            }
            match measured.child.try_wait()? {
                Some(status) => bail!("it ended ({status})\n{}", tail(&measured.log)),
                None => Ok(None),
            }
        })
    }

    /// What the running process has used since it was started.
    pub fn used_so_far(&mut self) -> Result<Used> {
        let wall_s = self.began.elapsed().as_secs_f64();
        self.look();
        let server_cpu_s = match self.server {
            Some((pid, before)) => tree_cpu_s(pid)? - before,
            None => 0.0,
        };
        Ok(Used {
            wall_s,
            cpu_s: cpu_s(self.pid()).unwrap_or_default(),
            server_cpu_s,
            peak_bytes: self.peak_bytes,
        })
    }

    /// Asks the process to end, and waits until it has.
    pub fn terminate(mut self) -> Result<()> {
        holdfast_testing::signals::send(self.pid(), holdfast_testing::signals::Signal::TERM)?;
        let status = self.until(|measured| Ok(measured.child.try_wait()?))?;
        self.check(status)
    }

    /// Waits until the process has ended, however.
    pub fn ended(mut self) -> Result<()> {
        self.until(|measured| Ok(measured.child.try_wait()?))
            .map(|_| ())
    }

    /// Asks the process to end, and waits until it has, however.
    pub fn stop(self) -> Result<()> {
        holdfast_testing::signals::send(self.pid(), holdfast_testing::signals::Signal::TERM)?;
        self.ended()
    }

    fn check(&self, status: ExitStatus) -> Result<()> {
        if !status.success() {
            bail!("it ended ({status})\n{}", tail(&self.log));
        }
        Ok(())
    }

    fn until<T>(&mut self, mut look: impl FnMut(&mut Self) -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + limits::COMMAND;
        loop {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("it takes too long\n{}", tail(&self.log));
            }
            if self
                .looked
                .is_none_or(|at| at.elapsed() > limits::MEMORY_EVERY)
            {
                self.look();
            }
            std::thread::sleep(limits::POLL);
        }
    }

    fn look(&mut self) {
        self.looked = Some(Instant::now());
        // A restored server lives on its own account: its shared memory is not the engine's.
        let mut tree = tree(self.pid());
        tree.retain(|pid| !is_server(*pid));
        let now: u64 = tree.iter().map(|pid| memory(*pid, "VmRSS:")).sum();
        let highest = tree.iter().map(|pid| memory(*pid, "VmHWM:")).max();
        self.peak_bytes = self.peak_bytes.max(now).max(highest.unwrap_or(0));
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end and tells what it took.
pub fn run(command: Command, log: &Path, server: Option<u32>) -> Result<Used> {
    let program = command.get_program().to_string_lossy().into_owned();
    Measured::start(command, log, server)?
        .finish()
        .with_context(|| format!("run {program}"))
}

/// Measures something that happens in this process, without its own processor time.
pub fn time<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let began = Instant::now();
    let done = work()?;
    Ok((done, began.elapsed()))
}

/// Processor time of a process, its ended threads included.
pub fn cpu_s(pid: u32) -> Result<f64> {
    let fields = stat(pid)?;
    Ok(ticks(&fields, &[UTIME, STIME]))
}

/// Processor time of a process, of its children that have ended and of those that run.
pub fn tree_cpu_s(pid: u32) -> Result<f64> {
    let mut sum = 0.0;
    for one in tree(pid) {
        // A child that has just ended is counted by its parent from then on.
        let fields = stat(one).unwrap_or_default();
        sum += ticks(&fields, &[UTIME, STIME, CUTIME, CSTIME]);
    }
    Ok(sum)
}

/// Processor time of all children of this process that have ended.
fn reaped_cpu_s() -> Result<f64> {
    let fields = stat(std::process::id())?;
    Ok(ticks(&fields, &[CUTIME, CSTIME]))
}

/// A process and everything below it.
fn tree(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let fields = stat(pid).unwrap_or_default();
        let parent = fields.get(PPID).and_then(|field| field.parse().ok());
        parents.push((pid, parent.unwrap_or(0)));
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        let children = parents.iter().filter(|(_, of)| *of == parent);
        found.extend(children.map(|(pid, _)| *pid));
    }
    found
}

/// A line of `/proc/PID/status` that counts kibibytes, in bytes.
pub fn memory(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// The memory of processes and of all below them, in bytes; pages that several have count in parts.
pub fn shared_memory(roots: &[u32]) -> u64 {
    let of = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kibibytes.unwrap_or(0) * 1024
    };
    let all: std::collections::BTreeSet<u32> = roots.iter().flat_map(|pid| tree(*pid)).collect();
    all.into_iter().map(of).sum()
}

fn is_server(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim() == "postgres"
}

/// The fields of `/proc/PID/stat` after the name in brackets, which may hold anything.
fn stat(pid: u32) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("look at process {pid}"))?;
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

fn ticks(fields: &[String], which: &[usize]) -> f64 {
    let ticks = which
        .iter()
        .filter_map(|at| fields.get(*at)?.parse::<f64>().ok());
    ticks.sum::<f64>() / limits::TICKS_PER_SECOND
}

// SOURCE: proc(5); counted from the field after the name.
const PPID: usize = 1;
const UTIME: usize = 11;
const STIME: usize = 12;
const CUTIME: usize = 13;
const CSTIME: usize = 14;
