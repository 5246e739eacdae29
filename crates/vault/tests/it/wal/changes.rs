//! The blocks that the log changed, compared with what PostgreSQL itself found in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use holdfast_core::Lsn;
use holdfast_testing::postgres::{self, Server};
use holdfast_wire::pg::wal::{Changes, Fork, WalReader, WalShape};

use super::{SEGMENT, log_bytes, run};

/// Tablespace, database, file and fork; then the limit, and the blocks below it.
type Found = BTreeMap<(u32, u32, u32, u32), (Option<u32>, BTreeSet<u32>)>;

const WORK: &str = "
    CREATE TABLE t (id int PRIMARY KEY, note text, at point, tags int[]);
    INSERT INTO t SELECT n, repeat('x', n % 900), point(n, -n), ARRAY[n, n % 7]
        FROM generate_series(1, 6000) AS n;
    CREATE INDEX ON t USING gin (tags);
    CREATE INDEX ON t USING gist (at);
    CREATE INDEX ON t USING spgist (at);
    CREATE INDEX ON t USING brin (id);
    CREATE INDEX ON t USING hash (note);
    CHECKPOINT;
    UPDATE t SET note = note || 'y', at = point(id, id) WHERE id % 3 = 0;
    DELETE FROM t WHERE id > 3000;
    VACUUM t;
    CREATE UNLOGGED TABLE u (n int PRIMARY KEY);
    INSERT INTO u SELECT generate_series(1, 1000);
    ALTER TABLE u SET LOGGED;
    CREATE SEQUENCE numbers;
    SELECT nextval('numbers') FROM generate_series(1, 100);
    SELECT lo_from_bytea(0, decode(repeat('ab', 100000), 'hex'));
    CHECKPOINT;
    BEGIN; CREATE TABLE never (n int); INSERT INTO never VALUES (1); ROLLBACK;
    TRUNCATE u;
    INSERT INTO u SELECT generate_series(1, 10);
    VACUUM FULL t;
    CLUSTER t USING t_pkey;
    DROP TABLE u;
    CREATE DATABASE copied STRATEGY file_copy;
    CREATE DATABASE logged STRATEGY wal_log;
    DROP DATABASE copied;
    REINDEX TABLE t;
    VACUUM FREEZE;
    CHECKPOINT;";

#[tokio::test]
async fn changed_blocks_are_those_that_postgresql_summarised() {
    let newest = postgres::newest().unwrap();
    if newest.major < 17 {
        eprintln!("no PostgreSQL here summarises its log");
        return;
    }
    let server = Server::builder(&newest)
        .initdb_arg("--wal-segsize=1")
        .setting("fsync", "off")
        .setting("summarize_wal", "on")
        .setting("wal_keep_size", "500MB")
        .setting("autovacuum", "off")
        .start()
        .unwrap();
    run(&server, WORK).await;
    let summaries = summaries(&server).await;
    let (start, bytes) = log_bytes(server.data_dir());
    let mut most = 0;
    for ((from, to), theirs) in &summaries {
        let mut reader = WalReader::new(WalShape {
            segment_bytes: SEGMENT,
            system_identifier: None,
        });
        let mut changes = Changes::default();
        let mut seen = Lsn::ZERO;
        let _ = reader.feed(start, &bytes, &mut |record| {
            seen = record.end;
            if (*from..*to).contains(&record.start) {
                changes.apply(record)?;
            }
            Ok(())
        });
        assert!(seen >= *to, "{seen} {to}");
        let ours = ours(&changes);
        for (key, their) in theirs {
            assert_eq!(ours.get(key), Some(their), "{key:?} from {from} to {to}");
        }
        assert_eq!(ours.len(), theirs.len());
        most = theirs
            .values()
            .map(|(_, blocks)| blocks.len())
            .fold(most, usize::max);
    }
    assert!(
        summaries.len() > 3 && most > 100,
        "{} {most}",
        summaries.len()
    );
}

fn ours(changes: &Changes) -> Found {
    let mut found = Found::new();
    for (tablespace, database) in changes.databases() {
        found.insert((tablespace, database, 0, 0), (Some(0), BTreeSet::new()));
    }
    for (relation, fork, blocks) in changes.forks() {
        let number = if fork == Fork::Main { 0 } else { 3 };
        let key = (
            relation.tablespace,
            relation.database,
            relation.file,
            number,
        );
        let below = 0..blocks.limit().unwrap_or(u32::MAX);
        let numbers = blocks.ranges(below).into_iter().flatten().collect();
        found.insert(key, (blocks.limit(), numbers));
    }
    found
}

/// Waits until all of the log was summarised, and returns what each summary says of its part.
async fn summaries(server: &Server) -> BTreeMap<(Lsn, Lsn), Found> {
    let client = server.connect().await.unwrap();
    let lsn = |row: &tokio_postgres::Row, at: usize| {
        let text: Option<String> = row.get(at);
        text.and_then(|text| text.parse::<Lsn>().ok())
    };
    let redo = "SELECT redo_lsn::text FROM pg_control_checkpoint()";
    let redo = lsn(&client.query_one(redo, &[]).await.unwrap(), 0).unwrap();
    let began = Instant::now();
    loop {
        let end = "SELECT max(end_lsn)::text FROM pg_available_wal_summaries()";
        if lsn(&client.query_one(end, &[]).await.unwrap(), 0) >= Some(redo) {
            break;
        }
        assert!(began.elapsed() < LIMIT, "no summary up to {redo}");
        tokio::time::sleep(POLL).await;
    }
    let contents = "SELECT start_lsn::text, end_lsn::text, reltablespace::int8, reldatabase::int8,
            relfilenode::int8, relforknumber::int8, relblocknumber, is_limit_block
        FROM pg_available_wal_summaries() AS s,
            LATERAL pg_wal_summary_contents(s.tli, s.start_lsn, s.end_lsn)
        WHERE relforknumber IN (0, 3)";
    let mut summaries = BTreeMap::<(Lsn, Lsn), Found>::new();
    for row in client.query(contents, &[]).await.unwrap() {
        let number = |at: usize| u32::try_from(row.get::<_, i64>(at)).unwrap();
        let of = (lsn(&row, 0).unwrap(), lsn(&row, 1).unwrap());
        let found = summaries.entry(of).or_default();
        let (limit, blocks) = found
            .entry((number(2), number(3), number(4), number(5)))
            .or_default();
        if row.get(7) {
            *limit = Some(limit.unwrap_or(u32::MAX).min(number(6)));
        } else {
            blocks.insert(number(6));
        }
    }
    for (limit, blocks) in summaries.values_mut().flat_map(BTreeMap::values_mut) {
        blocks.retain(|block| limit.is_none_or(|limit| *block < limit));
    }
    summaries
}

/// How long the server may take to summarise.
const LIMIT: Duration = Duration::from_secs(60);
/// How often it is asked.
const POLL: Duration = Duration::from_millis(10);
