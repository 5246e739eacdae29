//! The whole product on a real PostgreSQL: protected, asked, refused, approved, brought back.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use holdfast_testing::postgres::{self, Installation, Server};
use holdfast_testing::process::Process;
use holdfast_testing::signals;
use serde_json::Value;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::desk::{Desk, PASSPHRASE};

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);
/// Rows that the victim holds.
const ROWS: i64 = 1000;

/// A source, and `holdfast up` on it.
struct Protected {
    desk: Desk,
    source: Server,
    up: Process,
}

impl Protected {
    fn start(installation: &Installation) -> Self {
        let source = Server::builder(installation)
            .setting("wal_level", "replica")
            .start()
            .unwrap();
        let desk = Desk::init("product");
        for (name, url) in [("vault-url", source.url()), ("guard-url", source.url())] {
            let file = desk.join(name);
            std::fs::write(&file, url).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        }
        desk.run(&[
            "source",
            "add",
            "prod",
            "--synchronous",
            "--vault-url",
            "file:vault-url",
            "--guard-url",
            "file:guard-url",
            "--assertion",
            "select count(*) >= 0 from bookings",
        ]);
        let bin = installation.bin_dir.display();
        let toml = desk.join("holdfast.toml");
        let text = std::fs::read_to_string(&toml).unwrap();
        std::fs::write(
            &toml,
            format!("{text}[vault]\npostgres_bin_dirs = [\"{bin}\"]\n"),
        )
        .unwrap();
        let up = Process::spawn(desk.command(&["up"]), &desk.join("up.log")).unwrap();
        Self { desk, source, up }
    }

    /// Waits until commits wait for the vault and a drill has passed.
    fn wait_until_proven(&self) {
        let mut last = Value::Null;
        let proven = signals::wait_until(LIMIT, || {
            let list = self.desk.run(&["source", "list", "--json"]);
            last = list.json()[0].clone();
            last["proof"]["state"] == "verified"
        });
        assert!(proven.is_ok(), "{last}\n{}", self.up.log_tail());
    }

    fn lease(&self, mode: &str) -> Value {
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
            mode,
            "--json",
        ];
        self.desk.run(&args).done().json()
    }

    /// The ids of what waits.
    fn waiting(&self) -> Vec<String> {
        let list = self.desk.run(&["hold", "list", "--json"]).done().json();
        let ids = list.as_array().unwrap().iter();
        ids.map(|hold| hold["id"].as_str().unwrap().to_owned())
            .collect()
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn rows(client: &Client) -> i64 {
    let row = client.query_one("SELECT count(*) FROM bookings", &[]).await;
    row.unwrap().get(0)
}

/// The SQLSTATE and the text that the agent sees.
fn refusal(error: &tokio_postgres::Error) -> (String, String) {
    let error = error
        .as_db_error()
        .expect("an answer, not a broken connection");
    let hint = error.hint().unwrap_or_default();
    (
        error.code().code().to_owned(),
        format!("{}\n{hint}", error.message()),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_destroys_is_held_then_approved_then_brought_back() {
    for installation in postgres::all().unwrap() {
        one_story(&installation).await;
    }
}

async fn one_story(installation: &Installation) {
    let mut protected = Protected::start(installation);
    let owner = connect(&protected.source.url()).await;
    owner
        .batch_execute(&format!(
            "CREATE ROLE app; ALTER DATABASE postgres OWNER TO app; GRANT CREATE ON SCHEMA public TO app; \
             SET ROLE app; CREATE TABLE bookings (id bigint PRIMARY KEY, what text); \
             INSERT INTO bookings SELECT n, 'car ' || n FROM generate_series(1, {ROWS}) n"
        ))
        .await
        .unwrap();
    protected.wait_until_proven();
    let desk = &protected.desk;
    let ticket = protected.lease("schema");
    let agent = connect(ticket["url"].as_str().unwrap()).await;
    assert_eq!(rows(&agent).await, ROWS);
    agent
        .batch_execute("INSERT INTO bookings VALUES (0, 'by the agent')")
        .await
        .unwrap();
    assert_eq!(rows(&owner).await, ROWS + 1);

    let waiting = refused(&protected, &agent, &owner).await;
    desk.says(
        &["hold", "approve", &waiting[0], "--passphrase-stdin"],
        "wrong words here",
    )
    .refused(1, &["ZL601", "nothing was decided"]);

    let drop = "DROP TABLE bookings";
    let id = held(&protected, "DROP TABLE bookings").await;
    desk.says(&["hold", "approve", &id, "--passphrase-stdin"], PASSPHRASE)
        .done();
    agent.batch_execute(drop).await.unwrap();
    assert!(owner.query("SELECT 1 FROM bookings", &[]).await.is_err());
    let action = permitted(&protected);

    // The way back: to the moment before exactly this action, in a new place.
    bring_back(&protected, &action).await;
    let spans = desk.run(&["point", "list", "--json"]).done().json();
    assert_eq!(spans[0]["proof"]["state"], "verified", "{spans}");
    assert_eq!(spans[0]["lag"]["against"], "source", "{spans}");
    assert!(
        spans[0]["lag_s"].is_number() && spans[0]["timeline"].is_number(),
        "{spans}"
    );
    let text = desk.run(&["point", "list", "prod"]).done().stdout;
    assert!(text.contains("verified by the drill of"), "{text}");
    take_away(desk);

    freeze_and_revoke(desk, &agent, &ticket).await;
    desk.run(&["ledger", "verify"]).done();
    desk.run(&["up"]).refused(2, &["Z"]);
    let status = protected.up.terminate(LIMIT).unwrap();
    assert!(status.success(), "{status}: {}", protected.up.log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_vanish_are_told_until_a_person_accepts_it_and_proofs_are_verified_elsewhere() {
    let protected = Protected::start(&postgres::oldest().unwrap());
    let owner = connect(&protected.source.url()).await;
    let fill = format!(
        "CREATE TABLE bookings (id bigint PRIMARY KEY);
         INSERT INTO bookings SELECT generate_series(1, {ROWS})"
    );
    owner.batch_execute(&fill).await.unwrap();
    protected.wait_until_proven();
    let desk = &protected.desk;
    desk.run(&["drill", "run", "prod"]).done();
    owner
        .batch_execute("DELETE FROM bookings WHERE id > 10")
        .await
        .unwrap();
    desk.run(&["drill", "run", "prod"]).refused(
        1,
        &[
            "ZI390",
            "1_000 rows before, 10 now",
            "holdfast restore prod --at ",
        ],
    );
    for args in [
        &["source", "list"][..],
        &["point", "list"],
        &["drill", "list", "--result", "alarm"],
        &["drill", "show", "prod"],
    ] {
        let told = desk.run(args).done().stdout;
        assert!(told.contains("ALARM"), "{args:?}: {told}");
    }
    let spans = desk.run(&["point", "list", "--json"]).done().json();
    assert_eq!(spans[0]["proof"]["state"], "verified", "{spans}");
    desk.run(&["drill", "accept", "prod"]).done();
    desk.run(&["drill", "accept", "prod"])
        .refused(2, &["ZU390"]);
    desk.run(&["drill", "run", "prod"]).done();

    // The exported ledger and the public key are enough, on any machine.
    let exported = desk.run(&["ledger", "export", "--half", "vault"]).done();
    let elsewhere = Desk::empty("product-elsewhere");
    let copy = elsewhere.join("vault.jsonl");
    std::fs::write(&copy, exported.stdout).unwrap();
    let key = elsewhere.join("vault.pub");
    let keys = desk.run(&["ledger", "show", "0", "--half", "vault", "--json"]);
    let keys = keys.done().json();
    std::fs::write(&key, keys[0]["body"]["key"].as_str().unwrap()).unwrap();
    let (copy, key) = (copy.to_str().unwrap(), key.to_str().unwrap());
    let args = ["ledger", "verify", "--json", "--file", copy, "--key", key];
    let told = elsewhere.run(&args).done().json();
    let proofs = &told[0]["proofs"];
    assert!(proofs["verified"].as_u64() >= Some(4), "{told}");
    assert!(proofs["alarms"].as_u64() >= Some(1), "{told}");
}

/// An export is what `tar` reads, in a file and on stdout, and is never written over anything.
fn take_away(desk: &Desk) {
    let archive = desk.join("prod.tar");
    let to = archive.to_str().unwrap();
    let exported = desk
        .run(&["export", "prod", "--to", to, "--json"])
        .done()
        .json();
    assert_eq!(exported["to"], to, "{exported}");
    desk.run(&["export", "prod", "--to", to])
        .refused(2, &["ZU305", "exists already"]);
    desk.run(&["export", "prod", "--to", "-", "--verify"])
        .refused(2, &["ZU605"]);
    let listed = |archive: std::process::Stdio| {
        let tar = std::process::Command::new("tar")
            .arg("-t")
            .stdin(archive)
            .output();
        String::from_utf8(tar.unwrap().stdout).unwrap()
    };
    let mut stream = desk.command(&["export", "prod", "--to", "-"]);
    let mut stream = stream.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let names = listed(stream.stdout.take().unwrap().into());
    assert!(stream.wait().unwrap().success());
    assert!(
        names.contains("recovery.signal") && names.contains("pg_wal/0000"),
        "{names}"
    );
    let file = std::fs::File::open(&archive).unwrap();
    assert!(listed(file.into()).contains("recovery.signal"));
}

/// What destroys is refused however it is hidden; nothing has happened, and a person finds it waiting.
async fn refused(protected: &Protected, agent: &Client, owner: &Client) -> Vec<String> {
    let desk = &protected.desk;
    for hidden in [
        "DROP TABLE bookings",
        "COMMIT; DROP TABLE bookings",
        "DELETE FROM bookings",
    ] {
        let refused = agent.batch_execute(hidden).await;
        let (code, text) = refusal(&refused.expect_err(hidden));
        assert_eq!(code, "ZH001", "{hidden}: {text}");
        assert!(
            text.contains("nothing was executed") && text.contains("holdfast hold approve"),
            "{text}"
        );
        assert_eq!(rows(owner).await, ROWS + 1, "{hidden}");
    }
    // No transaction stays open behind a text that ends one in its middle.
    agent
        .batch_execute("SELECT 1; COMMIT; SELECT 2")
        .await
        .unwrap();
    let is_new = "SELECT now() = statement_timestamp()";
    let answer = agent.simple_query(is_new).await.unwrap();
    let is_t = |one: &SimpleQueryMessage| matches!(one, SimpleQueryMessage::Row(row) if row.get(0) == Some("t"));
    assert!(answer.iter().any(is_t), "{answer:?}");
    let waiting = protected.waiting();
    // `DROP` waits once, however often it is asked for.
    assert_eq!(waiting.len(), 2, "{waiting:?}");
    for id in &waiting {
        let shown = desk.run(&["hold", "show", id]).done().stdout;
        assert!(
            shown.contains("cursor") && shown.contains("bookings"),
            "{shown}"
        );
    }
    waiting
}

/// A freeze stops what is open, a thaw lets it go on, a revoked lease ends for good.
async fn freeze_and_revoke(desk: &Desk, agent: &Client, ticket: &Value) {
    desk.run(&["freeze"]).done();
    let (code, _) = refusal(&agent.batch_execute("SELECT 1").await.unwrap_err());
    assert_eq!(code, "ZH004");
    desk.run(&["thaw"]).done();
    agent.batch_execute("SELECT 1").await.unwrap();
    let lease = ticket["id"].as_str().unwrap();
    desk.run(&["lease", "revoke", lease]).done();
    assert!(agent.batch_execute("SELECT 1").await.is_err());
    assert!(
        tokio_postgres::connect(ticket["url"].as_str().unwrap(), NoTls)
            .await
            .is_err()
    );
}

/// Finds the hold of exactly this statement.
async fn held(protected: &Protected, statement: &str) -> String {
    let list = protected
        .desk
        .run(&["hold", "list", "--json"])
        .done()
        .json();
    let found = list.as_array().unwrap().iter().find(|hold| {
        let summary = hold["action"]["summary"].as_str().unwrap();
        summary.contains(statement) && !summary.contains("COMMIT")
    });
    found.unwrap_or_else(|| panic!("{list}"))["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The id of the newest action that guard permitted because a person approved it.
fn permitted(protected: &Protected) -> String {
    let args = [
        "ledger",
        "list",
        "--half",
        "guard",
        "--kind",
        "action.permitted",
        "--json",
    ];
    let list = protected.desk.run(&args).done().json();
    let newest = list.as_array().unwrap().last().unwrap();
    assert!(
        newest["body"]["summary"].as_str().unwrap().contains("DROP"),
        "{newest}"
    );
    newest["action"].as_str().unwrap().to_owned()
}

async fn bring_back(protected: &Protected, action: &str) {
    let desk = &protected.desk;
    let seen = signals::wait_until(LIMIT, || {
        let args = [
            "ledger",
            "list",
            "--kind",
            "source.destruction_seen",
            "--json",
        ];
        desk.run(&args)
            .json()
            .as_array()
            .is_some_and(|list| !list.is_empty())
    });
    assert!(seen.is_ok(), "{}", protected.up.log_tail());
    let at = format!("before:{action}");
    let into = desk.join("back");
    let into = into.to_str().unwrap();
    let args = [
        "restore", "prod", "--at", &at, "--into", into, "--start", "--json",
    ];
    let restored = desk.run(&args).done().json();
    let server = &restored["server"];
    let url = format!(
        "postgresql://postgres:{}@127.0.0.1:{}/postgres",
        protected.source.password(),
        server["port"]
    );
    let back = connect(&url).await;
    assert_eq!(rows(&back).await, ROWS + 1);
    back.batch_execute("INSERT INTO bookings VALUES (-1, 'written again')")
        .await
        .unwrap();
    desk.run(&["restore", "prod", "--into", into])
        .refused(2, &["ZU305"]);
    let pid = u32::try_from(server["pid"].as_u64().unwrap()).unwrap();
    signals::kill_tree(pid).unwrap();
}
