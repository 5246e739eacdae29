use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

use holdfast_testing::postgres::{self, Server, ServerUser};
use holdfast_testing::process::Process;
use holdfast_testing::signals;
use tokio_postgres::error::SqlState;

#[test]
fn tests_run_on_postgresql_15_and_a_newer_major() {
    let [old, new] = postgres::all().unwrap();
    assert_eq!(old.major, 15);
    assert!(new.major > 15);
    assert!(postgres::installations().contains(&new));
}

#[test]
fn a_missing_major_names_the_set_up_command() {
    let error = postgres::installation(999).unwrap_err().to_string();
    assert!(error.contains("make setup"), "{error}");
}

#[tokio::test]
async fn a_server_of_each_major_starts_with_the_settings_asked_for() {
    for installation in postgres::all().unwrap() {
        let server = Server::builder(&installation)
            .fast()
            .setting("wal_level", "minimal")
            .setting("max_wal_senders", "0")
            .setting("cluster_name", "it's mine")
            .start()
            .unwrap();
        let client = server.connect().await.unwrap();
        for (name, value) in [
            ("wal_level", "minimal"),
            ("fsync", "off"),
            ("cluster_name", "it's mine"),
        ] {
            let row = client
                .query_one(&format!("SHOW {name}"), &[])
                .await
                .unwrap();
            assert_eq!(row.get::<_, String>(0), value);
        }
        let row = client
            .query_one("SHOW server_version_num", &[])
            .await
            .unwrap();
        let version: u32 = row.get::<_, String>(0).parse().unwrap();
        assert_eq!(version / 10_000, installation.major);
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let server = Server::builder(&postgres::oldest().unwrap())
        .fast()
        .start()
        .unwrap();
    let url = server.url().replace(server.password(), "wrong");
    let error = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .err()
        .unwrap();
    assert_eq!(error.code(), Some(&SqlState::INVALID_PASSWORD));
}

#[tokio::test]
async fn committed_rows_survive_kill_9_and_open_transactions_do_not() {
    for installation in postgres::all().unwrap() {
        let mut server = Server::builder(&installation).start().unwrap();
        let port = server.port();
        let client = server.connect().await.unwrap();
        client
            .batch_execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
            .await
            .unwrap();
        client
            .batch_execute("BEGIN; INSERT INTO t VALUES (2)")
            .await
            .unwrap();
        let processes = signals::descendants(server.pid().unwrap()).unwrap();
        assert!(processes.len() > 3, "{processes:?}");
        server.kill_9().unwrap();
        assert!(!server.is_running());
        assert!(processes.iter().all(|&pid| !signals::is_running(pid)));
        assert!(client.simple_query("SELECT 1").await.is_err());
        server.restart().unwrap();
        assert_eq!(server.port(), port);
        let client = server.connect().await.unwrap();
        let row = client.query_one("SELECT sum(n) FROM t", &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 1);
        server.stop_fast().unwrap();
        assert!(server.stop_fast().is_err());
    }
}

#[tokio::test]
async fn two_clusters_have_different_system_identifiers() {
    let mut seen = Vec::new();
    for installation in postgres::all().unwrap() {
        for _ in 0..2 {
            let server = Server::builder(&installation).fast().start().unwrap();
            let client = server.connect().await.unwrap();
            let sql = "SELECT system_identifier::text FROM pg_control_system()";
            seen.push(
                client
                    .query_one(sql, &[])
                    .await
                    .unwrap()
                    .get::<_, String>(0),
            );
        }
    }
    let all = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), all);
}

#[tokio::test]
async fn arguments_of_initdb_and_lines_of_hba_take_effect() {
    let server = Server::builder(&postgres::newest().unwrap())
        .fast()
        .initdb_arg("--wal-segsize=1")
        .hba_line("host replication postgres 127.0.0.1/32 reject")
        .start()
        .unwrap();
    let client = server.connect().await.unwrap();
    let row = client
        .query_one("SHOW wal_segment_size", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, String>(0), "1MB");
    let rejected = "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'reject'";
    assert_eq!(
        client
            .query_one(rejected, &[])
            .await
            .unwrap()
            .get::<_, i64>(0),
        1
    );
}

#[test]
fn a_setting_the_server_refuses_is_told_with_its_log() {
    let error = Server::builder(&postgres::oldest().unwrap())
        .setting("wal_level", "nonsense")
        .start()
        .unwrap_err();
    assert!(
        format!("{error:#}").contains("invalid value for parameter"),
        "{error:#}"
    );
}

#[test]
fn servers_never_run_as_root() {
    let server = Server::builder(&postgres::newest().unwrap())
        .fast()
        .start()
        .unwrap();
    let owner = std::fs::metadata(server.data_dir()).unwrap().uid();
    assert_ne!(owner, 0);
    let process = std::fs::metadata(format!("/proc/{}", server.pid().unwrap()));
    assert!(process.map_or(true, |process| process.uid() == owner));
}

#[tokio::test]
async fn a_copied_data_directory_opens_as_another_server() {
    let mut first = Server::builder(&postgres::newest().unwrap())
        .fast()
        .start()
        .unwrap();
    let client = first.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t AS SELECT 7 AS n")
        .await
        .unwrap();
    first.stop_fast().unwrap();
    let place = holdfast_testing::dirs::TestDir::for_server("copy").unwrap();
    let copy = place.path().join("data");
    let done = Command::new("cp")
        .arg("-a")
        .arg(first.data_dir())
        .arg(&copy)
        .status()
        .unwrap();
    assert!(done.success());
    let second = Server::builder(first.installation())
        .existing(&copy, first.password())
        .start()
        .unwrap();
    let client = second.connect().await.unwrap();
    assert_eq!(
        client
            .query_one("SELECT n FROM t", &[])
            .await
            .unwrap()
            .get::<_, i32>(0),
        7
    );
    drop(second);
    assert!(
        copy.join("PG_VERSION").exists(),
        "the caller's folder must stay"
    );
}

#[test]
fn a_server_ends_when_its_owner_is_killed() {
    // A test cannot kill its own process, so another process of this binary plays the owner.
    let dir = holdfast_testing::dirs::TestDir::new("owner").unwrap();
    let told = dir.path().join("pid");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "postgres::owner_played_for_another_test",
            "--nocapture",
        ])
        .env("HOLDFAST_TEST_OWNER", &told);
    let mut owner = Process::spawn(command, &dir.path().join("log")).unwrap();
    owner.wait_for_file(&told, Duration::from_secs(60)).unwrap();
    let server: u32 = std::fs::read_to_string(&told).unwrap().parse().unwrap();
    assert!(signals::is_running(server));
    owner.kill_9().unwrap();
    signals::wait_until(Duration::from_secs(20), || !signals::is_running(server)).unwrap();
}

/// Does nothing unless `a_server_ends_when_its_owner_is_killed` asks: then it owns a server and
/// waits to be killed.
#[test]
fn owner_played_for_another_test() {
    let Some(told) = std::env::var_os("HOLDFAST_TEST_OWNER") else {
        return;
    };
    let server = Server::builder(&postgres::oldest().unwrap())
        .fast()
        .start()
        .unwrap();
    let unfinished = std::path::Path::new(&told).with_extension("part");
    std::fs::write(&unfinished, server.pid().unwrap().to_string()).unwrap();
    std::fs::rename(unfinished, told).unwrap();
    std::thread::park_timeout(Duration::from_secs(60));
}

#[test]
fn the_servers_user_is_not_root() {
    let out = ServerUser::current()
        .unwrap()
        .command(std::path::Path::new("id"))
        .arg("-u")
        .output()
        .unwrap();
    assert_ne!(String::from_utf8_lossy(&out.stdout).trim(), "0");
}
