//! The extended protocol, as drivers speak it.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use holdfast_testing::postgres;
use tokio_postgres::error::SqlState;

use super::bench::Bench;

fn code(error: &tokio_postgres::Error) -> String {
    error
        .code()
        .unwrap_or(&SqlState::SUCCESSFUL_COMPLETION)
        .code()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_read_write_and_are_held() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        let client = bench.client().await;
        let read = client
            .prepare("SELECT total FROM orders WHERE id = $1")
            .await
            .unwrap();
        for id in 1..20_i32 {
            let row = client.query_one(&read, &[&id]).await.unwrap();
            assert_eq!(row.get::<_, i32>(0), id);
        }
        let write = client
            .prepare("UPDATE orders SET total = total + 1 WHERE id = $1")
            .await
            .unwrap();
        assert_eq!(client.execute(&write, &[&7_i32]).await.unwrap(), 1);
        let hidden = client
            .query_one("SELECT touch($1)", &[&7_i32])
            .await
            .unwrap();
        assert_eq!(hidden.get::<_, i32>(0), 9);
        let mass = client
            .prepare("DELETE FROM orders WHERE id > $1")
            .await
            .unwrap();
        let held = client.execute(&mass, &[&10_i32]).await.unwrap_err();
        assert_eq!(code(&held), "ZH001", "{held:?}");
        let held = client.query("SELECT wipe()", &[]).await.unwrap_err();
        assert_eq!(code(&held), "ZH001", "{held:?}");
        assert_eq!(bench.orders().await, 1000);
        // The session goes on, and an approval is for these parameters only.
        let held = client.execute(&mass, &[&500_i32]).await.unwrap_err();
        assert_eq!(code(&held), "ZH001", "{held:?}");
        bench.approve_newest();
        let other = client.execute(&mass, &[&499_i32]).await;
        let other = other.expect_err(&bench.ledger_text());
        assert_eq!(code(&other), "ZH001", "{other:?}");
        assert_eq!(client.execute(&mass, &[&500_i32]).await.unwrap(), 500);
        assert_eq!(bench.orders().await, 500);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_a_driver_are_gated_at_their_commit() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        let mut client = bench.client().await;
        let transaction = client.transaction().await.unwrap();
        transaction
            .execute("DELETE FROM orders WHERE id = $1", &[&1_i32])
            .await
            .unwrap();
        let nested = "SAVEPOINT a; DELETE FROM orders WHERE id < 50; ROLLBACK TO a";
        transaction.batch_execute(nested).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(bench.orders().await, 999);
        let transaction = client.transaction().await.unwrap();
        let gone = transaction
            .execute("DELETE FROM orders", &[])
            .await
            .unwrap();
        assert_eq!(gone, 999);
        let held = transaction.commit().await.unwrap_err();
        assert_eq!(code(&held), "ZH001", "{held:?}");
        assert_eq!(bench.orders().await, 999);
        let row = client
            .query_one("SELECT count(*) FROM orders", &[])
            .await
            .unwrap();
        assert_eq!(row.get::<_, i64>(0), 999);
        // What was rolled back does not count against what comes next.
        assert_eq!(
            client
                .execute("DELETE FROM orders WHERE id = $1", &[&2_i32])
                .await
                .unwrap(),
            1
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_their_order() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        let client = bench.client().await;
        let read = client.prepare("SELECT $1::int4").await.unwrap();
        let one = client
            .prepare("INSERT INTO settings VALUES ($1, 'x')")
            .await
            .unwrap();
        let asked = (0..50_i32).map(|n| {
            let (client, read, one) = (&client, &read, &one);
            async move {
                if n % 10 == 3 {
                    let key = format!("piped {n}");
                    client.execute(one, &[&key]).await.unwrap();
                }
                if n % 10 == 4 {
                    let failed = client
                        .query("SELECT 1 / $1::int4", &[&0_i32])
                        .await
                        .unwrap_err();
                    assert_eq!(code(&failed), "22012");
                }
                let row = client.query_one(read, &[&n]).await.unwrap();
                assert_eq!(row.get::<_, i32>(0), n);
            }
        });
        futures_util::future::join_all(asked).await;
        assert_eq!(bench.number("SELECT count(*) FROM settings").await, 15);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_copied_both_ways() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        let client = bench.client().await;
        let sink = client
            .copy_in("COPY audit (what) FROM STDIN")
            .await
            .unwrap();
        let mut sink = std::pin::pin!(sink);
        for n in 0..50 {
            sink.send(Bytes::from(format!("row {n}\n"))).await.unwrap();
        }
        assert_eq!(sink.as_mut().finish().await.unwrap(), 50);
        let rows = client
            .copy_out("COPY (SELECT * FROM orders ORDER BY id) TO STDOUT")
            .await
            .unwrap();
        let rows: Vec<_> = rows.collect().await;
        assert_eq!(rows.len(), 1000);
        // More than the budget is held, and nothing of it stays.
        let sink = client
            .copy_in("COPY audit (what) FROM STDIN")
            .await
            .unwrap();
        let mut sink = std::pin::pin!(sink);
        for n in 0..500 {
            sink.send(Bytes::from(format!("row {n}\n"))).await.unwrap();
        }
        let held = sink.as_mut().finish().await.unwrap_err();
        assert_eq!(code(&held), "ZH001", "{held:?}");
        assert_eq!(bench.number("SELECT count(*) FROM audit").await, 50);
        assert_eq!(
            client
                .query_one("SELECT 1", &[])
                .await
                .unwrap()
                .get::<_, i32>(0),
            1
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_statement_is_cancelled_and_a_late_cancel_hits_nothing() {
    let bench = Bench::new(&postgres::newest().unwrap()).await;
    let client = bench.client().await;
    let cancel = client.cancel_token();
    let sleeping = client.query("SELECT count(*) FROM generate_series(1, 2000000000)", &[]);
    let cancelling = async {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%2000000000%' AND state = 'active' AND pid <> pg_backend_pid()";
        while bench.number(running).await == 0 {
            tokio::task::yield_now().await;
        }
        cancel.cancel_query(tokio_postgres::NoTls).await.unwrap();
    };
    let (failed, ()) = tokio::join!(sleeping, cancelling);
    assert_eq!(code(&failed.unwrap_err()), "57014");
    // The client does not wait until the server has acted on it, so a late cancel may still meet the
    // next statement, as it may without a door; it never meets two.
    cancel.cancel_query(tokio_postgres::NoTls).await.unwrap();
    let answer = match client.query_one("SELECT 1", &[]).await {
        Err(error) if code(&error) == "57014" => client.query_one("SELECT 1", &[]).await,
        answer => answer,
    };
    assert_eq!(answer.unwrap().get::<_, i32>(0), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backend_ends_the_session_and_commits_nothing() {
    let bench = Bench::new(&postgres::newest().unwrap()).await;
    let client = bench.client().await;
    client
        .batch_execute("BEGIN; DELETE FROM orders WHERE id = 1")
        .await
        .unwrap();
    let role = &bench.lease.lease.pg.as_ref().unwrap().role;
    let kill = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{role}'"
    );
    assert_eq!(bench.number(&kill).await, 1);
    assert!(client.batch_execute("COMMIT").await.is_err());
    assert_eq!(bench.orders().await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_commits_nothing() {
    let bench = Bench::new(&postgres::newest().unwrap()).await;
    let client = bench.client().await;
    client
        .batch_execute("BEGIN; DELETE FROM orders WHERE id = 1")
        .await
        .unwrap();
    drop(client);
    let role = &bench.lease.lease.pg.as_ref().unwrap().role;
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'");
    while bench.number(&sessions).await > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.orders().await, 1000);
}
