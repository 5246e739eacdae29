//! The PostgreSQL door as a process of its own that is killed: nothing stays open, nothing is forgotten.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_testing::postgres::{self, Installation, Server};
use holdfast_testing::process::Process;
use tokio_postgres::{Client, NoTls};

use crate::desk::Desk;

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A source, and `holdfast guard run` before it.
struct Guarded {
    desk: Desk,
    source: Server,
    guard: Process,
}

impl Guarded {
    async fn start(installation: &Installation) -> Self {
        let source = Server::builder(installation)
            .fast()
            .setting("max_prepared_transactions", "5")
            .start()
            .unwrap();
        let root = source.connect().await.unwrap();
        let desk = Desk::init("pg-door");
        desk.secret("guard-url", &source.url());
        desk.run(&["source", "add", "prod", "--guard-url", "file:guard-url"])
            .done();
        root.batch_execute(
            "CREATE TABLE bookings (id int PRIMARY KEY, name text); \
             INSERT INTO bookings SELECT n, 'booked' FROM generate_series(1, 500) n; \
             GRANT ALL ON bookings TO PUBLIC",
        )
        .await
        .unwrap();
        let guard = spawn(&desk);
        Self {
            desk,
            source,
            guard,
        }
    }

    fn lease(&self) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let args = [
                "lease",
                "issue",
                "--source",
                "prod",
                "--agent",
                "cursor",
                "--purpose",
                "tidy up",
                "--mode",
                "data",
                "--json",
            ];
            let ran = self.desk.run(&args);
            let address = ran.stdout.contains("127.0.0.1:") && !ran.stdout.contains("127.0.0.1:0/");
            if ran.status == 0 && address {
                return ran.json()["url"].as_str().unwrap().to_owned();
            }
            assert!(
                Instant::now() < deadline,
                "{ran:?}\n{}",
                self.guard.log_tail()
            );
        }
    }

    /// Kills the door as `kill -9` does, and waits until the source has noticed.
    async fn kill(&mut self, before: i64) {
        // It may be dead already.
        let _ = self.guard.kill_9();
        let root = self.source.connect().await.unwrap();
        let left = "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'holdfast\\_%'";
        let deadline = Instant::now() + LIMIT;
        while number(&root, left).await > 0 {
            assert!(Instant::now() < deadline, "a session of the lease stays");
        }
        assert_eq!(number(&root, "SELECT count(*) FROM bookings").await, before);
        let changed = "SELECT count(*) FROM bookings WHERE name <> 'booked'";
        assert_eq!(number(&root, changed).await, 0);
        root.batch_execute("BEGIN; LOCK TABLE bookings IN ACCESS EXCLUSIVE MODE NOWAIT; ROLLBACK")
            .await
            .unwrap();
    }

    fn restart(&mut self) {
        self.guard = spawn(&self.desk);
    }

    /// The same lease at the door that was started again, where it listens now.
    fn moved(&self, url: &str) -> String {
        let now = self.lease();
        let place = |url: &str| url.rsplit_once('@').unwrap().1.to_owned();
        url.replace(&place(url), &place(&now))
    }
}

fn spawn(desk: &Desk) -> Process {
    let log = desk.join("guard.log");
    let _ = std::fs::remove_file(&log);
    let mut guard = Process::spawn(desk.command(&["guard", "run"]), &log).unwrap();
    guard.wait_for_line("PostgreSQL door", LIMIT).unwrap();
    guard
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn number(client: &Client, question: &str) -> i64 {
    client.query_one(question, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_is_killed_in_a_transaction_leaves_nothing_committed_and_nothing_locked() {
    let mut guarded = Guarded::start(&postgres::oldest().unwrap()).await;
    // After the statements.
    let agent = connect(&guarded.lease()).await;
    agent
        .batch_execute("BEGIN; UPDATE bookings SET name = 'lost' WHERE id <= 50")
        .await
        .unwrap();
    guarded.kill(500).await;

    // Between the evidence and the COMMIT: guard's own connection waits for what only it reads.
    guarded.restart();
    let agent = connect(&guarded.lease()).await;
    let root = guarded.source.connect().await.unwrap();
    root.batch_execute("BEGIN; LOCK TABLE pg_catalog.pg_roles IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let begun = "BEGIN; UPDATE bookings SET name = 'lost' WHERE id <= 50; CREATE TEMP VIEW v AS SELECT 1; COMMIT";
    let asking = tokio::spawn(async move { agent.batch_execute(begun).await });
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IN ('pg_catalog.pg_roles'::regclass, 'pg_catalog.pg_authid'::regclass)";
    let deadline = Instant::now() + LIMIT;
    while number(&root, waits).await == 0 && !asking.is_finished() {
        assert!(Instant::now() < deadline, "the gate does not ask");
    }
    assert!(!asking.is_finished(), "{:?}", asking.await);
    guarded.guard.kill_9().unwrap();
    assert!(asking.await.unwrap().is_err());
    root.batch_execute("ROLLBACK").await.unwrap();
    guarded.kill(500).await;

    // During a COPY.
    guarded.restart();
    let mut psql = Command::new("psql")
        .args([
            "-X",
            "-d",
            &guarded.lease(),
            "-c",
            "COPY bookings FROM STDIN",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut rows = psql.stdin.take().unwrap();
    for row in 1000..1090 {
        writeln!(rows, "{row}\tcopied").unwrap();
    }
    rows.flush().unwrap();
    let copies = "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'holdfast\\_%' AND query LIKE 'COPY%'";
    let deadline = Instant::now() + LIMIT;
    while number(&root, copies).await == 0 {
        assert!(Instant::now() < deadline, "nothing is copied");
    }
    guarded.kill(500).await;
    drop(rows);
    assert!(!psql.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_prepared_and_what_was_spent_outlive_a_door_that_is_killed() {
    let mut guarded = Guarded::start(&postgres::newest().unwrap()).await;
    let url = guarded.lease();
    let agent = connect(&url).await;
    for begin in [1000, 2000] {
        let insert = format!(
            "INSERT INTO bookings SELECT n, 'booked' FROM generate_series({begin}, {begin} + 89) n"
        );
        agent.batch_execute(&insert).await.unwrap();
    }
    let prepare = "BEGIN; INSERT INTO bookings SELECT n, 'booked' FROM generate_series(3000, 3059) n; PREPARE TRANSACTION 'kept'";
    agent.batch_execute(prepare).await.unwrap();
    guarded.guard.kill_9().unwrap();
    guarded.restart();
    let agent = connect(&guarded.moved(&url)).await;
    // 240 of 250 rows are spent: those that were committed, and those that were prepared.
    let more = |rows: usize| {
        format!(
            "INSERT INTO bookings SELECT n, 'booked' FROM generate_series(4000, 3999 + {rows}) n"
        )
    };
    let refused = agent.batch_execute(&more(11)).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "ZH001");
    agent.batch_execute(&more(10)).await.unwrap();
    agent.batch_execute("COMMIT PREPARED 'kept'").await.unwrap();
    let root = guarded.source.connect().await.unwrap();
    let rows = number(&root, "SELECT count(*) FROM bookings").await;
    assert_eq!(rows, 500 + 180 + 60 + 10);
}
