//! The day on which the vault is lost: a copy of the repository and the recovery key are all there is.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use holdfast_testing::postgres::{self, Installation, Server};
use holdfast_testing::process::Process;
use holdfast_testing::signals;
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

use crate::desk::{Desk, RECOVERY_KEY, Ran};

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn rows(client: &Client) -> i64 {
    let row = client.query_one("SELECT count(*) FROM bookings", &[]).await;
    row.unwrap().get(0)
}

/// A source whose commits wait for the repository, and the vault that takes them.
fn protect(installation: &Installation, desk: &Desk) -> (Server, Process) {
    let source = Server::builder(installation)
        .setting("wal_level", "replica")
        .start()
        .unwrap();
    desk.secret("vault-url", &source.url());
    let add = "source add prod --synchronous --ack repository --vault-url file:vault-url";
    desk.run(&add.split(' ').collect::<Vec<_>>()).done();
    let toml = desk.join("holdfast.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    let bin = installation.bin_dir.display();
    let vault = format!("{text}[vault]\npostgres_bin_dirs = [\"{bin}\"]\n");
    std::fs::write(&toml, vault).unwrap();
    let vault = Process::spawn(desk.command(&["vault", "run"]), &desk.join("vault.log")).unwrap();
    (source, vault)
}

fn wait_for(desk: &Desk, vault: &Process, what: impl Fn(&Value) -> bool) {
    let mut last = Value::Null;
    let came = signals::wait_until(LIMIT, || {
        last = desk.run(&["source", "list", "--json"]).json()[0].clone();
        what(&last)
    });
    assert!(came.is_ok(), "{last}\n{}", vault.log_tail());
}

/// Copies a repository, as any tool does that copies new files.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-r").args([from, to]).status();
    assert!(done.unwrap().success());
}

/// Restores at a machine that has nothing but these files, and counts.
async fn restored(there: &Desk, source: &Server, key: &str, into: &str) -> i64 {
    let args = ["restore", "prod", "--recovery-key", key];
    let more = ["--repository", "copy", "--into", into, "--start", "--json"];
    let told = there.run(&[&args[..], &more].concat()).done();
    assert!(!told.stderr.contains("forged"), "{told:?}");
    let server = &told.json()["server"];
    let (password, port) = (source.password(), &server["port"]);
    let url = format!("postgresql://postgres:{password}@127.0.0.1:{port}/postgres");
    let back = connect(&url).await;
    let count = rows(&back).await;
    back.batch_execute("INSERT INTO bookings VALUES (0)")
        .await
        .unwrap();
    signals::kill_tree(u32::try_from(server["pid"].as_u64().unwrap()).unwrap()).unwrap();
    count
}

fn check(there: &Desk, key: &str, more: &[&str]) -> Ran {
    let args = ["vault", "key", "check", "--recovery-key", key];
    there.run(&[&args[..], &["--repository", "copy"], more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_recovery_key_and_the_repository_alone_everything_comes_back() {
    let installation = postgres::installation(15).unwrap();
    let desk = Desk::init("recovery");
    let (source, mut vault) = protect(&installation, &desk);
    let owner = connect(&source.url()).await;
    let fill = "CREATE TABLE bookings AS SELECT generate_series(1, 1000) AS n";
    owner.batch_execute(fill).await.unwrap();
    wait_for(&desk, &vault, |one| {
        one["synchronous"] == true && one["proof"]["state"] == "verified"
    });
    owner
        .batch_execute("INSERT INTO bookings SELECT generate_series(1001, 1500)")
        .await
        .unwrap();

    // Another machine, to which somebody brought a copy and the key.
    let there = Desk::empty("recovery-there");
    copy(&desk.join("state/repository"), &there.join("copy"));
    for key in [RECOVERY_KEY, "first.key"] {
        std::fs::copy(desk.join(RECOVERY_KEY), there.join(key)).unwrap();
    }
    let checked = check(&there, RECOVERY_KEY, &["--json"]).done().json();
    assert_eq!(checked[0]["opened"], 1, "{checked}");
    assert!(
        checked[0]["newest"]["read"].as_u64().unwrap() > 0,
        "{checked}"
    );
    let args = ["point", "list", "--recovery-key", RECOVERY_KEY];
    let listed = there.run(&[&args[..], &["--repository", "copy", "--json"]].concat());
    assert_eq!(listed.done().json()[0]["source"], "prod");
    assert_eq!(restored(&there, &source, RECOVERY_KEY, "back").await, 1500);

    // The key is exchanged while commits come; what was before needs the first one, too.
    let rotate = ["vault", "key", "rotate", "--machine", "--recovery-key-out"];
    desk.run(&[&rotate[..], &["second.key"]].concat()).done();
    owner
        .batch_execute("INSERT INTO bookings SELECT generate_series(1501, 2000)")
        .await
        .unwrap();
    vault.kill_9().unwrap();
    std::fs::remove_dir_all(there.join("copy")).unwrap();
    copy(&desk.join("state/repository"), &there.join("copy"));
    std::fs::remove_dir_all(desk.join("state")).unwrap();
    let second = std::fs::read_to_string(desk.join("second.key")).unwrap();
    there.secret("second.key", &second);
    check(&there, "second.key", &[]).refused(1, &["ZL271", "from before a rotation"]);
    let first = std::fs::read_to_string(there.join("first.key")).unwrap();
    there.secret("both.key", &format!("{second}{first}"));
    let checked = check(&there, "both.key", &["--json"]).done().json();
    assert_eq!(checked[0]["refused"], serde_json::json!([]), "{checked}");
    assert_eq!(restored(&there, &source, "both.key", "again").await, 2000);

    let none = ["vault", "key", "check", "--repository", "copy"];
    there.run(&none).refused(2, &["ZU605", "--recovery-key"]);

    // A key of somebody else, and one that others can read.
    let other = Desk::init("recovery-other");
    let strange = std::fs::read_to_string(other.join(RECOVERY_KEY)).unwrap();
    there.secret("strange.key", &strange);
    check(&there, "strange.key", &[]).refused(1, &["ZL27"]);
    let exposed = PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(there.join("both.key"), exposed).unwrap();
    check(&there, "both.key", &[]).refused(2, &["both.key"]);
}
