use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_core::{Code, Coded};
use proptest::prelude::*;

use super::super::DirectoryStore;
use super::*;

/// A directory that counts what it is asked for.
struct Counted {
    store: DirectoryStore,
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Counted {
    fn ask(&self, bytes: usize) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes
            .fetch_add(u64::try_from(bytes).unwrap(), Ordering::Relaxed);
    }
}

impl ObjectStore for Counted {
    fn create_new(&self, key: &ObjectKey, body: &[u8]) -> Result<(), ObjectError> {
        self.store.create_new(key, body)
    }
    fn get(&self, key: &ObjectKey, limit: ByteCount) -> Result<Vec<u8>, ObjectError> {
        self.store.get(key, limit)
    }
    fn get_range(&self, key: &ObjectKey, range: Range) -> Result<Vec<u8>, ObjectError> {
        self.ask(range.length);
        self.store.get_range(key, range)
    }
    fn head(&self, key: &ObjectKey) -> Result<Option<Head>, ObjectError> {
        self.ask(0);
        self.store.head(key)
    }
    fn list(&self, prefix: &str) -> Result<Vec<(ObjectKey, ByteCount)>, ObjectError> {
        self.store.list(prefix)
    }
    fn lock_until(&self, key: &ObjectKey, until: Timestamp) -> Result<(), ObjectError> {
        self.store.lock_until(key, until)
    }
    fn now(&self) -> Result<Timestamp, ObjectError> {
        self.store.now()
    }
    fn promise(&self) -> Promise {
        self.store.promise()
    }
}

/// A repository in a folder, and the two keys of its objects.
struct Bench {
    folder: tempfile::TempDir,
    machine: Identity,
    recovery: Identity,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            machine: Identity::generate().unwrap(),
            recovery: Identity::generate().unwrap(),
        }
    }

    fn keys(&self) -> Keys {
        Keys::new(
            vec![self.machine.recipient(), self.recovery.recipient()],
            vec![self.machine.clone()],
        )
    }

    fn store(&self, keys: Keys) -> Sealed<Counted> {
        let marker = Marker {
            format: 1,
            id: "repo-test".to_owned(),
            created: Timestamp(0),
            vault_key: String::new(),
            recipients: Vec::new(),
        };
        let store = DirectoryStore::create_or_open(self.folder.path(), &marker).unwrap();
        let counted = Counted {
            store,
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        };
        Sealed::new(counted, keys)
    }

    fn file(&self, key: &ObjectKey) -> PathBuf {
        self.folder.path().join(key.as_str())
    }
}

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

fn content(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap())
        .collect()
}

fn range(offset: u64, length: usize) -> Range {
    Range { offset, length }
}

fn age_opens(file: &Path, identity: &Identity, folder: &Path) -> Vec<u8> {
    let key = folder.join("identity");
    std::fs::write(&key, identity.to_text().expose()).unwrap();
    let output = Command::new("age")
        .arg("-d")
        .arg("-i")
        .arg(&key)
        .arg(file)
        .output();
    let output = output.unwrap_or_else(|error| panic!("`age`: {error}; run scripts/setup"));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

#[test]
fn an_object_lies_sealed_and_either_key_opens_it() {
    let bench = Bench::new();
    let store = bench.store(bench.keys());
    let (name, plain) = (key("a/b"), content(200_000));
    store.create_new(&name, &plain).unwrap();
    assert_eq!(store.get(&name, ByteCount(200_000)).unwrap(), plain);

    let stored = std::fs::read(bench.file(&name)).unwrap();
    assert!(!stored.windows(16).any(|window| window == &plain[..16]));
    assert_eq!(
        store.head(&name).unwrap().unwrap().bytes.0,
        u64::try_from(stored.len()).unwrap()
    );
    let elsewhere = tempfile::tempdir().unwrap();
    for identity in [&bench.machine, &bench.recovery] {
        assert_eq!(
            age_opens(&bench.file(&name), identity, elsewhere.path()),
            plain
        );
    }
    let recovering = bench.store(Keys::new(Vec::new(), vec![bench.recovery.clone()]));
    assert_eq!(
        recovering.get_range(&name, range(70_000, 10)).unwrap(),
        plain[70_000..70_010]
    );
}

#[test]
fn what_is_absent_too_large_or_too_short_is_told_as_without_seal() {
    let bench = Bench::new();
    let store = bench.store(bench.keys());
    let name = key("a/b");
    store.create_new(&name, b"three").unwrap();
    assert!(matches!(
        store.create_new(&name, b"three"),
        Err(ObjectError::Exists(_))
    ));
    assert!(matches!(
        store.get(&key("a/c"), ByteCount(9)),
        Err(ObjectError::Missing(_))
    ));
    assert!(matches!(
        store.get_range(&key("a/c"), range(0, 1)),
        Err(ObjectError::Missing(_))
    ));
    assert!(matches!(
        store.get(&name, ByteCount(4)),
        Err(ObjectError::TooLarge { .. })
    ));
    assert_eq!(store.get(&name, ByteCount(5)).unwrap(), b"three");
    assert!(matches!(
        store.get_range(&name, range(4, 2)),
        Err(ObjectError::Short(_))
    ));
    assert!(matches!(
        store.get_range(&name, range(u64::MAX, 2)),
        Err(ObjectError::Short(_))
    ));
    assert_eq!(store.get_range(&name, range(5, 0)).unwrap(), b"");
}

#[test]
fn without_the_right_key_nothing_is_read_and_without_recipient_nothing_stored() {
    let bench = Bench::new();
    let name = key("a/b");
    bench
        .store(bench.keys())
        .create_new(&name, b"secret")
        .unwrap();
    let stranger = bench.store(Keys::new(Vec::new(), vec![Identity::generate().unwrap()]));
    let refused = [
        stranger.get(&name, ByteCount(9)).unwrap_err(),
        stranger.get_range(&name, range(0, 1)).unwrap_err(),
    ];
    assert!(
        refused.iter().all(|error| error.code() == Code::ZL270),
        "{refused:?}"
    );
    let error = stranger.create_new(&key("a/c"), b"x").unwrap_err();
    assert_eq!(error.code(), Code::ZS270);
    assert!(stranger.head(&key("a/c")).unwrap().is_none());
}

#[test]
fn a_changed_or_cut_object_is_named_and_not_used() {
    let bench = Bench::new();
    let name = key("a/b");
    bench
        .store(bench.keys())
        .create_new(&name, &content(140_000))
        .unwrap();
    let whole = std::fs::read(bench.file(&name)).unwrap();
    let mut flipped = whole.clone();
    flipped[100_000] ^= 1;
    let mut header = whole.clone();
    header[60] ^= 1;
    let bad = [
        flipped,
        header,
        whole[..90_000].to_vec(),
        whole[..120].to_vec(),
        Vec::new(),
    ];
    for bytes in bad {
        std::fs::remove_file(bench.file(&name)).unwrap();
        std::fs::write(bench.file(&name), &bytes).unwrap();
        let store = bench.store(bench.keys());
        let errors = [
            store.get(&name, ByteCount(140_000)).unwrap_err(),
            store.get_range(&name, range(80_000, 10_000)).unwrap_err(),
        ];
        for error in errors {
            // A changed wrapped key looks like one for somebody else.
            let code = error.code();
            assert!(
                [Code::ZI270, Code::ZI251, Code::ZL270].contains(&code),
                "{error}"
            );
            assert!(error.to_string().contains("`a/b`"), "{error}");
        }
    }
}

#[test]
fn an_open_object_costs_one_request_a_range_and_none_within_a_kept_chunk() {
    let bench = Bench::new();
    let store = bench.store(bench.keys());
    let (name, plain) = (key("a/b"), content(1_000_000));
    store.create_new(&name, &plain).unwrap();
    let requests = |store: &Sealed<Counted>| store.inner.requests.swap(0, Ordering::Relaxed);
    store.get_range(&name, range(0, 100)).unwrap();
    assert_eq!(requests(&store), 2, "head and header, with the first chunk");
    store.get_range(&name, range(100, 44 * 100)).unwrap();
    assert_eq!(requests(&store), 0);
    // Frames one after the other: no chunk is read twice.
    store.inner.bytes.store(0, Ordering::Relaxed);
    for at in (0..1_000_000).step_by(20_000) {
        let body = store.get_range(&name, range(at, 20_000)).unwrap();
        let from = usize::try_from(at).unwrap();
        assert_eq!(body, plain[from..from + 20_000]);
    }
    assert_eq!(requests(&store), 15);
    assert!(store.inner.bytes.load(Ordering::Relaxed) < 1_001_000);
}

#[test]
fn keys_that_are_exchanged_seal_what_comes_after_and_still_open_what_came_before() {
    let bench = Bench::new();
    let keys = bench.keys();
    let store = bench.store(keys.clone());
    store.create_new(&key("a/before"), b"before").unwrap();
    let (machine, recovery) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    keys.exchange(&Keys::new(
        vec![machine.recipient(), recovery.recipient()],
        vec![machine, bench.machine.clone()],
    ));
    store.create_new(&key("a/after"), b"after").unwrap();
    assert_eq!(
        store.get(&key("a/before"), ByteCount(9)).unwrap(),
        b"before"
    );
    assert_eq!(store.get(&key("a/after"), ByteCount(9)).unwrap(), b"after");
    let only = |identity: &Identity| bench.store(Keys::new(Vec::new(), vec![identity.clone()]));
    assert_eq!(
        only(&recovery).get(&key("a/after"), ByteCount(9)).unwrap(),
        b"after"
    );
    for old in [&bench.machine, &bench.recovery] {
        let refused = only(old).get(&key("a/after"), ByteCount(9)).unwrap_err();
        assert_eq!(refused.code(), Code::ZL270);
    }
}

#[test]
fn what_is_kept_of_objects_is_bounded_and_the_oldest_goes_first() {
    let mut recent = Recent::new(3);
    for number in 0..3 {
        recent.put(number, number);
    }
    assert_eq!(recent.get(&0), Some(0));
    recent.put(3, 3);
    recent.put(3, 4);
    assert_eq!(
        (recent.get(&1), recent.get(&0), recent.get(&3)),
        (None, Some(0), Some(4))
    );
    assert_eq!(recent.values.len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn ranges_of_a_sealed_object_are_slices_of_its_content(
        size in prop_oneof![0_usize..200, 65_500..65_600_usize, 131_000..131_200_usize, 0..500_000_usize],
        asked in prop::collection::vec((0_usize..=1000, 0_usize..=1000), 1..12),
    ) {
        let bench = Bench::new();
        let store = bench.store(bench.keys());
        let (name, plain) = (key("a/b"), content(size));
        store.create_new(&name, &plain).unwrap();
        for (from, to) in asked {
            let (from, to) = (size * from.min(to) / 1000, size * from.max(to) / 1000);
            let body = store.get_range(&name, range(u64::try_from(from).unwrap(), to - from));
            prop_assert_eq!(body.unwrap(), &plain[from..to]);
            let beyond = range(u64::try_from(from).unwrap(), size - from + 1);
            prop_assert!(matches!(store.get_range(&name, beyond), Err(ObjectError::Short(_))));
        }
    }
}
