//! What clients see through the door is what they see past it.

use holdfast_testing::postgres;
use tokio::io::AsyncWriteExt;

use super::bench::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn psql_says_the_same_through_the_door_and_past_it() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        let direct = bench.server.url_for("shop");
        for commands in [
            &["SELECT 1 AS a, NULL AS b, 'x' || chr(10) || 'y'"][..],
            &["SELECT n, repeat('x', 500) FROM generate_series(1, 3000) n"],
            &["SELECT 1; SELECT 2; SELECT 3"],
            &["SELECT 1/0"],
            &["SELECT 1; SELECT 1/0; SELECT 3"],
            &["SELECT 'unterminated"],
            &["SELECT * FROM nowhere"],
            &["BEGIN", "SELECT 1/0", "SELECT 1", "ROLLBACK", "SELECT 5"],
            &["BEGIN", "SELECT 1/0", "COMMIT"],
            &["COMMIT"],
            &["ROLLBACK"],
            &["BEGIN; BEGIN; SELECT 1; COMMIT"],
            &["BEGIN ISOLATION LEVEL SERIALIZABLE; SHOW transaction_isolation; COMMIT"],
            &["BEGIN; SHOW transaction_read_only; COMMIT"],
            &["BEGIN READ ONLY; DELETE FROM orders; COMMIT"],
            &["SET work_mem = '5MB'", "SHOW work_mem"],
            &["-- nothing"],
            &[""],
            &["INSERT INTO settings VALUES ('key 1', 'again')"],
            &["INSERT INTO audit (what) VALUES ('a'), ('b') RETURNING what"],
            &["DO $$ BEGIN RAISE NOTICE 'said'; END $$"],
            &["SELECT 1; SELECT nowhere; SELECT 2"],
            &[
                "CREATE TEMP TABLE mine (n int)",
                "INSERT INTO mine SELECT generate_series(1, 5000)",
                "SELECT count(*) FROM mine",
            ],
            &["DECLARE c CURSOR FOR SELECT 1"],
            &[
                "BEGIN",
                "DECLARE c CURSOR FOR SELECT n FROM generate_series(1,9) n",
                "FETCH 3 FROM c",
                "COMMIT",
            ],
            &["LISTEN here", "NOTIFY here, 'there'", "SELECT 1"],
            &["\\d orders"],
            &["\\copy settings TO STDOUT"],
        ] {
            let through = bench.psql(commands).await;
            let past = bench.psql_at(&direct, commands).await;
            // A notification names the process that sent it.
            let same = |text: &str| {
                text.split(" with PID ")
                    .next()
                    .unwrap_or_default()
                    .split("with payload")
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            };
            assert_eq!(
                (through.ok, same(&through.out), through.err.clone()),
                (past.ok, same(&past.out), past.err.clone()),
                "{commands:?}"
            );
            let root = bench.server.connect_to("shop").await.unwrap();
            root.batch_execute("TRUNCATE audit").await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_copies_rows_in_and_out() {
    let bench = Bench::new(&postgres::newest().unwrap()).await;
    let file = bench.folder.path().join("rows.tsv");
    let mut rows = tokio::fs::File::create(&file).await.unwrap();
    for n in 0..80 {
        rows.write_all(format!("bulk {n}\tvalue\n").as_bytes())
            .await
            .unwrap();
    }
    rows.flush().await.unwrap();
    let out = bench.folder.path().join("out.tsv");
    let copy_in = format!("\\copy settings FROM '{}'", file.display());
    let copy_out = format!(
        "\\copy (SELECT * FROM settings WHERE key LIKE 'bulk%' ORDER BY length(key), key) TO '{}'",
        out.display()
    );
    let said = bench.psql(&[&copy_in, &copy_out]).await;
    assert!(said.ok, "{said:?}");
    let (sent, got) = (std::fs::read(&file).unwrap(), std::fs::read(&out).unwrap());
    assert_eq!(sent, got);
    let broken = bench.psql(&["COPY settings FROM STDIN", "SELECT 1"]).await;
    assert!(broken.out.ends_with('1'), "{broken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_that_only_add_pass_without_asking() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        for command in [
            "CREATE TABLE tags (id serial PRIMARY KEY, name text NOT NULL)",
            "ALTER TABLE orders ADD COLUMN note text",
            "COMMENT ON TABLE tags IS 'words'",
            "BEGIN; CREATE TABLE more (id int); INSERT INTO more SELECT generate_series(1, 5000); COMMIT",
        ] {
            let said = bench.psql(&[command]).await;
            assert!(said.ok, "{command}: {said:?}");
        }
        assert!(bench.holds().is_empty());
        assert!(
            bench
                .ledger_kinds()
                .iter()
                .any(|kind| kind == "action.permitted")
        );
    }
}
