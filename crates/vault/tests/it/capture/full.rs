//! Full disks: told, not acknowledged, and gone on from when there is space again.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_testing::postgres;
use holdfast_testing::process::Process;
use holdfast_vault::{AckMode, CaptureState};

use super::scene::{Scene, example_path, flushed, server};

/// A vault for which one folder is a small disk of its own.
struct Small {
    vault: Process,
    /// The small disk as this process can reach it.
    disk: PathBuf,
}

impl Small {
    fn spawn(scene: &Scene, url: &str, folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if fs::metadata("/proc/self").unwrap().uid() != 0 {
            command.args(["--user", "--map-root-user"]);
        }
        let script = "mount -t tmpfs -o size=96m small \"$0\" && exec \"$@\"";
        command.args(["sh", "-c", script]).arg(folder);
        command.arg(example_path());
        scene.arguments(&mut command, url, AckMode::Asynchronous);
        let vault = Process::spawn(command, &scene.dir.path().join("vault.log")).unwrap();
        let inside = folder.strip_prefix("/").unwrap();
        let disk = PathBuf::from(format!("/proc/{}/root", vault.pid())).join(inside);
        Self { vault, disk }
    }

    /// Takes all the space that is there now; what fails gives some back, so it is called again.
    fn fill(&self) {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.disk.join(".filler"))
            .unwrap();
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.disk.join(".filler")).unwrap();
    }
}

const TRAFFIC: &str = "INSERT INTO t SELECT md5(random()::text) FROM generate_series(1, 100000)";

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_is_told_and_never_acknowledged_beyond() {
    let scene = Scene::new();
    let server = server(&postgres::newest().unwrap());
    let client = server.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (n text)")
        .await
        .unwrap();
    let mut small = Small::spawn(&scene, &server.url(), &scene.state().join("spool"));
    scene.await_told("restore point", |s| s.point.is_some());
    small.fill();
    // The source goes on: it does not wait for an asynchronous vault.
    client.batch_execute(TRAFFIC).await.unwrap();
    let end = flushed(&client).await;
    let status = scene.await_told("trouble", |s| {
        small.fill();
        s.state == CaptureState::Failed && s.flushed < end
    });
    assert_eq!(status.trouble.unwrap().code, "ZS303");
    let row = client
        .query_one(
            "SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = 'holdfast_prod'",
            &[],
        )
        .await
        .unwrap();
    let kept: holdfast_core::Lsn = row.get::<_, String>(0).parse().unwrap();
    assert!(
        kept <= status.flushed,
        "the source keeps what the vault lacks"
    );
    small.free();
    let status = scene.await_told("the log", |s| s.flushed >= end && s.shipped >= end);
    assert_eq!(
        (status.state, status.trouble),
        (CaptureState::Streaming, None)
    );
    assert!(small.vault.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_repository_is_told_and_the_spool_goes_on() {
    let scene = Scene::new();
    let server = server(&postgres::newest().unwrap());
    let client = server.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (n text)")
        .await
        .unwrap();
    let mut small = Small::spawn(&scene, &server.url(), &scene.repository());
    scene.await_told("restore point", |s| s.point.is_some());
    small.fill();
    client.batch_execute(TRAFFIC).await.unwrap();
    let end = flushed(&client).await;
    let status = scene.await_told("trouble", |s| {
        small.fill();
        s.state == CaptureState::Failed && s.flushed >= end && s.shipped < end
    });
    assert_eq!(status.trouble.unwrap().code, "ZS252");
    small.free();
    let status = scene.await_told("the log", |s| s.shipped >= end && s.trouble.is_none());
    assert_eq!(status.state, CaptureState::Streaming);
    assert!(small.vault.is_running());
}
