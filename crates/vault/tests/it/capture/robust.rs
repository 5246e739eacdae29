//! Networks that break and clocks that jump.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use holdfast_core::Timestamp;
use holdfast_testing::postgres;
use holdfast_testing::tcp::{Direction, FaultProxy};
use holdfast_vault::{CaptureState, system_clock};

use super::scene::{Scene, flushed, now, server};

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_cut_anywhere_loses_nothing() {
    let scene = Scene::new();
    let server = server(&postgres::newest().unwrap());
    let client = server.connect().await.unwrap();
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
    let proxy = FaultProxy::start(target).unwrap();
    let of = |port: u16| format!("127.0.0.1:{port}/");
    let url = server.url().replace(&of(server.port()), &of(proxy.port()));
    client
        .batch_execute("CREATE TABLE t (n int)")
        .await
        .unwrap();
    let running = scene.run(&url);
    let first = running.wait("restore point", |s| s.point.is_some()).await;
    for bytes in [1, 5, 4_000, 70_000, 1_000_000] {
        proxy.cut_after(Direction::ToClient, bytes);
        client
            .batch_execute("INSERT INTO t SELECT generate_series(1, 30000)")
            .await
            .unwrap();
        let cut = |s: &holdfast_vault::SourceStatus| s.state == CaptureState::Disconnected;
        let status = running.wait("cut", cut).await;
        assert_eq!(status.trouble.unwrap().code, "ZS301");
        proxy.pass();
        let end = flushed(&client).await;
        let status = running.wait("the rest", |s| s.shipped >= end).await;
        assert_eq!((status.point, status.trouble), (first.point.clone(), None));
    }
    running.stop().await;
    let back = scene.restore(&scene.state(), &server).await;
    assert_eq!(back.ask("SELECT count(*)::text FROM t").await, "150000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_changes_neither_lag_nor_commit_times() {
    const TEN_YEARS: i64 = 10 * 365 * 24 * 3600 * 1_000_000;
    let jump = Arc::new(AtomicI64::new(0));
    let mut scene = Scene::new();
    let (system, jumped) = (system_clock(), Arc::clone(&jump));
    scene.clock = Arc::new(move || Timestamp(system().0 + jumped.load(Ordering::Relaxed)));
    let server = server(&postgres::newest().unwrap());
    let client = server.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (n int)")
        .await
        .unwrap();
    let running = scene.run(&server.url());
    let first = running.wait("restore point", |s| s.point.is_some()).await;
    for micros in [TEN_YEARS, -TEN_YEARS, 0] {
        jump.store(micros, Ordering::Relaxed);
        let before = now();
        client
            .batch_execute("INSERT INTO t VALUES (1)")
            .await
            .unwrap();
        let end = flushed(&client).await;
        let status = running
            .wait("shipped log", |s| {
                s.shipped >= end && s.newest_commit >= Some(before)
            })
            .await;
        assert!(
            status.newest_commit <= Some(now()),
            "the source's clock tells it"
        );
        assert!(status.lag_s < 60.0, "{status:?}");
        assert_eq!((status.point, status.trouble), (first.point.clone(), None));
    }
    running.stop().await;
    let back = scene.restore(&scene.state(), &server).await;
    assert_eq!(back.ask("SELECT count(*)::text FROM t").await, "3");
}
