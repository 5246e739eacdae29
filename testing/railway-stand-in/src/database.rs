//! The PostgreSQL server of production, which runs on a volume.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use holdfast_testing::postgres::{Server, installation};
use holdfast_testing::signals::{self, Signal};

use crate::limits;

/// A server whose data directory lies on a volume.
#[derive(Debug)]
pub struct Database {
    server: Server,
    password: String,
}

impl Database {
    /// Makes a new cluster as a provider configures it and starts it.
    ///
    /// # Errors
    /// When the major version is not installed, or the server does not start.
    pub fn start(major: u32, data_dir: &Path, log: &Path) -> Result<Self> {
        let installation = installation(major)?;
        let server = Server::builder(&installation)
            .data_dir(data_dir)
            .setting("wal_level", "replica")
            .setting("max_wal_senders", "10")
            .setting("max_replication_slots", "10")
            .setting("password_encryption", "scram-sha-256")
            .log_file(log)
            .start()
            .context("start the database on its volume")?;
        let password = format!("{:032x}", rand::random::<u128>());
        Ok(Self { server, password })
    }

    /// Gives the superuser a password of its own and makes the database `rental`.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn prepare(&self) -> Result<()> {
        let client = self.server.connect().await?;
        client
            .batch_execute("CREATE DATABASE rental")
            .await
            .context("make the database")?;
        // The password is made of hexadecimal digits.
        let statement = format!("ALTER ROLE postgres PASSWORD '{}'", self.password);
        client
            .batch_execute(&statement)
            .await
            .context("set the password")
    }

    /// The URL of the superuser for the database `rental`.
    pub fn url(&self) -> String {
        format!(
            "postgresql://postgres:{}@127.0.0.1:{}/rental",
            self.password,
            self.server.port()
        )
    }

    /// The process id of the postmaster, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        self.server.data_dir()
    }

    /// The folder with the programs of its PostgreSQL.
    pub fn bin_dir(&self) -> PathBuf {
        self.server.installation().bin_dir.clone()
    }

    /// Kills all processes of the server at once; one that does not run is no error.
    ///
    /// # Errors
    /// When a process survives.
    pub fn kill(&mut self) -> Result<()> {
        match self.server.pid() {
            Some(_) => self.server.kill_9(),
            None => Ok(()),
        }
    }

    /// Stops the server in order; one that does not run is no error.
    ///
    /// # Errors
    /// When it still runs.
    pub fn stop(&mut self) -> Result<()> {
        match self.server.pid() {
            Some(_) => self.server.stop_fast(),
            None => Ok(()),
        }
    }

    /// Starts the server again at its port, with whatever lies in its data directory.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.server.restart()
    }

    /// Lets `copy` read the files while no process of the server can write.
    ///
    /// What is copied is what an atomic snapshot of the disk would hold.
    ///
    /// # Errors
    /// As `copy`, and when a process does not stand still.
    pub fn frozen<T>(&self, copy: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(postmaster) = self.server.pid() else {
            return copy();
        };
        let stopped = freeze(postmaster);
        let done = match &stopped.1 {
            Ok(()) => copy(),
            Err(error) => bail_after(error),
        };
        for &process in stopped.0.iter().rev() {
            signals::send(process, Signal::CONT)?;
        }
        done
    }
}

fn bail_after<T>(error: &anyhow::Error) -> Result<T> {
    bail!("the server does not stand still: {error:#}")
}

/// Stops the postmaster first, so that nothing is born while its children are stopped.
fn freeze(postmaster: u32) -> (Vec<u32>, Result<()>) {
    let mut stopped = vec![postmaster];
    let done = (|| {
        signals::send(postmaster, Signal::STOP)?;
        wait_stopped(postmaster)?;
        for process in signals::descendants(postmaster)? {
            stopped.push(process);
            signals::send(process, Signal::STOP)?;
        }
        stopped
            .iter()
            .skip(1)
            .try_for_each(|&process| wait_stopped(process))
    })();
    (stopped, done)
}

/// A stop takes effect when the process leaves the kernel: a write under way ends first.
fn wait_stopped(pid: u32) -> Result<()> {
    let started = Instant::now();
    while !stands_still(pid)? {
        if started.elapsed() > limits::FROZEN {
            bail!("the process {pid} still runs after {:?}", limits::FROZEN);
        }
        std::thread::sleep(limits::POLL);
    }
    Ok(())
}

/// Whether a process is stopped or gone.
fn stands_still(pid: u32) -> Result<bool> {
    let listed = std::process::Command::new("ps")
        .args(["-o", "stat=", "-p", &pid.to_string()])
        .output()
        .context("run `ps` to look at a process")?;
    let state = String::from_utf8_lossy(&listed.stdout);
    Ok(matches!(
        state.trim().chars().next(),
        None | Some('T' | 'Z')
    ))
}
