//! A real server on a mounted restore point.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use holdfast_core::PointId;
use holdfast_testing::ports::ReservedPort;
use holdfast_testing::postgres::{self, ServerUser};
use holdfast_vault::RestoreTarget;
use holdfast_vault::mount::{Mount, MountRequest};

use crate::kept::{Kept, ask, execute};

const DIGEST: &str = "SELECT md5(string_agg(t::text, '|' ORDER BY n)) FROM t";

/// A server on a data directory that is mounted.
pub struct Serving<'a> {
    kept: &'a Kept,
    data: &'a Path,
    port: ReservedPort,
    is_running: bool,
}

impl<'a> Serving<'a> {
    pub fn start(kept: &'a Kept, data: &'a Path) -> Self {
        let port = ReservedPort::take().unwrap();
        let mut serving = Self {
            kept,
            data,
            port,
            is_running: false,
        };
        let number = serving.port.number();
        let options = format!(
            "-p {number} -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
             -c recovery_init_sync_method=syncfs -c autovacuum=off -c shared_buffers=2MB"
        );
        serving.control(&["-w", "-t", "60", "-o", &options, "start"]);
        serving.is_running = true;
        serving
    }

    fn control(&self, arguments: &[&str]) {
        let program = self.kept.server.installation().program("pg_ctl");
        let log = self.kept.folder.path().join("mounted.log");
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

    pub fn url(&self) -> String {
        let (password, port) = (self.kept.server.password(), self.port.number());
        format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres")
    }

    fn ask(&self, sql: &str) -> String {
        ask(&self.url(), sql)
    }

    fn sql(&self, sql: &str) {
        execute(&self.url(), sql);
    }

    pub fn stop(mut self) {
        self.control(&["-w", "-t", "60", "-m", "fast", "stop"]);
        self.is_running = false;
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if self.is_running {
            let program = self.kept.server.installation().program("pg_ctl");
            let mut command = ServerUser::current().unwrap().command(&program);
            let _ = command
                .arg("-D")
                .arg(self.data)
                .args(["-w", "-m", "immediate", "stop"])
                .status();
        }
    }
}

pub fn mount(kept: &Kept, point: &PointId) -> Mount {
    let owner = fs::metadata(kept.server.data_dir()).unwrap();
    let opened = Mount::open(MountRequest {
        point: kept
            .repository
            .reader()
            .point(&kept.at.source, point)
            .unwrap(),
        overlay: kept.folder.path().join("overlay"),
        mountpoint: kept.folder.path().join("mounted"),
        owner: Some((owner.uid(), owner.gid())),
    });
    opened.unwrap()
}

/// Puts the log beside the files, as a clone does.
pub fn bring_log(kept: &Kept, data: &Path) {
    for entry in fs::read_dir(kept.server.data_dir().join("pg_wal")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let target = data.join("pg_wal").join(path.file_name().unwrap());
            fs::copy(&path, &target).unwrap();
            let owner = fs::metadata(data).unwrap();
            std::os::unix::fs::chown(&target, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
    }
}

fn occupied(path: &Path) -> u64 {
    let output = Command::new("du").args(["-sk"]).arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split('\t').next().unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_server_on_a_mounted_point_has_what_a_restore_has_and_keeps_what_it_commits() {
    for installation in postgres::all().unwrap() {
        let mut kept = Kept::start(&installation, &[]);
        kept.sql(
            "CREATE TABLE t (n int PRIMARY KEY, body text);
             INSERT INTO t SELECT n, repeat(md5(n::text), 8) FROM generate_series(1, 20000) n;
             CREATE TABLE untouched AS SELECT * FROM t;",
        );
        kept.sql("CREATE DATABASE other");
        kept.sql("CHECKPOINT");
        let point = kept.base();
        kept.sql("UPDATE t SET body = 'changed ' || n WHERE n % 50 = 0; DELETE FROM t WHERE n = 7");
        kept.ship();
        let plain = kept.restore(RestoreTarget::Latest).unwrap();
        let expected = plain.ask(DIGEST);
        assert_eq!(expected, kept.ask(DIGEST));
        drop(plain);

        let opened = mount(&kept, &point);
        bring_log(&kept, opened.path());
        let server = Serving::start(&kept, opened.path());
        assert_eq!(server.ask("SELECT pg_is_in_recovery()::text"), "false");
        assert_eq!(
            server.ask(DIGEST),
            expected,
            "PostgreSQL {}",
            installation.major
        );
        // What nobody has looked at has not come.
        let (here, all) = (
            occupied(&kept.folder.path().join("overlay")),
            occupied(kept.server.data_dir()),
        );
        assert!(here < all, "{here} of {all} bytes");
        for round in 0..8 {
            server.sql(&format!(
                "UPDATE t SET body = body || '{round}' WHERE n % 20 = {round};
                 INSERT INTO t SELECT n, 'new' FROM generate_series({0}, {0} + 500) n;",
                100_000 + round * 1000
            ));
        }
        server.sql("CREATE TABLE made AS SELECT * FROM untouched; DROP TABLE untouched");
        server.sql("VACUUM FULL t");
        server.sql("CREATE INDEX ON t (body); CHECKPOINT");
        server.sql("CREATE DATABASE third TEMPLATE other");
        server.sql("DROP DATABASE other");
        let after = server.ask(DIGEST);
        let made = server.ask("SELECT md5(string_agg(m::text, '|' ORDER BY n)) FROM made m");
        server.stop();
        opened.close().unwrap();

        let opened = mount(&kept, &point);
        let server = Serving::start(&kept, opened.path());
        assert_eq!(server.ask(DIGEST), after);
        let again = server.ask("SELECT md5(string_agg(m::text, '|' ORDER BY n)) FROM made m");
        assert_eq!(again, made);
        assert_eq!(server.ask("SELECT to_regclass('untouched')::text"), "");
        assert_eq!(
            server.ask("SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate"),
            "postgres third"
        );
        server.stop();
        check_pages(&kept, opened.path());
        opened.close().unwrap();
        // The restore point is as it was.
        let plain = kept.restore(RestoreTarget::Latest).unwrap();
        assert_eq!(plain.ask(DIGEST), expected);
    }
}

/// Checks every page where PostgreSQL brings the program for it.
fn check_pages(kept: &Kept, data: &Path) {
    let program = kept.server.installation().program("pg_checksums");
    let has_sums = kept.ask("SHOW data_checksums") == "on";
    if !program.exists() || !has_sums {
        return;
    }
    let user = ServerUser::current().unwrap();
    let done = user
        .command(&program)
        .arg("-c")
        .arg("-D")
        .arg(data)
        .output();
    let done = done.unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}
