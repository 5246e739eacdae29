//! Processes of the stack: each in a group of its own, with a log, ended by its id on every way out.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};

use super::limits::{ENDS, LOG_LINES, POLL};
use super::stop::Stop;
use super::trouble::Trouble;

/// Whether a wait has gone on long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enough {
    /// Wait on.
    No,
    /// What was waited for is there.
    Yes,
}

/// A process whose stdout and stderr go to files, and which ends with this value.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in a process group of its own, with `NAME.out` and `NAME.log` in `logs`.
    ///
    /// # Errors
    /// [`Trouble::System`].
    pub fn start(name: &str, mut command: Command, logs: &Path) -> Result<Self, Trouble> {
        let (out, log) = (
            logs.join(format!("{name}.out")),
            logs.join(format!("{name}.log")),
        );
        let open = |path: &Path| {
            let opened = File::options().create(true).append(true).open(path);
            opened.map_err(Trouble::system(format!("write `{}`", path.display())))
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(open(&out)?)
            .stderr(open(&log)?)
            .process_group(0)
            .spawn()
            .map_err(Trouble::system(format!("start {name}")))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            out,
            log,
        })
    }

    /// Returns everything that it wrote to stdout.
    pub fn out(&self) -> String {
        let bytes = fs::read(&self.out).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until `ready` finds what shows that it is up.
    ///
    /// # Errors
    /// [`Trouble::Part`] when it ends first or the time is over, with the end of its log.
    pub fn wait_until<T>(
        &mut self,
        stop: &Stop,
        limit: Duration,
        mut ready: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T, Trouble> {
        let started = Instant::now();
        let found = stop.poll(limit, || {
            // The order matters: a process may become ready and end at once.
            let ended = self.status()?;
            match (ready(self), ended) {
                (Some(found), _) => Ok(Some(found)),
                (None, Some(status)) => Err(self.trouble(&format!("it ended ({status})"))),
                (None, None) => Ok(None),
            }
        })?;
        found.ok_or_else(|| {
            let waited = started.elapsed().as_secs();
            self.trouble(&format!("it was not ready after {waited} s"))
        })
    }

    /// Waits until it ends by itself or until `meanwhile`, which is called again and again, says that it is
    /// enough; then there is no status. When the time is over it is ended.
    ///
    /// # Errors
    /// [`Trouble::Part`] when it took too long, and what `meanwhile` returns.
    pub fn wait_end(
        &mut self,
        stop: &Stop,
        limit: Duration,
        mut meanwhile: impl FnMut() -> Result<Enough, Trouble>,
    ) -> Result<Option<ExitStatus>, Trouble> {
        let ended = stop.poll(limit, || {
            if let Some(status) = self.status()? {
                return Ok(Some(Some(status)));
            }
            Ok(match meanwhile()? {
                Enough::Yes => Some(None),
                Enough::No => None,
            })
        })?;
        match ended {
            Some(status) => Ok(status),
            None => {
                let late = self.trouble(&format!("it still ran after {} s", limit.as_secs()));
                self.end();
                Err(late)
            }
        }
    }

    /// Tells how it ended, if it has.
    ///
    /// # Errors
    /// [`Trouble::System`].
    pub fn status(&mut self) -> Result<Option<ExitStatus>, Trouble> {
        let name = self.name.clone();
        self.child
            .try_wait()
            .map_err(Trouble::system(format!("wait for {name}")))
    }

    /// Kills it with SIGKILL at once, as a crash would; its children live on.
    ///
    /// # Errors
    /// [`Trouble::System`].
    pub fn kill_9(&mut self) -> Result<(), Trouble> {
        let name = self.name.clone();
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .map(drop)
            .map_err(Trouble::system(format!("kill {name}")))
    }

    /// Ends it in order: SIGTERM, and SIGKILL for its whole group when that does not help.
    pub fn end(&mut self) {
        let Some(pid) = pid_of(self.child.id()) else {
            return;
        };
        if matches!(self.child.try_wait(), Ok(None)) {
            // It may have ended meanwhile: then there is nothing to end.
            let _ended = kill_process(pid, Signal::TERM);
            let started = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < ENDS {
                std::thread::sleep(POLL);
            }
        }
        // What it leaves behind in its group has nobody else who would end it.
        let _empty = kill_process_group(pid, Signal::KILL);
        let _reaped = self.child.wait();
    }

    /// Makes an error about it that shows the end of its log.
    pub fn trouble(&self, what: &str) -> Trouble {
        let tail = tail(&self.log);
        let what = match tail.is_empty() {
            true => what.to_owned(),
            false => format!("{what}; its log ends with: {tail}"),
        };
        Trouble::part(&self.name, what)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Returns the last lines of a file, joined into one.
pub fn tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    let from = lines.len().saturating_sub(LOG_LINES);
    lines.get(from..).unwrap_or_default().join(" | ")
}

/// A PostgreSQL server that a program of the stack left to us, by the id of its postmaster.
#[derive(Debug)]
pub struct Postmaster {
    pid: u32,
    data: PathBuf,
}

impl Postmaster {
    /// Takes over the server that runs on the directory `data`, if one does.
    pub fn of(data: &Path) -> Option<Self> {
        let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.trim().parse().ok()?;
        works_in(pid, data).then(|| Self {
            pid,
            data: data.to_owned(),
        })
    }

    /// Ends it: an immediate shutdown, as its data is thrown away.
    pub fn end(&self) {
        // The id is used only while the server's own file still names it.
        let named = Self::of(&self.data).is_some_and(|now| now.pid == self.pid);
        let Some(pid) = pid_of(self.pid).filter(|_| named) else {
            return;
        };
        for signal in [Signal::QUIT, Signal::KILL] {
            let _gone = kill_process(pid, signal);
            let started = Instant::now();
            while is_running(self.pid) && started.elapsed() < ENDS {
                std::thread::sleep(POLL);
            }
        }
    }
}

/// Ends every PostgreSQL server whose data directory lies in `folder`; all of them are ours.
pub fn end_servers_in(folder: &Path) {
    let mut waiting = vec![(folder.to_owned(), 0_u8)];
    while let Some((folder, depth)) = waiting.pop() {
        if let Some(server) = Postmaster::of(&folder) {
            server.end();
            continue;
        }
        if depth < DEPTH_MAX && !folder.join("PG_VERSION").exists() {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            let folders = entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
            waiting.extend(folders.map(|e| (e.path(), depth.saturating_add(1))));
        }
    }
}

/// How deep below the replay's folder data directories are looked for.
const DEPTH_MAX: u8 = 9;

fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// A postmaster works in its data directory; a later process that got the same id does not.
fn works_in(pid: u32, data: &Path) -> bool {
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(folder) => data.canonicalize().is_ok_and(|data| data == folder),
        Err(_) => cfg!(not(target_os = "linux")) && is_running(pid),
    }
}

fn is_running(pid: u32) -> bool {
    pid_of(pid).is_some_and(|pid| test_kill_process(pid).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_process_and_what_it_started_end_with_the_value() {
        let logs = tempfile::tempdir().unwrap();
        // The shell ignores SIGTERM's usual effect on its child: the child is in its group only.
        let script = "sleep 300 & echo $!; wait";
        let mut process = Process::start("it", sh(script), logs.path()).unwrap();
        let stop = Stop::default();
        let first_line = |p: &Process| p.out().lines().next()?.parse::<u32>().ok();
        let below = process
            .wait_until(&stop, Duration::from_secs(10), first_line)
            .unwrap();
        let own = process.child.id();
        drop(process);
        let gone = stop.poll(Duration::from_secs(10), || {
            Ok((!is_running(own) && !is_alive(below)).then_some(()))
        });
        assert!(gone.unwrap().is_some(), "{own} or {below} still runs");
    }

    /// An orphan that nobody reaps is still in the table, but does not run.
    fn is_alive(pid: u32) -> bool {
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => !stat
                .rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('Z')),
            Err(_) => cfg!(not(target_os = "linux")) && is_running(pid),
        }
    }

    #[test]
    fn a_process_that_ends_too_early_shows_its_log() {
        let logs = tempfile::tempdir().unwrap();
        let script = "echo first >&2; echo no room >&2; exit 7";
        let mut process = Process::start("it", sh(script), logs.path()).unwrap();
        let never = |_: &Process| None::<()>;
        let error = process
            .wait_until(&Stop::default(), Duration::from_secs(10), never)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("exit status: 7") && error.contains("no room"),
            "{error}"
        );
    }

    #[test]
    fn a_server_is_ended_only_while_its_own_file_names_it() {
        let data = tempfile::tempdir().unwrap();
        assert!(Postmaster::of(data.path()).is_none());
        let logs = tempfile::tempdir().unwrap();
        let mut command = sh("exec sleep 300");
        command.current_dir(data.path());
        let mut other = Process::start("other", command, logs.path()).unwrap();
        let file = data.path().join("postmaster.pid");
        fs::write(&file, format!("{}\n", other.child.id())).unwrap();
        let server = Postmaster::of(data.path()).unwrap();
        fs::remove_file(&file).unwrap();
        server.end();
        assert!(other.status().unwrap().is_none(), "it was ended");
        fs::write(&file, format!("{}\n", other.child.id())).unwrap();
        end_servers_in(data.path());
        let ended = other.wait_end(&Stop::default(), Duration::from_secs(10), || Ok(Enough::No));
        assert!(!ended.unwrap().unwrap().success());
    }
}
