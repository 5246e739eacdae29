//! Ports on 127.0.0.1 that stay ours while a server restarts.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::limits;

/// A port that no other test takes as long as this value lives.
///
/// The port lies below the range from which systems pick outgoing ports.
/// A server that is killed and restarted on its port would otherwise now and then find that a
/// client's connection attempt, or a client connected to itself, has taken it.
#[derive(Debug)]
pub struct ReservedPort {
    port: u16,
    // Held with a lock: tells other test processes that the port is taken.
    _lock: File,
}

impl ReservedPort {
    /// Reserves a port on which nothing listens.
    ///
    /// # Errors
    /// When no free port is found among [`limits::PORT_DRAWS`] draws.
    pub fn take() -> Result<Self> {
        let dir = lock_dir()?;
        for _ in 0..limits::PORT_DRAWS {
            let port = rand::random_range(LOWEST..=HIGHEST);
            let lock = File::create(dir.join(port.to_string())).context("write a port's lock")?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(Self { port, _lock: lock });
            }
        }
        bail!("no free port on 127.0.0.1 between {LOWEST} and {HIGHEST}")
    }

    /// The number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.port
    }
}

fn lock_dir() -> Result<PathBuf> {
    let dir = crate::postgres::cache_dir()?.join("ports");
    fs::create_dir_all(&dir).context("make the folder of port locks")?;
    Ok(dir)
}

const LOWEST: u16 = 15_000;
const HIGHEST: u16 = 30_000;
