//! Thin clones of real servers: what they are, what they cannot reach, how they end.

mod mounted;

use std::path::Path;

use holdfast_core::{ByteCount, Coded};
use holdfast_testing::dirs::TestDir;
use holdfast_testing::postgres::{self, Server};
use holdfast_vault::RestoreTarget;
use holdfast_vault::clone::{
    CloneError, CloneRequest, ClonesConfig, Form, FormWish, Kept as Keeps, ThinClone, open,
};

use crate::kept::{Kept, ask, execute, quiet, try_ask, try_execute};

/// A request for clones in a folder of the test.
pub fn request(kept: &Kept, at: RestoreTarget) -> CloneRequest {
    let clones = ClonesConfig::beside(&kept.place().state);
    CloneRequest::new(clones, kept.at.source.clone(), at)
}

fn clone_of(kept: &Kept) -> ThinClone {
    kept.open_clone(&request(kept, RestoreTarget::Latest))
}

/// The form of a clone that nobody said anything about.
fn usual_form() -> Form {
    match holdfast_vault::mount::possible() {
        Ok(()) => Form::Mounted,
        Err(_) => Form::Restored,
    }
}

/// Everything that is in the folder of clones.
fn there(kept: &Kept) -> usize {
    let dir = ClonesConfig::beside(&kept.place().state).dir;
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

#[test]
fn a_clone_takes_writes_by_itself_and_leaves_nothing() {
    for installation in postgres::all().unwrap() {
        let mut kept = Kept::start(&installation, &[]);
        kept.sql(
            "CREATE TABLE t (n int PRIMARY KEY, body text);
             INSERT INTO t SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 20000) n;
             CREATE ROLE app LOGIN SUPERUSER PASSWORD 'secret';",
        );
        kept.base();
        kept.sql("DELETE FROM t WHERE n % 7 = 0");
        kept.ship();
        // The log moves by itself at rest; transactions do not.
        let untouched =
            "SELECT pg_snapshot_xmax(pg_current_snapshot())::text || (SELECT sum(xact_commit)
            FROM pg_stat_database WHERE datname = 'template1')";
        let before = kept.ask(untouched);
        let clone = clone_of(&kept);
        let shown = clone.shown();
        assert_eq!(shown.form, usual_form(), "{:?}", shown.notes);
        let digest = "SELECT md5(string_agg(t::text, '|' ORDER BY n)) FROM t";
        assert_eq!(ask(&shown.url, digest), kept.ask(digest));
        execute(&shown.url, "TRUNCATE t; CREATE TABLE mine (n int)");
        assert_eq!(kept.ask("SELECT count(*)::text FROM t"), "17143");
        // Nobody of the source comes in, by whichever password.
        let password = kept.server.password();
        for who in [&format!("postgres:{password}"), "app:secret", "postgres:x"] {
            let rest = shown.url.split_once('@').unwrap().1;
            let refused = try_ask(&format!("postgresql://{who}@{rest}"), "SELECT '1'");
            assert!(refused.is_err(), "{who}");
        }
        // The source has seen nothing of it.
        let sessions =
            "SELECT count(*)::text FROM pg_stat_activity WHERE backend_type = 'client backend'";
        assert_eq!(kept.ask(sessions), "1");
        assert_eq!(kept.ask(untouched), before);
        println!(
            "PostgreSQL {}: data {:.2} s, write {:.2} s, open {:.2} s; {:?}",
            installation.major,
            shown.took.data_s,
            shown.took.write_s,
            shown.took.open_s,
            shown.confinement
        );
        assert_eq!(there(&kept), 1);
        clone.close().unwrap();
        assert_eq!(there(&kept), 0);
        assert!(try_ask(&shown.url, "SELECT '1'").is_err());
    }
}

/// A source that reaches out in every way that a test can watch.
fn reaching_out(installation: &postgres::Installation, other: &Server, outbox: &Path) -> Kept {
    let archive = format!("cp %p {}/%f", outbox.display());
    let kept = Kept::start(
        installation,
        &[
            ("wal_level", "logical"),
            ("archive_mode", "on"),
            ("archive_command", &archive),
            ("shared_preload_libraries", "pg_stat_statements"),
        ],
    );
    let (port, password) = (other.port(), other.password());
    execute(
        &other.url(),
        "CREATE TABLE far (n int); INSERT INTO far VALUES (1); CREATE PUBLICATION p FOR TABLE far",
    );
    let socket = "/var/run/postgresql";
    kept.sql(&format!(
        "CREATE EXTENSION postgres_fdw; CREATE EXTENSION dblink;
         CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{port}', dbname 'postgres');
         CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user 'postgres', password '{password}');
         CREATE FOREIGN TABLE there (n int) SERVER far OPTIONS (table_name 'far');
         CREATE SERVER near FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{socket}');
         CREATE TABLE far (n int);
         CREATE SCHEMA cron; CREATE TABLE cron.job (n int, active bool); INSERT INTO cron.job VALUES (1, true);
         INSERT INTO there VALUES (2)"
    ));
    execute(
        &kept.server.url(),
        &format!(
            "CREATE SUBSCRIPTION sub CONNECTION 'host=127.0.0.1 port={port} user=postgres password={password} dbname=postgres' PUBLICATION p WITH (copy_data = false)"
        ),
    );
    kept
}

fn escapes_fail(url: &str, other: &Server, outbox: &Path) {
    let (port, password) = (other.port(), other.password());
    let reach = |host: &str| {
        format!(
            "SELECT dblink_exec('host={host} port={port} user=postgres password={password} dbname=postgres', 'INSERT INTO far VALUES (9)')"
        )
    };
    // With all rights in it, a clone has neither a network nor the machine's files.
    let sockets = other.data_dir().parent().unwrap().display().to_string();
    for host in ["127.0.0.1", "/var/run/postgresql", &sockets, "/tmp"] {
        assert!(try_ask(url, &reach(host)).is_err(), "{host}");
    }
    let outside = outbox.join("from-the-clone");
    let program = |command: &str| format!("COPY (SELECT 1) TO PROGRAM '{command}'");
    let out = outside.display();
    assert!(try_execute(url, &program(&format!("cat > {out}"))).is_err());
    assert!(try_execute(url, &format!("COPY (SELECT 1) TO '{out}'")).is_err());
    let connect = format!("bash -c \"exec 3<>/dev/tcp/127.0.0.1/{port}\"");
    assert!(try_execute(url, &program(&connect)).is_err());
    let kill = format!("kill -9 {}", other.pid().unwrap());
    assert!(try_execute(url, &program(&kill)).is_err());
    assert!(!outside.exists());
}

#[test]
fn a_clone_reaches_nothing_outside_whatever_its_source_does() {
    let installation = postgres::newest().unwrap();
    let other = Server::builder(&installation)
        .setting("wal_level", "logical")
        .start()
        .unwrap();
    let outbox = TestDir::for_server("outbox").unwrap();
    let mut kept = reaching_out(&installation, &other, outbox.path());
    kept.base();
    kept.ship();
    let archived = || std::fs::read_dir(outbox.path()).unwrap().count();
    let slot = "SELECT confirmed_flush_lsn::text || active FROM pg_replication_slots";
    // The source is gone: whatever happens from now on is the clone's.
    kept.server.stop_fast().unwrap();
    let (before, confirmed) = (archived(), ask(&other.url(), slot));
    let clone = clone_of(&kept);
    let shown = clone.shown();
    println!("{:?}", shown.confinement);
    let listed = |kind: &str, name: &str| {
        let is_it = |one: &&holdfast_vault::clone::Disabled| one.kind == kind && one.name == name;
        let found = shown.disabled.iter().find(is_it);
        found
            .unwrap_or_else(|| panic!("no {kind} {name} in {:?}", shown.disabled))
            .clone()
    };
    for (kind, name) in [
        ("subscription", "sub"),
        ("foreign server", "far"),
        ("foreign server", "near"),
        ("password of a foreign server", "far for postgres"),
        ("foreign data wrapper", "postgres_fdw"),
        ("jobs", "cron.job"),
        ("setting", "archive_command"),
    ] {
        assert!(
            !listed(kind, name).failed,
            "{kind} {name}: {:?}",
            shown.disabled
        );
    }
    execute(&other.url(), "INSERT INTO far VALUES (3)");
    let url = shown.url.as_str();
    execute(
        url,
        "CREATE TABLE much AS SELECT generate_series(1, 50000); SELECT pg_switch_wal(); CHECKPOINT",
    );
    assert!(try_ask(url, "SELECT count(*)::text FROM there").is_err());
    assert_eq!(
        ask(url, "SELECT count(*)::text FROM cron.job WHERE active"),
        "0"
    );
    assert_eq!(ask(url, "SELECT count(*)::text FROM far"), "0");
    let confinement = shown.confinement.clone().unwrap();
    match confinement.kept {
        Keeps::Enforced => escapes_fail(url, &other, outbox.path()),
        Keeps::Advisory => println!("advisory: {confinement:?}"),
    }
    assert_eq!(archived(), before);
    assert_eq!(ask(&other.url(), slot), confirmed);
    let far = "SELECT string_agg(n::text, ',' ORDER BY n) FROM far";
    assert_eq!(ask(&other.url(), far), "1,2,3");
    clone.close().unwrap();
}

#[test]
fn what_is_more_than_a_clone_may_have_is_refused_and_leaves_nothing() {
    let mut kept = Kept::start(&postgres::oldest().unwrap(), &[]);
    kept.base();
    kept.ship();
    let refuse = |request: &CloneRequest, what: &str| {
        let error = open(&kept.place(), request, &quiet()).err().unwrap();
        assert_eq!(error.code().as_str(), "ZU371", "{error}");
        assert!(error.to_string().contains(what), "{error}");
        assert!(error.hint().unwrap().contains("[vault.clones]"), "{error}");
    };
    let mut small = request(&kept, RestoreTarget::Latest);
    small.clones.form = FormWish::Restored;
    small.clones.disk_max = ByteCount(1 << 20);
    refuse(&small, "of the disk");
    let mut long = request(&kept, RestoreTarget::Latest);
    long.ttl = Some(long.clones.ttl_max + std::time::Duration::from_secs(1));
    refuse(&long, "lives for at most");
    let mut second = request(&kept, RestoreTarget::Latest);
    second.clones.count_max = 1;
    let clone = clone_of(&kept);
    refuse(&second, "there are 1 clones, and there may be 1");
    assert_eq!(there(&kept), 1);
    drop(clone);
    assert_eq!(there(&kept), 0);
    // A target that cannot be is refused as a restore refuses it.
    let at = "0/1".parse().unwrap();
    let none = open(&kept.place(), &request(&kept, at), &quiet())
        .err()
        .unwrap();
    assert!(matches!(none, CloneError::Restore(_)), "{none}");
    assert_eq!((none.code().as_str(), there(&kept)), ("ZU304", 0));
}
