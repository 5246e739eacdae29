//! What no transaction can take back is stopped before it starts.

use holdfast_testing::postgres;

use super::bench::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_back_is_stopped_before_it_starts() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        for (command, code) in [
            (
                "COPY orders TO PROGRAM 'cat > /tmp/holdfast-escape'",
                "ZH002",
            ),
            ("COPY orders FROM PROGRAM 'true'", "ZH002"),
            ("COPY orders TO '/tmp/holdfast-escape'", "ZH002"),
            (
                "SELECT dblink_exec('dbname=shop', 'DROP TABLE orders')",
                "ZH002",
            ),
            ("SELECT lo_export(1, '/tmp/holdfast-escape')", "ZH002"),
            ("ALTER SYSTEM SET archive_mode = off", "ZH002"),
            ("DROP DATABASE shop", "ZH001"),
            ("SELECT pg_terminate_backend(1)", "ZH001"),
            (
                "CREATE SUBSCRIPTION s CONNECTION 'dbname=shop' PUBLICATION p",
                "ZH002",
            ),
            ("VACUUM FULL orders", "ZH001"),
            (
                "CREATE INDEX CONCURRENTLY later ON orders ((total + 1))",
                "ZH001",
            ),
        ] {
            let said = bench.psql(&[command]).await;
            assert!(said.err.contains(code), "{command}: {said:?}");
            let said = bench.psql(&["BEGIN", command, "COMMIT"]).await;
            assert!(
                said.err.contains(code) || said.err.contains("25001"),
                "{command}: {said:?}"
            );
        }
        assert_eq!(bench.orders().await, 1000);
        assert!(!std::path::Path::new("/tmp/holdfast-escape").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_inside_a_transaction_fails_all_of_it() {
    let bench = Bench::new(&postgres::newest().unwrap()).await;
    let client = bench.client().await;
    client
        .batch_execute("BEGIN; DELETE FROM settings WHERE key = 'key 1'")
        .await
        .unwrap();
    let refused = client
        .batch_execute("ALTER SYSTEM SET fsync = off")
        .await
        .unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "ZH002");
    // No lock stays while the agent thinks, and nothing after the refusal commits on its own.
    let refused = client
        .batch_execute("DELETE FROM settings")
        .await
        .unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "25P02");
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(bench.number("SELECT count(*) FROM settings").await, 10);
    let said = client.query_one("SELECT 1", &[]).await.unwrap();
    assert_eq!(said.get::<_, i32>(0), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn approved_statements_outside_transactions_run_once() {
    let bench = Bench::new(&postgres::newest().unwrap()).await;
    let command = "CREATE INDEX CONCURRENTLY later ON orders ((total + 1))";
    let held = bench.psql(&[command]).await;
    assert!(held.err.contains("ZH001"), "{held:?}");
    bench.approve_newest();
    let said = bench.psql(&[command]).await;
    assert!(said.ok, "{said:?}");
    let made = "SELECT count(*) FROM pg_class WHERE relname = 'later'";
    assert_eq!(bench.number(made).await, 1);
    // The session reads by default again afterwards.
    let said = bench.psql(&["VACUUM orders", "SELECT wipe()"]).await;
    assert!(said.err.contains("ZH001"), "{said:?}");
    assert_eq!(bench.orders().await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_of_reading_only_cannot_be_turned_off() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        for turning_off in [
            "SET default_transaction_read_only = off",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
            "SELECT set_config('default_transaction_read_only', 'off', false)",
            "DO $$ BEGIN PERFORM set_config('default_transaction_read_only', 'off', false); END $$",
            "RESET ALL",
            "DISCARD ALL",
            "RESET default_transaction_read_only",
        ] {
            let said = bench
                .psql(&[turning_off, "SELECT wipe()", "SELECT 1"])
                .await;
            assert!(said.err.contains("ZH"), "{turning_off}: {said:?}");
            let one = format!("{turning_off}; SELECT wipe()");
            bench.psql(&[&one]).await;
            let inside = format!("BEGIN; {turning_off}; COMMIT; SELECT wipe()");
            bench.psql(&[&inside]).await;
            assert_eq!(bench.orders().await, 1000, "{turning_off}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_evidence_cannot_be_forged() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        // A lease may add its own schema; what it puts there must not be asked.
        let root = bench.server.connect_to("shop").await.unwrap();
        root.batch_execute(
            "CREATE SCHEMA s; GRANT ALL ON SCHEMA s TO app;
             CREATE FUNCTION s.pg_stat_get_xact_tuples_deleted(oid) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint';
             CREATE FUNCTION s.count(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint';
             CREATE VIEW s.pg_locks AS SELECT * FROM pg_catalog.pg_locks WHERE false;
             CREATE FUNCTION s.no(int, int) RETURNS bool LANGUAGE sql AS 'SELECT false';
             CREATE FUNCTION s.no(oid, oid) RETURNS bool LANGUAGE sql AS 'SELECT false';
             CREATE FUNCTION s.no(text, text) RETURNS bool LANGUAGE sql AS 'SELECT false';
             CREATE FUNCTION s.no(bigint, bigint) RETURNS bool LANGUAGE sql AS 'SELECT false';
             CREATE OPERATOR s.= (LEFTARG = int, RIGHTARG = int, FUNCTION = s.no);
             CREATE OPERATOR s.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = s.no);
             CREATE OPERATOR s.= (LEFTARG = text, RIGHTARG = text, FUNCTION = s.no);
             CREATE OPERATOR s.> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = s.no);",
        )
        .await
        .unwrap();
        for set in [
            "SET search_path = s, pg_catalog, public",
            "SET search_path = s, pg_catalog, public; SET statement_timeout = 1",
            "SET search_path = s, pg_catalog, public; SET client_min_messages = debug5",
        ] {
            let said = bench
                .psql(&[set, "DELETE FROM public.orders WHERE true"])
                .await;
            assert!(!said.ok, "{set}: {said:?}");
            let said = bench
                .psql(&[set, "DO $$ BEGIN TRUNCATE public.orders; END $$"])
                .await;
            assert!(!said.ok, "{set}: {said:?}");
            assert_eq!(bench.orders().await, 1000, "{set}");
        }
    }
}
