//! Clones whose blocks come when they are touched.

use std::fs;
use std::path::Path;

use holdfast_core::Timestamp;
use holdfast_testing::postgres::{self, ServerUser};
use holdfast_vault::clone::{CloneRequest, Form, FormWish, ThinClone};
use holdfast_vault::{RestoreTarget, mount};

use super::{request, there};
use crate::kept::{Kept, Running, ask, execute, try_execute};

const DIGEST: &str = "SELECT md5(string_agg(t::text, '|' ORDER BY n)) FROM t";

/// A request for a mounted clone that brings nothing but what is asked for; `None` where nothing can be
/// mounted.
fn lazy(kept: &Kept, at: RestoreTarget) -> Option<CloneRequest> {
    if let Err(why) = mount::possible() {
        println!("skipped: {why}");
        return None;
    }
    let mut request = request(kept, at);
    request.clones.form = FormWish::Mounted;
    request.clones.hydrate = None;
    Some(request)
}

/// What a folder takes of the disk, without the log.
fn occupied(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let entries = entries.filter(|entry| entry.file_name() != "pg_wal");
    entries
        .map(|entry| match entry.metadata().unwrap() {
            facts if facts.is_dir() => occupied(&entry.path()),
            facts => facts.blocks() * 512,
        })
        .sum()
}

fn brought(clone: &ThinClone) -> u64 {
    let overlay = clone.shown().directory.join("overlay");
    occupied(&overlay.join("data")) + occupied(&overlay.join("partial"))
}

#[test]
fn the_first_write_of_a_mounted_clone_brings_a_small_share_of_its_point() {
    let installation = postgres::newest().unwrap();
    let mut kept = Kept::start(&installation, &[]);
    kept.sql(
        "CREATE TABLE t (n int PRIMARY KEY, body text);
         INSERT INTO t SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 30000) n;
         CREATE TABLE other AS SELECT * FROM t; CHECKPOINT",
    );
    kept.base();
    kept.sql("UPDATE t SET body = 'changed' WHERE n % 1000 = 0; DELETE FROM t WHERE n = 7");
    kept.ship();
    let Some(request) = lazy(&kept, RestoreTarget::Latest) else {
        return;
    };
    let clone = kept.open_clone(&request);
    let shown = clone.shown();
    assert_eq!(shown.form, Form::Mounted);
    execute(&shown.url, "INSERT INTO t VALUES (0, 'first')");
    let (here, all) = (brought(&clone), shown.hydration.clone().unwrap().total.0);
    println!(
        "PostgreSQL {}: {here} of {all} bytes; data {:.2} s, write {:.2} s, open {:.2} s",
        installation.major, shown.took.data_s, shown.took.write_s, shown.took.open_s
    );
    // Its catalogs alone are a good part of so small a cluster.
    assert!(here * 3 < all, "{here} of {all} bytes");
    execute(&shown.url, "DELETE FROM t WHERE n = 0");
    assert_eq!(ask(&shown.url, DIGEST), kept.ask(DIGEST));
    let shown = clone.shown();
    assert!(shown.hydration.unwrap().done.0 == 0 && shown.disk.0 > here);
    clone.close().unwrap();
    assert_eq!(there(&kept), 0);
    assert!(mount::sweep(kept.folder.path()).unwrap().is_empty());
}

/// Restores the usual way to the same moment.
fn plain(kept: &mut Kept, at: &RestoreTarget) -> Running {
    kept.restore(at.clone()).unwrap()
}

#[test]
fn a_mounted_clone_ends_its_log_exactly_where_a_restore_does() {
    let installation = postgres::oldest().unwrap();
    let mut kept = Kept::start(&installation, &[]);
    kept.sql("CREATE TABLE t (n int PRIMARY KEY, body text); CREATE TABLE doomed (n int)");
    kept.sql("INSERT INTO doomed SELECT generate_series(1, 5000)");
    kept.base();
    let mut moments: Vec<RestoreTarget> = Vec::new();
    for round in 0..2 {
        kept.sql(&format!(
            "INSERT INTO t SELECT n, repeat(md5(n::text), 40) FROM generate_series({0}, {0} + 900) n",
            round * 1000
        ));
        let at: Timestamp = Timestamp(kept.ask(NOW).parse().unwrap());
        let xid = kept
            .ask("SELECT pg_current_xact_id()::text")
            .parse()
            .unwrap();
        moments.push(RestoreTarget::Time(at));
        moments.push(RestoreTarget::Xid(xid));
        moments.push(RestoreTarget::Lsn(kept.flushed()));
    }
    let before = kept.flushed();
    kept.sql("DROP TABLE doomed; TRUNCATE t");
    kept.ship();
    moments.push(RestoreTarget::BeforeLsn(before));
    // Each kind once.
    for at in moments.split_off(moments.len() - 4) {
        let Some(request) = lazy(&kept, at.clone()) else {
            return;
        };
        let clone = kept.open_clone(&request);
        let url = clone.shown().url;
        let restored = plain(&mut kept, &at);
        for what in [
            "SELECT coalesce(md5(string_agg(t::text, '|' ORDER BY n)), '') || count(*) FROM t",
            "SELECT coalesce(to_regclass('doomed')::text, 'gone')",
            "SELECT timeline_id::text FROM pg_control_checkpoint()",
        ] {
            let wanted = restored.ask(what);
            if what.contains("timeline") {
                // The checkpoint comes beside the work here, and before it there.
                execute(&url, "CHECKPOINT");
            }
            assert_eq!(ask(&url, what), wanted, "{at}: {what}");
        }
        execute(&url, "INSERT INTO t VALUES (-1, 'mine'); CHECKPOINT");
        clone.close().unwrap();
    }
    assert_eq!(there(&kept), 0);
}

const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint::text";

#[test]
fn a_mounted_clone_that_is_kept_is_an_ordinary_data_directory() {
    for installation in postgres::all().unwrap() {
        let mut kept = Kept::start(&installation, &[]);
        kept.sql(
            "CREATE TABLE t (n int PRIMARY KEY, body text);
             INSERT INTO t SELECT n, repeat(md5(n::text), 8) FROM generate_series(1, 20000) n;
             CREATE TABLE untouched AS SELECT * FROM t",
        );
        kept.sql("CREATE DATABASE other");
        kept.base();
        kept.sql("UPDATE t SET body = 'changed' WHERE n % 50 = 0");
        kept.ship();
        let Some(mut request) = lazy(&kept, RestoreTarget::Latest) else {
            return;
        };
        request.clones.hydrate = Some(holdfast_core::ByteCount(1 << 20));
        let clone = kept.open_clone(&request);
        let url = clone.shown().url;
        execute(
            &url,
            "DELETE FROM t WHERE n % 3 = 0; CREATE TABLE made AS SELECT * FROM t",
        );
        execute(&url, "VACUUM t");
        execute(&url, "DROP DATABASE other");
        let digest = ask(&url, DIGEST);
        let into = kept.folder.path().join("kept-clone");
        assert_eq!(clone.keep(&into).unwrap(), into);
        assert_eq!(there(&kept), 0);
        // Nothing of the repository is needed any more.
        fs::rename(
            kept.folder.path().join("repository"),
            kept.folder.path().join("away"),
        )
        .unwrap();
        let plain = Plain::start(&kept, &into);
        assert_eq!(plain.ask(DIGEST), digest);
        assert_eq!(plain.ask("SELECT count(*)::text FROM untouched"), "20000");
        drop(plain);
        let program = kept.server.installation().program("pg_checksums");
        if program.exists() && kept.ask("SHOW data_checksums") == "on" {
            let done = ServerUser::current()
                .unwrap()
                .command(&program)
                .arg("-c")
                .arg("-D")
                .arg(&into)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{said}");
        }
    }
}

/// A server on a directory, as anybody would start it.
struct Plain<'a> {
    kept: &'a Kept,
    data: &'a Path,
    port: u16,
}

impl<'a> Plain<'a> {
    fn start(kept: &'a Kept, data: &'a Path) -> Self {
        let port = holdfast_testing::ports::ReservedPort::take().unwrap();
        let plain = Self {
            kept,
            data,
            port: port.number(),
        };
        let options = format!("-p {} -c unix_socket_directories=", plain.port);
        plain.control(&["-w", "-t", "60", "-o", &options, "start"]);
        plain
    }

    fn control(&self, arguments: &[&str]) {
        let program = self.kept.server.installation().program("pg_ctl");
        let log = self.kept.folder.path().join("plain.log");
        let done = ServerUser::current()
            .unwrap()
            .command(&program)
            .arg("-D")
            .arg(self.data)
            .arg("-l")
            .arg(&log)
            .args(arguments)
            .status()
            .unwrap();
        let said = fs::read_to_string(&log).unwrap_or_default();
        assert!(done.success(), "pg_ctl {arguments:?}:\n{said}");
    }

    fn ask(&self, sql: &str) -> String {
        let password = self.kept.server.password();
        let url = format!(
            "postgres://postgres:{password}@127.0.0.1:{}/postgres",
            self.port
        );
        ask(&url, sql)
    }
}

impl Drop for Plain<'_> {
    fn drop(&mut self) {
        self.control(&["-m", "fast", "stop"]);
    }
}

/// A small disk, which goes with the test.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(path: std::path::PathBuf, size: &str) -> Self {
        fs::create_dir(&path).unwrap();
        let options = format!("size={size},mode=0755");
        let done = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&path)
            .status();
        assert!(done.unwrap().success());
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

#[test]
fn a_full_disk_is_an_error_in_the_clone_and_harms_nothing_else() {
    let mut kept = Kept::start(&postgres::oldest().unwrap(), &[]);
    kept.sql("CREATE TABLE t (n int PRIMARY KEY, body text)");
    kept.sql("INSERT INTO t SELECT n, repeat(md5(n::text), 8) FROM generate_series(1, 5000) n");
    kept.base();
    kept.ship();
    let Some(mut request) = lazy(&kept, RestoreTarget::Latest) else {
        return;
    };
    let other = kept.open_clone(&request);
    let disk = SmallDisk::mount(kept.folder.path().join("small"), "160m");
    request.clones.dir = disk.0.join("clones");
    let clone = kept.open_clone(&request);
    let url = clone.shown().url;
    execute(&url, "INSERT INTO t VALUES (0, 'before')");
    let fill = "CREATE UNLOGGED TABLE fill AS
        SELECT repeat(md5(n::text), 60) AS body FROM generate_series(1, 200000) n";
    let refused = try_execute(&url, fill).unwrap_err();
    let code = refused.code().map(|code| code.code().to_owned());
    assert_eq!(code.as_deref(), Some("53100"), "{refused}");
    // What was committed is there, what is free again can be used, and nobody else has noticed.
    execute(&url, "INSERT INTO t VALUES (-1, 'after')");
    assert_eq!(ask(&url, "SELECT count(*)::text FROM t"), "5002");
    assert_eq!(
        ask(&url, "SELECT coalesce(to_regclass('fill')::text, 'none')"),
        "none"
    );
    assert_eq!(ask(&other.shown().url, DIGEST), kept.ask(DIGEST));
    clone.close().unwrap();
    other.close().unwrap();
    let again = kept.open_clone(&lazy(&kept, RestoreTarget::Latest).unwrap());
    assert_eq!(ask(&again.shown().url, DIGEST), kept.ask(DIGEST));
}

#[test]
fn a_clone_that_shall_not_be_mounted_is_restored_and_says_why() {
    let mut kept = Kept::start(&postgres::oldest().unwrap(), &[]);
    kept.sql("CREATE TABLE t AS SELECT generate_series(1, 100) AS n");
    kept.base();
    kept.ship();
    let mut request = request(&kept, RestoreTarget::Latest);
    request.clones.form = FormWish::Restored;
    let clone = kept.open_clone(&request);
    let shown = clone.shown();
    assert_eq!((shown.form, &shown.hydration), (Form::Restored, &None));
    let note = "it was restored in full: that was asked for";
    assert!(
        shown.notes.iter().any(|one| one == note),
        "{:?}",
        shown.notes
    );
    assert_eq!(ask(&shown.url, "SELECT count(*)::text FROM t"), "100");
    clone.close().unwrap();
}
