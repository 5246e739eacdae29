//! Drills of real sources, and ways back from destruction that nobody stopped.

mod planted;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use holdfast_core::{ActionId, CheckOutcome, DrillOf, DrillReport, Principal, SourceName, WayBack};
use holdfast_store::ledger::{self, Ledger};
use holdfast_testing::dirs::TestDir;
use holdfast_testing::postgres::{self, Installation, Server};
use holdfast_testing::signals;
use holdfast_vault::{
    AckAt, AckMode, Assertion, DrillConfig, LagAgainst, Place, PointsConfig, PostgresConfig,
    ProofState, RestoreRequest, RestoreTarget, RetentionConfig, Running, SourceConfig, Start,
    Vault, VaultConfig, drills, points, restore, system_clock,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);

/// A vault that protects one server, with drills in a folder of the test.
struct Scene {
    server: Server,
    folder: TestDir,
    vault: Vault,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn name() -> SourceName {
    "prod".parse().unwrap()
}

fn server(installation: &Installation) -> Server {
    Server::builder(installation)
        .initdb_arg("--data-checksums")
        .setting("fsync", "off")
        .setting("autovacuum", "off")
        .start()
        .unwrap()
}

fn place(folder: &Path, installation: &Installation) -> Place {
    let bin = installation.program("postgres");
    Place {
        state: folder.join("state"),
        repository: folder.join("repository").into(),
        keys: crate::keys::keys(),
        vault_key: Some(key().verifying_key()),
        postgres: PostgresConfig {
            dirs: vec![bin.parent().unwrap().to_owned()],
            run_as: None,
        },
    }
}

fn open(server: &Server, folder: &Path, assertions: Vec<Assertion>) -> Vault {
    let drill = DrillConfig {
        every: Duration::from_secs(24 * 3600),
        dir: Some(folder.join("drills")),
        budget: Duration::from_secs(300),
        ..DrillConfig::default()
    };
    open_with(server, folder, (assertions, drill))
}

fn open_with(
    server: &Server,
    folder: &Path,
    (assertions, drill): (Vec<Assertion>, DrillConfig),
) -> Vault {
    let clock = system_clock();
    let place = place(folder, server.installation());
    std::fs::create_dir_all(&place.state).unwrap();
    let ledger = Ledger::open(&place.state.join("ledger"), key(), clock()).unwrap();
    let config = VaultConfig {
        directories: Vec::new(),
        state: place.state,
        repository: place.repository,
        keys: place.keys,
        sources: vec![SourceConfig {
            name: name(),
            url: server.url().parse().unwrap(),
            mode: AckMode::Asynchronous,
            ack: AckAt::Spool,
            assertions,
        }],
        postgres: place.postgres,
        drill,
        points: PointsConfig::default(),
        retention: RetentionConfig::default(),
    };
    Vault::open(config, ledger, key(), clock).unwrap()
}

impl Scene {
    fn start(server: Server, assertions: Vec<Assertion>) -> Self {
        let folder = TestDir::for_server("drill").unwrap();
        let vault = open(&server, folder.path(), assertions);
        Self::run(server, folder, vault)
    }

    fn run(server: Server, folder: TestDir, vault: Vault) -> Self {
        let stop = CancellationToken::new();
        let (runs, told) = (vault.clone(), stop.clone());
        let task = tokio::spawn(async move { runs.run(told).await.unwrap() });
        Self {
            server,
            folder,
            vault,
            stop,
            task: Some(task),
        }
    }

    async fn sql(&self, sql: &str) {
        let client = self.server.connect().await.unwrap();
        for statement in sql.split(';').filter(|text| !text.trim().is_empty()) {
            client.batch_execute(statement).await.unwrap();
        }
    }

    /// Waits until everything that is committed now is in the repository.
    async fn shipped(&self) {
        let client = self.server.connect().await.unwrap();
        let row = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]);
        let end: holdfast_core::Lsn = row.await.unwrap().get::<_, String>(0).parse().unwrap();
        self.wait("the log", |vault| vault.status()[0].shipped >= end)
            .await;
    }

    async fn wait(&self, what: &str, wanted: impl Fn(&Vault) -> bool) {
        let began = Instant::now();
        while !wanted(&self.vault) {
            assert!(
                began.elapsed() < LIMIT,
                "no {what}: {:#?}",
                self.vault.status()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits for the drill that the vault runs by itself after the first base.
    async fn first_drill(&self) -> ProofState {
        let ended = |vault: &Vault| vault.status()[0].proof.state != ProofState::None;
        self.wait("drill", ended).await;
        self.vault.status()[0].proof.state
    }

    fn drills(&self) -> Vec<DrillReport> {
        let place = place(self.folder.path(), self.server.installation());
        let list = drills(&place, Some(&name())).unwrap();
        list.into_iter().map(|record| record.report).collect()
    }

    fn kinds(&self) -> Vec<String> {
        let mut kinds = Vec::new();
        let ledger = self.folder.path().join("state/ledger");
        ledger::verify(&ledger, &key().verifying_key(), |entry| {
            if entry.draft.kind.starts_with("drill.") {
                kinds.push(entry.draft.kind.clone());
            }
        })
        .unwrap();
        kinds
    }

    async fn end(mut self) -> (Server, TestDir) {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap();
        // The folder and the server outlive the vault.
        let server = std::mem::replace(&mut self.server, spare());
        let folder = std::mem::replace(&mut self.folder, TestDir::new("spare").unwrap());
        (server, folder)
    }
}

/// A server that was never started.
fn spare() -> Server {
    Server::builder(&postgres::oldest().unwrap())
        .create()
        .unwrap()
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn outcome<'a>(report: &'a DrillReport, name: &str) -> (CheckOutcome, &'a str) {
    let check = report.checks.iter().find(|check| check.name == name);
    let check = check.unwrap_or_else(|| panic!("no `{name}` in {report:#?}"));
    (check.outcome, &check.detail)
}

fn assertion(name: &str, sql: &str) -> Assertion {
    Assertion {
        name: name.to_owned(),
        database: "postgres".to_owned(),
        sql: sql.to_owned(),
    }
}

const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, note text);
    INSERT INTO orders SELECT n, repeat('x', 100) FROM generate_series(1, 10000) AS n";

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_restores_writes_checks_and_is_remembered() {
    for installation in postgres::all().unwrap() {
        let source = server(&installation);
        let scene = Scene::start(
            source,
            vec![assertion("orders", "SELECT count(*) >= 0 FROM pg_class")],
        );
        scene.sql(ORDERS).await;
        scene.sql("CREATE DATABASE second").await;
        assert_eq!(scene.first_drill().await, ProofState::Verified);
        scene.shipped().await;
        let report = scene.vault.drill(&name()).await.unwrap();
        assert!(report.passed(), "{report:#?}");
        for check in &report.checks {
            assert_eq!(check.outcome, CheckOutcome::Passed, "{report:#?}");
        }
        for name in [
            "restore to the end of the log",
            "server takes a write",
            "assertion `orders`",
            "databases",
            "tables can be read",
            "structure of B-tree indexes",
            "structure of tables",
            "catalogs agree",
            "page checksums",
            "rows compared with the drill before",
        ] {
            outcome(&report, name);
        }
        assert_eq!(outcome(&report, "databases").1, "3 can be used");
        assert!(
            report.rto > Duration::ZERO && report.restored.0 > 10 << 20,
            "{report:?}"
        );
        // Nothing is left of it: no folder, no server.
        let left: Vec<PathBuf> = std::fs::read_dir(scene.folder.path().join("drills"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(left, Vec::<PathBuf>::new());
        assert_eq!(running(scene.folder.path()), Vec::<String>::new());

        let answer = scene.vault.way_back(&name(), report.drilled_at).unwrap();
        assert_eq!(answer.proof.report(), &report);
        assert_eq!(scene.kinds(), ["drill.passed", "drill.passed"]);
        assert_eq!(scene.drills().last(), Some(&report));
        let running = Running {
            sources: scene.vault.status(),
            directories: Vec::new(),
        };
        let kept = place(scene.folder.path(), &installation);
        let span = points(&kept, &running, report.drilled_at)
            .unwrap()
            .remove(0);
        assert_eq!(span.lag.unwrap().against, LagAgainst::Source);
        let shown = span.points.iter().find(|one| one.point == report.point);
        let proof = &shown.unwrap().proof;
        assert_eq!(
            (proof.state, proof.at),
            (ProofState::Verified, Some(report.drilled_at))
        );
        assert_eq!((proof.reached, proof.drills), (Some(report.reached), 2));
        assert_eq!((&span.proof, &proof.why), (proof, &None));
        // A vault that starts anew knows it, from the repository alone if it must.
        let (source, folder) = scene.end().await;
        let again = open(&source, folder.path(), Vec::new());
        assert_eq!(again.status()[0].proof.state, ProofState::Verified);
        assert_eq!(again.status()[0].proof.at, Some(report.drilled_at));
        drop(again);
        std::fs::rename(folder.path().join("state"), folder.path().join("lost")).unwrap();
        let list = drills(&place(folder.path(), &installation), None).unwrap();
        assert_eq!(list.last().unwrap().report.point, report.point);
    }
}

/// Servers that work in a folder below `folder`'s drills.
fn running(folder: &Path) -> Vec<String> {
    let drills = folder.join("drills");
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path().join("cwd")).ok())
        .filter(|place| place.starts_with(&drills))
        .map(|place| place.display().to_string())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_that_does_not_hold_fails_the_drill() {
    let installation = postgres::newest().unwrap();
    let scene = Scene::start(
        server(&installation),
        vec![
            assertion("true", "SELECT true"),
            assertion("false", "SELECT 1 > 2"),
            assertion("null", "SELECT NULL::bool"),
            assertion("text", "SELECT 'true'"),
            assertion("none", "SELECT true WHERE false"),
            assertion("two", "VALUES (true), (true)"),
            assertion("error", "SELECT true FROM nowhere"),
        ],
    );
    assert_eq!(scene.first_drill().await, ProofState::Failed);
    let report = scene.drills().pop().unwrap();
    assert_eq!(outcome(&report, "assertion `true`").0, CheckOutcome::Passed);
    for name in ["false", "null", "text", "none", "two", "error"] {
        let (outcome, detail) = outcome(&report, &format!("assertion `{name}`"));
        assert_eq!(outcome, CheckOutcome::Failed, "{name}: {detail}");
    }
    assert!(outcome(&report, "assertion `error`").1.contains("nowhere"));
    assert_eq!(scene.kinds(), ["drill.failed"]);
    assert!(scene.vault.way_back(&name(), report.drilled_at).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_rotted_in_the_source_fails_the_drill() {
    for installation in postgres::all().unwrap() {
        let mut source = server(&installation);
        let client = source.connect().await.unwrap();
        client.batch_execute(ORDERS).await.unwrap();
        let row = client.query_one("SELECT pg_relation_filepath('orders')", &[]);
        let path = source
            .data_dir()
            .join(row.await.unwrap().get::<_, String>(0));
        drop(client);
        source.stop_fast().unwrap();
        // A page that looks newer than the backup is not checked by the source when it is backed up.
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0x7F, 0, 0, 0, 0, 0, 0, 0], 8192 * 3)
            .unwrap();
        file.write_all_at(b"rot", 8192 * 3 + 6000).unwrap();
        source.restart().unwrap();
        let scene = Scene::start(source, Vec::new());
        assert_eq!(scene.first_drill().await, ProofState::Failed);
        let report = scene.drills().pop().unwrap();
        let (read, detail) = outcome(&report, "tables can be read");
        assert_eq!(read, CheckOutcome::Failed);
        assert!(detail.contains("postgres.public.orders"), "{detail}");
        let (pages, detail) = outcome(&report, "page checksums");
        assert_eq!(pages, CheckOutcome::Failed);
        assert!(detail.contains("page 3 of base/"), "{detail}");
        let kept = place(scene.folder.path(), &installation);
        let span = points(&kept, &Running::default(), report.drilled_at)
            .unwrap()
            .remove(0);
        assert_eq!(
            (span.proof.state, span.proof.at),
            (ProofState::Failed, Some(report.drilled_at))
        );
        let why = span.proof.why.unwrap();
        assert!(
            why.contains("tables can be read") && why.contains("page 3"),
            "{why}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mass_delete_raises_an_alarm_that_stands_and_the_way_back_from_before_it_is_offered() {
    let installation = postgres::oldest().unwrap();
    let source = server(&installation);
    let client = source.connect().await.unwrap();
    client.batch_execute(ORDERS).await.unwrap();
    let scene = Scene::start(source, Vec::new());
    assert_eq!(scene.first_drill().await, ProofState::Verified);
    let before = scene.drills().pop().unwrap();
    scene.sql("DELETE FROM orders WHERE id > 50").await;
    scene.shipped().await;
    // Nothing is wrong with the restore: it is proven, and the proof itself says what is gone.
    let report = scene.vault.drill(&name()).await.unwrap();
    let (found, detail) = outcome(&report, "rows compared with the drill before");
    assert_eq!(found, CheckOutcome::Alarm);
    let expected = "postgres.public.orders: 10_000 rows before, 50 now";
    assert!(detail.contains(expected), "{detail}");
    let answer = scene.vault.way_back(&name(), report.drilled_at).unwrap();
    assert_eq!(answer.proof.report(), &report);
    assert!(answer.alarm().unwrap().contains(expected));
    assert_eq!(report.details.before_loss, Some(before.proven()));
    let status = scene.vault.status().remove(0).proof;
    assert_eq!(status.state, ProofState::Verified);
    assert!(status.alarm.unwrap().contains(expected));
    // It is not forgotten with the next drill, nor by a vault that starts anew.
    let report = scene.vault.drill(&name()).await.unwrap();
    assert_eq!(report.details.losses.len(), 1, "{report:#?}");
    let (source, folder) = scene.end().await;
    let again = open(&source, folder.path(), Vec::new());
    assert!(again.status()[0].proof.alarm.is_some());
    let report = again.drill(&name()).await.unwrap();
    assert_eq!(report.details.before_loss, Some(before.proven()));
    // What is offered brings the rows back.
    let into = TestDir::for_server("before").unwrap();
    let at = report.details.before_loss.unwrap().reached;
    let rows = rows_at(
        &source,
        folder.path(),
        (into.path(), RestoreTarget::Lsn(at)),
    )
    .await;
    assert_eq!(rows, 10_000);
    // A person says that it was meant.
    let by = Principal::human("anna");
    assert_eq!(again.accept_loss(&name(), by.clone()).unwrap().len(), 1);
    assert_eq!(again.status()[0].proof.alarm, None);
    let refused = again.accept_loss(&name(), by).unwrap_err();
    assert_eq!(holdfast_core::Coded::code(&refused).as_str(), "ZU390");
    let report = again.drill(&name()).await.unwrap();
    assert_eq!(report.alarm(), None, "{report:#?}");
}

/// Restores to a moment and counts the orders.
async fn rows_at(source: &Server, folder: &Path, (into, at): (&Path, RestoreTarget)) -> i64 {
    let place = place(folder, source.installation());
    let start = Start::Yes { port: None };
    let request = RestoreRequest::new(name(), at, into.join("data"), start);
    let quiet: holdfast_vault::ProgressFn = Arc::new(|_| {});
    let restored = tokio::task::spawn_blocking(move || restore(&place, &request, &quiet));
    let address = restored.await.unwrap().unwrap().server.unwrap();
    let password = source.password();
    let port = address.port;
    let url = format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres");
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let row = client.query_one("SELECT count(*) FROM orders", &[]).await;
    let count: i64 = row.unwrap().get(0);
    signals::kill_tree(address.pid).unwrap();
    count
}

/// Returns what was seen to be destroyed, with the action that did it.
fn destroyed(scene: &Scene) -> Vec<(ActionId, serde_json::Value)> {
    let mut seen = Vec::new();
    let ledger = scene.folder.path().join("state/ledger");
    ledger::verify(&ledger, &key().verifying_key(), |entry| {
        if entry.draft.kind == "source.destruction_seen" {
            seen.push((
                entry.draft.action.clone().unwrap(),
                entry.draft.body["what"].clone(),
            ));
        }
    })
    .unwrap();
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_destroyed_past_the_guard_comes_back_before_the_action() {
    for installation in postgres::all().unwrap() {
        let scene = Scene::start(server(&installation), Vec::new());
        scene.sql(ORDERS).await;
        scene.sql("CREATE DATABASE bookings").await;
        let inside = scene.server.connect_to("bookings").await.unwrap();
        inside.batch_execute(ORDERS).await.unwrap();
        drop(inside);
        assert_eq!(scene.first_drill().await, ProofState::Verified);
        scene
            .sql("CHECKPOINT; INSERT INTO orders VALUES (0, 'last')")
            .await;
        scene.sql("TRUNCATE orders").await;
        scene.sql("DROP TABLE orders").await;
        scene.sql("DROP DATABASE bookings WITH (FORCE)").await;
        scene.shipped().await;
        // What has become safe is read a moment after it has.
        scene
            .wait("destruction seen", |_| destroyed(&scene).len() >= 3)
            .await;
        let seen = destroyed(&scene);
        let whats: Vec<&str> = seen
            .iter()
            .map(|(_, what)| what.as_str().unwrap())
            .collect();
        assert_eq!(
            whats,
            ["tables truncated", "tables dropped", "database dropped"]
        );
        let place = place(scene.folder.path(), &installation);
        for (index, (database, rows)) in [
            ("postgres", 10_001_i64),
            ("postgres", 0),
            ("bookings", 10_000),
        ]
        .into_iter()
        .enumerate()
        {
            let into = TestDir::for_server("back").unwrap();
            let request = RestoreRequest::new(
                name(),
                RestoreTarget::Before(seen[index].0.clone()),
                into.path().join("data"),
                Start::Yes { port: None },
            );
            let place = place.clone();
            let quiet: holdfast_vault::ProgressFn = Arc::new(|_| {});
            let restored = tokio::task::spawn_blocking(move || restore(&place, &request, &quiet));
            let address = restored.await.unwrap().unwrap().server.unwrap();
            let password = scene.server.password();
            let url = format!(
                "postgres://postgres:{password}@127.0.0.1:{}/{database}",
                address.port
            );
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
                .await
                .unwrap();
            tokio::spawn(connection);
            let row = client.query_one("SELECT count(*) FROM orders", &[]).await;
            let count: i64 = row.unwrap().get(0);
            signals::kill_tree(address.pid).unwrap();
            assert_eq!(count, rows, "{}", whats[index]);
        }
    }
}
