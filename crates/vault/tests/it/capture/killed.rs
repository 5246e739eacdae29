//! kill -9 of the vault under synchronous commits: nothing that was acknowledged is ever missing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_core::Lsn;
use holdfast_testing::postgres::{self, Installation, Server};
use holdfast_testing::signals;
use holdfast_vault::{
    AckMode, CaptureState, ConnectionUrl, ProofState, SourceConfig, disable_synchronous,
    enable_synchronous,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::scene::{Back, LIMIT, POLL, Scene};

const WRITERS: i64 = 3;
const KILLS: usize = 5;

/// What clients were told is committed: the row, and a position before its commit record.
pub type Acknowledged = Arc<Mutex<Vec<(i64, Lsn)>>>;

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_commits_survive_kill_9_of_the_vault_at_random_moments() {
    let seed = match std::env::var("HOLDFAST_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => rand::random(),
    };
    println!("seed {seed}: set HOLDFAST_SEED to it to play this again");
    let mut random = StdRng::seed_from_u64(seed);
    for installation in postgres::all().unwrap() {
        play(&installation, &mut random).await;
    }
}

async fn play(installation: &Installation, random: &mut StdRng) {
    let scene = Scene::new();
    let mut server = Server::builder(installation).start().unwrap();
    let client = server.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (n bigint PRIMARY KEY)")
        .await
        .unwrap();
    let source = scene.source(&server.url(), AckMode::Synchronous);
    let mut vault = scene.spawn(&server.url(), AckMode::Synchronous);
    // The first drill is let pass, so that it takes no time from what is played.
    let status = scene.await_told("drill", |s| s.proof.at.is_some() && s.busy.is_none());
    assert_eq!(status.proof.state, ProofState::Verified);
    make_synchronous(&source).await;

    let acknowledged = Acknowledged::default();
    let next = Arc::new(AtomicI64::new(0));
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        let client = server.connect().await.unwrap();
        let (acknowledged, next) = (acknowledged.clone(), next.clone());
        writers.push(tokio::spawn(write(client, acknowledged, next)));
    }
    let count = || acknowledged.lock().unwrap().len();
    await_more(&count, 20).await;
    for _ in 0..KILLS {
        // WAIT: the moment of the kill is drawn from the seed.
        tokio::time::sleep(Duration::from_millis(random.random_range(20..400))).await;
        vault.kill_9().unwrap();
        await_all_waiting(&client).await;
        let told = count();
        assert_eq!(told, count(), "nothing is acknowledged without the vault");
        vault = scene.spawn(&server.url(), AckMode::Synchronous);
        await_more(&count, told + 20).await;
    }
    // The last time both die, and what the source had is gone.
    // WAIT: the moment of the kill is drawn from the seed.
    tokio::time::sleep(Duration::from_millis(random.random_range(20..400))).await;
    vault.kill_9().unwrap();
    server.kill_9().unwrap();
    std::fs::remove_dir_all(server.data_dir()).unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    let newest = acknowledged.iter().map(|(_, at)| *at).max().unwrap();
    println!("{} acknowledged, newest after {newest}", acknowledged.len());

    // From the spool as the kill left it, and after a restart without the source: from the repository
    // alone, as if the vault's own machine were lost too.
    check(&scene.restore(&scene.state(), &server).await, &acknowledged).await;
    let running = scene.run(&server.url());
    running
        .wait("the whole log", |s| {
            s.flushed > newest && s.shipped > newest
        })
        .await;
    running.stop().await;
    let nothing = scene.dir.path().join("nothing");
    check(&scene.restore(&nothing, &server).await, &acknowledged).await;
}

pub async fn check(back: &Back, acknowledged: &[(i64, Lsn)]) {
    let rows = back.ask("SELECT string_agg(n::text, ',') FROM t").await;
    let rows: BTreeSet<i64> = rows.split(',').map(|n| n.parse().unwrap()).collect();
    let lost: Vec<i64> = acknowledged
        .iter()
        .map(|(n, _)| *n)
        .filter(|n| !rows.contains(n))
        .collect();
    assert!(
        lost.is_empty(),
        "{} acknowledged are lost: {lost:?}",
        lost.len()
    );
    println!(
        "{} rows back, 0 of {} acknowledged lost, writable in {:.2} s",
        rows.len(),
        acknowledged.len(),
        back.restored.promoted_s.unwrap()
    );
}

pub async fn write(
    client: tokio_postgres::Client,
    acknowledged: Acknowledged,
    next: Arc<AtomicI64>,
) {
    const SQL: &str = "INSERT INTO t VALUES ($1) RETURNING pg_current_wal_insert_lsn()::text";
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        match client.query_one(SQL, &[&n]).await {
            Ok(row) => {
                let at: String = row.get(0);
                acknowledged.lock().unwrap().push((n, at.parse().unwrap()));
            }
            Err(_) => return,
        }
    }
}

/// Waits until every writer waits for the vault.
async fn await_all_waiting(client: &tokio_postgres::Client) {
    const SQL: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let began = std::time::Instant::now();
    loop {
        let row = client.query_one(SQL, &[]).await.unwrap();
        if row.get::<_, i64>(0) == WRITERS {
            return;
        }
        assert!(began.elapsed() < LIMIT, "commits go on without the vault");
        tokio::time::sleep(POLL).await;
    }
}

pub async fn await_more(count: &impl Fn() -> usize, wanted: usize) {
    let began = std::time::Instant::now();
    while count() < wanted {
        assert!(
            began.elapsed() < LIMIT,
            "no commits: {} of {wanted}",
            count()
        );
        tokio::time::sleep(POLL).await;
    }
}

/// Makes commits wait for the vault, as soon as its stream has caught up.
pub async fn make_synchronous(source: &SourceConfig) {
    let began = std::time::Instant::now();
    while let Err(error) = enable_synchronous(source).await {
        assert!(began.elapsed() < LIMIT, "{error}");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_dies_never_stops_an_asynchronous_source() {
    let scene = Scene::new();
    let server = Server::builder(&postgres::newest().unwrap())
        .start()
        .unwrap();
    let client = server.connect().await.unwrap();
    let url: ConnectionUrl = server.url().parse().unwrap();
    let mut vault = scene.spawn(&server.url(), AckMode::Asynchronous);
    let status = scene.await_told("stream", |s| s.state == CaptureState::Streaming);
    assert_eq!(status.mode, AckMode::Asynchronous);
    vault.kill_9().unwrap();
    client
        .batch_execute("CREATE TABLE t AS SELECT generate_series(1, 1000) n")
        .await
        .unwrap();
    // Without a stream, commits would hang: the setting is refused.
    let source = SourceConfig {
        url,
        ..scene.source(&server.url(), AckMode::Synchronous)
    };
    let began = std::time::Instant::now();
    while enable_synchronous(&source).await.is_ok() {
        // The source has not noticed yet that the stream is gone.
        disable_synchronous(&source).await.unwrap();
        assert!(began.elapsed() < LIMIT);
    }
    client
        .batch_execute("INSERT INTO t VALUES (0)")
        .await
        .unwrap();
}

/// Servers of drills among the processes that a vault has begun.
fn drill_servers(vault: u32) -> Vec<u32> {
    let all = signals::descendants(vault).unwrap_or_default();
    let is_drill = |pid: &u32| {
        let place = std::fs::read_link(format!("/proc/{pid}/cwd"));
        place.is_ok_and(|place| place.to_string_lossy().contains("holdfast-drill-prod"))
    };
    all.into_iter().filter(is_drill).collect()
}

#[test]
fn a_vault_that_is_killed_in_the_middle_of_a_drill_leaves_no_server() {
    let installation = postgres::oldest().unwrap();
    let server = Server::builder(&installation).start().unwrap();
    let scene = Scene::new();
    let mut vault = scene.spawn(&server.url(), AckMode::Asynchronous);
    let pid = vault.pid();
    let mut servers = Vec::new();
    signals::wait_until(LIMIT, || {
        servers = drill_servers(pid);
        !servers.is_empty()
    })
    .unwrap();
    let folder = std::fs::read_link(format!("/proc/{}/cwd", servers[0])).unwrap();
    vault.kill_9().unwrap();
    // They end by themselves, without a vault that would start anew.
    signals::wait_until(Duration::from_secs(20), || {
        servers.iter().all(|pid| !signals::is_running(*pid))
    })
    .unwrap();
    let _vault = scene.spawn(&server.url(), AckMode::Asynchronous);
    scene.await_told("drill", |s| s.proof.at.is_some() && s.busy.is_none());
    assert!(!folder.exists(), "{}", folder.display());
}
