//! Sources that cannot be captured: each says why, with a code and the exact way out.

use holdfast_testing::postgres::{self, Server};
use holdfast_vault::{AckMode, CaptureState, RequirementState, SourceStatus, check_source};

use super::scene::{Running, Scene, server};

async fn failed(running: &Running, code: &str) -> SourceStatus {
    let status = running
        .wait("trouble", |s| {
            s.trouble.as_ref().is_some_and(|t| t.code == code)
        })
        .await;
    assert_eq!(status.flushed.0, 0, "nothing was captured");
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_at_the_same_address_is_refused() {
    let scene = Scene::new();
    let newest = postgres::newest().unwrap();
    let (known, other) = (server(&newest), server(&newest));
    let running = scene.run(&known.url());
    let before = running.wait("restore point", |s| s.point.is_some()).await;
    let before = (before.point, running.stop().await.flushed);
    let again = scene.run(&other.url());
    let status = again
        .wait("refusal", |s| s.state == CaptureState::Failed)
        .await;
    let trouble = status.trouble.unwrap();
    assert_eq!(trouble.code, "ZI301");
    assert!(
        trouble
            .hint
            .unwrap()
            .contains("nothing that is kept was changed")
    );
    assert!(status.flushed <= before.1);
    let slots = other.connect().await.unwrap();
    let slots = slots
        .query_one("SELECT count(*) FROM pg_replication_slots", &[])
        .await
        .unwrap();
    assert_eq!(
        slots.get::<_, i64>(0),
        0,
        "the other cluster was left alone"
    );
    again.stop().await;
    let back = scene.run(&known.url());
    let status = back.wait("the known one", |s| s.point.is_some()).await;
    assert_eq!(status.point, before.0);
    back.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_as_such() {
    let scene = Scene::new();
    let server = server(&postgres::oldest().unwrap());
    let url = server.url();
    let wrong = url.replacen("://postgres:", "://postgres:x", 1);
    assert_ne!(url, wrong);
    let running = scene.run(&wrong);
    let status = failed(&running, "ZL301").await;
    assert_eq!(status.state, CaptureState::Failed);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_replication_is_told_the_exact_command() {
    for installation in postgres::all().unwrap() {
        let scene = Scene::new();
        let server = server(&installation);
        let client = server.connect().await.unwrap();
        client
            .batch_execute("CREATE ROLE app LOGIN PASSWORD 'secret-word'")
            .await
            .unwrap();
        let url = format!(
            "postgresql://app:secret-word@127.0.0.1:{}/postgres",
            server.port()
        );
        let running = scene.run(&url);
        let status = running
            .wait("trouble", |s| s.state == CaptureState::Failed)
            .await;
        let trouble = status.trouble.unwrap();
        assert!(
            ["ZL302", "ZU301"].contains(&trouble.code.as_str()),
            "{trouble:?}"
        );
        running.stop().await;
        let report = check_source(&scene.source(&url, AckMode::Asynchronous)).await;
        let role = report
            .requirements
            .iter()
            .find(|r| r.name == "role")
            .unwrap();
        assert_eq!(role.state, RequirementState::Missing);
        assert_eq!(role.fix, "ALTER ROLE \"app\" REPLICATION;");
        assert!(!report.to_string().contains("secret-word"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_minimal_wal_is_told_the_exact_command() {
    for installation in postgres::all().unwrap() {
        let scene = Scene::new();
        let server = Server::builder(&installation)
            .fast()
            .setting("wal_level", "minimal")
            .setting("max_wal_senders", "0")
            .start()
            .unwrap();
        let running = scene.run(&server.url());
        let status = failed(&running, "ZU301").await;
        assert_eq!(status.state, CaptureState::Failed);
        let trouble = status.trouble.unwrap();
        assert!(trouble.what.contains("wal_level"), "{trouble:?}");
        assert!(trouble.hint.unwrap().contains("ALTER SYSTEM SET wal_level"));
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_server_at_the_address_is_told_and_tried_again() {
    let scene = Scene::new();
    let mut server = server(&postgres::newest().unwrap());
    server.stop_fast().unwrap();
    let running = scene.run(&server.url());
    let status = failed(&running, "ZS301").await;
    assert_eq!(status.state, CaptureState::Disconnected);
    server.start().unwrap();
    running.wait("restore point", |s| s.point.is_some()).await;
    running.stop().await;
}
