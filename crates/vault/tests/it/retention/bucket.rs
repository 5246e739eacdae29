//! Retention in a bucket: locks that grow with need, a key that may not and one that may, clocks that lie.

use std::time::Instant;

use holdfast_core::Coded;
use holdfast_store::object::expire::{self, Expired};
use holdfast_testing::s3::{Ask, Fault, ObjectStorage, S3Proxy};
use holdfast_vault::retention::{ExpirePlan, LockKeeper, LockReport};
use holdfast_vault::system_clock;

use super::*;
use crate::bucket::location;
use crate::keys::keys;

const LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
/// Short, because a storage's clock cannot be moved and its locks are real.
const WINDOW: Span = Span(Duration::from_secs(12));
const YEARS_S: i64 = 2 * 365 * 86_400;

struct Bucket {
    storage: ObjectStorage,
    proxy: S3Proxy,
    name: String,
    folder: tempfile::TempDir,
}

impl Bucket {
    fn new() -> Self {
        let storage = ObjectStorage::shared().unwrap();
        let name = storage.bucket().unwrap();
        storage.grant_least(&name).unwrap();
        Self {
            proxy: S3Proxy::start(storage.address()).unwrap(),
            storage,
            name,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// The repository as the holder of a key reaches it.
    fn at(&self, key: &'static str) -> Location {
        let key = move || key.to_owned();
        location(self.proxy.address(), &self.name, key, WINDOW.0)
    }

    fn reader(&self, key: &'static str) -> Reader {
        let location = self.at(key);
        Reader::open(&location, Some(super::key().verifying_key()), &keys()).unwrap()
    }

    /// Nothing but the newest point is kept.
    fn rules() -> BTreeMap<SourceName, KeepRules> {
        let rules = KeepRules {
            all_for: Span::ZERO,
            hourly_for: Span::ZERO,
            daily_for: Span::ZERO,
            weekly_for: Span::ZERO,
            log: LogKeep::Continuous,
        };
        BTreeMap::from([(source(), rules)])
    }

    fn expiry(&self) -> Expiry {
        let ledger = self.folder.path().join("retention");
        let now = Timestamp::from(std::time::SystemTime::now());
        Expiry {
            backend: self.at(ObjectStorage::EXPIRY).open().unwrap(),
            reader: self.reader(ObjectStorage::EXPIRY),
            rules: Self::rules(),
            lock_for: WINDOW,
            ledger: Ledger::open(&ledger, SigningKey::from_bytes(&[9; 32]), now).unwrap(),
            vault_ledger: None,
            clock: system_clock(),
        }
    }

    /// Returns the names of all objects of the source and of the marker.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .storage
            .versions(&self.name)
            .unwrap()
            .into_iter()
            .map(|version| version.name)
            .filter(|name| !name.starts_with("vault/holdfast-writer/"))
            .collect();
        names.sort();
        names
    }

    /// Tries to delete every version with every key; returns the statuses that were not refusals.
    fn delete_all(&self) -> Vec<u16> {
        let mut permitted = Vec::new();
        for version in self.storage.versions(&self.name).unwrap() {
            let (path, query) = (
                format!("/{}/{}", self.name, version.name),
                format!("versionId={}", version.id),
            );
            for key in [
                ObjectStorage::GUEST,
                ObjectStorage::EXPIRY,
                ObjectStorage::OWNER,
            ] {
                let asked = self.storage.ask(&Ask {
                    key,
                    query: &query,
                    ..Ask::owner("DELETE", &path)
                });
                let status = asked.unwrap().status;
                if status < 400 {
                    permitted.push(status);
                }
            }
        }
        permitted
    }

    /// Looks at the locks as the vault does, and tells what was asked of the storage meanwhile.
    fn look(&self, keeper: &mut LockKeeper, store: &dyn Backend) -> (LockReport, Requests) {
        let from = self.proxy.seen().len();
        let report = keeper.look(store).unwrap();
        assert_eq!((report.failed, report.left), (0, 0), "{report:?}");
        let mut requests = Requests::default();
        for line in &self.proxy.seen()[from..] {
            match line.split(' ').next().unwrap() {
                "PUT" if line.contains("retention=") => requests.locks += 1,
                "HEAD" if line.contains("versionId=") => requests.heads += 1,
                // Tells the time.
                "HEAD" => {}
                "GET" if line.contains("versions=") => requests.lists += 1,
                "GET" => requests.gets += 1,
                _ => panic!("nothing else is asked: {line}"),
            }
        }
        (report, requests)
    }
}

/// What a look at the locks asked of the storage.
#[derive(Debug, Default)]
struct Requests {
    locks: u64,
    heads: u64,
    lists: u64,
    gets: u64,
}

fn wait(mut until: impl FnMut() -> bool) {
    let began = Instant::now();
    while !until() {
        assert!(began.elapsed() < LIMIT, "it does not happen");
        std::thread::sleep(POLL);
    }
}

fn locked_until(store: &dyn Backend, key: &ObjectKey) -> Timestamp {
    store.head(key).unwrap().unwrap().locked_until.unwrap()
}

#[test]
fn a_bucket_keeps_what_is_needed_and_gives_up_the_rest_to_another_key_when_its_lock_has_ended() {
    let bucket = Bucket::new();
    let guest = bucket.at(ObjectStorage::GUEST);
    let ago = Arc::new(AtomicI64::new(2 * 3_600 * 1_000_000));
    let (real, back) = (system_clock(), ago.clone());
    let clock: Clock = Arc::new(move || Timestamp(real().0 - back.load(Ordering::Relaxed)));
    let vault = Repository::open_writer(&guest, key(), &keys(), clock).unwrap();
    let mut files = Files::default();
    // Three points that no rule keeps any more, and the newest.
    for _ in 0..3 {
        files.point(&vault);
    }
    ago.store(0, Ordering::Relaxed);
    files.point(&vault);
    let store = guest.open().unwrap();
    let objects: Vec<ObjectKey> = store
        .list("files")
        .unwrap()
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    let locks = objects.iter().map(|key| locked_until(store.as_ref(), key));
    let last = locks.max().unwrap();
    assert_eq!(bucket.delete_all(), Vec::<u16>::new(), "all is locked");
    let expiry = bucket.expiry();
    assert_eq!(expiry.plan().unwrap().goes().objects, 0);

    lengthens_what_is_needed(&bucket, store.as_ref(), last);
    // What is not needed runs out: all of the first two points but the large file's first bundle. The
    // third may be what somebody builds on.
    let mut plan = expiry.plan().unwrap();
    wait(|| {
        plan = expiry.plan().unwrap();
        plan.points().count() == 2
    });
    assert!(store.now().unwrap() >= last.minus(WINDOW.0));
    refused_by_clocks(&bucket, &plan, expiry);
    let expiry = bucket.expiry();
    let before = bucket.names();
    // The vault's own key may not, whatever the plan says.
    let own = expire::open(&guest).unwrap();
    let refused = expiry.apply(&plan, own.as_ref()).unwrap_err();
    assert_eq!(refused.code().as_str(), "ZL261", "{refused}");
    assert_eq!(bucket.names(), before);
    let other = expire::open(&bucket.at(ObjectStorage::EXPIRY)).unwrap();
    let report = expiry.apply(&plan, other.as_ref()).unwrap();
    assert_eq!(report.removed.objects, plan.goes().objects, "{report:?}");
    let left = bucket.names();
    for gone in plan.sources[0].goes.iter().map(|going| &going.key) {
        assert!(!left.contains(&format!("vault/{gone}")), "{gone}");
    }
    let gone = usize::try_from(plan.goes().objects).unwrap();
    assert!(gone > 2, "{plan:?}");
    assert_eq!(left.len(), before.len() - gone);

    // What stays is whole, also the parts that were stored for a point that is no more.
    let reader = bucket.reader(ObjectStorage::GUEST);
    let stay: Vec<PointId> = files.points[2..].iter().map(|one| one.0.clone()).collect();
    assert_eq!(files.check(&reader), stay);
    let needs = reader.point(&source(), &stay[1]).unwrap().needs();
    let first = files.points[0].0.as_str();
    let is_first = |key: &ObjectKey| key.as_str().contains(first);
    assert!(needs.unwrap().iter().any(is_first), "{left:?}");
    // The next point builds on it.
    files.point(&vault);
    assert_eq!(files.check(&bucket.reader(ObjectStorage::GUEST)).len(), 3);
}

/// Once half of every lock has passed, each object that is needed is locked anew: once, though several
/// points need it; then nobody can remove it.
fn lengthens_what_is_needed(bucket: &Bucket, store: &dyn Backend, last: Timestamp) {
    let reader = bucket.reader(ObjectStorage::GUEST);
    let mut keeper = LockKeeper::new(reader, Bucket::rules(), WINDOW);
    wait(|| store.now().unwrap().plus(WINDOW.0 / 2) > last);
    let (report, requests) = bucket.look(&mut keeper, store);
    println!("{report:?} {requests:?}");
    // The marker, manifest and map of two points, and the bundles of all four that they refer to.
    assert!(report.objects >= 7, "{report:?}");
    let all = u64::try_from(bucket.names().len()).unwrap();
    assert!(report.objects < all, "{report:?}");
    assert_eq!(report.asked, report.objects);
    assert_eq!(report.lengthened, report.objects);
    assert_eq!(requests.locks, report.lengthened);
    // Each map that was not read before costs one as well.
    let looks = report.asked + report.lengthened;
    assert!(
        (looks..=looks + 4).contains(&requests.heads),
        "{requests:?}"
    );
    let (again, requests) = bucket.look(&mut keeper, store);
    println!("{again:?} {requests:?}");
    assert_eq!((again.lengthened, requests.locks), (0, 0));
    // One manifest is read for each point that stays; the names are listed, a thousand at once.
    assert_eq!((requests.heads, requests.gets), (0, 2));
    assert!(requests.lists <= 10, "{requests:?}");
    let other = expire::open(&bucket.at(ObjectStorage::EXPIRY)).unwrap();
    wait(|| store.now().unwrap() > last);
    let mut kept = 0;
    for (key, _) in store.list("files").unwrap() {
        let until = locked_until(store, &key);
        if until > last.plus(Duration::from_secs(1)) {
            let refused = other.expire(&key).unwrap();
            assert_eq!(refused, Expired::Locked(until), "{key}");
            kept += 1;
        }
    }
    assert_eq!(kept + 1, report.objects);
}

/// Neither this machine's clock nor the storage's may be years off, in any direction.
fn refused_by_clocks(bucket: &Bucket, plan: &ExpirePlan, mut expiry: Expiry) {
    let before = bucket.names();
    let other = expire::open(&bucket.at(ObjectStorage::EXPIRY)).unwrap();
    let both = |expiry: &Expiry, arm: &dyn Fn()| {
        arm();
        let planned = expiry.plan().map(|_| ());
        arm();
        for refused in [planned, expiry.apply(plan, other.as_ref()).map(|_| ())] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.code().as_str(), "ZS351", "{refused}");
        }
    };
    for seconds in [YEARS_S, -YEARS_S] {
        // The last thing that is asked of the storage before its time is told.
        let moved = || bucket.proxy.on("holdfast-writer", Fault::Clock(seconds), 1);
        both(&expiry, &moved);
        assert_eq!(bucket.proxy.left(), 0);
    }
    for seconds in [YEARS_S, -YEARS_S] {
        let real = system_clock();
        expiry.clock = Arc::new(move || Timestamp(real().0 + seconds * 1_000_000));
        both(&expiry, &|| {});
    }
    assert_eq!(bucket.names(), before);
}
