//! Every major version: captured, restored to a promoted server, and equal to its source.

use holdfast_testing::dirs::TestDir;
use holdfast_testing::postgres::{self, ServerUser};

use super::scene::{Scene, flushed, server};

/// Every row of the cluster, those in a tablespace too, as one text.
const CONTENT: &str = "SELECT md5(string_agg(all_rows, ',' ORDER BY all_rows))
    FROM (SELECT t::text AS all_rows FROM t UNION ALL SELECT u::text FROM u) every_row";

async fn comes_back(major: u32) {
    let installations = postgres::every().unwrap();
    let Some(installation) = installations.iter().find(|one| one.major == major) else {
        // `every` has refused already wherever this major could have been installed.
        return;
    };
    let scene = Scene::new();
    let place = TestDir::for_server("tablespace").unwrap();
    let folder = place.path().join("ts");
    std::fs::create_dir(&folder).unwrap();
    ServerUser::current().unwrap().own(&folder).unwrap();
    let source = server(installation);
    let client = source.connect().await.unwrap();
    let sql = format!("CREATE TABLESPACE ts LOCATION '{}'", folder.display());
    client.batch_execute(&sql).await.unwrap();
    client
        .batch_execute(
            "CREATE SEQUENCE s; SELECT nextval('s');
             CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n;
             CREATE TABLE u TABLESPACE ts AS SELECT n FROM generate_series(1, 2000) n",
        )
        .await
        .unwrap();
    let running = scene.run(&source.url());
    running.wait("restore point", |s| s.point.is_some()).await;
    client
        .batch_execute(
            "INSERT INTO u SELECT generate_series(2001, 3000); DELETE FROM t WHERE n % 7 = 0;
             UPDATE t SET md5 = 'changed' WHERE n % 11 = 0; SELECT nextval('s')",
        )
        .await
        .unwrap();
    let end = flushed(&client).await;
    let status = running
        .wait("shipped log", |s| s.shipped >= end && s.flushed >= end)
        .await;
    assert_eq!(status.trouble, None);
    if major < 15 {
        // The others are drilled all the time by the tests of drills.
        let source = "prod".parse().unwrap();
        let drilled = running.vault.drill(&source).await.unwrap();
        assert!(drilled.passed(), "{drilled:#?}");
    }
    running.stop().await;
    let back = scene.restore(&scene.state(), &source).await;
    let row = client.query_one(CONTENT, &[]).await.unwrap();
    assert_eq!(back.ask(CONTENT).await, row.get::<_, String>(0));
    let next = back.ask("SELECT nextval('s')::text").await;
    assert!(next.parse::<i64>().unwrap() > 2, "{next}");
    let version = format!("{major}.");
    assert!(back.ask("SHOW server_version").await.starts_with(&version));
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_13_comes_back() {
    comes_back(13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_14_comes_back() {
    comes_back(14).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_15_comes_back() {
    comes_back(15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_16_comes_back() {
    comes_back(16).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_17_comes_back() {
    comes_back(17).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_18_comes_back() {
    comes_back(18).await;
}
