//! What a mirror meets on a bad day: each is told, none stops capture, and it mends what it can.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_testing::tcp::FaultProxy;
use holdfast_vault::PostgresConfig;

use super::*;

fn failed_with(status: &SourceStatus, code: &str) -> bool {
    mirror(status).is_some_and(|mirror| {
        let trouble = mirror.trouble.as_ref();
        mirror.state == MirrorState::Failed && trouble.is_some_and(|one| one.code == code)
    })
}

async fn write(server: &Server, sql: &str) -> Lsn {
    let client = server.connect().await.unwrap();
    client.batch_execute(sql).await.unwrap();
    flushed(&client).await
}

/// Waits until capture has what the source has written, whatever the mirror does.
async fn captured(running: &Running, server: &Server) {
    let end = write(server, "INSERT INTO t VALUES (0)").await;
    running.wait("captured log", |s| s.flushed >= end).await;
}

async fn table() -> Server {
    let server = source(&postgres::newest().unwrap());
    write(&server, "CREATE TABLE t (n int)").await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_or_programs_for_a_mirror_that_is_said_and_capture_goes_on() {
    let server = table().await;
    let mirrors = TestDir::for_server("mirrors").unwrap();
    let mut scene = mirrored(&mirrors);
    scene.points.mirrors.reserve = ByteCount(1 << 60);
    let running = scene.run(&server.url());
    running.wait("refusal", |s| failed_with(s, "ZS331")).await;
    captured(&running, &server).await;
    running.stop().await;
    assert_eq!(scene.entries("mirror.laid").len(), 0);

    scene.points.mirrors.reserve = ByteCount(0);
    let none = TestDir::for_server("none").unwrap();
    scene.programs = Some(PostgresConfig {
        dirs: vec![none.path().to_owned()],
        ..PostgresConfig::default()
    });
    let running = scene.run(&server.url());
    let status = running.wait("refusal", |s| failed_with(s, "ZU306")).await;
    let hint = status.mirror.unwrap().trouble.unwrap().hint.unwrap();
    assert!(hint.contains(&none.path().display().to_string()), "{hint}");
    captured(&running, &server).await;
    running.stop().await;

    // Once it can, it does.
    scene.programs = None;
    let running = scene.run(&server.url());
    running.wait("mirror that follows", follows).await;
    running.stop().await;
}

/// A small disk of its own for the mirrors.
struct Small(PathBuf);

impl Small {
    /// Mounts one, which root alone may do.
    fn mount(at: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=160m,mode=0777", "small"])
            .arg(at)
            .status();
        let is_mounted = mounted.is_ok_and(|status| status.success());
        is_mounted.then(|| Self(at.to_owned()))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    fn fill(&self) {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler())
            .unwrap();
        for size in [1 << 20, 4096] {
            while std::io::Write::write_all(&mut file, &vec![0; size]).is_ok() {}
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_whose_disk_is_full_is_given_up_and_made_again_when_there_is_room() {
    let server = table().await;
    let mirrors = TestDir::for_server("mirrors").unwrap();
    let Some(small) = Small::mount(mirrors.path()) else {
        println!("not root: the small disk is left out");
        return;
    };
    let scene = mirrored(&mirrors);
    let running = scene.run(&server.url());
    running.wait("mirror that follows", follows).await;
    small.fill();
    let load = "INSERT INTO t SELECT generate_series(1, 200000)";
    let end = write(&server, load).await;
    let status = running.wait("full disk", |s| failed_with(s, "ZS490")).await;
    assert!(
        status
            .mirror
            .unwrap()
            .trouble
            .unwrap()
            .what
            .contains("free"),
        "both numbers"
    );
    running
        .wait("captured log", |s| s.flushed >= end && s.shipped >= end)
        .await;
    assert_eq!(scene.entries("mirror.does_not_replay").len(), 0);
    fs::remove_file(small.filler()).unwrap();
    running
        .wait("a new mirror", |s| follows(s) && replayed(s) >= end)
        .await;
    running.stop().await;
    assert!(scene.entries("mirror.laid").len() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_that_was_damaged_raises_the_alarm_and_a_new_mirror_is_made_behind_it() {
    let server = table().await;
    let mirrors = TestDir::for_server("mirrors").unwrap();
    let scene = mirrored(&mirrors);
    let proxy = FaultProxy::start(SocketAddr::from(([127, 0, 0, 1], server.port()))).unwrap();
    let of = |port: u16| format!("127.0.0.1:{port}/");
    let url = server.url().replace(&of(server.port()), &of(proxy.port()));
    let running = scene.run(&url);
    running.wait("mirror that follows", follows).await;
    proxy.forge(b"a good row", b"a bad  row");
    write(&server, "CREATE TABLE u AS SELECT 'a good row'::text AS n").await;
    signals::wait_until(LIMIT, || proxy.has_forged()).unwrap();
    let end = write(&server, "INSERT INTO u VALUES ('last')").await;
    running
        .wait("a new mirror", |s| {
            follows(s) && replayed(s) >= end && s.trouble.is_none()
        })
        .await;
    running.stop().await;
    let told = scene.entries("mirror.does_not_replay");
    assert_eq!(told[0].draft.body["code"], "ZI380", "{told:?}");
    assert!(scene.entries("mirror.laid").len() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_half_there_in_the_mirrors_folder_is_thrown_away_and_made_anew() {
    let server = table().await;
    let mirrors = TestDir::for_server("mirrors").unwrap();
    let scene = mirrored(&mirrors);
    let folder = mirrors.path().join("prod");
    // A crash while it was laid: what was begun is known by its note.
    fs::create_dir(&folder).unwrap();
    let begun = folder.join("data-begun");
    fs::create_dir(&begun).unwrap();
    fs::write(begun.join("PG_VERSION"), "18\n").unwrap();
    fs::write(folder.join("begun"), "data-begun").unwrap();
    let running = scene.run(&server.url());
    running.wait("mirror that follows", follows).await;
    running.stop().await;
    assert!(!begun.exists());

    // A disk that lost a file.
    let text = fs::read(folder.join("mirror.json")).unwrap();
    let note: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let data = folder.join(note["name"].as_str().unwrap());
    fs::File::options()
        .write(true)
        .open(data.join("global/pg_control"))
        .unwrap()
        .set_len(100)
        .unwrap();
    let running = scene.run(&server.url());
    let end = write(&server, "INSERT INTO t VALUES (1)").await;
    running
        .wait("a new mirror", |s| follows(s) && replayed(s) >= end)
        .await;
    running.stop().await;
    assert!(!data.exists());
    assert_eq!(scene.entries("mirror.laid").len(), 2);
    assert_eq!(scene.entries("mirror.does_not_replay").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_vaults_on_one_mirrors_folder_the_second_waits_and_touches_nothing() {
    let stage = Stage::start(table().await).await;
    let other = table().await;
    let scene = mirrored(&stage.mirrors);
    let second = scene.run(&other.url());
    second.wait("refusal", |s| failed_with(s, "ZS491")).await;
    captured(&second, &other).await;
    captured(&stage.running, &stage.server).await;
    stage.mirrored(&stage.server).await;
    // The folder is free: what lies in it is of another cluster, and is not used.
    stage.running.stop().await;
    let end = write(&other, "INSERT INTO t VALUES (2)").await;
    second
        .wait("its own mirror", |s| follows(s) && replayed(s) >= end)
        .await;
    second.stop().await;
}
