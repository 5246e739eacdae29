//! Two writers, and what each may still do.

use std::path::Path;
use std::sync::atomic::AtomicI64;

use holdfast_core::ByteCount;

use super::super::{DirectoryStore, Head, Marker, ObjectKey, Promise, Range};
use super::*;

/// A directory whose clock the test owns.
struct Clocked {
    store: DirectoryStore,
    now: Arc<AtomicI64>,
}

impl ObjectStore for Clocked {
    fn create_new(&self, key: &ObjectKey, body: &[u8]) -> Result<(), ObjectError> {
        self.store.create_new(key, body)
    }
    fn get(&self, key: &ObjectKey, limit: ByteCount) -> Result<Vec<u8>, ObjectError> {
        self.store.get(key, limit)
    }
    fn get_range(&self, key: &ObjectKey, range: Range) -> Result<Vec<u8>, ObjectError> {
        self.store.get_range(key, range)
    }
    fn head(&self, key: &ObjectKey) -> Result<Option<Head>, ObjectError> {
        self.store.head(key)
    }
    fn list(&self, prefix: &str) -> Result<Vec<(ObjectKey, ByteCount)>, ObjectError> {
        self.store.list(prefix)
    }
    fn lock_until(&self, key: &ObjectKey, until: Timestamp) -> Result<(), ObjectError> {
        self.store.lock_until(key, until)
    }
    fn now(&self) -> Result<Timestamp, ObjectError> {
        Ok(Timestamp(self.now.load(Ordering::Relaxed)))
    }
    fn promise(&self) -> Promise {
        self.store.promise()
    }
}

const HEARTBEAT: Duration = Duration::from_secs(60);

struct Scene {
    folder: tempfile::TempDir,
    now: Arc<AtomicI64>,
}

impl Scene {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            now: Arc::new(AtomicI64::new(1_777_000_000_000_000)),
        }
    }

    fn store(&self) -> Arc<dyn ObjectStore> {
        let marker = Marker {
            recipients: Vec::new(),
            format: 1,
            id: "00".repeat(16),
            created: Timestamp(0),
            vault_key: "00".repeat(32),
        };
        let root = self.folder.path().join("repository");
        Arc::new(Clocked {
            store: DirectoryStore::create_or_open(&root, &marker).unwrap(),
            now: self.now.clone(),
        })
    }

    fn identity(&self, name: &str) -> WriterIdentity {
        let state = self.folder.path().join(name);
        std::fs::create_dir_all(&state).unwrap();
        identity(&state)
    }

    fn pass(&self, seconds: i64) {
        self.now.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }
}

fn identity(state: &Path) -> WriterIdentity {
    let mut random = [0; 16];
    let name = state.file_name().unwrap().as_encoded_bytes();
    random[..name.len().min(16)].copy_from_slice(&name[..name.len().min(16)]);
    WriterIdentity::open(state, random).unwrap()
}

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

#[test]
fn a_second_vault_is_refused_and_told_who_writes() {
    let scene = Scene::new();
    let first = Fence::claim(scene.store(), scene.identity("one"), HEARTBEAT).unwrap();
    let refused = Fence::claim(scene.store(), scene.identity("two"), HEARTBEAT).err();
    let text = refused.unwrap().to_string();
    assert!(
        text.contains("6f6e65") && text.contains("epoch 1"),
        "{text}"
    );
    first.check().unwrap();
}

#[test]
fn the_same_state_directory_goes_on_at_once_and_only_one_process_can_have_it() {
    let scene = Scene::new();
    let first = Fence::claim(scene.store(), scene.identity("one"), HEARTBEAT).unwrap();
    let twice = WriterIdentity::open(&scene.folder.path().join("one"), [0; 16]);
    assert!(matches!(twice, Err(FenceError::Running { .. })));
    drop(first);
    let again = Fence::claim(scene.store(), scene.identity("one"), HEARTBEAT).unwrap();
    assert_eq!(again.epoch(), 2);
}

#[test]
fn a_takeover_needs_silence_by_the_storages_clock() {
    let scene = Scene::new();
    let first = Fence::claim(scene.store(), scene.identity("one"), HEARTBEAT).unwrap();
    scene.pass(200);
    first.beat().unwrap();
    scene.pass(299);
    let early = Fence::take_over(scene.store(), scene.identity("two"), HEARTBEAT);
    let early = early.err().unwrap();
    assert!(
        matches!(early, FenceError::Alive { silence_s: 300, .. }),
        "{early}"
    );
    assert_eq!(early.code(), Code::ZS352);
    first.check().unwrap();
    // A clock that shows less than at the heartbeat proves nothing.
    scene.pass(-10_000);
    assert!(Fence::take_over(scene.store(), scene.identity("two"), HEARTBEAT).is_err());
    scene.pass(10_001);
    let (second, silence) =
        Fence::take_over(scene.store(), scene.identity("two"), HEARTBEAT).unwrap();
    assert_eq!((second.epoch(), silence.released), (2, false));
}

#[test]
fn the_old_writer_notices_before_it_confirms_and_does_not_come_back_by_a_restart() {
    let scene = Scene::new();
    let first = Fence::claim(scene.store(), scene.identity("one"), HEARTBEAT).unwrap();
    let store = FencedStore::new(scene.store(), first.clone(), |key| key.name() == "manifest");
    store.create_new(&key("p/wal/a"), b"before").unwrap();
    scene.pass(300);
    let two = scene.identity("two");
    let (second, _) = Fence::take_over(scene.store(), two.clone(), HEARTBEAT).unwrap();
    // A manifest looks every time, whatever was seen a moment ago.
    let refused = store
        .create_new(&key("p/point/manifest"), b"late")
        .unwrap_err();
    assert!(
        matches!(refused, ObjectError::Fenced { epoch: 1, by: 2 }),
        "{refused}"
    );
    assert!(first.is_fenced());
    for name in ["p/wal/b", "p/point/manifest"] {
        assert!(store.create_new(&key(name), b"late").is_err());
        assert!(store.head(&key(name)).unwrap().is_none());
    }
    assert!(
        store
            .lock_until(&key("p/wal/a"), Timestamp(i64::MAX / 4))
            .is_err()
    );
    assert!(first.beat().is_err() && first.release().is_err());
    drop((first, store));
    let back = Fence::claim(scene.store(), scene.identity("one"), HEARTBEAT)
        .err()
        .unwrap();
    assert!(matches!(back, FenceError::Fenced { by: 2 }), "{back}");
    // The other way round it works again, with the same proof.
    second.release().unwrap();
    let (third, silence) =
        Fence::take_over(scene.store(), scene.identity("one"), HEARTBEAT).unwrap();
    assert_eq!((third.epoch(), silence.released), (3, true));
    assert!(second.check().is_err());
}

#[test]
fn of_many_that_claim_at_once_exactly_one_wins() {
    let scene = Scene::new();
    let identities: Vec<_> = (0..8)
        .map(|n| scene.identity(&format!("vault{n}")))
        .collect();
    let stores: Vec<_> = identities.iter().map(|_| scene.store()).collect();
    let barrier = std::sync::Barrier::new(identities.len());
    let won: Vec<Fence> = std::thread::scope(|scope| {
        let claims: Vec<_> = identities
            .into_iter()
            .zip(stores)
            .map(|(identity, store)| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    Fence::claim(store, identity, HEARTBEAT)
                })
            })
            .collect();
        claims
            .into_iter()
            .filter_map(|claim| claim.join().unwrap().ok())
            .collect()
    });
    assert_eq!(won.len(), 1);
    won[0].check().unwrap();
}

#[test]
fn a_writer_that_said_it_stops_is_followed_at_once() {
    let scene = Scene::new();
    let first = Fence::claim(scene.store(), scene.identity("one"), HEARTBEAT).unwrap();
    first.release().unwrap();
    first.release().unwrap();
    let second = Fence::claim(scene.store(), scene.identity("two"), HEARTBEAT).unwrap();
    assert_eq!(second.epoch(), 2);
    assert!(first.check().is_err());
}

#[test]
fn a_storage_that_cannot_be_asked_confirms_nothing() {
    let scene = Scene::new();
    let fence = Fence::claim(scene.store(), scene.identity("one"), Duration::from_secs(1)).unwrap();
    let root = scene.folder.path().join("repository");
    let claim = root.join(Claim::key_of(2).unwrap().as_str());
    // A folder that is a file: the head ends with an error of the system, not with an answer.
    std::fs::write(claim.parent().unwrap(), "").unwrap();
    assert!(matches!(fence.check(), Err(ObjectError::Io { .. })));
    assert!(!fence.is_fenced());
}
