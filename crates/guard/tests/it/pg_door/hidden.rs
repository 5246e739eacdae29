//! What an agent hides behind something harmless is found before it is committed.

use holdfast_testing::postgres;

use super::bench::Bench;

const LOST: &str = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'total' AND NOT attisdropped";

#[tokio::test(flavor = "multi_thread")]
async fn structure_changed_behind_an_openly_harmless_statement_is_held() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        let drops = "DO $$ BEGIN EXECUTE replace('ALTER TABLE orders DR*OP COLUMN total CASCADE', '*', ''); END $$";
        let renames =
            "DO $$ BEGIN EXECUTE replace('ALTER TABLE orders REN*AME TO gone', '*', ''); END $$";
        let grants =
            "DO $$ BEGIN EXECUTE replace('GRA*NT ALL ON orders TO PUBLIC', '*', ''); END $$";
        // Nothing that depends on the column may tell of it.
        let shop = bench.server.connect_to("shop").await.unwrap();
        shop.batch_execute("DROP VIEW big_orders").await.unwrap();
        let disables = "DO $$ BEGIN EXECUTE replace('ALTER TABLE trapped DIS*ABLE TRIGGER ALL', '*', ''); END $$";
        let made = bench
            .psql(&["CREATE FUNCTION strip() RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE replace('ALTER TABLE orders DR*OP COLUMN total CASCADE', '*', ''); RETURN 1; END $$"])
            .await;
        assert!(made.ok, "{made:?}");
        let made = bench
            .psql(&["CREATE FUNCTION swap() RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE replace('CREATE OR REP*LACE FUNCTION touch(n int) RETURNS int LANGUAGE sql AS ''SELECT 0''', '*', ''); RETURN 1; END $$"])
            .await;
        assert!(made.ok, "{made:?}");
        for commands in [
            vec!["BEGIN", "NOTIFY x", drops, "COMMIT"],
            vec!["BEGIN", "CREATE TABLE mine (n int)", drops, "COMMIT"],
            vec!["BEGIN", "CREATE TABLE mine (n int)", renames, "COMMIT"],
            vec!["BEGIN", "CREATE TABLE mine (n int)", grants, "COMMIT"],
            vec!["BEGIN", "NOTIFY x", disables, "COMMIT"],
            vec!["BEGIN", "NOTIFY x", "SELECT swap()", "COMMIT"],
            vec!["CREATE TABLE mine AS SELECT strip()"],
            vec![
                "BEGIN",
                "CREATE TABLE mine (n int)",
                "SELECT strip()",
                "COMMIT",
            ],
            vec![
                "BEGIN",
                "CREATE TABLE mine (n int DEFAULT strip())",
                "INSERT INTO mine DEFAULT VALUES",
                "COMMIT",
            ],
        ] {
            let said = bench.psql(&commands).await;
            assert!(said.err.contains("ZH00"), "{commands:?}: {said:?}");
        }
        assert_eq!(bench.number(LOST).await, 1);
        // A migration that only adds, with the rows that it brings, still passes.
        let said = bench
            .psql(&[
                "BEGIN",
                "CREATE TABLE cars (id serial PRIMARY KEY, name text NOT NULL UNIQUE, customer int REFERENCES customers)",
                "INSERT INTO cars (name) VALUES ('one') RETURNING id",
                "SELECT count(*) FROM orders",
                "COMMIT",
            ])
            .await;
        assert!(said.ok && said.err.is_empty(), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_defers_itself_again_cannot_write_inside_the_commit() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        // A constraint that is checked late runs this function, and it defers itself again each time.
        let body = "CREATE FUNCTION pg_temp.f(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN PERFORM pg_temp.g(n); RETURN n; END $f$";
        let act = "CREATE FUNCTION pg_temp.g(n int) RETURNS int LANGUAGE plpgsql AS $f$ \
            DECLARE step int := coalesce(nullif(current_setting('my.step', true), ''), '0')::int; BEGIN \
            IF step = 1 THEN \
              PERFORM set_config('my.step', '2', false); \
              SET CONSTRAINTS ALL DEFERRED; DELETE FROM pg_temp.bait; \
              INSERT INTO pg_temp.bait VALUES (3), (3); \
              PERFORM set_config('my.step', '3', false); \
            ELSIF step = 3 AND n = 3 THEN \
              PERFORM set_config('my.step', '4', false); \
              DELETE FROM orders; DELETE FROM pg_temp.bait; \
            END IF; RETURN 1; END $f$";
        let table = "CREATE TEMP TABLE bait (n int, EXCLUDE USING btree (pg_temp.f(n) WITH =) DEFERRABLE INITIALLY DEFERRED)";
        let said = bench
            .psql(&[
                act,
                body,
                table,
                "BEGIN",
                "INSERT INTO bait VALUES (1), (1)",
                "SELECT set_config('my.step', '1', false)",
                "COMMIT",
            ])
            .await;
        assert!(said.err.contains("25006"), "{said:?}");
        assert_eq!(bench.orders().await, 1000, "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chained_transaction_writes_and_is_measured_as_the_first_one() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        let first = "INSERT INTO customers VALUES (900, 'first')";
        let second = "INSERT INTO customers VALUES (901, 'second')";
        let said = bench
            .psql(&["BEGIN", first, "COMMIT AND CHAIN", second, "COMMIT"])
            .await;
        assert!(said.ok && said.err.is_empty(), "{said:?}");
        let made = "SELECT count(*) FROM customers WHERE id >= 900";
        assert_eq!(bench.number(made).await, 2);
        let said = bench
            .psql(&[
                "BEGIN",
                "SELECT 1",
                "COMMIT AND CHAIN",
                "DELETE FROM orders",
                "COMMIT",
            ])
            .await;
        assert!(said.err.contains("ZH001"), "{said:?}");
        let client = bench.client().await;
        client.execute("BEGIN", &[]).await.unwrap();
        client.execute("COMMIT AND CHAIN", &[]).await.unwrap();
        client.execute("DELETE FROM orders", &[]).await.unwrap();
        let refused = client.execute("END", &[]).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "ZH001");
        assert_eq!(bench.orders().await, 1000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_objects_removed_by_what_seems_to_read_are_held() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        let shop = bench.server.connect_to("shop").await.unwrap();
        shop.batch_execute("SET ROLE app; SELECT lo_from_bytea(77777, 'x')")
            .await
            .unwrap();
        let function = "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN EXECUTE replace('SELECT lo_un*link(77777)', '*', ''); RETURN 1; END $f$";
        let said = bench.psql(&[function, "SELECT pg_temp.f()"]).await;
        // Up to PostgreSQL 15 READ ONLY does not stop it.
        assert!(said.err.contains("ZH001"), "{said:?}");
        let client = bench.client().await;
        let function = function.replace("FUNCTION pg_temp.f", "OR REPLACE FUNCTION pg_temp.f");
        client.batch_execute(&function).await.unwrap();
        let refused = client.query("SELECT pg_temp.f()", &[]).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "ZH001");
        let said = bench.psql(&["SET work_mem TO '5MB'; SHOW work_mem"]).await;
        assert_eq!(said.out, "5MB", "{said:?}");
        assert_eq!(
            bench
                .number("SELECT count(*) FROM pg_largeobject_metadata")
                .await,
            1
        );
    }
}
