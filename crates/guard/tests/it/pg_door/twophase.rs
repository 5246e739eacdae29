//! Two-phase commit: measured at its PREPARE, ended by the lease that had it prepared and nobody else.

use std::time::{Duration, Instant};

use holdfast_core::Principal;
use holdfast_guard::lease::LeaseMode;
use holdfast_testing::postgres::{self, Server};

use super::bench::{Bench, issue};

const THERE: &str = "SELECT count(*) FROM pg_prepared_xacts";

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_is_judged_at_its_prepare_and_ended_by_its_lease_alone() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        let said = bench
            .psql(&["BEGIN; DELETE FROM orders; PREPARE TRANSACTION 'all'"])
            .await;
        assert!(said.err.contains("ZH001"), "{said:?}");
        let said = bench.psql(&["COMMIT PREPARED 'all'"]).await;
        assert!(said.err.contains("ZU511"), "{said:?}");
        assert_eq!((bench.orders().await, bench.number(THERE).await), (1000, 0));

        let client = bench.client().await;
        for statement in [
            "BEGIN",
            "DELETE FROM orders WHERE id <= 60",
            "PREPARE TRANSACTION 'some'",
        ] {
            client.execute(statement, &[]).await.unwrap();
        }
        // Its rows are spent although nothing is committed yet, and its name is taken.
        let held = "DELETE FROM orders WHERE id BETWEEN 200 AND 300";
        assert!(bench.psql(&[held]).await.err.contains("ZH001"));
        let again = ["BEGIN", "SELECT 1", "PREPARE TRANSACTION 'some'"];
        let said = bench.psql(&again).await;
        assert!(said.err.contains("42710"), "{said:?}");
        assert_eq!((bench.orders().await, bench.number(THERE).await), (1000, 1));

        let other = issue(&bench.leases, &bench.source, LeaseMode::Schema).await;
        let other = bench.url_of(&other);
        for end in ["COMMIT PREPARED 'some'", "ROLLBACK PREPARED 'some'"] {
            let said = bench.psql_at(&other, &[end]).await;
            assert!(said.err.contains("ZU511"), "{said:?}");
        }
        let inside = bench.psql(&["BEGIN", "COMMIT PREPARED 'some'"]).await;
        assert!(inside.err.contains("ZU510"), "{inside:?}");
        assert_eq!(bench.number(THERE).await, 1);

        // Another door that knows only what is written down, as after a restart.
        let url = bench.another_door(&bench.server.url_for("shop")).await;
        let said = bench
            .psql_at(url.expose(), &["COMMIT PREPARED 'some'"])
            .await;
        assert!(said.ok, "{said:?}");
        assert_eq!((bench.orders().await, bench.number(THERE).await), (940, 0));
        let said = bench
            .psql_at(url.expose(), &["COMMIT PREPARED 'some'"])
            .await;
        assert!(said.err.contains("ZU511"), "{said:?}");

        let client = bench.client_at(url.expose()).await;
        client
            .batch_execute(
                "BEGIN; DELETE FROM settings WHERE key = 'key 1'; PREPARE TRANSACTION 'undone'",
            )
            .await
            .unwrap();
        client
            .execute("ROLLBACK PREPARED 'undone'", &[])
            .await
            .unwrap();
        client
            .execute("DELETE FROM settings WHERE key = 'key 2'", &[])
            .await
            .unwrap();
        assert_eq!(bench.number("SELECT count(*) FROM settings").await, 9);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_prepared_stays_theirs() {
    let bench = Bench::new(&postgres::newest().unwrap()).await;
    let app = bench.server.connect_to("shop").await.unwrap();
    let prepares =
        "SET SESSION AUTHORIZATION app; BEGIN; DELETE FROM settings; PREPARE TRANSACTION 'theirs'";
    app.batch_execute(prepares).await.unwrap();
    for end in ["COMMIT PREPARED 'theirs'", "ROLLBACK PREPARED 'theirs'"] {
        let client = bench.client().await;
        let refused = client.execute(end, &[]).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "ZU511");
        assert!(bench.psql(&[end]).await.err.contains("ZU511"));
    }
    assert_eq!(bench.number(THERE).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lease_leaves_prepared_ends_with_it() {
    let bench = Bench::new(&postgres::oldest().unwrap()).await;
    let said = bench
        .psql(&["BEGIN; DELETE FROM orders WHERE id = 1; PREPARE TRANSACTION 'left'"])
        .await;
    assert!(said.ok, "{said:?}");
    assert_eq!(bench.number(THERE).await, 1);
    let by = Principal::human("ann");
    bench.leases.revoke(&bench.lease.lease.id, by).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while bench.number(THERE).await > 0 {
        assert!(Instant::now() < deadline, "its locks stay");
    }
    assert_eq!(bench.orders().await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_can_be_prepared_the_server_says_so() {
    let server = Server::builder(&postgres::newest().unwrap())
        .fast()
        .start()
        .unwrap();
    let bench = Bench::around(server, "postgres").await;
    let client = bench.client().await;
    client.batch_execute("BEGIN; SELECT 1").await.unwrap();
    let refused = client
        .execute("PREPARE TRANSACTION 'x'", &[])
        .await
        .unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "55000");
    client.execute("SELECT 1", &[]).await.unwrap();
}
