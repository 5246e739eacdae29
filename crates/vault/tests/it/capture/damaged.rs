//! Log that is damaged on its way: told, and healed by a new base.

use std::net::SocketAddr;

use holdfast_testing::postgres;
use holdfast_testing::tcp::FaultProxy;
use holdfast_vault::{CaptureState, RestoreTarget, Running, points};

use super::scene::{Scene, flushed, now, server};

#[tokio::test(flavor = "multi_thread")]
async fn damaged_log_is_told_and_healed_by_a_new_base_and_older_points_stay() {
    let scene = Scene::new();
    let server = server(&postgres::newest().unwrap());
    let client = server.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (n text); INSERT INTO t VALUES ('first')")
        .await
        .unwrap();
    let proxy = FaultProxy::start(SocketAddr::from(([127, 0, 0, 1], server.port()))).unwrap();
    let of = |port: u16| format!("127.0.0.1:{port}/");
    let url = server.url().replace(&of(server.port()), &of(proxy.port()));
    let running = scene.run(&url);
    let first = running.wait("restore point", |s| s.point.is_some()).await;
    let end = flushed(&client).await;
    running.wait("the log", |s| s.shipped >= end).await;
    proxy.forge(b"a good row", b"a bad  row");
    client
        .batch_execute("INSERT INTO t VALUES ('a good row')")
        .await
        .unwrap();
    let status = running
        .wait("a new point", |s| {
            s.point.is_some() && s.point != first.point
        })
        .await;
    assert!(proxy.has_forged());
    assert_eq!(status.state, CaptureState::Streaming);
    assert_eq!(status.trouble, None, "healed");
    client
        .batch_execute("INSERT INTO t VALUES ('last')")
        .await
        .unwrap();
    let end = flushed(&client).await;
    running.wait("the log since", |s| s.shipped >= end).await;
    running.stop().await;
    assert_eq!(scene.entries("source.log_damaged").len(), 1);
    assert_eq!(scene.entries("point.made").len(), 2);
    let spans = points(&scene.place(), &Running::default(), now()).unwrap();
    let from = spans[0].log.as_ref().unwrap().from_lsn;
    let rows = "SELECT string_agg(n, ',' ORDER BY n) FROM t";
    let old = scene.restore_to(RestoreTarget::Lsn(from), &server).await;
    assert_eq!(old.ask(rows).await, "first");
    let new = scene.restore(&scene.state(), &server).await;
    assert_eq!(new.ask(rows).await, "a good row,first,last");
}
