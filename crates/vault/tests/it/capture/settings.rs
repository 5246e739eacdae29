//! Settings of a source: planned, shown, applied; and what the preflight says of them.

use holdfast_testing::postgres::{self, Server};
use holdfast_vault::{
    AckAt, AckMode, ConnectionUrl, RequirementState, SourceConfig, apply_settings, check_source,
    plan_settings,
};

use super::scene::{LIMIT, POLL, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_server_is_made_ready_by_the_plan_that_was_shown() {
    for installation in postgres::all().unwrap() {
        let scene = Scene::new();
        let mut server = Server::builder(&installation)
            .fast()
            .setting("wal_level", "minimal")
            .setting("max_wal_senders", "0")
            .start()
            .unwrap();
        let admin: ConnectionUrl = server.url().parse().unwrap();
        let url = format!(
            "postgresql://vault:it%27s-secret@127.0.0.1:{}/postgres",
            server.port()
        );
        let source = SourceConfig {
            ack: AckAt::Repository,
            ..scene.source(&url, AckMode::Synchronous)
        };
        let plan = plan_settings(&source, &admin).await.unwrap();
        assert!(plan.needs_restart());
        let script = plan.script();
        for wanted in [
            "CREATE ROLE \"vault\" LOGIN REPLICATION PASSWORD '…'",
            "ALTER SYSTEM SET wal_level = 'replica'",
            "ALTER SYSTEM SET max_wal_senders = '2'",
            "ALTER SYSTEM SET full_page_writes = 'on'",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'",
            "SELECT pg_reload_conf()",
        ] {
            assert!(script.contains(wanted), "{wanted}: {script}");
        }
        assert!(
            !script.contains("secret") && !script.contains("slot('"),
            "{script}"
        );
        // The role is not there yet, and one that may not change settings says what is left to do.
        assert!(apply_settings(&source, &source.url, &plan).await.is_err());
        let done = apply_settings(&source, &admin, &plan).await.unwrap();
        assert_eq!(done, plan.statements.len());
        let refused = apply_settings(&source, &source.url, &plan)
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("after 0 of"), "{refused}");
        server.restart().unwrap();

        let plan = plan_settings(&source, &admin).await.unwrap();
        let script = plan.script();
        assert_eq!(plan.statements.len(), 1, "{script}");
        assert!(script.contains("pg_create_physical_replication_slot('holdfast_prod', true)"));
        apply_settings(&source, &admin, &plan).await.unwrap();
        let plan = plan_settings(&source, &admin).await.unwrap();
        assert!(plan.statements.is_empty(), "{}", plan.script());
        let report = check_source(&source).await;
        assert!(report.is_ready(), "{report}");
        let of = |name: &str| report.requirements.iter().find(|r| r.name == name).unwrap();
        assert!(of("slot").found.contains("reserved"), "{report}");
        assert_eq!(of("max_slot_wal_keep_size").state, RequirementState::Ok);
        assert!(
            of("max_slot_wal_keep_size").found.contains("10"),
            "{report}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_preflight_says_what_limits_of_the_log_mean() {
    let scene = Scene::new();
    let server = Server::builder(&postgres::oldest().unwrap())
        .fast()
        .setting("max_slot_wal_keep_size", "1MB")
        .setting("wal_sender_timeout", "0")
        .start()
        .unwrap();
    let client = server.connect().await.unwrap();
    client
        .batch_execute("SELECT pg_stat_reset_shared('wal')")
        .await
        .unwrap();
    client
        .batch_execute("CREATE TABLE t AS SELECT generate_series(1, 300000) n")
        .await
        .unwrap();
    // A backend counts what it wrote a moment later.
    let counted = "SELECT wal_bytes > 10000000 FROM pg_stat_wal";
    let began = std::time::Instant::now();
    while !client
        .query_one(counted, &[])
        .await
        .unwrap()
        .get::<_, bool>(0)
    {
        assert!(began.elapsed() < LIMIT, "the log is not counted");
        tokio::time::sleep(POLL).await;
    }
    for (mode, ack) in [
        (AckMode::Synchronous, AckAt::Repository),
        (AckMode::Asynchronous, AckAt::Repository),
    ] {
        let source = SourceConfig {
            ack,
            ..scene.source(&server.url(), mode)
        };
        let report = check_source(&source).await;
        let of = |name: &str| report.requirements.iter().find(|r| r.name == name);
        let keep = of("max_slot_wal_keep_size").unwrap();
        assert_eq!(keep.state, RequirementState::Warning, "{report}");
        assert!(keep.found.contains("may be away for 0 minutes"), "{report}");
        let timeout = of("wal_sender_timeout").unwrap();
        let hangs = mode == AckMode::Synchronous;
        assert_eq!(
            timeout.state == RequirementState::Warning,
            hangs,
            "{report}"
        );
        assert_eq!(of("ack").is_some(), !hangs, "{report}");
        assert!(of("wal_keep_size").unwrap().found.starts_with("0:"));
    }
}
