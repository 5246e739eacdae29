//! The mirror: a server that follows, seals restore points, and takes over.

mod faults;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use holdfast_core::{ActionId, ByteCount, Check, CheckOutcome, Coded, Lsn, Timestamp};
use holdfast_testing::dirs::TestDir;
use holdfast_testing::postgres::{self, Installation, Server, ServerUser};
use holdfast_testing::signals::{self, Signal};
use holdfast_vault::{
    MirrorConfig, MirrorState, MirrorStatus, PointsConfig, ReadingWay, RecoverError,
    RecoverRequest, Recovered, RestoreTarget, SourceStatus, Way,
};

use crate::capture::churn::{Churn, Load, contents};
use crate::capture::scene::{LIMIT, Running, Scene, flushed};

/// A vault with a mirror of its source.
struct Stage {
    scene: Scene,
    mirrors: TestDir,
    server: Server,
    running: Running,
}

fn source(installation: &Installation) -> Server {
    Server::builder(installation)
        .fast()
        // A standby is only backed up when torn pages can be mended.
        .setting("full_page_writes", "on")
        .setting("max_wal_senders", "5")
        .setting("autovacuum", "off")
        .start()
        .unwrap()
}

fn mirrored(mirrors: &TestDir) -> Scene {
    let mut scene = Scene::new();
    scene.points = PointsConfig {
        mirrors: MirrorConfig {
            sources: ["prod".parse().unwrap()].into(),
            dir: Some(mirrors.path().to_owned()),
            hold: Duration::ZERO,
            reserve: ByteCount(0),
        },
        ..PointsConfig::default()
    };
    scene
}

impl Stage {
    async fn start(server: Server) -> Self {
        let mirrors = TestDir::for_server("mirrors").unwrap();
        let scene = mirrored(&mirrors);
        let running = scene.run(&server.url());
        let stage = Self {
            scene,
            mirrors,
            server,
            running,
        };
        stage.follows().await;
        stage
    }

    async fn follows(&self) -> SourceStatus {
        self.running.wait("mirror that follows", follows).await
    }

    /// Waits until the mirror has everything that the server has written.
    async fn mirrored(&self, server: &Server) {
        let end = flushed(&server.connect().await.unwrap()).await;
        self.running
            .wait("mirrored log", |s| s.flushed >= end && replayed(s) >= end)
            .await;
    }

    /// Lets the source make a checkpoint, and waits until a point was sealed from the mirror.
    async fn seal(&self) -> SourceStatus {
        let client = self.server.connect().await.unwrap();
        client.batch_execute("CHECKPOINT").await.unwrap();
        self.mirrored(&self.server).await;
        let before = self.running.status();
        assert!(self.running.vault.ask_for_point(&"prod".parse().unwrap()));
        self.running
            .wait("sealed point", |s| s.point != before.point)
            .await
    }

    async fn recover(&self, at: RestoreTarget) -> Recovered {
        recover(&self.running, at).await.unwrap()
    }
}

async fn recover(running: &Running, at: RestoreTarget) -> Result<Recovered, RecoverError> {
    let vault = running.vault.clone();
    let request = RecoverRequest {
        source: "prod".parse().unwrap(),
        at,
        timeline: None,
    };
    let work = move || vault.recover(&request);
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// The clock of this machine, a moment after everything that was done until now.
fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

fn mirror(status: &SourceStatus) -> Option<&MirrorStatus> {
    status.mirror.as_ref()
}

fn replayed(status: &SourceStatus) -> Lsn {
    mirror(status).map_or(Lsn::ZERO, |mirror| mirror.replayed)
}

fn follows(status: &SourceStatus) -> bool {
    mirror(status).is_some_and(|mirror| mirror.state == MirrorState::Following)
}

/// A server that was recovered; it ends with this value.
struct Second {
    recovered: Recovered,
    url: String,
}

impl Second {
    fn of(recovered: Recovered, source: &Server) -> Self {
        let of = |port: u16| format!("127.0.0.1:{port}/");
        let url = source
            .url()
            .replace(&of(source.port()), &of(recovered.server.port));
        Self { recovered, url }
    }

    async fn run(&self, sql: &str) {
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
    }

    async fn ask(&self, sql: &str) -> String {
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let row = client.query_one(sql, &[]).await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
        row.get(0)
    }

    fn kill(&self) {
        let pid = self.recovered.server.pid;
        let _ = signals::send(pid, Signal::QUIT);
        let _ = signals::wait_until(LIMIT, || !signals::is_running(pid));
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        self.kill();
    }
}

fn assert_same(theirs: &BTreeMap<String, String>, ours: &BTreeMap<String, String>, what: &str) {
    for (name, their) in theirs {
        assert_eq!(ours.get(name), Some(their), "{what}: {name}");
    }
    assert_eq!(ours.len(), theirs.len(), "{what}");
}

fn side(dir: &TestDir) -> std::path::PathBuf {
    let folder = dir.path().join("side");
    fs::create_dir(&folder).unwrap();
    ServerUser::current().unwrap().own(&folder).unwrap();
    folder
}

async fn sealed_points(installation: &Installation, (rounds, changes): (u32, u32)) {
    let seed = rand::random();
    println!("PostgreSQL {}, seed {seed}", installation.major);
    let spaces = TestDir::for_server("spaces").unwrap();
    let server = source(installation);
    let mut churn = Churn::new(seed, installation.major);
    churn.prepare(&server, &side(&spaces)).await;
    let stage = Stage::start(server).await;
    for round in 0..rounds {
        let what = format!("PostgreSQL {}, round {round}", installation.major);
        churn.changes(&stage.server, changes).await;
        let load = Load::start(&stage.server).await;
        let status = stage.seal().await;
        churn.changes(&stage.server, changes / 4).await;
        load.stop().await;
        let reading = status.reading.clone().unwrap();
        assert_eq!(
            (reading.way, &reading.why),
            (ReadingWay::Mirror, &None),
            "{what}"
        );
        let theirs = contents(&stage.server.url()).await;
        let end = flushed(&stage.server.connect().await.unwrap()).await;
        let shipped = |s: &SourceStatus| s.shipped >= end && s.flushed >= end;
        stage.running.wait("shipped log", shipped).await;
        let back = stage
            .scene
            .restore(&stage.scene.state(), &stage.server)
            .await;
        assert_same(&theirs, &contents(back.url()).await, &what);
        // Its own end is a moment that it brings back by itself.
        let point = stage.scene.points().pop().unwrap();
        let stop = point.postgres.unwrap().stop_lsn;
        drop(back);
        let at = RestoreTarget::BeforeLsn(stop);
        drop(stage.scene.restore_to(at, &stage.server).await);
    }
    let name = "prod".parse().unwrap();
    let drilled = stage.running.vault.drill(&name).await.unwrap();
    let failed = |check: &&Check| {
        check.outcome == CheckOutcome::Failed && !check.name.starts_with("rows compared")
    };
    assert_eq!(drilled.checks.iter().find(failed), None);
    stage.running.stop().await;
    assert_eq!(stage.scene.entries("point.full_instead").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn points_are_sealed_from_the_mirror_and_bring_back_exactly_what_the_source_had() {
    let is_long = std::env::var_os("HOLDFAST_LONG").is_some();
    let (installations, how) = match is_long {
        true => (postgres::every().unwrap(), (4, 120)),
        false => (postgres::all().unwrap().to_vec(), (1, 16)),
    };
    for installation in installations {
        sealed_points(&installation, how).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mirror_waits_before_a_drop_until_a_point_before_it_is_sealed() {
    let server = source(&postgres::newest().unwrap());
    let client = server.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE bookings AS SELECT generate_series(1, 1000) n")
        .await
        .unwrap();
    let stage = Stage::start(server).await;
    let first = stage.running.status();
    client
        .batch_execute("INSERT INTO bookings VALUES (1001); CHECKPOINT")
        .await
        .unwrap();
    client.batch_execute("DROP TABLE bookings").await.unwrap();
    stage.mirrored(&stage.server).await;
    let status = stage.running.status();
    assert_ne!(status.point, first.point, "no point was sealed before it");
    assert_eq!(status.reading.unwrap().way, ReadingWay::Mirror);
    let seen = stage.scene.entries("source.destruction_seen");
    assert_eq!(seen.len(), 1);
    let action: ActionId = seen[0].draft.action.clone().unwrap();
    let before: Lsn = seen[0].draft.body["before_lsn"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let point = stage.scene.points().pop().unwrap();
    assert!(point.postgres.unwrap().stop_lsn <= before);
    let at = RestoreTarget::Before(action);
    let back = stage.scene.restore_to(at, &stage.server).await;
    assert_eq!(Some(&back.restored.point), status.point.as_ref());
    let count = back.ask("SELECT count(*)::text FROM bookings").await;
    assert_eq!(count, "1001");
    stage.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_two_recoveries_the_rows_of_every_life_are_there() {
    let server = source(&postgres::newest().unwrap());
    let client = server.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE lives (life int)")
        .await
        .unwrap();
    let mut stage = Stage::start(server).await;
    client
        .batch_execute("INSERT INTO lives VALUES (1)")
        .await
        .unwrap();
    stage.mirrored(&stage.server).await;
    // Total loss.
    stage.server.kill_9().unwrap();
    let began = Instant::now();
    let second = Second::of(stage.recover(RestoreTarget::Latest).await, &stage.server);
    second.run("INSERT INTO lives VALUES (2)").await;
    println!("total loss to first write: {:?}", began.elapsed());
    assert_eq!(
        (second.recovered.way, second.recovered.timeline),
        (Way::Mirror, 2)
    );
    let durable = second.ask("SELECT pg_current_wal_insert_lsn()::text").await;
    let end: Lsn = durable.parse().unwrap();
    let status = stage
        .running
        .wait("the second life", |s| {
            s.timeline == 2 && s.shipped >= end && s.trouble.is_none()
        })
        .await;
    assert!(status.moved_to.is_some());
    // A new mirror follows the new timeline.
    stage
        .running
        .wait("a new mirror", |s| follows(s) && replayed(s) >= end)
        .await;
    second.kill();
    let third = Second::of(stage.recover(RestoreTarget::Latest).await, &stage.server);
    assert_eq!(third.recovered.timeline, 3);
    let lives = "SELECT string_agg(life::text, ',' ORDER BY life) FROM lives";
    assert_eq!(third.ask(lives).await, "1,2");
    third.run("INSERT INTO lives VALUES (3)").await;
    let end: Lsn = third
        .ask("SELECT pg_current_wal_insert_lsn()::text")
        .await
        .parse()
        .unwrap();
    stage
        .running
        .wait("the third life", |s| s.timeline == 3 && s.shipped >= end)
        .await;
    // A vault that starts again goes on with the recovered server, and the log has no hole.
    let scene = stage.scene;
    stage.running.stop().await;
    let again = scene.run(&stage.server.url());
    let status = again
        .wait("stream", |s| {
            s.moved_to.is_some() && s.lag_s == 0.0 && s.trouble.is_none() && s.timeline == 3
        })
        .await;
    assert!(status.flushed >= end);
    let back = scene.restore(&scene.state(), &stage.server).await;
    assert_eq!(back.ask(lives).await, "1,2,3");
    again.stop().await;
    assert_eq!(scene.entries("source.log_missing").len(), 0);
    assert_eq!(scene.entries("source.slot_lost").len(), 0);
    drop(stage.mirrors);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_is_killed_follows_again_and_the_vault_takes_up_one_that_was_left() {
    let server = source(&postgres::newest().unwrap());
    let client = server.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (n int)")
        .await
        .unwrap();
    let stage = Stage::start(server).await;
    let pid = || -> u32 {
        let folder = stage.mirrors.path().join("prod");
        let mut data = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let data = data.find(|path| path.is_dir()).unwrap();
        let text = fs::read_to_string(data.join("postmaster.pid")).unwrap();
        text.lines().next().unwrap().parse().unwrap()
    };
    let first = pid();
    signals::send(first, Signal::KILL).unwrap();
    client
        .batch_execute("INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    stage.mirrored(&stage.server).await;
    assert_ne!(pid(), first);
    let second = pid();
    let between = now();
    client
        .batch_execute("INSERT INTO t VALUES (2); CHECKPOINT")
        .await
        .unwrap();
    stage.mirrored(&stage.server).await;
    // An orderly stop takes the mirror along, and a new vault starts it where it was.
    stage.running.stop().await;
    assert!(!signals::is_running(second));
    let again = stage.scene.run(&stage.server.url());
    again.wait("mirror that follows", follows).await;
    // What it has replayed is older than what it reads of the log now.
    let error = recover(&again, RestoreTarget::Time(between)).await;
    assert_eq!(error.unwrap_err().code().as_str(), "ZS382");
    client
        .batch_execute("INSERT INTO t VALUES (3)")
        .await
        .unwrap();
    let end = flushed(&client).await;
    again
        .wait("mirrored log", |s| replayed(s) >= end && follows(s))
        .await;
    again.stop().await;
    assert_eq!(stage.scene.entries("mirror.laid").len(), 1, "laid once");
}
