//! Timelines: the same cluster after a recovery or a promotion goes on where it was.

use std::fs::{self, OpenOptions};
use std::io::Write;

use holdfast_testing::postgres::{self, Server, ServerUser};
use holdfast_vault::CaptureState;

use super::scene::{LIMIT, POLL, Scene, flushed, server};

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
