//! Targets that are found in the log before anything is written, and timelines.

use holdfast_core::{Coded, Lsn, Timestamp};
use holdfast_testing::postgres;
use holdfast_vault::{RestoreTarget, Start, named_points, restore};

use crate::kept::{Kept, Running, quiet};

const ROWS: &str = "SELECT string_agg(n::text, ',' ORDER BY n) FROM t";
const NOW: &str =
    "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";

fn insert(kept: &Kept, row: u32) -> u64 {
    let sql = format!(
        "WITH new AS (INSERT INTO t VALUES ({row}) RETURNING n) SELECT pg_current_xact_id()::text FROM new"
    );
    kept.ask(&sql).parse().unwrap()
}

fn name(kept: &Kept, name: &str) {
    kept.ask(&format!("SELECT pg_create_restore_point('{name}')::text"));
    // Naming alone flushes nothing.
    kept.sql("CREATE TABLE flushed (n int); DROP TABLE flushed");
}

fn target(text: &str) -> RestoreTarget {
    text.parse().unwrap()
}

#[test]
fn a_transaction_and_a_named_point_are_found_in_the_log() {
    for installation in [postgres::oldest().unwrap(), postgres::newest().unwrap()] {
        let mut kept = Kept::start(&installation, &[]);
        kept.sql("CREATE TABLE t (n int PRIMARY KEY)");
        kept.base();
        insert(&kept, 1);
        let second = insert(&kept, 2);
        kept.sql("BEGIN; INSERT INTO t VALUES (90); ROLLBACK");
        kept.sql("BEGIN; SAVEPOINT a; INSERT INTO t VALUES (3); RELEASE a; COMMIT");
        name(&kept, "migration");
        insert(&kept, 4);
        kept.base();
        name(&kept, "migration");
        kept.sql("SELECT pg_switch_wal()");
        name(&kept, "after");
        insert(&kept, 5);
        kept.ship();
        let rows = |kept: &mut Kept, at: &str| {
            let restored = kept.restore(target(at)).unwrap();
            let rows = restored.ask(ROWS);
            (rows, restored.restored.clone())
        };
        let (second, rolled_back) = (format!("xid:{second}"), format!("xid:{}", second + 1));
        let nested = format!("xid:{}", rolled_back[4..].parse::<u64>().unwrap() + 2);
        assert_eq!(rows(&mut kept, &second).0, "1,2");
        let (there, told) = rows(&mut kept, &rolled_back);
        assert_eq!(there, "1,2");
        assert!(told.notes[0].contains("rolled back"), "{:?}", told.notes);
        let (there, told) = rows(&mut kept, &nested);
        assert_eq!(there, "1,2,3");
        assert!(
            told.notes[0].contains("a part of transaction"),
            "{:?}",
            told.notes
        );
        let (there, told) = rows(&mut kept, "name:migration");
        assert_eq!(there, "1,2,3,4");
        assert!(
            told.notes[0].contains("2 points have that name"),
            "{:?}",
            told.notes
        );
        // The note says where the older one is.
        let older = told.notes[0].rsplit("before it: ").next().unwrap();
        let older = older.split(' ').next().unwrap();
        assert_eq!(rows(&mut kept, older).0, "1,2,3");
        let (there, told) = rows(&mut kept, "name:after");
        assert_eq!(there, "1,2,3,4");
        assert!(told.found.unwrap().time.is_some() && told.notes.is_empty());
    }
}

#[test]
fn a_transaction_or_name_that_is_not_there_is_refused_with_those_that_are() {
    let installation = postgres::newest().unwrap();
    let mut kept = Kept::start(&installation, &[]);
    kept.sql("CREATE TABLE t (n int PRIMARY KEY)");
    kept.base();
    let first = insert(&kept, 1);
    name(&kept, "Before the Migration");
    name(&kept, "release-7");
    let last = insert(&kept, 2);
    kept.ship();
    for (at, why, nearest) in [
        (
            format!("xid:{}", last + 5),
            "no transaction",
            vec![format!("xid:{last}")],
        ),
        ("xid:3".to_owned(), "no transaction", vec![]),
        (
            "name:migration".to_owned(),
            "nobody has named",
            vec![
                "name:Before the Migration".to_owned(),
                "name:release-7".to_owned(),
            ],
        ),
    ] {
        let request = kept.request(target(&at));
        let refused = restore(&kept.place(), &request, &quiet()).unwrap_err();
        let hint = refused.hint().unwrap();
        assert_eq!(refused.code().as_str(), "ZU304", "{at}: {refused}");
        assert!(refused.to_string().contains(why), "{at}: {refused}");
        assert!(hint.contains("nothing was written"), "{at}: {hint}");
        let mut rest = hint.as_str();
        for near in nearest {
            rest = rest
                .split_once(&near)
                .unwrap_or_else(|| panic!("{at}: {near} in {hint}"))
                .1;
        }
        assert!(!request.into.exists(), "{at}");
    }
    assert!(first < last);
    let prepared = "SELECT pg_current_xact_id()::text";
    let open = kept.ask(prepared);
    assert!(kept.restore(target(&format!("xid:{open}"))).is_err());
}

#[test]
fn a_target_in_a_hole_of_the_log_is_refused_with_both_sides() {
    let installation = postgres::newest().unwrap();
    let mut kept = Kept::start(&installation, &[]);
    kept.sql("CREATE TABLE t (n int PRIMARY KEY)");
    kept.base();
    insert(&kept, 1);
    let end = kept.ship();
    let late: Timestamp = kept.ask(NOW).parse().unwrap();
    insert(&kept, 2);
    let inside = kept.flushed();
    kept.skip();
    kept.base();
    insert(&kept, 3);
    kept.ship();
    for (at, is_time) in [
        (RestoreTarget::Lsn(inside), false),
        (RestoreTarget::Time(late), true),
    ] {
        let request = kept.request(at.clone());
        let refused = restore(&kept.place(), &request, &quiet()).unwrap_err();
        assert_eq!(refused.code().as_str(), "ZU304", "{at}: {refused}");
        assert!(
            refused.to_string().contains("log is missing from"),
            "{refused}"
        );
        assert!(refused.to_string().contains(&end.to_string()), "{refused}");
        assert!(!request.into.exists());
        let hint = refused.hint().unwrap();
        let nearest: Vec<&str> = hint.split('`').skip(1).step_by(2).collect();
        let [before, behind] = nearest[..] else {
            panic!("{hint}")
        };
        for (near, rows) in [(before, "1"), (behind, "1,2")] {
            let restored = kept.restore(target(near)).unwrap();
            assert_eq!(restored.ask(ROWS), rows, "{near}");
        }
        assert_eq!(
            target(before).to_string().contains('T'),
            is_time,
            "{before}"
        );
    }
    let restored = kept.restore(RestoreTarget::Latest).unwrap();
    assert_eq!(restored.ask(ROWS), "1,2,3");
}

#[test]
fn a_timeline_that_the_source_has_left_comes_back_when_it_is_asked_for() {
    let installation = postgres::newest().unwrap();
    let mut kept = Kept::start(&installation, &[]);
    kept.sql("CREATE TABLE t (n int PRIMARY KEY)");
    kept.base();
    insert(&kept, 1);
    let left = kept.flushed();
    insert(&kept, 2);
    name(&kept, "left behind");
    let end = kept.ship();
    let promoted = kept.restore(RestoreTarget::BeforeLsn(left)).unwrap();
    promoted.sql("SELECT pg_create_restore_point('in use'); INSERT INTO t VALUES (3)");
    kept.ship_descendant(&promoted, 2);
    drop(promoted);
    let on = |kept: &mut Kept, timeline, at: RestoreTarget| {
        let mut request = kept.request(at);
        request.timeline = timeline;
        kept.bring(&request)
    };
    let timeline = |restored: &Running| {
        restored.ask("SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 8, 1)")
    };
    let newest = on(&mut kept, None, RestoreTarget::Latest).unwrap();
    assert_eq!(
        (newest.ask(ROWS).as_str(), newest.restored.timeline),
        ("1,3", 2)
    );
    assert_eq!(timeline(&newest), "3");
    drop(newest);
    let older = on(&mut kept, Some(1), RestoreTarget::Latest).unwrap();
    assert_eq!(
        (older.ask(ROWS).as_str(), older.restored.timeline),
        ("1,2", 1)
    );
    // Timeline 2 is taken, though this one never was on it.
    assert_eq!(timeline(&older), "3");
    drop(older);
    let older = on(&mut kept, Some(1), RestoreTarget::Lsn(end)).unwrap();
    assert_eq!(older.ask(ROWS), "1,2");
    drop(older);
    let named = on(&mut kept, None, target("name:left behind")).unwrap();
    assert_eq!(named.ask(ROWS), "1,2");
    let notes = &named.restored.notes;
    assert!(
        notes[0].contains("timeline 1, which the source has left"),
        "{notes:?}"
    );
    drop(named);
    let refused = on(&mut kept, Some(7), RestoreTarget::Latest).err().unwrap();
    assert!(refused.to_string().contains("only 2, 1"), "{refused}");

    let listed = named_points(&kept.place(), None).unwrap();
    let said: Vec<_> = listed
        .iter()
        .map(|point| {
            (
                point.name.as_str(),
                point.timeline,
                point.is_left,
                point.is_reachable,
            )
        })
        .collect();
    assert_eq!(
        said,
        [("left behind", 1, true, true), ("in use", 2, false, true)]
    );
}

#[test]
fn named_points_of_closed_segments_are_read_once() {
    let installation = postgres::oldest().unwrap();
    let mut kept = Kept::start(&installation, &[]);
    std::fs::create_dir_all(kept.place().state).unwrap();
    kept.base();
    for number in 0..6 {
        name(&kept, &format!("point {number}"));
        kept.sql("SELECT pg_switch_wal(); CHECKPOINT");
    }
    kept.ship();
    let names = |kept: &Kept| -> Vec<(String, Lsn)> {
        let listed = named_points(&kept.place(), Some(&kept.at.source)).unwrap();
        listed
            .into_iter()
            .map(|point| (point.name, point.lsn))
            .collect()
    };
    let first = names(&kept);
    assert_eq!(first.len(), 6, "{first:?}");
    // What is remembered is not read again: it may even be unreadable.
    let wal = kept.folder.path().join("repository/prod/wal");
    let oldest = first[0].1;
    let object = find(&wal, &kept.at.segment_name(oldest));
    let bytes = std::fs::read(&object).unwrap();
    replace(&object, b"not an object");
    assert_eq!(names(&kept), first);
    replace(&object, &bytes);
    // A torn memory costs only the work.
    let memory = find(&kept.place().state.join("names"), ".jsonl");
    let text = std::fs::read_to_string(&memory).unwrap();
    std::fs::write(&memory, &text[..text.len() / 2]).unwrap();
    assert_eq!(names(&kept), first);
    assert_eq!(names(&kept), first);
    let request = kept.request(target("name:point 3"));
    assert_eq!(request.start, Start::Yes { port: None });
    let restored = kept.bring(&request).unwrap();
    assert_eq!(restored.restored.found.unwrap().lsn, first[3].1);
}

fn find(folder: &std::path::Path, name: &str) -> std::path::PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().contains(name) {
                return path;
            }
        }
    }
    panic!("no {name}")
}

fn replace(path: &std::path::Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}
