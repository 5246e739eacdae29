//! The log that real servers write, compared with what the servers' own tools read in it.

mod changes;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use holdfast_core::Lsn;
use holdfast_testing::postgres::{self, Server};
use holdfast_wire::pg::wal::{Event, Fork, WalError, WalReader, WalShape};

pub(crate) const SEGMENT: u32 = 1 << 20;

/// One record in words that our reader, `pg_waldump` and `pg_walinspect` have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    start: Lsn,
    previous: Lsn,
    xid: u32,
    rmgr: u8,
    length: u32,
    blocks: Vec<String>,
}

/// All bytes of the log that lie in `pg_wal`, with the position of the first.
pub(crate) fn log_bytes(data_dir: &Path) -> (Lsn, Vec<u8>) {
    let mut segments = BTreeMap::new();
    for entry in std::fs::read_dir(data_dir.join("pg_wal")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let high = u64::from_str_radix(&name[8..16], 16).unwrap();
            let low = u64::from_str_radix(&name[16..24], 16).unwrap();
            let start = (high << 32) + low * u64::from(SEGMENT);
            segments.insert(start, std::fs::read(entry.path()).unwrap());
        }
    }
    let first = *segments.first_key_value().unwrap().0;
    let mut bytes = Vec::new();
    for (start, segment) in segments {
        assert_eq!(start, first + u64::try_from(bytes.len()).unwrap());
        bytes.extend(segment);
    }
    (Lsn(first), bytes)
}

fn read(start: Lsn, bytes: &[u8], piece: usize) -> (Vec<Line>, Vec<Event>) {
    let shape = WalShape {
        segment_bytes: SEGMENT,
        system_identifier: None,
    };
    let mut reader = WalReader::new(shape);
    let mut lines = Vec::new();
    let mut events = Vec::new();
    let mut at = start;
    for piece in bytes.chunks(piece) {
        let done = reader.feed(at, piece, &mut |record| {
            let blocks = record.blocks()?.into_iter().map(|block| {
                let fork = match block.fork {
                    Fork::Main => "main",
                    Fork::FreeSpace => "fsm",
                    Fork::Visibility => "vm",
                    Fork::Init => "init",
                };
                let of = block.relation;
                format!(
                    "{}/{}/{} {fork} {}",
                    of.tablespace, of.database, of.file, block.block
                )
            });
            lines.push(Line {
                start: record.start,
                previous: record.previous,
                xid: record.xid,
                rmgr: record.rmgr.0,
                length: record.length,
                blocks: blocks.collect(),
            });
            record.row_change()?;
            events.extend(record.event()?);
            Ok(())
        });
        match done {
            Ok(()) => {}
            // Behind the newest record stand zeros, or what a recycled segment held before.
            Err(WalError::End { .. } | WalError::Page { .. } | WalError::Checksum { .. }) => break,
            Err(WalError::Record { .. }) => break,
            Err(error) => panic!("{error}"),
        }
        at = Lsn(at.0 + u64::try_from(piece.len()).unwrap());
    }
    (lines, events)
}

const WORK: &str = "
    CREATE TABLE small (id int PRIMARY KEY, note text);
    INSERT INTO small SELECT n, repeat('x', n % 900) FROM generate_series(1, 4000) AS n;
    UPDATE small SET note = note || 'y' WHERE id % 3 = 0;
    DELETE FROM small WHERE id % 7 = 0;
    CREATE INDEX ON small USING gin (to_tsvector('simple', note));
    CREATE INDEX ON small USING hash (note);
    CREATE INDEX ON small USING brin (id);
    CREATE TABLE wide (t text);
    ALTER TABLE wide ALTER t SET STORAGE EXTERNAL;
    INSERT INTO wide SELECT repeat('z', 700000) FROM generate_series(1, 3);
    SELECT pg_switch_wal();
    SELECT pg_create_restore_point('before the deploy');
    CREATE SEQUENCE numbers;
    SELECT nextval('numbers') FROM generate_series(1, 100);
    BEGIN; INSERT INTO small VALUES (-1); SAVEPOINT a; INSERT INTO small VALUES (-2);
    ROLLBACK TO a; SAVEPOINT b; INSERT INTO small VALUES (-3); COMMIT;
    BEGIN; INSERT INTO small VALUES (-4); ROLLBACK;
    SELECT pg_logical_emit_message(true, 'long', repeat('m', 3000000));
    BEGIN; CREATE TABLE later (n int); PREPARE TRANSACTION 'two';
    COMMIT PREPARED 'two';
    BEGIN; INSERT INTO later VALUES (1); PREPARE TRANSACTION 'three';
    ROLLBACK PREPARED 'three';
    CHECKPOINT;
    VACUUM small;
    DROP TABLE wide;
    TRUNCATE small;
    CREATE DATABASE extra; DROP DATABASE extra;";

fn server(installation: &postgres::Installation) -> Server {
    Server::builder(installation)
        .initdb_arg("--wal-segsize=1")
        .setting("fsync", "off")
        .setting("wal_level", "logical")
        .setting("max_prepared_transactions", "4")
        .setting("min_wal_size", "2MB")
        .setting("wal_keep_size", "200MB")
        .setting("autovacuum", "off")
        .start()
        .unwrap()
}

/// Runs statements one at a time, because some refuse to run in a transaction.
pub(crate) async fn run(server: &Server, statements: &str) {
    let client = server.connect().await.unwrap();
    for statement in statements.split(';').map(str::trim) {
        if !statement.is_empty() {
            let done = client.batch_execute(statement).await;
            done.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
    }
}

#[tokio::test]
async fn every_record_is_what_the_servers_own_reader_says() {
    for installation in postgres::all().unwrap() {
        let server = server(&installation);
        run(&server, "CREATE EXTENSION pg_walinspect").await;
        run(&server, WORK).await;
        let client = server.connect().await.unwrap();
        let row = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]);
        let flushed: Lsn = row.await.unwrap().get::<_, String>(0).parse().unwrap();
        let (start, bytes) = log_bytes(server.data_dir());
        let (mut ours, events) = read(start, &bytes, 100_000);
        ours.retain(|line| line.start < flushed);
        let from = ours.first().unwrap().start;
        let theirs = inspect(&client, from, flushed).await;
        assert!(theirs.len() > 10_000, "{}", theirs.len());
        compare(&ours, &theirs);
        expect_events(&events);

        let waldump = installation.program("pg_waldump");
        if waldump.exists() {
            compare(
                &ours,
                &waldump_lines(&waldump, server.data_dir(), from, flushed),
            );
        }
        // However it is cut, the same comes out.
        let (small, same_events) = read(start, &bytes, 997);
        assert_eq!(
            small.iter().filter(|line| line.start < flushed).count(),
            ours.len()
        );
        assert_eq!(&same_events, &events);
        // And from any page on, what follows is the same.
        let middle = usize::try_from(u64::from(SEGMENT) * 3 / 2).unwrap();
        let at = Lsn(start.0 + u64::try_from(middle).unwrap());
        let (rest, _) = read(at, &bytes[middle..], 8192);
        let rest: Vec<&Line> = rest.iter().filter(|line| line.start < flushed).collect();
        let tail: Vec<&Line> = ours
            .iter()
            .filter(|line| line.start >= rest[0].start)
            .collect();
        assert_eq!(rest, tail);
        assert!(rest.len() > 1000, "{}", rest.len());
    }
}

fn compare(ours: &[Line], theirs: &[Line]) {
    for (our, their) in ours.iter().zip(theirs) {
        assert_eq!(our, their);
    }
    assert_eq!(ours.len(), theirs.len());
}

fn expect_events(events: &[Event]) {
    let has = |what: &str, test: &dyn Fn(&Event) -> bool| {
        assert!(events.iter().any(test), "no {what}");
    };
    has("switch", &|e| matches!(e, Event::Switch));
    has(
        "restore point",
        &|e| matches!(e, Event::RestorePoint { name, .. } if name == "before the deploy"),
    );
    has(
        "commit with subtransactions",
        &|e| matches!(e, Event::Commit(commit) if commit.subtransactions.len() == 2),
    );
    has(
        "commit that drops",
        &|e| matches!(e, Event::Commit(commit) if commit.dropped_count == 3 && commit.dropped.len() == 3),
    );
    has(
        "commit of a prepared one",
        &|e| matches!(e, Event::Commit(commit) if commit.prepared && commit.xid != 0),
    );
    has(
        "abort",
        &|e| matches!(e, Event::Abort(abort) if !abort.prepared),
    );
    has(
        "abort of a prepared one",
        &|e| matches!(e, Event::Abort(abort) if abort.prepared && abort.xid != 0),
    );
    has(
        "truncate",
        &|e| matches!(e, Event::HeapTruncate { tables, .. } if tables.len() == 1),
    );
    has("file made", &|e| {
        matches!(
            e,
            Event::SmgrCreate {
                fork: Fork::Main,
                ..
            }
        )
    });
    has(
        "database drop",
        &|e| matches!(e, Event::DatabaseDrop { tablespaces, .. } if tablespaces == &[1663]),
    );
    has("locks", &|e| matches!(e, Event::ExclusiveLocks(_)));
    has(
        "running",
        &|e| matches!(e, Event::Running { next, oldest } if next >= oldest),
    );
    has("checkpoint", &|e| {
        matches!(
            e,
            Event::Checkpoint {
                shutdown: false,
                timeline: 1,
                ..
            }
        )
    });
}

macro_rules! inspect_rows {
    ($client:expr, $from:expr, $to:expr) => {
        $client
            .query(
                &format!(
                    "SELECT start_lsn::text, prev_lsn::text, xid::text::int8, resource_manager,
                            record_length, block_ref
                     FROM pg_get_wal_records_info('{}', '{}') WHERE start_lsn < '{}'",
                    $from, $to, $to
                ),
                &[],
            )
            .await
            .unwrap()
    };
}

async fn inspect(client: &tokio_postgres::Client, from: Lsn, to: Lsn) -> Vec<Line> {
    let rows = inspect_rows!(client, from, to);
    rows.iter()
        .map(|row| Line {
            start: row.get::<_, String>(0).parse().unwrap(),
            previous: row.get::<_, String>(1).parse().unwrap(),
            xid: u32::try_from(row.get::<_, i64>(2)).unwrap(),
            rmgr: rmgr(row.get(3)),
            length: u32::try_from(row.get::<_, i32>(4)).unwrap(),
            blocks: blocks(row.get::<_, Option<&str>>(5).unwrap_or_default()),
        })
        .collect()
}

fn waldump_lines(program: &Path, data_dir: &Path, from: Lsn, to: Lsn) -> Vec<Line> {
    let output = Command::new(program)
        .arg("-p")
        .arg(data_dir.join("pg_wal"))
        .args(["-s", &from.to_string(), "-e", &to.to_string()])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |text: &str| text.trim().parse::<u32>().unwrap();
    let after = |line: &str, word: &str, end: char| {
        let (_, rest) = line.split_once(word).unwrap();
        rest.split(end).next().unwrap().trim().to_owned()
    };
    text.lines()
        .map(|line| {
            let lengths = after(line, "len (rec/tot):", ',');
            Line {
                start: after(line, "lsn: ", ',').parse().unwrap(),
                previous: after(line, "prev ", ',').parse().unwrap(),
                xid: number(&after(line, "tx:", ',')),
                rmgr: rmgr(line.split_whitespace().nth(1).unwrap()),
                length: number(lengths.split_once('/').unwrap().1),
                blocks: blocks(line),
            }
        })
        .collect()
}

/// Reads `blkref #0: rel 1663/5/1249 fork main blk 1 (FPW); …` of any of the tools.
fn blocks(text: &str) -> Vec<String> {
    let read = |block: &str| {
        let words: Vec<&str> = block.split([' ', ',', ';']).collect();
        let after = |word| {
            words
                .iter()
                .position(|w| *w == word)
                .map(|at| words[at + 1])
        };
        let fork = after("fork").unwrap_or("main");
        format!("{} {fork} {}", after("rel").unwrap(), after("blk").unwrap())
    };
    text.split("blkref #").skip(1).map(read).collect()
}

fn rmgr(name: &str) -> u8 {
    let names = [
        "XLOG",
        "Transaction",
        "Storage",
        "CLOG",
        "Database",
        "Tablespace",
        "MultiXact",
        "RelMap",
        "Standby",
        "Heap2",
        "Heap",
        "Btree",
        "Hash",
        "Gin",
        "Gist",
        "Sequence",
        "SPGist",
        "BRIN",
        "CommitTs",
        "ReplicationOrigin",
        "Generic",
        "LogicalMessage",
    ];
    let at = names.iter().position(|known| *known == name.trim());
    u8::try_from(at.unwrap_or_else(|| panic!("{name}"))).unwrap()
}
