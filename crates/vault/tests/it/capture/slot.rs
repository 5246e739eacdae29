//! Slots that are lost: noticed, told, and made anew by the vault itself.

use std::process::Command;

use holdfast_testing::postgres::{self, Installation, Server};
use holdfast_testing::process::Process;
use holdfast_vault::{
    AckMode, CaptureState, RestoreTarget, Running, check_source, kept_slot_name, plan_settings,
    points,
};
use tokio_postgres::Client;

use super::scene::{Scene, flushed, now};

/// A server that keeps next to no log for a slot.
fn forgetful(installation: &Installation) -> Server {
    Server::builder(installation)
        .fast()
        .initdb_arg("--wal-segsize=1")
        .setting("max_slot_wal_keep_size", "1MB")
        .setting("min_wal_size", "2MB")
        .setting("max_wal_size", "2MB")
        .start()
        .unwrap()
}

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Writes until the source has removed the log that the vault needs next.
async fn forget(client: &Client) {
    const STATUS: &str = "SELECT coalesce(min(wal_status), 'none') FROM pg_replication_slots";
    for _ in 0..50 {
        client
            .batch_execute("INSERT INTO t SELECT 1 FROM generate_series(1, 60000)")
            .await
            .unwrap();
        client
            .batch_execute("SELECT pg_switch_wal()")
            .await
            .unwrap();
        client.batch_execute("CHECKPOINT").await.unwrap();
        if ["lost", "none"].contains(&text(client, STATUS).await.as_str()) {
            // From here on a slow machine is no reason to lose another one.
            let lasting = "ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'";
            client.batch_execute(lasting).await.unwrap();
            client
                .batch_execute("SELECT pg_reload_conf()")
                .await
                .unwrap();
            return;
        }
    }
    panic!("the slot was not invalidated");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidated_slot_is_healed_and_older_points_stay() {
    for major in [13, 15, postgres::newest().unwrap().major] {
        let Ok(installation) = postgres::installation(major) else {
            continue;
        };
        let scene = Scene::new();
        let server = forgetful(&installation);
        let client = server.connect().await.unwrap();
        client
            .batch_execute("CREATE TABLE t (n int); INSERT INTO t VALUES (7)")
            .await
            .unwrap();
        let running = scene.run(&server.url());
        let first = running.wait("restore point", |s| s.point.is_some()).await;
        let source = "prod".parse().unwrap();
        assert!(running.vault.drill(&source).await.unwrap().passed());
        let before = running.stop().await;
        forget(&client).await;

        let again = scene.run(&server.url());
        let status = again
            .wait("a new point", |s| {
                s.point.is_some() && s.point != first.point
            })
            .await;
        assert_eq!(status.state, CaptureState::Streaming);
        client
            .batch_execute("INSERT INTO t VALUES (8)")
            .await
            .unwrap();
        let end = flushed(&client).await;
        let status = again.wait("the log since", |s| s.shipped >= end).await;
        assert_eq!(status.trouble, None);
        let alive = text(&client, "SELECT wal_status FROM pg_replication_slots").await;
        assert_ne!(alive, "lost", "the new slot keeps log");
        again.stop().await;
        let lost = scene.entries("source.slot_lost");
        assert_eq!(lost.len(), 1, "PostgreSQL {major}");
        assert_eq!(lost[0].draft.body["why"], "invalidated");
        assert_eq!(scene.entries("source.log_missing").len(), 1);

        let spans = points(&scene.place(), &Running::default(), now()).unwrap();
        assert_eq!(spans.len(), 2, "{spans:#?}");
        let logs: Vec<_> = spans.iter().map(|span| span.log.clone().unwrap()).collect();
        assert!(logs[0].to_lsn >= before.shipped && logs[0].to_lsn < logs[1].from_lsn);
        assert!(logs[1].to_lsn >= end);
        let hole = logs[0].hole.as_ref().unwrap();
        assert!(hole.from_lsn == logs[0].to_lsn && hole.to_lsn <= logs[1].from_lsn);
        let old = scene
            .restore_to(RestoreTarget::Lsn(logs[0].from_lsn), &server)
            .await;
        assert_eq!(old.ask("SELECT string_agg(n::text, ',') FROM t").await, "7");
        let new = scene.restore(&scene.state(), &server).await;
        assert_eq!(new.ask("SELECT max(n)::text FROM t").await, "8");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_log_has_a_hole_nothing_is_called_a_way_back() {
    use holdfast_core::{NoWayBack, WayBack};
    let scene = Scene::new();
    let server = forgetful(&postgres::newest().unwrap());
    let client = server.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (n int)")
        .await
        .unwrap();
    let running = scene.run(&server.url());
    running.wait("restore point", |s| s.point.is_some()).await;
    let source = "prod".parse().unwrap();
    assert!(running.vault.drill(&source).await.unwrap().passed());
    assert!(running.vault.way_back(&source, now()).is_ok());
    running.stop().await;
    forget(&client).await;
    // No new base can be taken: what is missing stays missing, and is said.
    client
        .batch_execute("ALTER SYSTEM SET max_wal_senders = 1")
        .await
        .unwrap();
    let mut server = server;
    server.restart().unwrap();
    for _ in 0..2 {
        let again = scene.run(&server.url());
        let status = again
            .wait("trouble", |s| {
                s.state == CaptureState::Streaming && s.trouble.is_some()
            })
            .await;
        assert_eq!(status.point, None);
        let refused = again.vault.way_back(&source, now());
        assert!(
            matches!(refused, Err(NoWayBack::NeverProven(_))),
            "{refused:?}"
        );
        again.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_somebody_else_took_is_left_to_them() {
    let scene = Scene::new();
    let installation = postgres::installation(15).unwrap();
    let server = super::scene::server(&installation);
    let client = server.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (n int)")
        .await
        .unwrap();
    let running = scene.run(&server.url());
    let first = running.wait("restore point", |s| s.point.is_some()).await;
    running.stop().await;
    let program = installation.program("pg_receivewal");
    if !program.is_file() {
        return;
    }
    let folder = scene.dir.path().join("thief");
    std::fs::create_dir(&folder).unwrap();
    let mut thief = Command::new(program);
    thief.arg("--directory").arg(&folder).args([
        "--slot",
        "holdfast_prod",
        "--dbname",
        &server.url(),
    ]);
    let _thief = Process::spawn(thief, &scene.dir.path().join("thief.log")).unwrap();
    const ACTIVE: &str = "SELECT count(*)::text FROM pg_replication_slots WHERE active";
    let began = std::time::Instant::now();
    while text(&client, ACTIVE).await != "1" {
        assert!(began.elapsed() < super::scene::LIMIT);
        tokio::time::sleep(super::scene::POLL).await;
    }
    client
        .batch_execute("INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let end = flushed(&client).await;
    let again = scene.run(&server.url());
    let status = again.wait("the log since", |s| s.shipped >= end).await;
    assert_eq!(
        (status.point, status.trouble),
        (first.point, None),
        "no hole, no new base"
    );
    let ours = "SELECT string_agg(slot_name, ',' ORDER BY slot_name) FROM pg_replication_slots WHERE active";
    assert_eq!(text(&client, ours).await, "holdfast_prod,holdfast_prod_2");
    again.stop().await;
    // The preflight, the settings and whoever removes the source speak of the slot that is used.
    let source = scene.source(&server.url(), AckMode::Asynchronous);
    let report = check_source(&source).await;
    let found = |name: &str| {
        let mut all = report.requirements.iter();
        let one = all.find(|one| one.name == name);
        one.map(|one| one.found.clone()).unwrap_or_default()
    };
    assert!(found("slot").starts_with("holdfast_prod_2: "), "{report}");
    assert_eq!(found("other slots"), "holdfast_prod", "{report}");
    let plan = plan_settings(&source, &source.url).await.unwrap();
    assert!(!plan.script().contains("slot("), "{}", plan.script());
    let kept = kept_slot_name(&scene.state(), &source.name);
    assert_eq!(kept, "holdfast_prod_2");
    let lost = scene.entries("source.slot_lost");
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].draft.body["why"], "taken");
    // The new name is remembered.
    let third = scene.run(&server.url());
    third
        .wait("stream", |s| s.state == CaptureState::Streaming)
        .await;
    third.stop().await;
    assert_eq!(scene.entries("source.slot_made").len(), 2);
}
