//! Destruction seen in the log of real servers.

use ed25519_dalek::SigningKey;
use holdfast_core::{Lsn, Timestamp};
use holdfast_store::ledger::{self, Ledger};
use holdfast_testing::postgres::{self, Server};
use holdfast_vault::{Destroyed, LogWatch, Seen, system_clock};
use holdfast_wire::pg::wal::WalShape;
use tempfile::TempDir;

use crate::wal::{SEGMENT, log_bytes, run};

/// A server and a watch that is fed with its log.
struct Watched {
    server: Server,
    folder: TempDir,
    ledger: Ledger,
    watch: LogWatch,
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[5; 32])
}

fn watch(ledger: &Ledger) -> LogWatch {
    let shape = WalShape {
        segment_bytes: SEGMENT,
        system_identifier: None,
    };
    LogWatch::new(
        "prod".parse().unwrap(),
        shape,
        ledger.clone(),
        system_clock(),
    )
}

impl Watched {
    fn start(installation: &postgres::Installation, settings: &[(&str, &str)]) -> Self {
        let mut builder = Server::builder(installation)
            .initdb_arg("--wal-segsize=1")
            .setting("fsync", "off")
            .setting("autovacuum", "off")
            .setting("min_wal_size", "2MB")
            .setting("wal_keep_size", "400MB")
            .setting("max_prepared_transactions", "4");
        for (name, value) in settings {
            builder = builder.setting(name, value);
        }
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), key(), Timestamp(1)).unwrap();
        Self {
            server: builder.start().unwrap(),
            watch: watch(&ledger),
            folder,
            ledger,
        }
    }

    /// Feeds everything that the server has written since, in odd pieces.
    async fn seen(&mut self) -> Vec<Seen> {
        let client = self.server.connect().await.unwrap();
        let row = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]);
        let end: Lsn = row.await.unwrap().get::<_, String>(0).parse().unwrap();
        let (start, bytes) = log_bytes(self.server.data_dir());
        let mut at = self.watch.position().unwrap_or(start);
        let mut seen = Vec::new();
        while at < end {
            let next = Lsn((at.0 + 77_777).min(end.0));
            let from = usize::try_from(at.0 - start.0).unwrap();
            let to = usize::try_from(next.0 - start.0).unwrap();
            seen.extend(self.watch.feed(at, &bytes[from..to]).unwrap());
            at = next;
        }
        seen
    }

    /// Runs `statements` and expects that they destroy what `expected` says, and nothing else.
    async fn expect(&mut self, statements: &str, expected: &[(Destroyed, u64)]) {
        run(&self.server, statements).await;
        let seen = self.seen().await;
        let got: Vec<(Destroyed, u64)> = seen
            .iter()
            .map(|seen| (seen.what, seen.relations))
            .collect();
        assert_eq!(got, expected, "{statements}");
    }
}

const TABLES: &str = "
    CREATE TABLE a (id int PRIMARY KEY, note text);
    INSERT INTO a SELECT n, repeat('x', 50) FROM generate_series(1, 3000) AS n;
    CREATE TABLE b (id int); INSERT INTO b SELECT generate_series(1, 3000);
    CREATE SCHEMA s; CREATE TABLE s.c (id int PRIMARY KEY); CREATE TABLE s.d (t text);
    INSERT INTO s.c SELECT generate_series(1, 100); INSERT INTO s.d VALUES ('x');
    CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM a;
    CREATE TABLE n (id int); CREATE TABLE parts (id int) PARTITION BY LIST (id);
    CREATE TABLE part1 PARTITION OF parts FOR VALUES IN (1); INSERT INTO parts VALUES (1);
    CHECKPOINT";

#[tokio::test]
async fn drops_and_truncates_are_seen() {
    use Destroyed::{Database, Tables, TruncatedTables};
    for installation in postgres::all().unwrap() {
        let mut watched = Watched::start(&installation, &[]);
        watched.expect(TABLES, &[]).await;
        // A table with a key and TOAST has four files.
        watched.expect("DROP TABLE a CASCADE", &[(Tables, 5)]).await;
        watched.expect("TRUNCATE b", &[(TruncatedTables, 1)]).await;
        // Emptied and filled again in one transaction: what was there is gone all the same.
        watched
            .expect("INSERT INTO b VALUES (1); CHECKPOINT", &[])
            .await;
        let refill = "BEGIN; TRUNCATE b; INSERT INTO b SELECT generate_series(1, 500); COMMIT";
        watched.expect(refill, &[(TruncatedTables, 1)]).await;
        let swap = "BEGIN; DROP TABLE b; CREATE TABLE b (id int); COMMIT";
        watched.expect(swap, &[(Tables, 1)]).await;
        watched
            .expect("DROP SCHEMA s CASCADE", &[(Tables, 5)])
            .await;
        watched.expect("DROP TABLE parts", &[(Tables, 1)]).await;
        let sub = "BEGIN; SAVEPOINT x; DROP TABLE b; RELEASE x; COMMIT";
        watched.expect(sub, &[(Tables, 1)]).await;
        let prepared = "BEGIN; DROP TABLE n; PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'";
        watched.expect(prepared, &[(Tables, 1)]).await;
        watched.expect("CREATE DATABASE doomed", &[]).await;
        watched
            .expect("DROP DATABASE doomed", &[(Database, 0)])
            .await;
    }
}

#[tokio::test]
async fn rewrites_and_temporary_tables_are_not_destruction() {
    for installation in postgres::all().unwrap() {
        let mut watched = Watched::start(&installation, &[]);
        watched.expect(TABLES, &[]).await;
        for harmless in [
            "CREATE TEMP TABLE t (id int PRIMARY KEY, n text); INSERT INTO t VALUES (1, 'x'); DROP TABLE t",
            "CREATE TEMP TABLE u (id int); INSERT INTO u VALUES (1); TRUNCATE u",
            "REINDEX TABLE a",
            "REINDEX DATABASE postgres",
            "REINDEX TABLE CONCURRENTLY a",
            "VACUUM FULL a",
            "VACUUM FULL n",
            "CLUSTER a USING a_pkey",
            "CREATE INDEX i ON a (note)",
            "DROP INDEX i",
            "CREATE INDEX CONCURRENTLY j ON a (note)",
            "DROP INDEX CONCURRENTLY j",
            "CREATE INDEX g ON a USING gin (to_tsvector('simple', note))",
            "CREATE INDEX h ON a USING hash (note)",
            "CREATE INDEX k ON a USING brin (id)",
            "CREATE INDEX l ON a USING spgist (note)",
            "REINDEX TABLE a",
            "ALTER TABLE a ADD COLUMN extra int DEFAULT random() * 10",
            "ALTER TABLE n ALTER id TYPE bigint",
            "ALTER TABLE a ALTER id TYPE bigint",
            "ALTER TABLE b SET UNLOGGED",
            "ALTER TABLE b SET LOGGED",
            "REFRESH MATERIALIZED VIEW m",
            "CREATE TABLE fresh AS SELECT * FROM b",
            "BEGIN; CREATE TABLE gone (id int); INSERT INTO gone VALUES (1); DROP TABLE gone; COMMIT",
            "BEGIN; CREATE TABLE kept (id int); INSERT INTO kept VALUES (1); TRUNCATE kept; COMMIT",
            "BEGIN; DROP TABLE a CASCADE; ROLLBACK",
            "BEGIN; SAVEPOINT x; TRUNCATE a; ROLLBACK TO x; INSERT INTO a VALUES (-1); COMMIT",
            "BEGIN; DROP TABLE b; PREPARE TRANSACTION 'q'; ROLLBACK PREPARED 'q'",
            "CREATE SEQUENCE q; SELECT nextval('q'); ALTER SEQUENCE q RESTART 5; DROP SEQUENCE q",
            "DELETE FROM b WHERE id > 2000; VACUUM b",
            "CREATE DATABASE copy; ALTER DATABASE copy RENAME TO other; CHECKPOINT",
            // The catalogs themselves move, and are followed.
            "VACUUM FULL",
            "CREATE INDEX i2 ON a (note); DROP INDEX i2",
            "REINDEX TABLE CONCURRENTLY a",
        ] {
            watched.expect(harmless, &[]).await;
        }
        let truncate = [(Destroyed::TruncatedTables, 1)];
        watched.expect("TRUNCATE b", &truncate).await;
    }
}

#[tokio::test]
async fn the_ledger_names_a_position_just_before_and_never_twice() {
    let installation = postgres::newest().unwrap();
    let mut watched = Watched::start(&installation, &[]);
    watched.expect(TABLES, &[]).await;
    run(&watched.server, "DROP TABLE a CASCADE; TRUNCATE b").await;
    let seen = watched.seen().await;
    assert_eq!(seen.len(), 2);
    assert_eq!(watched.watch.newest_commit(), Some(seen[1].commit_time));
    let mut entries = Vec::new();
    let verify = |entries: &mut Vec<_>| {
        entries.clear();
        ledger::verify(watched.folder.path(), &key().verifying_key(), |entry| {
            if entry.draft.kind == "source.destruction_seen" {
                entries.push(entry.draft.clone());
            }
        })
        .unwrap();
    };
    verify(&mut entries);
    assert_eq!(entries.len(), 2);
    for (entry, seen) in entries.iter().zip(&seen) {
        assert_eq!(entry.action.as_ref(), Some(&seen.action));
        assert_eq!(entry.body["before_lsn"], seen.before.to_string());
        assert_eq!(entry.body["commit_time"], seen.commit_time.to_string());
        assert_eq!(entry.body["xid"], seen.xid);
        assert_eq!(entry.body["relations"], seen.relations);
        assert_eq!(entry.body["timeline"], 1);
    }
    // Whoever begins again in the middle writes nothing twice, and names what it finds the same.
    let (start, bytes) = log_bytes(watched.server.data_dir());
    let end = watched.watch.position().unwrap();
    let bytes = &bytes[..usize::try_from(end.0 - start.0).unwrap()];
    for at in [0_usize, 8192, 8192 * 3 + 100] {
        let mut again = watch(&watched.ledger);
        let from = Lsn(start.0 + u64::try_from(at).unwrap());
        assert_eq!(again.feed(from, &bytes[at..]).unwrap(), Vec::new());
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let empty = Ledger::open(elsewhere.path(), key(), Timestamp(1)).unwrap();
    assert_eq!(watch(&empty).feed(start, bytes).unwrap(), seen);
    verify(&mut entries);
    assert_eq!(entries.len(), 2);
}
