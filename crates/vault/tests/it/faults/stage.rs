//! A source with writers, and a vault in a process of its own on a disk that fails on demand.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use holdfast_core::Lsn;
use holdfast_testing::dirs::TestDir;
use holdfast_testing::disk::{Disk, Fault, Step};
use holdfast_testing::postgres::{Installation, Server};
use holdfast_testing::process::Process;
use holdfast_vault::{
    AckMode, ProgressFn, ProofState, RestoreRequest, RestoreTarget, SourceConfig, Start,
    enable_synchronous, restore,
};
use holdfast_wire::pg::wal::{Event, WalReader, WalShape};

use crate::capture::scene::{LIMIT, POLL, Scene};

const WRITERS: usize = 3;
const SEGMENT: u32 = 16 << 20;

pub struct Stage {
    pub disk: Disk,
    scene: Scene,
    server: Server,
    source: SourceConfig,
    vault: Process,
    acknowledged: Arc<Mutex<Vec<u32>>>,
    writers: Vec<tokio::task::JoinHandle<()>>,
}

impl Stage {
    /// Begins with a proven restore point, and commits that wait for the vault.
    pub async fn open(installation: &Installation) -> Self {
        let disk = Disk::mount("faults").unwrap();
        let scene = Scene::at(disk.path());
        let server = Server::builder(installation).start().unwrap();
        let client = server.connect().await.unwrap();
        let table = "CREATE TABLE t (n bigint GENERATED ALWAYS AS IDENTITY, filler text)";
        client.batch_execute(table).await.unwrap();
        let vault = scene.spawn(&server.url(), AckMode::Synchronous);
        let told = scene.await_told("drill", |s| s.proof.at.is_some() && s.busy.is_none());
        assert_eq!(told.proof.state, ProofState::Verified);
        let source = scene.source(&server.url(), AckMode::Synchronous);
        let mut stage = Self {
            disk,
            scene,
            server,
            source,
            vault,
            acknowledged: Arc::default(),
            writers: Vec::new(),
        };
        let began = Instant::now();
        while let Err(error) = enable_synchronous(&stage.source).await {
            assert!(began.elapsed() < LIMIT, "{error}");
            tokio::time::sleep(POLL).await;
        }
        for _ in 0..WRITERS {
            let client = stage.server.connect().await.unwrap();
            let acknowledged = stage.acknowledged.clone();
            stage
                .writers
                .push(tokio::spawn(write(client, acknowledged)));
        }
        stage.await_more(20).await;
        stage
    }

    pub fn start(&mut self) {
        self.vault = self.scene.spawn(&self.server.url(), AckMode::Synchronous);
    }

    /// Kills the vault at a step and waits until it is gone.
    pub async fn kill(&mut self, on: Step, after: u64) -> Step {
        let victim = self.vault.pid();
        let step = self.fail(Fault::Kill { after, victim }, on).await;
        self.vault.wait(LIMIT).unwrap();
        step
    }

    /// Waits until a fault has happened.
    pub async fn fail(&mut self, fault: Fault, on: Step) -> Step {
        match fault {
            Fault::Full { .. } => self.disk.arm(fault),
            Fault::Error { .. } | Fault::Kill { .. } => self.disk.arm_on(on, fault),
        }
        let began = Instant::now();
        loop {
            if let Some((step, _)) = self.disk.tripped() {
                return step;
            }
            assert!(
                began.elapsed() < LIMIT,
                "no step: {}",
                self.vault.log_tail()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits for more acknowledged commits: the vault takes part again.
    pub async fn await_more(&mut self, more: usize) {
        let count = || self.acknowledged.lock().unwrap().len();
        let wanted = count() + more;
        let began = Instant::now();
        while count() < wanted {
            assert!(
                began.elapsed() < LIMIT,
                "no commits: {}",
                self.vault.log_tail()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Returns the acknowledged transactions whose commit is in no log that is kept.
    pub fn lost_of_what_is_kept(&self) -> Vec<u32> {
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        let kept = self.commits_kept();
        let lost = |xid: &u32| !kept.contains(xid);
        acknowledged.into_iter().filter(lost).collect()
    }

    /// Restores the files of the newest moment and reads which commits their log has.
    fn commits_kept(&self) -> BTreeSet<u32> {
        let dir = TestDir::new("kept").unwrap();
        let request = RestoreRequest::new(
            "prod".parse().unwrap(),
            RestoreTarget::Latest,
            dir.path().join("data"),
            Start::No,
        );
        let quiet: ProgressFn = Arc::new(|_| {});
        restore(&self.scene.place(), &request, &quiet).unwrap();
        let log = request.into.join("pg_wal");
        let mut names: Vec<String> = std::fs::read_dir(&log)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.len() == 24)
            .collect();
        names.sort();
        let mut found = BTreeSet::new();
        let mut reader = WalReader::new(WalShape {
            segment_bytes: SEGMENT,
            system_identifier: None,
        });
        for name in names {
            let number = u64::from_str_radix(&name[16..], 16).unwrap();
            let start = Lsn(number * u64::from(SEGMENT));
            let bytes = std::fs::read(log.join(&name)).unwrap();
            // Where it cannot be read on, PostgreSQL would not go on either.
            let _ = reader.feed(start, &bytes, &mut |record| {
                if let Some(Event::Commit(commit)) = record.event()? {
                    found.insert(commit.xid);
                }
                Ok(())
            });
        }
        found
    }

    /// Loses the source, and brings everything that was acknowledged back to a server.
    pub async fn end(mut self) {
        self.vault.kill_9().unwrap();
        self.server.kill_9().unwrap();
        std::fs::remove_dir_all(self.server.data_dir()).unwrap();
        for writer in self.writers.drain(..) {
            writer.await.unwrap();
        }
        let back = self.scene.restore(&self.scene.state(), &self.server).await;
        let rows: usize = back
            .ask("SELECT count(*)::text FROM t")
            .await
            .parse()
            .unwrap();
        let acknowledged = self.acknowledged.lock().unwrap().len();
        println!("{acknowledged} acknowledged, {rows} rows back");
        assert!(rows >= acknowledged);
    }
}

async fn write(client: tokio_postgres::Client, acknowledged: Arc<Mutex<Vec<u32>>>) {
    const SQL: &str = "INSERT INTO t (filler) VALUES (repeat('x', 500)) \
                       RETURNING pg_current_xact_id()::text";
    while let Ok(row) = client.query_one(SQL, &[]).await {
        let xid: String = row.get(0);
        acknowledged.lock().unwrap().push(xid.parse().unwrap());
    }
}

/// The seed of this run, printed.
pub fn seed() -> u64 {
    let seed = match std::env::var("HOLDFAST_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => rand::random(),
    };
    println!("seed {seed}: set HOLDFAST_SEED to it to play this again");
    seed
}

/// How many rounds to play.
pub fn rounds(default: usize) -> usize {
    match std::env::var("HOLDFAST_ROUNDS") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => default,
    }
}
