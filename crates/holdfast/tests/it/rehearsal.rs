//! What is held is rehearsed on a clone; what a person approved lapses when production moves.

use std::process::Command;
use std::time::Duration;

use holdfast_testing::postgres::{self, Server};
use holdfast_testing::process::Process;
use holdfast_testing::signals;
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

use crate::desk::{Desk, PASSPHRASE};

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

const SHOP: &str = "
CREATE ROLE app; CREATE SCHEMA shop AUTHORIZATION app;
ALTER DATABASE postgres OWNER TO app; GRANT CREATE ON SCHEMA public TO app; SET ROLE app;
CREATE TABLE shop.customers (id int PRIMARY KEY, name text);
CREATE TABLE shop.orders (id int PRIMARY KEY, customer int REFERENCES shop.customers ON DELETE CASCADE, total int);
CREATE TABLE shop.audit (what text);
CREATE FUNCTION shop.note() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO shop.audit VALUES (OLD.name); RETURN OLD; END $$;
CREATE TRIGGER note AFTER DELETE ON shop.customers FOR EACH ROW EXECUTE FUNCTION shop.note();
INSERT INTO shop.customers SELECT n, 'customer ' || n FROM generate_series(1, 200) n;
INSERT INTO shop.orders SELECT n, 1 + n % 200, n FROM generate_series(1, 1000) n;
RESET ROLE;
";

/// A source, and both halves on it.
struct Stage {
    _source: Server,
    up: Process,
    owner: Client,
    // Last: what runs in it has ended then.
    desk: Desk,
}

impl Stage {
    async fn start(settings: &str) -> Self {
        let installation = postgres::newest().unwrap();
        let source = Server::builder(&installation)
            .setting("wal_level", "replica")
            .setting("autovacuum", "off")
            .start()
            .unwrap();
        let desk = Desk::init("rehearsal");
        desk.secret("vault-url", &source.url());
        desk.secret("guard-url", &source.url());
        desk.run(&[
            "source",
            "add",
            "prod",
            "--vault-url",
            "file:vault-url",
            "--guard-url",
            "file:guard-url",
        ])
        .done();
        let toml = desk.join("holdfast.toml");
        let text = std::fs::read_to_string(&toml).unwrap();
        let bin = installation.bin_dir.display();
        let vault = format!("[vault]\npostgres_bin_dirs = [\"{bin}\"]\nrehearsal_s = 3\n");
        let text = text.replace("[guard]\n", &format!("[guard]\n{settings}"));
        std::fs::write(&toml, format!("{text}{vault}")).unwrap();
        let owner = connect(&source.url()).await;
        owner.batch_execute(SHOP).await.unwrap();
        let up = Process::spawn(desk.command(&["up"]), &desk.join("up.log")).unwrap();
        let stage = Self {
            desk,
            _source: source,
            up,
            owner,
        };
        let mut last = Value::Null;
        let proven = signals::wait_until(LIMIT, || {
            let list = stage.desk.run(&["source", "list", "--json"]);
            last = list.json()[0].clone();
            last["proof"]["state"] == "verified"
        });
        assert!(proven.is_ok(), "{last}\n{}", stage.up.log_tail());
        stage
    }

    fn lease(&self) -> String {
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
            "schema",
            "--json",
        ];
        let lease = self.desk.run(&args).done().json();
        lease["url"].as_str().unwrap().to_owned()
    }

    async fn agent(&self) -> Client {
        connect(&self.lease()).await
    }

    /// Runs what is held, and returns the hold's id.
    async fn held(&self, agent: &Client, sql: &str) -> String {
        let error = agent.batch_execute(sql).await.expect_err(sql);
        self.hold_of(&error, sql)
    }

    fn hold_of(&self, error: &tokio_postgres::Error, sql: &str) -> String {
        let error = error
            .as_db_error()
            .unwrap_or_else(|| panic!("{sql}: {error}"));
        assert_eq!(error.code().code(), "ZH001", "{sql}: {error}");
        let hint = error.hint().unwrap();
        let at = hint.find("hold-").unwrap();
        hint[at..at + 13].to_owned()
    }

    fn shown(&self, id: &str) -> Value {
        self.desk.run(&["hold", "show", id, "--json"]).done().json()
    }

    /// Waits until the rehearsal of a hold has ended, and returns how.
    fn rehearsed(&self, id: &str) -> Value {
        let mut last = Value::Null;
        let ended = signals::wait_until(LIMIT, || {
            last = self.shown(id)["rehearsal"].clone();
            last["state"] == "done" || last["state"] == "impossible"
        });
        assert!(ended.is_ok(), "{last}\n{}", self.up.log_tail());
        last
    }

    /// What a rehearsal measured.
    fn measured(&self, id: &str) -> Value {
        let ended = self.rehearsed(id);
        assert_eq!(ended["state"], "done", "{ended}\n{}", self.up.log_tail());
        ended["rehearsal"].clone()
    }

    fn approve(&self, id: &str) -> String {
        let args = ["hold", "approve", id, "--passphrase-stdin"];
        self.desk.says(&args, PASSPHRASE).done().stderr
    }

    async fn number(&self, sql: &str) -> i64 {
        self.owner.query_one(sql, &[]).await.unwrap().get(0)
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Rows of one table, inserted, updated and deleted.
fn rows(rehearsal: &Value, table: &str) -> Option<[u64; 3]> {
    let tables = rehearsal["rows"].as_array().unwrap();
    let found = tables.iter().find(|one| one["table"] == table)?;
    let number = |what: &str| found[what].as_u64().unwrap();
    Some([number("inserted"), number("updated"), number("deleted")])
}

fn object<'a>(rehearsal: &'a Value, fate: &str, name: &str) -> Option<&'a Value> {
    let objects = rehearsal["objects"].as_array().unwrap();
    let mut objects = objects.iter();
    objects.find(|one| one["fate"] == fate && one["name"] == name)
}

fn locks(rehearsal: &Value, relation: &str, mode: &str) -> bool {
    let locks = rehearsal["locks"].as_array().unwrap();
    let mut locks = locks.iter();
    locks.any(|one| one["relation"] == relation && one["mode"] == mode)
}

const COUNT: &str = "SELECT count(*) FROM shop.orders";

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_of_what_was_rehearsed_passes_unless_production_moves() {
    let stage = Stage::start("").await;
    let agent = stage.agent().await;
    // Parameters too: they are bound again on the clone, with their types.
    let delete = "DELETE FROM shop.customers WHERE id <= $1";
    let statement = agent.prepare(delete).await.unwrap();
    let error = agent.execute(&statement, &[&100_i32]).await.unwrap_err();
    let id = stage.hold_of(&error, delete);
    let measured = stage.measured(&id);
    assert_eq!(
        rows(&measured, "shop.customers"),
        Some([0, 0, 100]),
        "{measured}"
    );
    assert_eq!(
        rows(&measured, "shop.orders"),
        Some([0, 0, 500]),
        "{measured}"
    );
    assert_eq!(
        rows(&measured, "shop.audit"),
        Some([100, 0, 0]),
        "{measured}"
    );
    assert!(
        locks(&measured, "shop.orders", "RowExclusiveLock"),
        "{measured}"
    );
    assert_eq!(measured["steps"][0]["tag"], "DELETE 100", "{measured}");
    let text = stage.desk.run(&["hold", "show", &id]).done().stdout;
    for word in [
        "shop.orders: 0 inserted, 0 updated, 500 deleted",
        "position",
        "lock",
    ] {
        assert!(text.contains(word), "no `{word}` in {text}");
    }
    assert!(!text.contains("differs"), "{text}");
    assert_eq!(stage.number(COUNT).await, 1000);

    stage.approve(&id);
    let insert = "INSERT INTO shop.orders VALUES (5000, 7, 1)";
    stage.owner.batch_execute(insert).await.unwrap();
    let error = agent.execute(&statement, &[&100_i32]).await.unwrap_err();
    let again = stage.hold_of(&error, delete);
    assert_ne!(again, id);
    let said = error.as_db_error().unwrap().message().to_owned();
    assert!(said.contains("500 when it was approved, 501 now"), "{said}");
    assert_eq!(stage.number(COUNT).await, 1001);

    let measured = stage.measured(&again);
    assert_eq!(
        rows(&measured, "shop.orders"),
        Some([0, 0, 501]),
        "{measured}"
    );
    stage.approve(&again);
    assert_eq!(agent.execute(&statement, &[&100_i32]).await.unwrap(), 100);
    assert_eq!(stage.number(COUNT).await, 500);
    let args = [
        "ledger",
        "list",
        "--half",
        "guard",
        "--kind",
        "rehearsal.done",
        "--json",
    ];
    let ledger = stage.desk.run(&args).done().json();
    assert_eq!(ledger.as_array().unwrap().len(), 2, "{ledger}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_movement_is_tolerated_where_that_is_configured() {
    let settings = "approval_tolerance_percent = 10\napprove_before_rehearsal = \"refuse\"\n";
    let stage = Stage::start(settings).await;
    let agent = stage.agent().await;
    let delete = "DELETE FROM shop.orders WHERE total > 500";
    let id = stage.held(&agent, delete).await;
    let args = ["hold", "approve", &id, "--passphrase-stdin"];
    let early = stage.desk.says(&args, PASSPHRASE);
    // The rehearsal may have been quicker than we were.
    if stage.shown(&id)["state"] == "waiting" {
        early.refused(4, &["ZH430"]);
        stage.measured(&id);
        stage.approve(&id);
    }
    let insert = |n: i32| format!("INSERT INTO shop.orders VALUES ({n}, 7, 1000)");
    stage.owner.batch_execute(&insert(6000)).await.unwrap();
    agent.batch_execute(delete).await.unwrap();
    assert_eq!(stage.number(COUNT).await, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_and_drops_are_measured_by_object_and_lock() {
    let stage = Stage::start("").await;
    let agent = stage.agent().await;
    let migration = "ALTER TABLE shop.orders ALTER COLUMN total TYPE bigint";
    let id = stage.held(&agent, migration).await;
    let measured = stage.measured(&id);
    let rewritten = object(&measured, "rewritten", "shop.orders");
    assert_eq!(rewritten.unwrap()["rows"], 1000, "{measured}");
    assert!(
        locks(&measured, "shop.orders", "AccessExclusiveLock"),
        "{measured}"
    );

    let id = stage.held(&agent, "DROP SCHEMA shop CASCADE").await;
    let measured = stage.measured(&id);
    for (name, rows) in [
        ("shop.customers", 200),
        ("shop.orders", 1000),
        ("shop.audit", 0),
    ] {
        let dropped = object(&measured, "dropped", name);
        assert_eq!(dropped.unwrap()["rows"], rows, "{measured}");
    }
    assert!(object(&measured, "dropped", "shop").is_some(), "{measured}");
    assert!(
        object(&measured, "dropped", "shop.note()").is_some(),
        "{measured}"
    );
    assert!(
        object(&measured, "dropped", "shop.orders_pkey").is_none(),
        "{measured}"
    );

    let id = stage.held(&agent, "VACUUM FULL shop.orders").await;
    let measured = stage.measured(&id);
    assert!(
        object(&measured, "rewritten", "shop.orders").is_some(),
        "{measured}"
    );
    assert_eq!(stage.number(COUNT).await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rehearsed_says_why_and_can_still_be_decided() {
    let stage = Stage::start("").await;
    let agent = stage.agent().await;
    // A temporary table is the agent's session's own.
    agent
        .batch_execute("CREATE TEMP TABLE chosen AS SELECT id FROM shop.orders")
        .await
        .unwrap();
    let delete = "DELETE FROM shop.orders WHERE id IN (SELECT id FROM chosen)";
    let id = stage.held(&agent, delete).await;
    let measured = stage.measured(&id);
    assert_eq!(measured["failed"]["code"], "42P01", "{measured}");
    let text = stage.approve(&id);
    assert!(
        text.contains("warning: it failed in its rehearsal"),
        "{text}"
    );
    agent.batch_execute(delete).await.unwrap();
    assert_eq!(stage.number(COUNT).await, 0);

    let slow = "DO $$ BEGIN PERFORM pg_sleep(4); DELETE FROM shop.customers; END $$";
    let id = stage.held(&agent, slow).await;
    let measured = stage.measured(&id);
    assert_eq!(measured["failed"]["code"], "57014", "{measured}");
    copied_rows(&stage);
    without_a_place(&stage, &agent).await;
}

/// Rows that a COPY brings are not kept.
fn copied_rows(stage: &Stage) {
    let rows: String = (0..300).map(|n| format!("{n}\t1\t{n}\n")).collect();
    std::fs::write(stage.desk.join("rows"), rows).unwrap();
    let copy = format!(
        "\\copy shop.orders from '{}'",
        stage.desk.join("rows").display()
    );
    let url = stage.lease();
    let copied = Command::new("psql")
        .args(["-X", "-d", &url, "-c", &copy])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&copied.stderr).into_owned();
    let at = said.find("hold-").unwrap_or_else(|| panic!("{said}"));
    let ended = stage.rehearsed(&said[at..at + 13]);
    assert_eq!(ended["state"], "impossible", "{ended}");
    assert!(ended["why"].as_str().unwrap().contains("COPY"), "{ended}");
}

async fn without_a_place(stage: &Stage, agent: &Client) {
    let insert = "INSERT INTO shop.audit VALUES ('x')";
    stage.owner.batch_execute(insert).await.unwrap();
    let clones = stage.desk.join("state/clones");
    std::fs::rename(&clones, stage.desk.join("away")).unwrap();
    std::fs::write(&clones, "no folder").unwrap();
    let id = stage.held(agent, "TRUNCATE shop.customers CASCADE").await;
    let ended = stage.rehearsed(&id);
    assert_eq!(ended["state"], "impossible", "{ended}");
    assert!(
        ended["why"].as_str().unwrap().contains("no clone"),
        "{ended}"
    );
    let open = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'
        AND pid <> pg_backend_pid() AND xact_start IS NOT NULL";
    assert_eq!(stage.number(open).await, 0);
}
