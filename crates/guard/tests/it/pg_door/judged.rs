//! What passes, what is held, and what the server sees of it.

use holdfast_testing::postgres::{self, Installation};

use super::bench::Bench;

fn newest() -> Installation {
    postgres::newest().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_passes_and_is_not_recorded() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        let said = bench
            .psql(&["SELECT count(*) FROM orders", "SELECT 1; SELECT 2"])
            .await;
        assert_eq!(
            (said.ok, said.out.as_str()),
            (true, "1000\n1\n2"),
            "{said:?}"
        );
        assert!(bench.ledger_kinds().is_empty());
        let said = bench.psql(&["SELEC 1"]).await;
        assert!(
            said.err.contains("42601") && said.err.contains("LINE 1: SELEC 1"),
            "{said:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_within_the_budget_passes_and_is_in_the_ledger_first() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        let said = bench
            .psql(&[
                "INSERT INTO orders VALUES (2000, 1, 5) RETURNING id",
                "SELECT touch(7)",
            ])
            .await;
        assert_eq!((said.ok, said.out.as_str()), (true, "2000\n8"), "{said:?}");
        assert_eq!(bench.orders().await, 1001);
        let kinds = bench.ledger_kinds();
        assert_eq!(
            kinds
                .iter()
                .filter(|kind| *kind == "action.permitted")
                .count(),
            2,
            "{kinds:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_destroys_is_held_and_nothing_is_done() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        for commands in [
            &["DROP TABLE orders CASCADE"][..],
            &["TRUNCATE orders"],
            &["DELETE FROM orders"],
            &["DELETE FROM orders WHERE total > 0"],
            &["UPDATE orders SET total = 0 WHERE id > 5"],
            &["DROP SCHEMA public CASCADE"],
            &["DO $$ BEGIN DELETE FROM orders; END $$"],
            &["DO $$ BEGIN EXECUTE 'TRUN' || 'CATE orders'; END $$"],
            &["SELECT wipe()"],
            &["SELECT cut()"],
            &["WITH gone AS (DELETE FROM orders RETURNING 1) SELECT count(*) FROM gone"],
            &["DELETE FROM customers WHERE id <= 60"],
            &["INSERT INTO trapped VALUES (1)"],
            &["DELETE FROM big_orders"],
            &["EXPLAIN ANALYZE DELETE FROM orders"],
            &["ALTER TABLE orders DROP COLUMN total CASCADE"],
            &["BEGIN", "DELETE FROM orders", "COMMIT"],
            &["BEGIN; DELETE FROM orders; COMMIT"],
            &["COMMIT; DROP SCHEMA public CASCADE"],
            &["COMMIT; BEGIN; DROP TABLE orders CASCADE; COMMIT; SELECT 1"],
            &["SELECT 1; DELETE FROM orders"],
            &["PREPARE p AS DELETE FROM orders", "EXECUTE p"],
            &[
                "BEGIN",
                "DECLARE c CURSOR WITH HOLD FOR SELECT wipe()",
                "COMMIT",
            ],
        ] {
            let said = bench.psql(commands).await;
            let told = ["ZH001", "ZH003", "ZH002", "ZS403", "25006"];
            assert!(
                told.iter().any(|code| said.err.contains(code)),
                "{commands:?}: {said:?}"
            );
            assert_eq!(bench.orders().await, 1000, "{commands:?}: {said:?}");
            assert_eq!(
                bench.number("SELECT sum(total) FROM orders").await,
                500_500,
                "{commands:?}"
            );
        }
        let kinds = bench.ledger_kinds();
        assert!(
            !kinds.iter().any(|kind| kind == "action.permitted"),
            "{kinds:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_statement_passes_exactly_once() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        let held = bench.psql(&["DROP TABLE orders CASCADE"]).await;
        assert!(held.err.contains("ZH001"), "{held:?}");
        bench.approve_newest();
        let other = bench.psql(&["DROP TABLE customers CASCADE"]).await;
        assert!(other.err.contains("ZH001"), "{other:?}");
        let passed = bench.psql(&["DROP TABLE orders CASCADE"]).await;
        assert!(passed.ok, "{passed:?}");
        assert_eq!(
            bench
                .number("SELECT count(*) FROM pg_class WHERE relname = 'orders'")
                .await,
            0
        );
        let again = bench.psql(&["DROP TABLE orders CASCADE"]).await;
        assert!(again.err.contains("42P01"), "{again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_proven_way_back_an_approval_is_not_enough() {
    let mode = holdfast_guard::lease::LeaseMode::Schema;
    let bench = Bench::with(&newest(), mode, false).await;
    let held = bench.psql(&["TRUNCATE orders"]).await;
    assert!(
        held.err.contains("ZH001") && held.err.contains("no proven way back"),
        "{held:?}"
    );
    bench.approve_newest();
    let refused = bench.psql(&["TRUNCATE orders"]).await;
    assert!(refused.err.contains("ZH003"), "{refused:?}");
    assert_eq!(bench.orders().await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_hold_waits_no_transaction_is_open_and_nothing_is_locked() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        for statements in [
            &["DELETE FROM orders"][..],
            &["DROP TABLE orders CASCADE"],
            &["BEGIN", "DELETE FROM orders", "COMMIT"],
            &["DO $$ BEGIN DELETE FROM orders; END $$"],
        ] {
            let agent = bench.client().await;
            let mut refused = None;
            for statement in statements {
                refused = agent.batch_execute(statement).await.err();
            }
            let said = refused.expect("it is held");
            let code = said.code().map(|code| code.code().to_owned());
            assert_eq!(code.as_deref(), Some("ZH001"), "{statements:?}: {said:?}");
            // The agent's session is still there; the application gets every lock at once.
            let application = bench.server.connect_to("shop").await.unwrap();
            let lock = "BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE NOWAIT; ROLLBACK";
            application.batch_execute(lock).await.unwrap();
            let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop'
                        AND pid <> pg_backend_pid() AND backend_type = 'client backend'
                        AND (xact_start IS NOT NULL OR backend_xid IS NOT NULL)";
            assert_eq!(bench.number(open).await, 0, "{statements:?}");
            let alive = agent.query_one("SELECT count(*) FROM orders", &[]).await;
            assert_eq!(alive.unwrap().get::<_, i64>(0), 1000, "{statements:?}");
        }
        assert!(bench.holds().len() >= 3);
    }
}
