//! A source, a vault beside it, and ways to wait for what must happen.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::{Lsn, Principal, Timestamp, ledger::Entry};
use holdfast_store::key;
use holdfast_store::ledger::{self, Ledger};
use holdfast_store::object::Location;
use holdfast_testing::dirs::TestDir;
use holdfast_testing::postgres::{self, Installation, Server};
use holdfast_testing::process::Process;
use holdfast_testing::signals::{self, Signal};
use holdfast_vault::{
    AckAt, AckMode, Clock, DrillConfig, Place, PointSummary, PointsConfig, PostgresConfig,
    ProgressFn, Reader, RestoreRequest, RestoreTarget, Restored, RetentionConfig, SourceConfig,
    SourceStatus, Start, Vault, VaultConfig, restore, system_clock,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks at a condition.
pub const POLL: Duration = Duration::from_millis(10);

/// A folder for one vault.
pub struct Scene {
    pub dir: TestDir,
    pub ack: AckAt,
    /// Where the vault keeps its things.
    root: PathBuf,
    /// Where its repository is, when it is not below that.
    pub bucket: Option<Location>,
    /// Sources beside the one that is named where the vault is run.
    pub more: Vec<SourceConfig>,
    pub clock: Clock,
    /// When restore points are taken, and by which mirrors.
    pub points: PointsConfig,
    /// Where PostgreSQL's programs are, if not where every test finds them.
    pub programs: Option<PostgresConfig>,
}

/// A vault that runs inside the test.
pub struct Running {
    pub vault: Vault,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Otherwise the runtime of a failing test would wait for the vault's threads for ever.
        self.stop.cancel();
    }
}

impl Scene {
    pub fn new() -> Self {
        let dir = TestDir::new("vault").unwrap();
        let root = dir.path().to_owned();
        Self {
            dir,
            root,
            bucket: None,
            ack: AckAt::Spool,
            more: Vec::new(),
            clock: system_clock(),
            points: PointsConfig::default(),
            programs: None,
        }
    }

    /// Keeps what the vault keeps somewhere else, such as on a disk that fails.
    pub fn at(root: &Path) -> Self {
        let root = root.to_owned();
        Self {
            root,
            ..Self::new()
        }
    }

    /// The same, and positions are told to the source once the repository has them.
    pub fn acknowledging_at(ack: AckAt) -> Self {
        Self { ack, ..Self::new() }
    }

    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    pub fn repository(&self) -> PathBuf {
        self.root.join("repository")
    }

    pub fn location(&self) -> Location {
        let directory = || self.repository().into();
        self.bucket.clone().unwrap_or_else(directory)
    }

    pub fn source(&self, url: &str, mode: AckMode) -> SourceConfig {
        SourceConfig {
            name: "prod".parse().unwrap(),
            url: url.parse().unwrap(),
            mode,
            ack: self.ack,
            assertions: Vec::new(),
        }
    }

    pub fn open(&self, url: &str) -> Vault {
        let clock = self.clock.clone();
        std::fs::create_dir_all(self.state()).unwrap();
        let key = key::load_or_create(&self.state().join("vault.key"), [9; 32]).unwrap();
        let ledger = Ledger::open(&self.state().join("ledger"), key.clone(), clock()).unwrap();
        let config = VaultConfig {
            state: self.state(),
            repository: self.location(),
            sources: std::iter::once(self.source(url, AckMode::Asynchronous))
                .chain(self.more.iter().cloned())
                .collect(),
            directories: Vec::new(),
            keys: crate::keys::keys(),
            postgres: self.programs.clone().unwrap_or_else(programs),
            drill: DrillConfig {
                every: Duration::from_secs(24 * 3600),
                ..DrillConfig::default()
            },
            points: self.points.clone(),
            retention: RetentionConfig::default(),
        };
        Vault::open(config, ledger, key, clock).unwrap()
    }

    /// Runs a vault inside this test.
    pub fn run(&self, url: &str) -> Running {
        let vault = self.open(url);
        let stop = CancellationToken::new();
        let (runs, told) = (vault.clone(), stop.clone());
        let task = tokio::spawn(async move { runs.run(told).await.unwrap() });
        Running {
            vault,
            stop,
            task: Some(task),
        }
    }

    /// Runs a vault in a process of its own, which can be killed.
    pub fn spawn(&self, url: &str, mode: AckMode) -> Process {
        let mut command = Command::new(example());
        self.arguments(&mut command, url, mode);
        Process::spawn(command, &self.dir.path().join("vault.log")).unwrap()
    }

    pub fn arguments(&self, command: &mut Command, url: &str, mode: AckMode) {
        let _ = std::fs::remove_file(self.status_file());
        crate::keys::keep(&self.state().join("keys"));
        command
            .arg(self.state())
            .arg(self.repository())
            .arg(self.status_file())
            .arg(mode.to_string())
            .arg(self.ack.to_string())
            .env("SOURCE_URL", url)
            .env("PROGRAMS", std::env::join_paths(programs().dirs).unwrap());
    }

    fn status_file(&self) -> PathBuf {
        self.dir.path().join("status.json")
    }

    /// Returns what a vault in a process of its own says, once it says something.
    pub fn told(&self) -> Option<SourceStatus> {
        let bytes = std::fs::read(self.status_file()).ok()?;
        let mut all: Vec<SourceStatus> = serde_json::from_slice(&bytes).ok()?;
        all.pop()
    }

    /// Waits until the vault in a process of its own says what is wanted.
    pub fn await_told(&self, what: &str, wanted: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        until(what, || self.told().filter(&wanted))
    }

    /// Returns the restore points that are in the repository, oldest first.
    pub fn points(&self) -> Vec<PointSummary> {
        let reader = Reader::open(&self.location(), None, &crate::keys::keys()).unwrap();
        reader.points(&"prod".parse().unwrap()).unwrap()
    }

    /// Returns the files of the repository whose path contains `part`.
    pub fn objects(&self, part: &str) -> Vec<PathBuf> {
        let mut folders = vec![self.repository()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.to_string_lossy().contains(part) {
                    found.push(path);
                }
            }
        }
        found
    }

    /// Returns the entries of the vault's ledger of one kind.
    pub fn entries(&self, kind: &str) -> Vec<Entry> {
        let key = key::load(&self.state().join("vault.key")).unwrap();
        let mut found = Vec::new();
        ledger::verify(
            &self.state().join("ledger"),
            &key.verifying_key(),
            |entry| {
                if entry.draft.kind == kind {
                    assert_eq!(entry.draft.principal, Principal::service("vault"));
                    found.push(entry.clone());
                }
            },
        )
        .unwrap();
        found
    }
}

impl Running {
    pub fn status(&self) -> SourceStatus {
        self.vault.status().pop().unwrap()
    }

    /// Waits until the vault says what is wanted.
    pub async fn wait(&self, what: &str, wanted: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        let began = Instant::now();
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(began.elapsed() < LIMIT, "no {what}: {status:#?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the vault says of one of its sources what is wanted.
    pub async fn wait_for(
        &self,
        source: &str,
        what: &str,
        wanted: impl Fn(&SourceStatus) -> bool,
    ) -> SourceStatus {
        let began = Instant::now();
        loop {
            let statuses = self.vault.status();
            let status = statuses
                .iter()
                .find(|status| status.source.as_str() == source);
            match status {
                Some(status) if wanted(status) => return status.clone(),
                _ => assert!(began.elapsed() < LIMIT, "no {what}: {statuses:#?}"),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Stops the vault; everything it has received is then where it belongs.
    pub async fn stop(mut self) -> SourceStatus {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap();
        self.vault.status().pop().unwrap()
    }
}

/// A server restored from what a vault kept; it ends with this value.
pub struct Back {
    pub restored: Restored,
    url: String,
    _dir: TestDir,
}

impl Back {
    /// How to reach it as the superuser.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks for one text.
    pub async fn ask(&self, sql: &str) -> String {
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let row = client.query_one(sql, &[]).await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
        row.get(0)
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        if let Some(server) = &self.restored.server {
            let _ = signals::send(server.pid, Signal::QUIT);
            let _ = signals::wait_until(LIMIT, || !signals::is_running(server.pid));
        }
    }
}

impl Scene {
    /// Returns where the vault's things are.
    pub fn place(&self) -> Place {
        Place {
            state: self.state(),
            repository: self.location(),
            keys: crate::keys::keys(),
            vault_key: None,
            postgres: programs(),
        }
    }

    /// Restores the newest moment to a server, from the spool in `state` and the repository.
    pub async fn restore(&self, state: &Path, source: &Server) -> Back {
        let place = Place {
            state: state.to_owned(),
            ..self.place()
        };
        self.restore_from(place, RestoreTarget::Latest, source)
            .await
    }

    /// Restores another moment to a server.
    pub async fn restore_to(&self, at: RestoreTarget, source: &Server) -> Back {
        self.restore_from(self.place(), at, source).await
    }

    async fn restore_from(&self, place: Place, at: RestoreTarget, source: &Server) -> Back {
        let dir = TestDir::for_server("restored").unwrap();
        let source_name = "prod".parse().unwrap();
        let start = Start::Yes { port: None };
        let request = RestoreRequest::new(source_name, at, dir.path().join("data"), start);
        let quiet: ProgressFn = Arc::new(|_| {});
        let work = move || restore(&place, &request, &quiet);
        let restored = tokio::task::spawn_blocking(work).await.unwrap().unwrap();
        let port = restored.server.as_ref().unwrap().port;
        let of = |port: u16| format!("127.0.0.1:{port}/");
        let url = source.url().replace(&of(source.port()), &of(port));
        Back {
            restored,
            url,
            _dir: dir,
        }
    }
}

/// Returns where drills find the programs of every version.
pub fn programs() -> PostgresConfig {
    let folder = |installation: &Installation| {
        let program = installation.program("postgres");
        program.parent().unwrap().to_owned()
    };
    PostgresConfig {
        dirs: postgres::every().unwrap().iter().map(folder).collect(),
        run_as: None,
    }
}

/// Waits for something that another process does.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < LIMIT, "no {what} after {LIMIT:?}");
        std::thread::sleep(POLL);
    }
}

pub fn server(installation: &Installation) -> Server {
    Server::builder(installation)
        .fast()
        .setting("max_wal_senders", "5")
        .start()
        .unwrap()
}

/// Returns where the source's log ends; a server that is made fast writes it a moment later.
pub async fn flushed(client: &tokio_postgres::Client) -> Lsn {
    let row = client
        .query_one("SELECT pg_current_wal_insert_lsn()::text", &[])
        .await
        .unwrap();
    row.get::<_, String>(0).parse().unwrap()
}

/// Returns the segments of the spool, by name, with their lengths.
pub fn spooled(scene: &Scene) -> Vec<(String, u64)> {
    let mut files: Vec<(String, u64)> = std::fs::read_dir(scene.state().join("spool/prod"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, entry.metadata().unwrap().len())
        })
        .filter(|(name, _)| name.len() == 24)
        .collect();
    files.sort();
    files
}

/// Returns how many bytes lie in the spool of a source.
pub fn spooled_bytes(scene: &Scene, source: &str) -> u64 {
    let folder = scene.state().join("spool").join(source);
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum()
}

fn example() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let target = own.parent().and_then(Path::parent).unwrap();
    let path = target.join("examples/capture_one");
    assert!(
        path.is_file(),
        "build it with `cargo build -p holdfast-vault --examples`"
    );
    path
}

pub fn example_path() -> PathBuf {
    example()
}

pub fn now() -> Timestamp {
    system_clock()()
}
