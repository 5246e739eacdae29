//! One server: start, stop, kill, restart, connect.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{Builder, Installation, ServerUser};
use crate::dirs::TestDir;
use crate::limits;
use crate::ports::ReservedPort;
use crate::process;
use crate::signals::{self, Signal};

/// A PostgreSQL server on 127.0.0.1, stopped and (unless the caller gave the folder) removed when
/// it is dropped.
///
/// It also stops when the process that owns it is killed: a small shell waits for that.
/// All functions but [`Server::connect`] block; none of them needs an async runtime.
#[derive(Debug)]
pub struct Server {
    running: Option<Running>,
    facts: Facts,
    user: ServerUser,
    port: ReservedPort,
    started_before: bool,
    // The last field: removed when nothing runs any more.
    _dir: TestDir,
}

/// What does not change in a server's life.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) installation: Installation,
    pub(super) data_dir: PathBuf,
    pub(super) password: String,
    pub(super) log: PathBuf,
    pub(super) start_limit: Duration,
}

#[derive(Debug)]
struct Running {
    postmaster: Child,
    watchdog: Child,
}

enum Started {
    Ready(Running),
    PortTaken,
}

impl Server {
    /// Begins the description of a server.
    pub fn builder(installation: &Installation) -> Builder {
        Builder::new(installation)
    }

    pub(super) fn stopped(facts: Facts, user: ServerUser, dir: TestDir) -> Result<Self> {
        let port = ReservedPort::take()?;
        Ok(Self {
            running: None,
            facts,
            user,
            port,
            started_before: false,
            _dir: dir,
        })
    }

    /// Starts the server and waits until it accepts connections.
    ///
    /// # Errors
    /// When it runs already, or ends or is not ready in time; the message carries the log's tail.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "the server runs already");
        for _ in 0..=limits::PORT_RETRIES {
            match self.start_once()? {
                Started::Ready(running) => {
                    self.running = Some(running);
                    self.started_before = true;
                    return Ok(());
                }
                // Clients know the port of a server that has run: it must not move then.
                Started::PortTaken if self.started_before => break,
                Started::PortTaken => self.port = ReservedPort::take()?,
            }
        }
        bail!(
            "somebody else took the port {}\n{}",
            self.port(),
            self.log_tail()
        )
    }

    /// Stops the server as a system would: clients are disconnected, everything is written.
    ///
    /// # Errors
    /// When it does not run, or still runs after [`limits::SERVER_STOP`].
    pub fn stop_fast(&mut self) -> Result<()> {
        let mut running = self.running.take().context("the server does not run")?;
        running.end_watchdog();
        running.send(Signal::INT)?;
        let done = running.wait(limits::SERVER_STOP);
        if done.is_err() {
            running.kill_all()?;
        }
        done.with_context(|| format!("stop the server\n{}", self.log_tail()))
    }

    /// Kills the postmaster and all its children with SIGKILL, as a power cut would.
    ///
    /// The stale pid file and shared memory are removed, so that [`Server::restart`] finds what a
    /// restarted machine would find; the data directory itself is not touched.
    ///
    /// # Errors
    /// When it does not run, or a process survives.
    pub fn kill_9(&mut self) -> Result<()> {
        let mut running = self.running.take().context("the server does not run")?;
        running.end_watchdog();
        running.kill_all()?;
        self.remove_traces();
        Ok(())
    }

    /// Starts the server again on its port; one that runs is stopped first.
    ///
    /// # Errors
    /// As [`Server::stop_fast`] and [`Server::start`].
    pub fn restart(&mut self) -> Result<()> {
        if self.running.is_some() {
            self.stop_fast()?;
        }
        self.start()
    }

    /// Whether the postmaster runs.
    pub fn is_running(&mut self) -> bool {
        self.running
            .as_mut()
            .is_some_and(|running| !running.ended())
    }

    /// A connection URL of the superuser for the database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_for("postgres")
    }

    /// A connection URL of the superuser for one database.
    #[must_use]
    pub fn url_for(&self, database: &str) -> String {
        format!(
            "postgres://postgres:{}@127.0.0.1:{}/{database}",
            self.facts.password,
            self.port()
        )
    }

    /// Connects as the superuser to the database `postgres`; the connection runs in its own task.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn connect(&self) -> Result<tokio_postgres::Client> {
        self.connect_to("postgres").await
    }

    /// Connects as the superuser to one database; the connection runs in its own task.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn connect_to(&self, database: &str) -> Result<tokio_postgres::Client> {
        connect_url(&self.url_for(database)).await
    }

    /// The installation it runs from.
    #[must_use]
    pub fn installation(&self) -> &Installation {
        &self.facts.installation
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.facts.data_dir
    }

    /// The port on 127.0.0.1; it stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The superuser's password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.facts.password
    }

    /// The process id of the postmaster, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.postmaster.id())
    }

    /// The last lines of the server's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        process::tail(&self.facts.log)
    }

    fn start_once(&self) -> Result<Started> {
        let facts = &self.facts;
        let log = File::options().create(true).append(true).open(&facts.log);
        let log = log.with_context(|| format!("write the log {}", facts.log.display()))?;
        let seen = log.metadata().context("look at the log")?.len();
        let mut postmaster = self.postmaster(log)?.spawn().context("start postgres")?;
        let outcome = self.wait_ready(&mut postmaster);
        if outcome.is_ok() {
            let watchdog = self.watchdog(postmaster.id())?;
            return Ok(Started::Ready(Running {
                postmaster,
                watchdog,
            }));
        }
        signals::kill_tree(postmaster.id())?;
        postmaster.wait().context("reap the postmaster")?;
        self.remove_traces();
        let written = fs::read(&facts.log).unwrap_or_default();
        let from = usize::try_from(seen).unwrap_or(usize::MAX);
        let written = String::from_utf8_lossy(written.get(from..).unwrap_or_default()).into_owned();
        if written.contains("Address already in use") {
            return Ok(Started::PortTaken);
        }
        outcome
            .map(|()| Started::PortTaken)
            .with_context(|| format!("start postgres\n{written}"))
    }

    fn postmaster(&self, log: File) -> Result<Command> {
        let mut command = self
            .user
            .command(&self.facts.installation.program("postgres"));
        command
            .arg("-D")
            .arg(&self.facts.data_dir)
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "unix_socket_directories=",
            ])
            .args([
                "-c",
                "logging_collector=off",
                "-c",
                "log_destination=stderr",
            ])
            .args(["-c", &format!("port={}", self.port())])
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log);
        Ok(command)
    }

    /// A shell that ends the server when our end of its input closes, however we ended.
    fn watchdog(&self, postmaster: u32) -> Result<Child> {
        self.user
            .command(Path::new("sh"))
            .args([
                "-c",
                "read -r _; kill -QUIT \"$1\"",
                "watchdog",
                &postmaster.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start the server's watchdog")
    }

    fn wait_ready(&self, postmaster: &mut Child) -> Result<()> {
        let started = Instant::now();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port()));
        loop {
            if let Some(status) = postmaster.try_wait().context("wait for postgres")? {
                bail!("it ended at once ({status})");
            }
            if self.says_ready(postmaster.id())
                && TcpStream::connect_timeout(&address, limits::POLL * 100).is_ok()
            {
                return Ok(());
            }
            ensure!(
                started.elapsed() < self.facts.start_limit,
                "not ready after {:?}",
                self.facts.start_limit
            );
            std::thread::sleep(limits::POLL);
        }
    }

    /// SOURCE: src/include/utils/pidfile.h: line 1 is the pid, line 8 the state.
    fn says_ready(&self, pid: u32) -> bool {
        let text = fs::read_to_string(self.facts.data_dir.join(PID_FILE)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.first() == Some(&pid.to_string().as_str())
            && matches!(lines.get(7), Some(&"ready" | &"standby"))
    }

    fn remove_traces(&self) {
        let path = self.facts.data_dir.join(PID_FILE);
        let text = fs::read_to_string(&path).unwrap_or_default();
        // SOURCE: src/include/utils/pidfile.h: line 7 is the key and id of the shared memory.
        if let Some(id) = text
            .lines()
            .nth(6)
            .and_then(|line| line.split_whitespace().nth(1))
        {
            let mut remove = self.user.command(Path::new("ipcrm"));
            remove
                .args(["-m", id])
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            // A segment that stays costs 56 bytes and is reused by the next start.
            let _ = remove.status();
        }
        let _ = fs::remove_file(path);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        running.end_watchdog();
        if running.send(Signal::QUIT).is_err() || running.wait(limits::KILLED_GONE).is_err() {
            let _ = running.kill_all();
        }
    }
}

impl Running {
    fn end_watchdog(&mut self) {
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
    }

    fn ended(&mut self) -> bool {
        !matches!(self.postmaster.try_wait(), Ok(None))
    }

    /// Signals the postmaster unless it was reaped: its number may belong to somebody else then.
    fn send(&mut self, signal: Signal) -> Result<()> {
        if self.ended() {
            Ok(())
        } else {
            signals::send(self.postmaster.id(), signal)
        }
    }

    fn wait(&mut self, limit: Duration) -> Result<()> {
        signals::wait_until(limit, || self.ended())
    }

    fn kill_all(&mut self) -> Result<()> {
        if self.ended() {
            return Ok(());
        }
        let killed = signals::kill_tree(self.postmaster.id());
        self.postmaster.wait().context("reap the postmaster")?;
        killed
    }
}

/// Connects to any server; the connection runs in its own task.
pub(super) async fn connect_url(url: &str) -> Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .context("connect")?;
    tokio::spawn(async move {
        // The client reports the same error to whoever waits for an answer.
        let _ = connection.await;
    });
    Ok(client)
}

const PID_FILE: &str = "postmaster.pid";
