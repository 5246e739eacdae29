//! The vault with its repository in a bucket of a storage that fails in every way.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use holdfast_core::{Lsn, Secret};
use holdfast_store::object::s3::{
    Addressing, BucketPath, CredentialSource, Credentials, Endpoint, PlainHttp, S3Location, Timing,
};
use holdfast_store::object::{Location, Promise};
use holdfast_testing::postgres::{self, Server};
use holdfast_testing::s3::{Fault, ObjectStorage, S3Proxy};
use holdfast_vault::retention::{LockKeeper, Span};
use holdfast_vault::{
    AckAt, AckMode, ProofState, Reader, Repository, WalPlace, check_target, system_clock,
};

use crate::capture::killed::{Acknowledged, await_more, check, make_synchronous, write};
use crate::capture::scene::{LIMIT, POLL, Scene, flushed};

/// A bucket that the vault reaches with the least rights and through a proxy.
struct Bucket {
    storage: ObjectStorage,
    proxy: S3Proxy,
    name: String,
    /// The name of the vault's key, which may be renewed at any time.
    key_id: Arc<Mutex<String>>,
}

impl Bucket {
    fn new() -> Self {
        let storage = ObjectStorage::shared().unwrap();
        let name = storage.bucket().unwrap();
        storage.grant_least(&name).unwrap();
        let proxy = S3Proxy::start(storage.address()).unwrap();
        let key_id = Arc::new(Mutex::new(ObjectStorage::GUEST.to_owned()));
        Self {
            storage,
            proxy,
            name,
            key_id,
        }
    }

    fn location(&self) -> Location {
        let key_id = Arc::clone(&self.key_id);
        let key = move || key_id.lock().unwrap().clone();
        let lock = Duration::from_secs(3600);
        location(self.proxy.address(), &self.name, key, lock)
    }

    fn scene(&self) -> Scene {
        let mut scene = Scene::acknowledging_at(AckAt::Repository);
        scene.bucket = Some(self.location());
        scene
    }

    /// Waits until the storage has met everything that was to happen to it.
    async fn await_faults(&self, what: &str) {
        let began = Instant::now();
        while self.proxy.left() > 0 {
            assert!(began.elapsed() < LIMIT, "{what}: it does not happen");
            tokio::time::sleep(POLL).await;
        }
    }
}

/// A repository in a bucket that is reached at an address, with a key whose secret is that of all.
pub fn location(
    address: SocketAddr,
    bucket: &str,
    key: impl Fn() -> String + Send + Sync + 'static,
    lock: Duration,
) -> Location {
    let endpoint = format!("http://{address}");
    let bucket = BucketPath::parse(&format!("s3://{bucket}/vault"));
    Location::S3(Box::new(S3Location {
        endpoint: Endpoint::parse(&endpoint, PlainHttp::LoopbackOnly).unwrap(),
        region: "us-east-1".to_owned(),
        bucket: bucket.unwrap().unwrap(),
        addressing: Addressing::Path,
        credentials: CredentialSource::new(move || {
            Ok(Credentials {
                access_key_id: key(),
                secret_access_key: Secret::new(ObjectStorage::SECRET),
                session_token: None,
            })
        }),
        lock,
        authority_pem: None,
        timing: Timing {
            request: Duration::from_secs(1),
            tries: 3,
            pause: Duration::from_millis(10),
        },
        promise: Promise::Compliance,
        near: None,
    }))
}

fn answer(status: u16, code: &'static str) -> Fault {
    Fault::Answer {
        status,
        code,
        header: "",
    }
}

/// What goes wrong, on which requests, how often in a row.
fn faults() -> Vec<(&'static str, Fault, u32)> {
    let slow = Duration::from_millis(10);
    vec![
        ("PUT /", answer(503, "SlowDown"), 4),
        ("HEAD /", answer(500, "InternalError"), 4),
        ("versions=", answer(503, ""), 4),
        ("PUT /", Fault::CutAfterSuccess, 4),
        ("PUT /", Fault::CutBefore, 4),
        ("PUT /", Fault::Silence, 1),
        ("PUT /", Fault::Drip(slow), 1),
        ("versions=", Fault::Truncate(200), 4),
        ("versions=", Fault::Shorten(30), 4),
        ("HEAD /", Fault::CutBefore, 4),
        (" /", answer(403, "ExpiredToken"), 2),
        (" /", answer(403, "AccessDenied"), 2),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_commit_is_lost_while_the_storage_fails_in_every_way() {
    let bucket = Bucket::new();
    let scene = bucket.scene();
    let mut server = Server::builder(&postgres::newest().unwrap())
        .initdb_arg("--wal-segsize=1")
        .start()
        .unwrap();
    let client = server.connect().await.unwrap();
    let table = "CREATE TABLE t (n bigint PRIMARY KEY)";
    client.batch_execute(table).await.unwrap();
    let running = scene.run(&server.url());
    let proven = |s: &holdfast_vault::SourceStatus| s.proof.at.is_some() && s.busy.is_none();
    let status = running.wait("drill", proven).await;
    assert_eq!(status.proof.state, ProofState::Verified);
    make_synchronous(&scene.source(&server.url(), AckMode::Synchronous)).await;
    let (acknowledged, next) = (Acknowledged::default(), Arc::default());
    let mut writers = Vec::new();
    for _ in 0..3 {
        let client = server.connect().await.unwrap();
        let (told, next) = (acknowledged.clone(), Arc::clone(&next));
        writers.push(tokio::spawn(write(client, told, next)));
    }
    let count = || acknowledged.lock().unwrap().len();
    await_more(&count, 20).await;
    for (on, fault, times) in faults() {
        bucket.proxy.on(on, fault.clone(), times);
        bucket.await_faults(&format!("{fault:?}")).await;
        let told = count();
        await_more(&count, told + 10).await;
    }
    // The key is not good any more, and some time later there is another.
    *bucket.key_id.lock().unwrap() = "REVOKED".to_owned();
    bucket.proxy.on(" /", answer(403, "ExpiredToken"), 1);
    running.wait("trouble", |s| s.trouble.is_some()).await;
    *bucket.key_id.lock().unwrap() = ObjectStorage::GUEST.to_owned();
    let told = count();
    await_more(&count, told + 10).await;
    running.wait("no trouble", |s| s.trouble.is_none()).await;

    // The source is lost, and the vault's machine with its spool: the bucket alone is left.
    server.kill_9().unwrap();
    std::fs::remove_dir_all(server.data_dir()).unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    let nothing = scene.dir.path().join("nothing");
    let acknowledged = acknowledged.lock().unwrap().clone();
    let back = scene.restore(&nothing, &server).await;
    check(&back, &acknowledged).await;
    // Whatever the vault was told of its tries, it stored each object once.
    let mut versions: BTreeMap<String, u32> = BTreeMap::new();
    for version in bucket.storage.versions(&bucket.name).unwrap() {
        *versions.entry(version.name).or_default() += 1;
    }
    versions.retain(|name, number| name.starts_with("vault/prod/") && *number > 1);
    assert!(versions.is_empty(), "stored more than once: {versions:?}");
}

/// What was asked of the storage for objects of one kind: `PUT`, `LIST`, `HEAD` or `GET`, and how often.
fn requests(seen: &[String], kind: &str) -> BTreeMap<&'static str, u32> {
    let mut found = BTreeMap::new();
    // In a query a slash is escaped.
    let escaped = kind.replace('/', "%2F");
    for line in seen {
        if !line.contains(kind) && !line.contains(&escaped) {
            continue;
        }
        let method = match line.split(' ').next().unwrap() {
            "GET" if line.contains("versions=") => "LIST",
            "GET" => "GET",
            "PUT" => "PUT",
            "HEAD" => "HEAD",
            other => panic!("{other} is never sent: {line}"),
        };
        *found.entry(method).or_default() += 1;
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_log_costs_three_requests_and_a_restore_point_three_for_each_of_its_objects()
{
    let bucket = Bucket::new();
    let scene = bucket.scene();
    let server = Server::builder(&postgres::newest().unwrap())
        .initdb_arg("--wal-segsize=1")
        .start()
        .unwrap();
    let client = server.connect().await.unwrap();
    let running = scene.run(&server.url());
    let proven = |s: &holdfast_vault::SourceStatus| s.proof.at.is_some() && s.busy.is_none();
    running.wait("drill", proven).await;
    let from = bucket.proxy.seen().len();
    for number in 0..6 {
        let sql = format!("CREATE TABLE t{number} AS SELECT generate_series(1, 10000) n");
        client.batch_execute(&sql).await.unwrap();
        let end = flushed(&client).await;
        running.wait("shipped log", |s| s.shipped >= end).await;
    }
    let first = running.status().point;
    assert!(running.vault.ask_for_point(&"prod".parse().unwrap()));
    let is_next = |s: &holdfast_vault::SourceStatus| s.point != first && s.busy.is_none();
    running.wait("next point", is_next).await;
    running.stop().await;
    let seen = &bucket.proxy.seen()[from..];
    for kind in ["/tail/", "/wal/", "/point/"] {
        let found = requests(seen, kind);
        println!("{kind}: {found:?}");
        let objects = found["PUT"];
        assert!(objects > 1, "{kind}: {found:?}");
        // Each object is listed and looked at once; nothing is looked at before it is stored or read.
        assert_eq!(found["HEAD"], objects, "{kind}: {found:?}");
        // Whole folders are listed beside that, when a point is taken and when the vault ends.
        assert!(
            found["LIST"] >= objects && found["LIST"] <= objects + 8,
            "{kind}: {found:?}"
        );
    }
}

/// A commit as its client saw it: its number, where the log ended then, and when it was told.
type Told = (i64, Lsn, Instant);

/// Commits one row after the other until the source is gone.
async fn commit(client: tokio_postgres::Client, told: Arc<Mutex<Vec<Told>>>) {
    for number in 0_i64.. {
        let row = format!("INSERT INTO t VALUES ({number})");
        if client.batch_execute(&row).await.is_err() {
            return;
        }
        let asked = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]);
        let Ok(row) = asked.await else { return };
        let end = row.get::<_, String>(0).parse().unwrap();
        told.lock().unwrap().push((number, end, Instant::now()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_waiting_commits_less_than_a_second_is_lost_however_slow_the_storage_is() {
    for late in [Duration::from_millis(300), Duration::from_secs(2)] {
        let bucket = Bucket::new();
        let mut scene = bucket.scene();
        scene.ack = AckAt::Spool;
        let mut server = Server::builder(&postgres::newest().unwrap())
            .initdb_arg("--wal-segsize=1")
            .start()
            .unwrap();
        let client = server.connect().await.unwrap();
        let table = "CREATE TABLE t (n bigint PRIMARY KEY)";
        client.batch_execute(table).await.unwrap();
        let running = scene.run(&server.url());
        let proven = |s: &holdfast_vault::SourceStatus| s.proof.at.is_some() && s.busy.is_none();
        running.wait("drill", proven).await;
        bucket.proxy.on("PUT /", Fault::Late(late), u32::MAX);
        let told: Arc<Mutex<Vec<Told>>> = Arc::default();
        let writer = tokio::spawn(commit(client, Arc::clone(&told)));
        let (began, mut oldest) = (Instant::now(), Duration::ZERO);
        while began.elapsed() < late + Duration::from_secs(3) {
            let (shipped, now) = (running.status().shipped, Instant::now());
            let all = told.lock().unwrap().clone();
            let missing = all.iter().find(|(_, end, _)| *end > shipped);
            oldest = oldest.max(missing.map_or(Duration::ZERO, |(_, _, at)| now - *at));
            tokio::time::sleep(POLL).await;
        }
        server.kill_9().unwrap();
        let killed = Instant::now();
        writer.await.unwrap();
        std::fs::remove_dir_all(server.data_dir()).unwrap();
        // What the source's and the vault's machine would lose together: the time that a part
        // gathers, and the time that the storage takes for it.
        println!("PUT after {late:?}: the bucket was behind by at most {oldest:?}");
        assert!(oldest < late + Duration::from_secs(2), "{oldest:?}");
        running.stop().await;
        let back = scene.restore(&scene.state(), &server).await;
        let kept: i64 = back
            .ask("SELECT coalesce(max(n), -1)::text FROM t")
            .await
            .parse()
            .unwrap();
        let all = told.lock().unwrap().clone();
        let lost = all.iter().find(|(number, _, _)| *number > kept);
        let seconds = lost.map_or(Duration::ZERO, |(_, _, at)| {
            killed.saturating_duration_since(*at)
        });
        println!("{} told, kept up to {kept}, lost {seconds:?}", all.len());
        assert!(all.len() > 20, "{}", all.len());
        assert!(seconds < Duration::from_secs(1), "{seconds:?}");
    }
}

/// The log of a source that is only in the bucket: six segments and two parts of the next.
fn fill(location: &Location) {
    const SEGMENT: usize = 1 << 20;
    let signing = SigningKey::from_bytes(&[9; 32]);
    let repository =
        Repository::open_writer(location, signing, &crate::keys::keys(), system_clock()).unwrap();
    let at = WalPlace {
        source: "prod".parse().unwrap(),
        system_identifier: 77,
        timeline: 1,
        segment_bytes: 1 << 20,
    };
    for number in 1..=6 {
        let start = Lsn(number << 20);
        let bytes = vec![7; SEGMENT];
        repository.put_segment(&at, start, &bytes).unwrap();
        // The same again costs a look, and changes nothing.
        repository.put_segment(&at, start, &bytes).unwrap();
    }
    repository.put_tail(&at, Lsn(7 << 20), b"first").unwrap();
    let next = Lsn((7 << 20) + 5);
    repository.put_tail(&at, next, b"second").unwrap();
}

#[test]
fn locks_in_a_bucket_are_lengthened_in_time_and_one_refusal_holds_up_no_other() {
    let bucket = Bucket::new();
    let location = bucket.location();
    fill(&location);
    let store = location.open().unwrap();
    let reader = Reader::open(&location, None, &crate::keys::keys()).unwrap();
    let window = Duration::from_secs(4 * 3600);
    let mut keeper = LockKeeper::new(reader, BTreeMap::new(), Span(window));
    // Each is locked for an hour, less than half of the window.
    bucket
        .proxy
        .on(".zst.age?retention=", answer(403, "AccessDenied"), 1);
    let from = bucket.proxy.seen().len();
    let first = keeper.look(&store).unwrap();
    let told = (first.objects, first.asked, first.lengthened, first.failed);
    // The marker is one of them.
    assert_eq!(told, (9, 9, 9, 1), "{first:?}");
    let seen = requests(&bucket.proxy.seen()[from..], "/prod/");
    assert_eq!((seen["PUT"], seen["HEAD"]), (8, 17), "{seen:?}");
    // The one that was refused is asked for again, the others are known.
    let from = bucket.proxy.seen().len();
    let second = keeper.look(&store).unwrap();
    let told = (
        second.objects,
        second.asked,
        second.lengthened,
        second.failed,
    );
    assert_eq!(told, (9, 0, 1, 0), "{second:?}");
    let seen = requests(&bucket.proxy.seen()[from..], "/prod/");
    assert_eq!((seen["PUT"], seen["HEAD"]), (1, 1), "{seen:?}");
    let until = store.now().unwrap().plus(window - Duration::from_secs(60));
    for (key, _) in store.list("prod").unwrap() {
        let head = store.head(&key).unwrap().unwrap();
        assert!(
            head.locked_until.is_some_and(|found| found > until),
            "{key}"
        );
    }
    // Nobody can shorten what was lengthened.
    let permitted = bucket.storage.try_to_destroy(&bucket.name, "vault/prod/");
    assert_eq!(permitted.unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_promise_is_tried_once_a_day_and_what_another_key_has_shown_is_remembered() {
    let bucket = Bucket::new();
    let location = bucket.location();
    let clock = Arc::new(Mutex::new(system_clock()()));
    let mut scene = bucket.scene();
    let read = Arc::clone(&clock);
    scene.clock = Arc::new(move || *read.lock().unwrap());
    let open = || {
        scene
            .open("postgresql://nobody@127.0.0.1:1/postgres")
            .promise()
            .clone()
    };
    let probes = || {
        let versions = bucket.storage.versions(&bucket.name).unwrap();
        let names = versions
            .iter()
            .filter(|version| version.name.ends_with("/locked"));
        names
            .map(|version| &version.name)
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    let day = Duration::from_secs(24 * 3600);
    let pass = |time: Duration| {
        let mut now = clock.lock().unwrap();
        *now = now.plus(time);
    };
    let unproven = |promise: Promise| match promise {
        Promise::Advisory { why } => assert!(why.contains("no key that may delete"), "{why}"),
        Promise::Compliance => panic!("nobody has shown that"),
    };
    unproven(open());
    unproven(open());
    assert_eq!(probes(), 1);
    // The owner's key shows what the vault's cannot.
    let owner = CredentialSource::new(|| {
        Ok(Credentials {
            access_key_id: ObjectStorage::OWNER.to_owned(),
            secret_access_key: Secret::new(ObjectStorage::SECRET),
            session_token: None,
        })
    });
    let report = check_target(&location, Some(&owner), &scene.state()).unwrap();
    assert_eq!(report.promise, Promise::Compliance, "{report:#?}");
    assert_eq!((open(), probes()), (Promise::Compliance, 2));
    // Later the vault's key shows that nothing has got worse; that is remembered as well.
    pass(day * 2);
    assert_eq!((open(), probes()), (Promise::Compliance, 3));
    assert_eq!((open(), probes()), (Promise::Compliance, 3));
    // What gives way is told at once, and a proof does not count for ever.
    pass(day * 2);
    bucket.proxy.pass("?retention=", 1);
    bucket.proxy.on("?retention=", answer(200, ""), 1);
    assert!(matches!(open(), Promise::Advisory { why } if why.starts_with("shorten:")));
    check_target(&location, Some(&owner), &scene.state()).unwrap();
    pass(day * 91);
    unproven(open());
    let entries = scene.entries("repository.promised");
    let told = entries
        .iter()
        .map(|entry| entry.draft.body["promise"].as_str().unwrap());
    let told: Vec<&str> = told.collect();
    let (a, c) = ("advisory", "compliance");
    assert_eq!(told, [a, a, c, c, c, a, a]);
}
