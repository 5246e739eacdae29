//! Starting the storage once, and finding it again.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::FlockOperation;

use crate::limits;
use crate::ports::ReservedPort;

/// An object storage that runs; it ends with the test runner.
#[derive(Clone, Debug)]
pub struct ObjectStorage {
    port: u16,
    folder: PathBuf,
}

impl ObjectStorage {
    /// The access key of the account that owns all buckets, with every right.
    pub const OWNER: &'static str = "OWNER";
    /// The access key of the account that tests give rights by bucket policies.
    pub const GUEST: &'static str = "GUEST";
    /// The access key of the account that tests let remove what has expired.
    pub const EXPIRY: &'static str = "EXPIRY";
    /// The secret of all.
    pub const SECRET: &'static str = "not-a-secret-outside-of-tests";
    /// The name by which a policy knows the guest.
    pub const GUEST_ARN: &'static str = "arn:aws:iam:::user/guest";
    /// The name by which a policy knows the account of expiry.
    pub const EXPIRY_ARN: &'static str = "arn:aws:iam:::user/expiry";

    /// Returns the storage of this test run, and starts it if nobody has.
    ///
    /// # Errors
    /// When Ceph is not installed or does not start; the message carries the log's tail.
    pub fn shared() -> Result<Self> {
        let runner = rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get());
        let folder = std::env::temp_dir().join(format!("holdfast-s3-{runner}"));
        fs::create_dir_all(&folder).context("make the folder of the object storage")?;
        let lock = File::create(folder.join("lock")).context("lock the object storage")?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).context("lock")?;
        let known = folder.join("port");
        if let Ok(port) = fs::read_to_string(&known) {
            let port = port.trim().parse().context("read the port")?;
            return Ok(Self { port, folder });
        }
        // A busy machine may be too slow once, and somebody else may take a port in between.
        let port = start(&folder, runner).or_else(|_| start(&folder, runner))?;
        fs::write(&known, port.to_string()).context("write the port")?;
        Ok(Self { port, folder })
    }

    /// Where requests go.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Returns the tail of the gateway's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.folder.join(format!("data-{}/rgw.out", self.port)))
    }
}

fn start(folder: &Path, runner: i32) -> Result<u16> {
    for program in ["ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "setsid"] {
        ensure!(
            is_installed(program),
            "`{program}` is not installed: run scripts/setup"
        );
    }
    let reserved = (ReservedPort::take()?, ReservedPort::take()?);
    let (monitor, gateway) = (reserved.0.number(), reserved.1.number());
    let script = folder.join("start.sh");
    let mut file = File::create(&script).context("write the start script")?;
    file.write_all(START.as_bytes()).context("write")?;
    drop(file);
    let log = File::create(folder.join("start.log")).context("write the log")?;
    let data = folder.join(format!("data-{gateway}"));
    let began = Instant::now();
    // A session of its own, so that a signal for the test does not reach what others use.
    Command::new("setsid")
        .arg("bash")
        .arg(&script)
        .arg(&data)
        .args([monitor.to_string(), gateway.to_string(), runner.to_string()])
        .args([
            ObjectStorage::OWNER,
            ObjectStorage::GUEST,
            ObjectStorage::EXPIRY,
            ObjectStorage::SECRET,
        ])
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("share the log")?)
        .stderr(log)
        .spawn()
        .context("start the object storage")?;
    let told = |name: &str| data.join(name).exists();
    loop {
        if told("ready") {
            return Ok(gateway);
        }
        if told("failed") || began.elapsed() > limits::STORAGE_START {
            bail!(
                "the object storage did not start\n{}\n{}",
                tail(&folder.join("start.log")),
                tail(&data.join("rgw.out"))
            );
        }
        std::thread::sleep(limits::POLL);
    }
}

fn is_installed(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()));
    found || Path::new("/usr/sbin").join(program).exists()
}

fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(limits::LOG_TAIL_LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}

const START: &str = include_str!("start.sh");
