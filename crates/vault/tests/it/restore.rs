//! Restores of real servers, to every kind of target.

use holdfast_core::{Coded, Timestamp};
use holdfast_testing::dirs::TestDir;
use holdfast_testing::postgres;
use holdfast_vault::RestoreTarget;

use crate::kept::Kept;

/// A digest of everything that the tests write.
const DIGEST: &str = "SELECT md5(string_agg(t::text, '|' ORDER BY n)) FROM t";
const COUNT: &str = "SELECT count(*)::text FROM t";

#[test]
fn a_restore_to_the_latest_position_equals_the_source() {
    for installation in postgres::all().unwrap() {
        let mut kept = Kept::start(&installation, &[]);
        kept.sql(
            "CREATE TABLE t (n int PRIMARY KEY, body text);
             INSERT INTO t SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 20000) n;
             CREATE ROLE app LOGIN PASSWORD 'secret';",
        );
        kept.base();
        kept.sql("INSERT INTO t SELECT n, md5(n::text) FROM generate_series(20001, 30000) n");
        kept.ship();
        kept.sql("DELETE FROM t WHERE n % 7 = 0");
        let end = kept.ship();
        let restored = kept.restore(RestoreTarget::Latest).unwrap();
        assert_eq!(restored.ask(DIGEST), kept.ask(DIGEST));
        assert_eq!(restored.restored.wal_end, end);
        assert_eq!(restored.ask("SELECT pg_is_in_recovery()::text"), "false");
        // It takes writes and waits for nobody.
        restored.sql("INSERT INTO t VALUES (0, 'after')");
        let port = restored.restored.server.as_ref().unwrap().port;
        let app = format!("postgres://app:secret@127.0.0.1:{port}/postgres");
        assert_eq!(crate::kept::ask(&app, "SELECT current_user::text"), "app");
        let took = restored.restored.promoted_s.unwrap();
        println!(
            "PostgreSQL {}: files {:.2} s, writable {took:.2} s",
            installation.major, restored.restored.files_s
        );
    }
}

#[test]
fn every_kind_of_target_brings_back_its_moment() {
    for installation in postgres::all().unwrap() {
        let mut kept = Kept::start(&installation, &[]);
        kept.sql("CREATE TABLE t (n int PRIMARY KEY)");
        kept.base();
        kept.sql("INSERT INTO t VALUES (1)");
        let time = kept.ask(
            "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
        );
        let time: Timestamp = time.parse().unwrap();
        kept.sql("INSERT INTO t VALUES (2)");
        let before = kept.flushed();
        kept.sql("DROP TABLE t");
        kept.sql("CREATE TABLE other (n int)");
        kept.ship();

        let restored = kept.restore(RestoreTarget::Time(time)).unwrap();
        assert_eq!(restored.ask(COUNT), "1");
        drop(restored);
        let restored = kept.restore(RestoreTarget::BeforeLsn(before)).unwrap();
        assert_eq!(restored.ask(COUNT), "2");
        drop(restored);
        let restored = kept.restore(RestoreTarget::Lsn(before)).unwrap();
        assert_eq!(restored.ask(COUNT), "2");
        drop(restored);
        let restored = kept.restore(RestoreTarget::Latest).unwrap();
        assert_eq!(restored.ask("SELECT to_regclass('t')::text"), "");
        assert_eq!(restored.ask("SELECT to_regclass('other')::text"), "other");
    }
}

#[test]
fn what_is_only_in_the_spool_is_brought_back_too() {
    let installation = postgres::newest().unwrap();
    let mut kept = Kept::start(&installation, &[]);
    kept.sql("CREATE TABLE t (n int PRIMARY KEY, body text)");
    kept.base();
    kept.sql("INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 30000) n");
    let end = kept.spool();
    let restored = kept.restore(RestoreTarget::Latest).unwrap();
    assert_eq!(restored.ask(COUNT), "30000");
    assert_eq!(restored.restored.wal_end, end);
}

#[test]
fn targets_that_cannot_be_are_refused_with_the_nearest_that_can() {
    let installation = postgres::oldest().unwrap();
    let mut kept = Kept::start(&installation, &[]);
    let empty = kept.restore(RestoreTarget::Latest).err().unwrap();
    assert_eq!(empty.code().as_str(), "ZU307");
    kept.base();
    let end = kept.ship();
    for (target, nearest) in [
        (
            RestoreTarget::Lsn(holdfast_core::Lsn(u64::MAX)),
            end.to_string(),
        ),
        (
            RestoreTarget::BeforeLsn(holdfast_core::Lsn(1)),
            "0/".to_owned(),
        ),
        (RestoreTarget::Time(Timestamp(0)), "20".to_owned()),
        (
            RestoreTarget::Time(Timestamp(i64::MAX / 4)),
            "latest".to_owned(),
        ),
    ] {
        let refused = kept.restore(target.clone()).err().unwrap();
        assert_eq!(refused.code().as_str(), "ZU304", "{target}: {refused}");
        let hint = refused.hint().unwrap();
        assert!(hint.contains(&nearest), "{target}: {hint}");
    }
}

#[test]
fn a_tablespace_of_the_source_is_never_touched_by_a_restore_beside_it() {
    for installation in postgres::all().unwrap() {
        let mut kept = Kept::start(&installation, &[]);
        kept.sql("CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1)");
        kept.base();
        let place = TestDir::for_server("space").unwrap();
        kept.sql(&format!(
            "CREATE TABLESPACE space LOCATION '{}'",
            place.path().display()
        ));
        kept.sql("CREATE TABLE there (n int) TABLESPACE space; INSERT INTO there VALUES (7)");
        kept.sql("CHECKPOINT");
        kept.ship();
        let refused = kept.restore(RestoreTarget::Latest).err().unwrap();
        assert_eq!(refused.code().as_str(), "ZU304", "{refused}");
        let hint = refused.hint().unwrap();
        let nearest = hint.split('`').nth(1).unwrap().parse().unwrap();
        let restored = kept.restore(nearest).unwrap();
        assert_eq!(restored.ask(COUNT), "1");
        drop(restored);
        // What the source has there is read from its files again.
        kept.server.restart().unwrap();
        assert_eq!(kept.ask("SELECT sum(n)::text FROM there"), "7");
    }
}
