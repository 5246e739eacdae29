//! Restore points that are built on the one before: they bring back what the source had.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use holdfast_core::{Check, CheckOutcome, Lsn, PointId};
use holdfast_testing::dirs::TestDir;
use holdfast_testing::postgres::{self, Installation, Server, ServerUser};
use holdfast_testing::signals::{self, Signal};
use holdfast_vault::{AckMode, CaptureState, ReadingWay, SourceStatus};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::churn::{Churn, Load, contents};
use super::scene::{Running, Scene, flushed};

fn seed() -> u64 {
    let seed = match std::env::var("HOLDFAST_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => rand::random(),
    };
    println!("seed {seed}: set HOLDFAST_SEED to it to play this again");
    seed
}

fn is_long() -> bool {
    std::env::var_os("HOLDFAST_LONG").is_some()
}

fn source(installation: &Installation) -> Server {
    Server::builder(installation)
        .fast()
        .setting("max_wal_senders", "5")
        .setting("autovacuum", "off")
        .start()
        .unwrap()
}

fn folder_for_server(dir: &TestDir, name: &str) -> std::path::PathBuf {
    let folder = dir.path().join(name);
    fs::create_dir(&folder).unwrap();
    ServerUser::current().unwrap().own(&folder).unwrap();
    folder
}

impl Running {
    /// Asks for a restore point and waits until it is there.
    async fn take_point(&self, before: &Option<PointId>) -> SourceStatus {
        assert!(self.vault.ask_for_point(&"prod".parse().unwrap()));
        self.wait("next restore point", |s| {
            s.point.is_some() && s.point != *before
        })
        .await
    }

    async fn shipped(&self, end: Lsn) {
        self.wait("shipped log", |s| s.shipped >= end && s.flushed >= end)
            .await;
    }
}

/// Fails with what differs, and not with everything.
fn assert_same(theirs: &BTreeMap<String, String>, ours: &BTreeMap<String, String>, what: &str) {
    for (name, their) in theirs {
        assert_eq!(ours.get(name), Some(their), "{what}: {name}");
    }
    assert_eq!(ours.len(), theirs.len(), "{what}");
}

async fn churned(installation: &Installation, seed: u64, rounds: u32, changes: u32) {
    let scene = Scene::new();
    let spaces = TestDir::for_server("spaces").unwrap();
    let server = source(installation);
    let mut churn = Churn::new(seed, installation.major);
    churn
        .prepare(&server, &folder_for_server(&spaces, "side"))
        .await;
    let running = scene.run(&server.url());
    let mut status = running.wait("restore point", |s| s.point.is_some()).await;
    let full = status.reading.clone().unwrap();
    assert_eq!((full.way, &full.why), (ReadingWay::Full, &None));
    for round in 0..rounds {
        let what = format!(
            "PostgreSQL {}, seed {seed}, round {round}",
            installation.major
        );
        churn.changes(&server, changes).await;
        if round == 1 {
            // A tablespace that the point before does not know.
            let folder = folder_for_server(&spaces, "later");
            let client = server.connect().await.unwrap();
            for statement in [
                format!("CREATE TABLESPACE later LOCATION '{}'", folder.display()),
                "CREATE TABLE elsewhere TABLESPACE later AS SELECT generate_series(1, 999) n"
                    .to_owned(),
            ] {
                client.batch_execute(&statement).await.unwrap();
            }
        }
        let load = Load::start(&server).await;
        let before = status.point.clone();
        status = running.take_point(&before).await;
        churn.changes(&server, changes / 4).await;
        load.stop().await;
        let reading = status.reading.clone().unwrap();
        assert_eq!(
            (reading.way, &reading.why),
            (ReadingWay::ChangedBlocks, &None),
            "{what}"
        );
        let size = scene.points().last().unwrap().bytes;
        assert!(reading.read < size, "{what}: {reading:?} of {size}");
        let theirs = contents(&server.url()).await;
        running
            .shipped(flushed(&server.connect().await.unwrap()).await)
            .await;
        let back = scene.restore(&scene.state(), &server).await;
        assert_eq!(Some(&back.restored.point), status.point.as_ref(), "{what}");
        assert_same(&theirs, &contents(back.url()).await, &what);
    }
    let drilled = running.vault.drill(&"prod".parse().unwrap()).await.unwrap();
    // Rows that the changes removed since an earlier drill are not missing.
    let failed = |check: &&Check| {
        check.outcome == CheckOutcome::Failed && !check.name.starts_with("rows compared")
    };
    assert_eq!(drilled.checks.iter().find(failed), None);
    running.stop().await;
    assert_eq!(scene.entries("point.full_instead").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_point_on_another_brings_back_exactly_what_the_source_had() {
    let seed = seed();
    let installations = if is_long() {
        postgres::every().unwrap()
    } else {
        postgres::all().unwrap().to_vec()
    };
    let (rounds, changes) = if is_long() { (4, 120) } else { (2, 40) };
    for installation in installations {
        println!("PostgreSQL {}", installation.major);
        churned(&installation, seed, rounds, changes).await;
    }
}

/// A source with a table, its vault, and a first restore point.
struct Simple {
    scene: Scene,
    server: Server,
    running: Running,
    status: SourceStatus,
}

impl Simple {
    /// `user` is who the vault connects as; empty for the superuser.
    async fn start(installation: &Installation, prepare: &str, user: &str) -> Self {
        let scene = Scene::new();
        let server = source(installation);
        let client = server.connect().await.unwrap();
        for statement in [
            "CREATE TABLE t AS SELECT g AS k, md5(g::text) AS note FROM generate_series(1, 50000) g",
            "CREATE TABLE still AS SELECT g AS k, md5(g::text) AS note FROM generate_series(1, 50000) g",
            "CHECKPOINT",
        ] {
            client.batch_execute(statement).await.unwrap();
        }
        client.batch_execute(prepare).await.unwrap();
        let running = scene.run(&url(&server, user));
        let status = running.wait("restore point", |s| s.point.is_some()).await;
        Self {
            scene,
            server,
            running,
            status,
        }
    }

    async fn change(&self) {
        let client = self.server.connect().await.unwrap();
        let some = "UPDATE t SET note = md5(random()::text) WHERE k % 5000 < 40";
        client.batch_execute(some).await.unwrap();
    }

    /// Restores and compares, and returns how many restore points were made of which kind.
    async fn check(self, point: &SourceStatus) -> (usize, usize) {
        let theirs = contents(&self.server.url()).await;
        let end = flushed(&self.server.connect().await.unwrap()).await;
        self.running.shipped(end).await;
        let back = self.scene.restore(&self.scene.state(), &self.server).await;
        assert_eq!(Some(&back.restored.point), point.point.as_ref());
        assert_same(&theirs, &contents(back.url()).await, "restored");
        self.running.stop().await;
        let made = self.scene.entries("point.made");
        let built = made
            .iter()
            .filter(|one| one.draft.body.contains_key("parent"));
        let built = built.count();
        (made.len() - built, built)
    }
}

fn url(server: &Server, user: &str) -> String {
    if user.is_empty() {
        return server.url();
    }
    let own = format!("postgres:{}@", server.password());
    server.url().replace(&own, &format!("{user}:secret@"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_only_replicate_gets_points_that_store_only_what_changed() {
    let prepare = "CREATE ROLE vault LOGIN REPLICATION PASSWORD 'secret'";
    for installation in postgres::all().unwrap() {
        let simple = Simple::start(&installation, prepare, "vault").await;
        simple.change().await;
        let next = simple.running.take_point(&simple.status.point).await;
        let reading = next.reading.clone().unwrap();
        assert_eq!(reading.way, ReadingWay::Everything);
        assert!(reading.why.unwrap().contains("pg_read_binary_file"));
        let points = simple.scene.points();
        assert_eq!(points.len(), 2);
        assert_eq!(points[1].parent.as_ref(), Some(&points[0].point));
        assert!(points[1].stored.0 * 4 < points[0].stored.0, "{points:#?}");
        assert_eq!(simple.check(&next).await, (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_the_preflight_names_are_enough_to_read_changed_blocks() {
    let installation = postgres::oldest().unwrap();
    let prepare = "CREATE ROLE vault LOGIN REPLICATION PASSWORD 'secret'";
    let simple = Simple::start(&installation, prepare, "vault").await;
    let config = simple
        .scene
        .source(&url(&simple.server, "vault"), AckMode::Asynchronous);
    let asked = |report: &holdfast_vault::CheckReport| {
        let mut all = report.requirements.iter();
        all.find(|one| one.name == "changed blocks")
            .cloned()
            .unwrap()
    };
    let lacking = asked(&holdfast_vault::check_source(&config).await);
    assert!(
        lacking.fix.starts_with("GRANT EXECUTE ON FUNCTION"),
        "{lacking:?}"
    );
    let client = simple.server.connect().await.unwrap();
    client.batch_execute(&lacking.fix).await.unwrap();
    let enough = asked(&holdfast_vault::check_source(&config).await);
    assert_eq!(enough.fix, "");
    simple.change().await;
    let next = simple.running.take_point(&simple.status.point).await;
    assert_eq!(next.reading.clone().unwrap().way, ReadingWay::ChangedBlocks);
    assert_eq!(simple.check(&next).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_was_changed_past_the_log_is_told_and_leads_to_a_full_base() {
    let installation = postgres::installation(15).unwrap();
    let prepare = "CREATE ROLE vault LOGIN REPLICATION PASSWORD 'secret'";
    let mut simple = Simple::start(&installation, prepare, "vault").await;
    let client = simple.server.connect().await.unwrap();
    simple.change().await;
    let path = client
        .query_one("SELECT pg_relation_filepath('still')", &[])
        .await;
    let path: String = path.unwrap().get(0);
    let lsn = flushed(&client).await;
    simple.server.stop_fast().unwrap();
    let file = File::options()
        .write(true)
        .open(simple.server.data_dir().join(path))
        .unwrap();
    let [high, low] = [lsn.0 >> 32, lsn.0 & 0xFFFF_FFFF].map(|half| u32::try_from(half).unwrap());
    file.write_all_at(&high.to_le_bytes(), 7 * 8192).unwrap();
    file.write_all_at(&low.to_le_bytes(), 7 * 8192 + 4).unwrap();
    simple.server.start().unwrap();
    let next = simple.running.take_point(&simple.status.point).await;
    let reading = next.reading.clone().unwrap();
    assert_eq!(reading.way, ReadingWay::Full);
    assert!(reading.why.unwrap().contains("block 7 of relation"));
    let told = simple.scene.entries("point.full_instead");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].draft.body["code"], "ZI320");
    assert_eq!(simple.check(&next).await, (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_part_of_the_log_is_gone_a_full_base_is_taken_and_says_why() {
    let simple = Simple::start(&postgres::newest().unwrap(), "SELECT 1", "").await;
    let client = simple.server.connect().await.unwrap();
    for _ in 0..2 {
        simple.change().await;
        client
            .batch_execute("SELECT pg_switch_wal()")
            .await
            .unwrap();
    }
    simple.change().await;
    simple.running.shipped(flushed(&client).await).await;
    let Simple {
        scene,
        server,
        running,
        status,
    } = simple;
    running.stop().await;
    // What the vault saw of the log is forgotten with it, and the repository loses a segment.
    let mut segments = scene.objects("/wal/");
    segments.sort();
    fs::remove_file(&segments[segments.len() - 2]).unwrap();
    let running = scene.run(&server.url());
    let next = running.take_point(&status.point).await;
    let reading = next.reading.clone().unwrap();
    assert_eq!(reading.way, ReadingWay::Full);
    let told = scene.entries("point.full_instead");
    assert_eq!(told[0].draft.body["code"], "ZI321");
    let simple = Simple {
        scene,
        server,
        running,
        status,
    };
    assert_eq!(simple.check(&next).await, (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_the_vault_what_changed_is_read_from_the_repository() {
    for installation in postgres::all().unwrap() {
        let simple = Simple::start(&installation, "SELECT 1", "").await;
        let client = simple.server.connect().await.unwrap();
        simple.change().await;
        client
            .batch_execute("SELECT pg_switch_wal()")
            .await
            .unwrap();
        let Simple {
            scene,
            server,
            running,
            status,
        } = simple;
        running.stop().await;
        let running = scene.run(&server.url());
        let simple = Simple {
            scene,
            server,
            running,
            status,
        };
        simple.change().await;
        let next = simple.running.take_point(&simple.status.point).await;
        assert_eq!(next.reading.clone().unwrap().way, ReadingWay::ChangedBlocks);
        assert_eq!(simple.check(&next).await, (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_in_the_middle_of_a_point_leaves_the_points_before_as_they_were() {
    let mut random = StdRng::seed_from_u64(seed());
    let scene = Scene::new();
    let server = source(&postgres::newest().unwrap());
    let client = server.connect().await.unwrap();
    let rows = "CREATE TABLE t AS SELECT g AS k, repeat(md5(g::text), 5) AS note FROM generate_series(1, 100000) g";
    client.batch_execute(rows).await.unwrap();
    let mut vault = scene.spawn(&server.url(), AckMode::Asynchronous);
    scene.await_told("restore point", |s| s.point.is_some());
    let mut cut = 0;
    for kill in 0..4 {
        let some = format!("UPDATE t SET note = md5(random()::text) WHERE k % 7 = {kill}");
        client.batch_execute(&some).await.unwrap();
        let before = scene.points();
        signals::send(vault.pid(), Signal::USR1).unwrap();
        scene.await_told("the point begin", |s| {
            s.busy
                .as_deref()
                .is_some_and(|busy| busy.contains("restore point"))
        });
        // WAIT: the moment of the kill is drawn from the seed.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
        vault.kill_9().unwrap();
        let after = scene.points();
        assert_eq!(after[..before.len()], before);
        cut += usize::from(after.len() == before.len());
        vault = scene.spawn(&server.url(), AckMode::Asynchronous);
        scene.await_told("the stream", |s| s.state == CaptureState::Streaming);
    }
    println!("{cut} of 4 points were cut off");
    vault.kill_9().unwrap();
    let running = scene.run(&server.url());
    let status = running.wait("restore point", |s| s.point.is_some()).await;
    let next = running.take_point(&status.point).await;
    assert_eq!(next.reading.clone().unwrap().way, ReadingWay::ChangedBlocks);
    let theirs = contents(&server.url()).await;
    running.shipped(flushed(&client).await).await;
    let back = scene.restore(&scene.state(), &server).await;
    assert_eq!(Some(&back.restored.point), next.point.as_ref());
    assert_same(&theirs, &contents(back.url()).await, "restored");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_is_built_across_a_change_of_timelines() {
    for installation in postgres::all().unwrap() {
        let mut simple = Simple::start(&installation, "SELECT 1", "").await;
        simple.change().await;
        simple.server.stop_fast().unwrap();
        super::timeline::signal(&simple.server, "recovery.signal");
        simple.server.start().unwrap();
        super::timeline::recovered(&simple.server).await;
        simple.change().await;
        let end = flushed(&simple.server.connect().await.unwrap()).await;
        let wanted = |s: &SourceStatus| s.timeline == 2 && s.shipped >= end;
        simple.running.wait("the new timeline", wanted).await;
        let next = simple.running.take_point(&simple.status.point).await;
        assert_eq!(next.reading.clone().unwrap().way, ReadingWay::ChangedBlocks);
        assert_eq!(simple.check(&next).await, (1, 1));
    }
}
