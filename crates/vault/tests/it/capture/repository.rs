//! `ack = repository`: what a commit waited for survives the vault's machine, too.

use holdfast_testing::postgres::{self, Server};
use holdfast_vault::{AckAt, AckMode, CaptureState};

use super::killed::{Acknowledged, await_more, check, make_synchronous, write};
use super::scene::{Scene, flushed};

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_waited_for_the_repository_survive_the_loss_of_both_machines() {
    for installation in postgres::all().unwrap() {
        let scene = Scene::acknowledging_at(AckAt::Repository);
        let mut server = Server::builder(&installation)
            .initdb_arg("--wal-segsize=1")
            .start()
            .unwrap();
        let client = server.connect().await.unwrap();
        client
            .batch_execute("CREATE TABLE t (n bigint PRIMARY KEY)")
            .await
            .unwrap();
        let mut vault = scene.spawn(&server.url(), AckMode::Synchronous);
        let status = scene.await_told("drill", |s| s.proof.at.is_some() && s.busy.is_none());
        assert_eq!(status.ack, AckAt::Repository);
        make_synchronous(&scene.source(&server.url(), AckMode::Synchronous)).await;
        let acknowledged = Acknowledged::default();
        let next = std::sync::Arc::default();
        let mut writers = Vec::new();
        for _ in 0..4 {
            let client = server.connect().await.unwrap();
            writers.push(tokio::spawn(write(
                client,
                acknowledged.clone(),
                std::sync::Arc::clone(&next),
            )));
        }
        let count = || acknowledged.lock().unwrap().len();
        await_more(&count, 60).await;
        // Also across the end of a segment.
        client
            .batch_execute("CREATE TABLE other AS SELECT generate_series(1, 40000) n")
            .await
            .unwrap();
        let told = count();
        await_more(&count, told + 60).await;
        vault.kill_9().unwrap();
        server.kill_9().unwrap();
        std::fs::remove_dir_all(server.data_dir()).unwrap();
        for writer in writers {
            writer.await.unwrap();
        }
        // The vault's state is lost as well: only the repository is there.
        let state = scene.dir.path().join("nothing");
        let acknowledged = acknowledged.lock().unwrap().clone();
        let back = scene.restore(&state, &server).await;
        check(&back, &acknowledged).await;
        assert_eq!(back.ask("SELECT count(*)::text FROM other").await, "40000");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_is_told_only_what_the_repository_has() {
    let scene = Scene::acknowledging_at(AckAt::Repository);
    let server = super::scene::server(&postgres::newest().unwrap());
    let client = server.connect().await.unwrap();
    let running = scene.run(&server.url());
    running.wait("restore point", |s| s.point.is_some()).await;
    // The repository takes nothing more for a while.
    let wal = scene.repository().join("prod/wal");
    let aside = scene.dir.path().join("aside");
    std::fs::rename(scene.repository().join("prod"), &aside).unwrap();
    std::fs::write(scene.repository().join("prod"), "in the way").unwrap();
    client
        .batch_execute("CREATE TABLE t AS SELECT generate_series(1, 1000) n")
        .await
        .unwrap();
    let end = flushed(&client).await;
    let status = running
        .wait("trouble", |s| s.flushed >= end && s.trouble.is_some())
        .await;
    assert_eq!(status.state, CaptureState::Failed);
    assert!(status.shipped < end);
    let told =
        "SELECT flush_lsn < write_lsn AND write_lsn >= $1::text::pg_lsn FROM pg_stat_replication
                WHERE application_name = 'holdfast'";
    let row = client.query_one(told, &[&end.to_string()]).await.unwrap();
    assert!(row.get::<_, bool>(0), "written, not flushed");
    std::fs::remove_file(scene.repository().join("prod")).unwrap();
    std::fs::rename(&aside, scene.repository().join("prod")).unwrap();
    assert!(wal.parent().unwrap().is_dir());
    running.wait("shipped log", |s| s.shipped >= end).await;
    let told = "SELECT flush_lsn >= $1::text::pg_lsn FROM pg_stat_replication
                WHERE application_name = 'holdfast'";
    let began = std::time::Instant::now();
    while !client
        .query_one(told, &[&end.to_string()])
        .await
        .unwrap()
        .get::<_, bool>(0)
    {
        assert!(began.elapsed() < super::scene::LIMIT, "it is told late");
        tokio::time::sleep(super::scene::POLL).await;
    }
    let status = running.wait("no trouble", |s| s.trouble.is_none()).await;
    assert_eq!(status.state, CaptureState::Streaming);
    running.stop().await;
}
