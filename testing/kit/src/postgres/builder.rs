//! What kind of server a test wants.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Installation, Server, ServerUser, template};
use crate::dirs::TestDir;
use crate::limits;

/// Describes a server before it exists.
///
/// Without further words: a new cluster in a temporary folder, superuser `postgres` with a random
/// password, SCRAM for everybody, UTF-8, `wal_level = replica`, ten WAL senders and slots, fsync on.
#[derive(Debug)]
#[must_use]
pub struct Builder {
    installation: Installation,
    place: Place,
    initdb_args: Vec<String>,
    settings: Vec<(String, String)>,
    hba_lines: Vec<String>,
    log: Option<PathBuf>,
    start_limit: Duration,
}

#[derive(Debug)]
enum Place {
    /// A new cluster in a folder of its own.
    Temporary,
    /// A new cluster in the caller's folder, which stays.
    New(PathBuf),
    /// A cluster that somebody else made, with its superuser's password.
    Existing(PathBuf, String),
}

impl Builder {
    pub(super) fn new(installation: &Installation) -> Self {
        Self {
            installation: installation.clone(),
            place: Place::Temporary,
            initdb_args: Vec::new(),
            settings: Vec::new(),
            hba_lines: Vec::new(),
            log: None,
            start_limit: limits::SERVER_START,
        }
    }

    /// Makes the new cluster in `data_dir` (missing or empty), which is not removed afterwards.
    pub fn data_dir(mut self, data_dir: &Path) -> Self {
        self.place = Place::New(data_dir.to_owned());
        self
    }

    /// Uses the cluster in `data_dir` as it is; `password` is that of its superuser `postgres`.
    ///
    /// As root, the folder and all in it are given to the user that servers run as.
    /// Its own settings for port, addresses and sockets are overridden.
    pub fn existing(mut self, data_dir: &Path, password: &str) -> Self {
        self.place = Place::Existing(data_dir.to_owned(), password.to_owned());
        self
    }

    /// Turns off fsync, synchronous_commit and full_page_writes: faster, and unfit for crash tests.
    pub fn fast(self) -> Self {
        self.setting("fsync", "off")
            .setting("synchronous_commit", "off")
            .setting("full_page_writes", "off")
    }

    /// Adds a setting to `postgresql.conf`; a later one of the same name wins.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds an argument to `initdb`, such as `--wal-segsize=1` or `--data-checksums`.
    pub fn initdb_arg(mut self, argument: &str) -> Self {
        self.initdb_args.push(argument.to_owned());
        self
    }

    /// Adds a line in front of those in `pg_hba.conf`, so that it decides first.
    pub fn hba_line(mut self, line: &str) -> Self {
        self.hba_lines.push(line.to_owned());
        self
    }

    /// Writes the server's log to this file instead of one beside the data directory.
    pub fn log_file(mut self, path: &Path) -> Self {
        self.log = Some(path.to_owned());
        self
    }

    /// Waits that long for the server to accept connections, recovery included.
    pub fn start_limit(mut self, limit: Duration) -> Self {
        self.start_limit = limit;
        self
    }

    /// Makes the cluster without starting it.
    ///
    /// # Errors
    /// When `initdb` fails or a folder cannot be written.
    pub fn create(self) -> Result<Server> {
        let user = ServerUser::current()?;
        let dir = TestDir::for_server(&format!("pg{}", self.installation.major))?;
        let (data_dir, password) = match &self.place {
            Place::Temporary => {
                let data_dir = dir.path().join("data");
                (data_dir.clone(), self.initialise(&data_dir)?)
            }
            Place::New(data_dir) => (data_dir.clone(), self.initialise(data_dir)?),
            Place::Existing(data_dir, password) => {
                user.own_tree(data_dir)?;
                self.configure(data_dir, &[])?;
                (data_dir.clone(), password.clone())
            }
        };
        let log = self.log.unwrap_or_else(|| dir.path().join("postgres.log"));
        let facts = super::server::Facts {
            installation: self.installation,
            data_dir,
            password,
            log,
            start_limit: self.start_limit,
        };
        Server::stopped(facts, user, dir)
    }

    /// Makes the cluster and starts it.
    ///
    /// # Errors
    /// As [`Builder::create`] and [`Server::start`].
    pub fn start(self) -> Result<Server> {
        let mut server = self.create()?;
        server.start()?;
        Ok(server)
    }

    fn initialise(&self, data_dir: &Path) -> Result<String> {
        let password = template::create(&self.installation, &self.initdb_args, data_dir)?;
        self.configure(data_dir, &DEFAULTS)?;
        Ok(password)
    }

    fn configure(&self, data_dir: &Path, defaults: &[(&str, &str)]) -> Result<()> {
        let given = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let lines: String = defaults
            .iter()
            .copied()
            .chain(given)
            .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")))
            .collect();
        if !lines.is_empty() {
            let conf = data_dir.join("postgresql.conf");
            let file = File::options().append(true).open(&conf);
            file.and_then(|mut file| file.write_all(format!("\n{lines}").as_bytes()))
                .with_context(|| format!("write {}", conf.display()))?;
        }
        if !self.hba_lines.is_empty() {
            let path = data_dir.join("pg_hba.conf");
            let old = fs::read_to_string(&path).context("read pg_hba.conf")?;
            let new = format!("{}\n{old}", self.hba_lines.join("\n"));
            fs::write(&path, new).context("write pg_hba.conf")?;
        }
        Ok(())
    }
}

const DEFAULTS: [(&str, &str); 6] = [
    ("wal_level", "replica"),
    ("max_wal_senders", "10"),
    ("max_replication_slots", "10"),
    ("max_connections", "100"),
    ("timezone", "UTC"),
    // Segments in /dev/shm would outlive a server that is killed and never started again.
    ("dynamic_shared_memory_type", "mmap"),
];
