//! Timelines: the same cluster after a recovery or a promotion goes on where it was.

use std::fs::{self, OpenOptions};
use std::io::Write;

use holdfast_core::Lsn;
use holdfast_testing::postgres::{self, Server, ServerUser};
use holdfast_vault::CaptureState;

use super::scene::{LIMIT, POLL, Scene, flushed, server};
use holdfast_testing::tcp::FaultProxy;

/// Lets a stopped server come up on a new timeline (`recovery.signal`) or as a standby.
pub fn signal(server: &Server, name: &str) {
    let path = server.data_dir().join(name);
    fs::write(&path, "").unwrap();
    ServerUser::current().unwrap().own(&path).unwrap();
    let mut settings = OpenOptions::new()
        .append(true)
        .open(server.data_dir().join("postgresql.auto.conf"))
        .unwrap();
    writeln!(settings, "restore_command = '/bin/false'").unwrap();
}

/// Connects and waits until the server has left recovery.
pub async fn recovered(server: &Server) -> tokio_postgres::Client {
    let client = server.connect().await.unwrap();
    let began = std::time::Instant::now();
    loop {
        let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await;
        if !row.unwrap().get::<_, bool>(0) {
            return client;
        }
        assert!(began.elapsed() < LIMIT, "it stays in recovery");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_comes_back_on_a_new_timeline_is_followed() {
    for installation in postgres::all().unwrap() {
        for is_running_meanwhile in [true, false] {
            let scene = Scene::new();
            let mut server = server(&installation);
            let client = server.connect().await.unwrap();
            client
                .batch_execute("CREATE TABLE t AS SELECT generate_series(1, 1000) n")
                .await
                .unwrap();
            let mut running = scene.run(&server.url());
            let first = running.wait("restore point", |s| s.point.is_some()).await;
            if !is_running_meanwhile {
                running.stop().await;
                client
                    .batch_execute("INSERT INTO t VALUES (-1)")
                    .await
                    .unwrap();
                server.stop_fast().unwrap();
                signal(&server, "recovery.signal");
                server.start().unwrap();
                running = scene.run(&server.url());
            } else {
                server.stop_fast().unwrap();
                running
                    .wait("end of the stream", |s| {
                        s.state == CaptureState::Disconnected
                    })
                    .await;
                signal(&server, "recovery.signal");
                server.start().unwrap();
            }
            let client = recovered(&server).await;
            client
                .batch_execute("INSERT INTO t VALUES (0)")
                .await
                .unwrap();
            let end = flushed(&client).await;
            let status = running
                .wait("the new timeline", |s| s.timeline == 2 && s.shipped >= end)
                .await;
            assert_eq!(status.trouble, None);
            let status = running.wait("point", |s| s.point.is_some()).await;
            assert_eq!(status.point, first.point, "the base is still continued");
            running.stop().await;
            let back = scene.restore(&scene.state(), &server).await;
            assert_eq!(
                back.ask("SELECT count(*)::text FROM t WHERE n = 0").await,
                "1"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_promoted_is_followed() {
    for installation in postgres::all().unwrap() {
        let scene = Scene::new();
        let mut server = Server::builder(&installation).start().unwrap();
        let client = server.connect().await.unwrap();
        client
            .batch_execute("CREATE TABLE t AS SELECT generate_series(1, 1000) n")
            .await
            .unwrap();
        server.stop_fast().unwrap();
        signal(&server, "standby.signal");
        server.start().unwrap();
        let client = server.connect().await.unwrap();
        let running = scene.run(&server.url());
        let first = running.wait("restore point", |s| s.point.is_some()).await;
        assert_eq!((first.state, first.timeline), (CaptureState::Streaming, 1));
        client.batch_execute("SELECT pg_promote()").await.unwrap();
        client
            .batch_execute("INSERT INTO t VALUES (0)")
            .await
            .unwrap();
        let end = flushed(&client).await;
        let status = running
            .wait("the new timeline", |s| s.timeline == 2 && s.shipped >= end)
            .await;
        assert_eq!(
            (status.state, status.trouble),
            (CaptureState::Streaming, None)
        );
        assert_eq!(status.point, first.point);
        running.stop().await;
        let back = scene.restore(&scene.state(), &server).await;
        assert_eq!(back.ask("SELECT count(*)::text FROM t").await, "1001");
        let entries = scene.entries("source.timeline");
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].draft.body["to"], 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_the_source_is_refused() {
    let scene = Scene::new();
    let mut server = server(&postgres::newest().unwrap());
    server.stop_fast().unwrap();
    // A copy from before the new timeline, started in the source's place later.
    let old = holdfast_testing::dirs::TestDir::for_server("older").unwrap();
    let copy = old.path().join("data");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(server.data_dir())
        .arg(&copy)
        .status()
        .unwrap();
    assert!(copied.success());
    signal(&server, "recovery.signal");
    server.start().unwrap();
    let running = scene.run(&server.url());
    let status = running
        .wait("restore point", |s| s.point.is_some() && s.timeline == 2)
        .await;
    running.stop().await;
    let copy = Server::builder(&postgres::newest().unwrap())
        .fast()
        .existing(&copy, "unknown")
        .hba_line("host all all 127.0.0.1/32 trust")
        .hba_line("host replication all 127.0.0.1/32 trust")
        .start()
        .unwrap();
    let again = scene.run(&copy.url());
    let refused = again
        .wait("refusal", |s| s.state == CaptureState::Failed)
        .await;
    assert_eq!(refused.trouble.unwrap().code, "ZI301");
    assert_eq!(refused.point, status.point);
    again.stop().await;
}

/// A standby of a stopped server, in a folder of its own.
fn standby_of(primary: &Server, folder: &std::path::Path) -> Server {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(primary.data_dir())
        .arg(folder)
        .status()
        .unwrap();
    assert!(copied.success());
    let signal = folder.join("standby.signal");
    fs::write(&signal, "").unwrap();
    ServerUser::current().unwrap().own(&signal).unwrap();
    let mut settings = OpenOptions::new()
        .append(true)
        .open(folder.join("postgresql.auto.conf"))
        .unwrap();
    writeln!(
        settings,
        "primary_conninfo = 'host=127.0.0.1 port={} user=postgres password={}'",
        primary.port(),
        primary.password()
    )
    .unwrap();
    Server::builder(primary.installation())
        .fast()
        .existing(folder, primary.password())
        .start()
        .unwrap()
}

/// Connects to a standby and waits until it has replayed everything up to a position.
async fn caught_up(standby: &Server, end: Lsn) -> tokio_postgres::Client {
    let client = standby.connect().await.unwrap();
    let began = std::time::Instant::now();
    let asked = "SELECT coalesce(pg_last_wal_replay_lsn(), '0/0')::text";
    loop {
        let row = client.query_one(asked, &[]).await.unwrap();
        if row.get::<_, String>(0).parse::<Lsn>().unwrap() >= end {
            return client;
        }
        assert!(began.elapsed() < LIMIT, "{}", standby.log_tail());
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_to_a_host_without_the_slot_all_goes_on_and_nothing_is_lost() {
    let scene = Scene::new();
    let installation = postgres::installation(15).unwrap();
    let mut primary = server(&installation);
    let client = primary.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (n int)")
        .await
        .unwrap();
    drop(client);
    primary.stop_fast().unwrap();
    let other = holdfast_testing::dirs::TestDir::for_server("standby").unwrap();
    let standby = standby_of(&primary, &other.path().join("data"));
    primary.start().unwrap();
    let client = primary.connect().await.unwrap();
    let address = |server: &Server| std::net::SocketAddr::from(([127, 0, 0, 1], server.port()));
    let proxy = FaultProxy::start(address(&primary)).unwrap();
    let of = |port: u16| format!("127.0.0.1:{port}/");
    let url = primary
        .url()
        .replace(&of(primary.port()), &of(proxy.port()));
    let running = scene.run(&url);
    let first = running.wait("restore point", |s| s.point.is_some()).await;
    client
        .batch_execute("INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let end = flushed(&client).await;
    running.wait("the log", |s| s.shipped >= end).await;
    let behind = caught_up(&standby, end).await;
    // The host is gone; its address leads to the other one, which has never heard of the slot.
    primary.kill_9().unwrap();
    behind.batch_execute("SELECT pg_promote()").await.unwrap();
    proxy.retarget(address(&standby));
    proxy.cut();
    let client = recovered(&standby).await;
    client
        .batch_execute("INSERT INTO t VALUES (2)")
        .await
        .unwrap();
    let end = flushed(&client).await;
    let status = running
        .wait("the new timeline", |s| s.timeline == 2 && s.shipped >= end)
        .await;
    assert_eq!(status.trouble, None);
    assert_eq!(status.point, first.point, "the base is still continued");
    let slots = "SELECT string_agg(slot_name, ',') FROM pg_replication_slots WHERE active";
    let row = client.query_one(slots, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "holdfast_prod");
    // Another cluster behind the same address is none of ours.
    let stranger = server(&postgres::newest().unwrap());
    proxy.retarget(address(&stranger));
    proxy.cut();
    let refused = running
        .wait("refusal", |s| s.state == CaptureState::Failed)
        .await;
    assert_eq!(refused.point, first.point);
    running.stop().await;
    let lost = scene.entries("source.slot_lost");
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].draft.body["why"], "dropped");
    assert_eq!(scene.entries("source.log_missing").len(), 0);
    let back = scene.restore(&scene.state(), &standby).await;
    let rows = "SELECT string_agg(n::text, ',' ORDER BY n) FROM t";
    assert_eq!(back.ask(rows).await, "1,2");
}
