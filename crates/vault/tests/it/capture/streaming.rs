//! What a healthy source gives: a base, the log, and both again after a restart.

use holdfast_core::WayBack;
use holdfast_testing::postgres;
use holdfast_vault::CaptureState;

use super::scene::{Scene, flushed, now, server, spooled};

#[tokio::test(flavor = "multi_thread")]
async fn a_base_and_the_log_arrive_and_go_on_after_a_restart() {
    for installation in postgres::all().unwrap() {
        let scene = Scene::new();
        let server = server(&installation);
        let client = server.connect().await.unwrap();
        client
            .batch_execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
            .await
            .unwrap();
        let running = scene.run(&server.url());
        let first = running.wait("restore point", |s| s.point.is_some()).await;
        assert_eq!(first.state, CaptureState::Streaming);
        assert_eq!(first.trouble, None);
        client
            .batch_execute("INSERT INTO t SELECT generate_series(1, 200000)")
            .await
            .unwrap();
        let end = flushed(&client).await;
        let status = running
            .wait("shipped log", |s| s.shipped >= end && s.flushed >= end)
            .await;
        assert!(status.newest_commit.is_some_and(|at| at <= now()));
        let left = running.stop().await;
        assert_ne!(left.state, CaptureState::Streaming);

        client
            .batch_execute("INSERT INTO t SELECT generate_series(1, 300000)")
            .await
            .unwrap();
        let end = flushed(&client).await;
        let again = scene.run(&server.url());
        let status = again.wait("the log since", |s| s.shipped >= end).await;
        assert!(status.timeline == 1 && status.flushed >= end);
        let status = again.wait("the same point", |s| s.point.is_some()).await;
        assert_eq!(status.point, first.point, "no second base was needed");
        again.stop().await;
        assert_eq!(scene.entries("point.made").len(), 1);
        assert_eq!(scene.entries("source.slot_made").len(), 1);
        // Whole segments that the repository has are gone from the spool; the open one stays.
        let spool = spooled(&scene);
        assert!(spool.len() <= 2, "{spool:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tablespaces_come_with_the_base() {
    for installation in postgres::all().unwrap() {
        let scene = Scene::new();
        let place = holdfast_testing::dirs::TestDir::for_server("tablespace").unwrap();
        let folder = place.path().join("ts");
        let server = server(&installation);
        let client = server.connect().await.unwrap();
        std::fs::create_dir(&folder).unwrap();
        postgres::ServerUser::current()
            .unwrap()
            .own(&folder)
            .unwrap();
        let sql = format!("CREATE TABLESPACE ts LOCATION '{}'", folder.display());
        client.batch_execute(&sql).await.unwrap();
        client
            .batch_execute("CREATE TABLE t TABLESPACE ts AS SELECT generate_series(1, 1000) n")
            .await
            .unwrap();
        let running = scene.run(&server.url());
        running.wait("restore point", |s| s.point.is_some()).await;
        client
            .batch_execute("INSERT INTO t VALUES (0)")
            .await
            .unwrap();
        let end = flushed(&client).await;
        running.wait("durable log", |s| s.flushed >= end).await;
        running.stop().await;
        let back = scene.restore(&scene.state(), &server).await;
        assert_eq!(back.ask("SELECT count(*)::text FROM t").await, "1001");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_of_another_size_are_kept_as_they_are() {
    let scene = Scene::new();
    let server = postgres::Server::builder(&postgres::newest().unwrap())
        .fast()
        .initdb_arg("--wal-segsize=1")
        .start()
        .unwrap();
    let client = server.connect().await.unwrap();
    let running = scene.run(&server.url());
    running.wait("restore point", |s| s.point.is_some()).await;
    client
        .batch_execute("CREATE TABLE t AS SELECT generate_series(1, 300000) n")
        .await
        .unwrap();
    let end = flushed(&client).await;
    running.wait("shipped log", |s| s.shipped >= end).await;
    running.stop().await;
    let spool = spooled(&scene);
    assert!(
        spool.iter().all(|(_, bytes)| *bytes <= 1 << 20),
        "{spool:?}"
    );
    assert!(end.0 > 10 << 20 && spool.len() <= 2, "{spool:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_gone_takes_nothing_with_it() {
    for installation in postgres::all().unwrap() {
        let scene = Scene::new();
        let mut server = server(&installation);
        let client = server.connect().await.unwrap();
        let running = scene.run(&server.url());
        running.wait("restore point", |s| s.point.is_some()).await;
        client
            .batch_execute("CREATE TABLE t AS SELECT generate_series(1, 10000) n")
            .await
            .unwrap();
        let end = flushed(&client).await;
        running.wait("durable log", |s| s.flushed >= end).await;
        server.kill_9().unwrap();
        std::fs::remove_dir_all(server.data_dir()).unwrap();
        let status = running
            .wait("trouble", |s| s.state == CaptureState::Disconnected)
            .await;
        assert_eq!(status.trouble.unwrap().code, "ZS301");
        let status = running
            .wait("everything shipped", |s| s.shipped >= end)
            .await;
        assert!(status.flushed >= end && status.point.is_some());
        let source = "prod".parse().unwrap();
        assert!(
            running.vault.way_back(&source, now()).is_err(),
            "newer commits would be lost"
        );
        let left = running.stop().await;
        assert!(left.flushed >= end && left.shipped >= end);

        // A vault that starts without its source still knows what it has.
        let again = scene.run(&server.url());
        let status = again.wait("everything again", |s| s.flushed >= end).await;
        assert_eq!(status.timeline, 1);
        again.wait("trouble", |s| s.trouble.is_some()).await;
        again.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_the_source_removed_leads_to_a_new_base() {
    let scene = Scene::new();
    let server = postgres::Server::builder(&postgres::newest().unwrap())
        .fast()
        .setting("min_wal_size", "32MB")
        .start()
        .unwrap();
    let client = server.connect().await.unwrap();
    let running = scene.run(&server.url());
    let first = running.wait("restore point", |s| s.point.is_some()).await;
    running.stop().await;
    client
        .batch_execute("SELECT pg_drop_replication_slot('holdfast_prod'); CREATE TABLE t (n int)")
        .await
        .unwrap();
    for _ in 0..3 {
        client
            .batch_execute("INSERT INTO t SELECT generate_series(1, 400000)")
            .await
            .unwrap();
        client
            .batch_execute("SELECT pg_switch_wal()")
            .await
            .unwrap();
        client.batch_execute("CHECKPOINT").await.unwrap();
    }
    let again = scene.run(&server.url());
    let status = again
        .wait("a new point", |s| {
            s.point.is_some() && s.point != first.point
        })
        .await;
    assert_eq!(status.state, CaptureState::Streaming);
    again.stop().await;
    assert_eq!(scene.entries("source.log_missing").len(), 1);
    let lost = scene.entries("source.slot_lost");
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].draft.body["why"], "dropped");
}
