//! The vault with its repository in a bucket with Object Lock, by the binary alone.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use holdfast_core::Lsn;
use holdfast_testing::postgres::{self, Server};
use holdfast_testing::process::Process;
use holdfast_testing::s3::ObjectStorage;
use holdfast_testing::signals;
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

use crate::desk::{Desk, RECOVERY_KEY, Ran};

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

/// A bucket that the guest may write to with the least rights, and a desk whose vault uses it.
struct Scene {
    storage: ObjectStorage,
    bucket: String,
    desk: Desk,
}

impl Scene {
    fn new(more: &str) -> Self {
        let storage = ObjectStorage::shared().unwrap();
        let bucket = storage.bucket().unwrap();
        storage.grant_least(&bucket).unwrap();
        let desk = Desk::init("bucket");
        let scene = Self {
            storage,
            bucket,
            desk,
        };
        scene.secret("key-id", ObjectStorage::GUEST);
        scene.secret("key", ObjectStorage::SECRET);
        scene.configure(&scene.bucket, more);
        scene
    }

    fn secret(&self, file: &str, text: &str) {
        self.desk.secret(file, text);
    }

    /// Lets the vault keep its repository in `bucket`.
    fn configure(&self, bucket: &str, more: &str) {
        let toml = self.desk.join("holdfast.toml");
        let text = std::fs::read_to_string(&toml).unwrap();
        let (text, _) = text.split_once("[vault]").unwrap_or((&text, ""));
        let address = self.storage.address();
        let table = format!(
            "[vault]\nrepository = \"s3://{bucket}/vault\"\n{more}\n[vault.object_storage]\n\
             endpoint = \"http://{address}\"\naccess_key_id = \"file:key-id\"\n\
             secret_access_key = \"file:key\"\n\
             probe_access_key_id = \"env:PROBE_ID\"\nprobe_secret_access_key = \"env:PROBE_KEY\"\n"
        );
        std::fs::write(&toml, format!("{text}{table}")).unwrap();
    }

    /// Runs `check-target`, with the key of the bucket's owner for the probe.
    fn check(&self, args: &[&str]) -> Ran {
        let mut command = self.desk.command(&["vault", "check-target"]);
        command.args(args).env("PROBE_ID", ObjectStorage::OWNER);
        command.env("PROBE_KEY", ObjectStorage::SECRET);
        crate::desk::ran(command.output().unwrap())
    }
}

fn promise(scene: &Scene) -> Value {
    let state = scene.desk.join("state/vault/target.json");
    serde_json::from_slice(&std::fs::read(state).unwrap()).unwrap()
}

#[test]
fn a_bucket_is_checked_and_the_result_is_remembered_without_a_secret() {
    let scene = Scene::new("");
    let told = scene.check(&[]).done();
    assert!(
        told.stdout.contains("immutable until each lock ends"),
        "{told:?}"
    );
    let told = scene.check(&["--json"]).done();
    let json = told.json();
    assert_eq!(json["promise"], "compliance", "{json}");
    let checks = json["checks"].as_array().unwrap();
    assert!(
        checks.iter().all(|check| check["outcome"] == "passed"),
        "{json}"
    );
    let delete = checks.iter().find(|check| check["name"] == "delete");
    let detail = delete.unwrap()["detail"].as_str().unwrap();
    assert!(
        detail.contains("the vault's key and the probe's key"),
        "{detail}"
    );
    assert_eq!(promise(&scene)["promise"], "compliance");
    // A bucket without locks, and a directory that others may move.
    let plain = scene.storage.plain_bucket().unwrap();
    scene.secret("key-id", ObjectStorage::OWNER);
    scene.configure(&plain, "");
    let refused = scene.check(&[]);
    refused.refused(1, &["ZI261", "versions", "stored with a lock"]);
    assert!(refused.stdout.contains("advisory"), "{refused:?}");
    assert_eq!(promise(&scene)["promise"], "advisory");
    for told in [&told, &refused] {
        let all = format!("{}{}{}", told.stdout, told.stderr, promise(&scene));
        assert!(!all.contains(ObjectStorage::SECRET), "{all}");
    }
    let toml = scene.desk.join("holdfast.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    let (text, _) = text.split_once("[vault]").unwrap();
    std::fs::write(&toml, text).unwrap();
    let told = scene.check(&["--json"]);
    assert_eq!(told.json()["promise"], "advisory", "{told:?}");
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn ask(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Starts the vault on a server and waits until commits wait for the repository and a drill has passed.
fn protect(scene: &Scene, source: &Server) -> Process {
    scene.secret("vault-url", &source.url());
    let added = [
        "source",
        "add",
        "prod",
        "--synchronous",
        "--ack",
        "repository",
        "--vault-url",
        "file:vault-url",
        "--assertion",
        "select count(*) >= 100 from bookings",
    ];
    scene.desk.run(&added).done();
    let log = scene.desk.join("vault.log");
    let vault = Process::spawn(scene.desk.command(&["vault", "run"]), &log).unwrap();
    let mut last = Value::Null;
    let proven = signals::wait_until(LIMIT, || {
        last = scene.desk.run(&["source", "list", "--json"]).json()[0].clone();
        last["proof"]["state"] == "verified" && last["synchronous"] == true
    });
    assert!(proven.is_ok(), "{last}\n{}", vault.log_tail());
    vault
}

/// Restores to a server and returns the number of bookings and of payments.
async fn restored(scene: &Scene, source: &Server, more: &[&str]) -> (String, String) {
    let into = scene.desk.join("back");
    let path = into.to_str().unwrap();
    let mut args = vec!["restore", "prod", "--into", path, "--start", "--json"];
    args.extend(more);
    let restored = scene.desk.run(&args).done().json();
    let (password, port) = (source.password(), &restored["server"]["port"]);
    let url = format!("postgresql://postgres:{password}@127.0.0.1:{port}/postgres");
    let back = connect(&url).await;
    let rows = (
        ask(&back, "SELECT count(*)::text FROM bookings").await,
        ask(&back, "SELECT count(*)::text FROM payments").await,
    );
    let pid = u32::try_from(restored["server"]["pid"].as_u64().unwrap()).unwrap();
    signals::kill_tree(pid).unwrap();
    std::fs::remove_dir_all(into).unwrap();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_comes_back_from_a_bucket_alone_which_nobody_could_empty() {
    let installation = postgres::newest().unwrap();
    let bin = installation.bin_dir.display();
    let scene = Scene::new(&format!("postgres_bin_dirs = [\"{bin}\"]"));
    assert_eq!(
        scene.check(&["--json"]).done().json()["promise"],
        "compliance"
    );
    let mut source = Server::builder(&installation)
        .setting("wal_level", "replica")
        .start()
        .unwrap();
    let owner = connect(&source.url()).await;
    owner
        .batch_execute(
            "CREATE TABLE bookings AS SELECT generate_series(1, 100) AS n; \
             CREATE TABLE payments (n bigint)",
        )
        .await
        .unwrap();
    let mut vault = protect(&scene, &source);
    // More than a segment, and the part of one.
    owner
        .batch_execute("INSERT INTO bookings SELECT generate_series(101, 300000)")
        .await
        .unwrap();
    let before = ask(&owner, "SELECT clock_timestamp()::text").await;
    owner.batch_execute("SELECT pg_sleep(0.01)").await.unwrap();
    owner
        .batch_execute("INSERT INTO payments SELECT generate_series(1, 7)")
        .await
        .unwrap();
    let until = ask(&owner, "SELECT pg_current_wal_flush_lsn()::text").await;
    let until: Lsn = until.parse().unwrap();

    // The source and the spool are lost; the bucket and the vault's keys are not.
    vault.kill_9().unwrap();
    source.kill_9().unwrap();
    std::fs::remove_dir_all(source.data_dir()).unwrap();
    std::fs::remove_dir_all(scene.desk.join("state/vault/spool")).unwrap();
    let mut permitted = Vec::new();
    for prefix in ["vault/prod/", "vault/holdfast-repository.json"] {
        let more = scene.storage.try_to_destroy(&scene.bucket, prefix);
        permitted.extend(more.unwrap());
    }
    assert_eq!(permitted, Vec::<String>::new());

    let before = before.replace(' ', "T");
    assert_eq!(
        restored(&scene, &source, &["--at", &before]).await,
        ("300000".to_owned(), "0".to_owned())
    );
    is_proven(&scene);
    // Now the vault's own keys are lost as well, and only the recovery key is left.
    std::fs::remove_dir_all(scene.desk.join("state")).unwrap();
    assert_eq!(
        restored(
            &scene,
            &source,
            &["--at", "latest", "--recovery-key", RECOVERY_KEY]
        )
        .await,
        ("300000".to_owned(), "7".to_owned())
    );

    // The script reads a copy that any tool could have made.
    let copy = scene.desk.join("copy");
    let copied = scene.storage.copy(&scene.bucket, "vault/", &copy).unwrap();
    assert!(copied > 5, "{copied}");
    by_the_script(&scene, &copy, until);
}

/// The drill's proof is read back, and what the vault promised stands in its ledger.
fn is_proven(scene: &Scene) {
    let drills = scene.desk.run(&["drill", "list", "--json"]).done().json();
    assert!(
        drills.as_array().is_some_and(|drills| !drills.is_empty()),
        "{drills}"
    );
    let spans = scene.desk.run(&["point", "list", "--json"]).done().json();
    assert_eq!(spans[0]["proof"]["state"], "verified", "{spans}");
    let kinds = ["ledger", "list", "--kind", "repository.promised", "--json"];
    let entries = scene.desk.run(&kinds).done().json();
    assert_eq!(entries[0]["body"]["promise"], "compliance", "{entries}");
}

/// Reads the copy with the script; the log must reach what was acknowledged last.
fn by_the_script(scene: &Scene, copy: &Path, until: Lsn) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/read-repository");
    let key = scene.desk.join(RECOVERY_KEY);
    let into = scene.desk.join("by-the-script");
    let mut command = Command::new(script);
    command
        .arg("--key")
        .arg(key)
        .arg(copy)
        .arg("prod")
        .arg(&into);
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(into.join("PG_VERSION").is_file());
    let reached: Lsn = said.rsplit(' ').next().unwrap().trim().parse().unwrap();
    assert!(reached >= until, "{said}: not {until}");
}
