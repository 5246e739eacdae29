use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use holdfast_core::Timestamp;

use super::super::{
    DirectoryStore, Head, Keys, Marker, ObjectError, ObjectStore, Promise, Range, Sealed,
};
use super::*;
use crate::envelope::{CHUNK_BYTES, Identity};

/// A directory that counts as far away.
struct Far {
    store: DirectoryStore,
    asked: Arc<AtomicU64>,
}

impl ObjectStore for Far {
    fn create_new(&self, key: &ObjectKey, body: &[u8]) -> Result<(), ObjectError> {
        self.store.create_new(key, body)
    }
    fn get(&self, key: &ObjectKey, limit: ByteCount) -> Result<Vec<u8>, ObjectError> {
        self.store.get(key, limit)
    }
    fn get_range(&self, key: &ObjectKey, range: Range) -> Result<Vec<u8>, ObjectError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.store.get_range(key, range)
    }
    fn head(&self, key: &ObjectKey) -> Result<Option<Head>, ObjectError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
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
    fn is_remote(&self) -> bool {
        true
    }
}

/// A sealed object far away, and a folder for a cache.
struct Bench {
    folder: tempfile::TempDir,
    keys: Keys,
    asked: Arc<AtomicU64>,
    plain: Vec<u8>,
}

const CHUNKS: usize = 40;

impl Bench {
    fn new() -> Self {
        let identity = Identity::generate().unwrap();
        let bench = Self {
            folder: tempfile::tempdir().unwrap(),
            keys: Keys::new(vec![identity.recipient()], vec![identity]),
            asked: Arc::default(),
            plain: (0..CHUNKS * usize::try_from(CHUNK_BYTES).unwrap())
                .map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap())
                .collect(),
        };
        bench.store().create_new(&object(), &bench.plain).unwrap();
        bench
    }

    fn store(&self) -> Sealed<Far> {
        let marker = Marker {
            format: 2,
            id: "repo-test".to_owned(),
            created: Timestamp(0),
            vault_key: String::new(),
            recipients: Vec::new(),
        };
        let root = self.folder.path().join("repository");
        let far = Far {
            store: DirectoryStore::create_or_open(&root, &marker).unwrap(),
            asked: Arc::clone(&self.asked),
        };
        Sealed::new(far, self.keys.clone())
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// What another process would open.
    fn near(&self, bytes_max: u64) -> (Sealed<Far>, Arc<BlockCache>) {
        let cache = BlockCache::open(&self.root(), ByteCount(bytes_max), "here").unwrap();
        let (store, cache) = (self.store(), Arc::new(cache));
        store.keep_near(&cache);
        (store, cache)
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Reads a piece of every chunk, each by itself.
    fn read_all(&self, store: &Sealed<Far>) {
        for chunk in 0..CHUNKS {
            self.read(store, chunk, 1);
        }
    }

    fn read(&self, store: &Sealed<Far>, chunk: usize, count: usize) {
        let size = usize::try_from(CHUNK_BYTES).unwrap();
        let (from, length) = (chunk * size + 3, (count - 1) * size + 1000);
        let range = Range {
            offset: u64::try_from(from).unwrap(),
            length,
        };
        let read = store.get_range(&object(), range).unwrap();
        assert!(read == self.plain[from..from + length], "{chunk}");
    }
}

fn object() -> ObjectKey {
    "prod/point/1/bundle-000001".parse().unwrap()
}

/// Every file of a cache.
fn entries(root: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(root).into_iter().flatten().flatten();
    folders
        .flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .collect()
}

fn bytes(root: &Path) -> u64 {
    let length = |path: &PathBuf| fs::metadata(path).map_or(0, |facts| facts.len());
    entries(root).iter().map(length).sum()
}

#[test]
fn what_one_has_read_another_reads_without_a_request() {
    let bench = Bench::new();
    let (first, _) = bench.near(64 << 20);
    bench.read_all(&first);
    let asked = bench.asked();
    let (second, cache) = bench.near(64 << 20);
    bench.read_all(&second);
    assert_eq!(bench.asked(), asked);
    assert_eq!(cache.counts().misses, 0);
    // Large and small reads are the same parts.
    bench.read(&second, 2, 30);
    assert_eq!(bench.asked(), asked);
    // Another repository's objects are others, whatever their names.
    let other = BlockCache::open(&bench.root(), ByteCount(64 << 20), "there").unwrap();
    assert_eq!(other.get(&object(), Part::Chunk(3)), None);
}

#[test]
fn nothing_in_the_cache_can_be_read_without_the_keys_or_by_others() {
    let bench = Bench::new();
    bench.read_all(&bench.near(64 << 20).0);
    let known = &bench.plain[100_000..100_016];
    for path in entries(&bench.root()) {
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(16).any(|window| window == known));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let folder = fs::metadata(path.parent().unwrap()).unwrap();
        assert_eq!(folder.permissions().mode() & 0o777, 0o700);
    }
    fs::set_permissions(bench.root(), fs::Permissions::from_mode(0o750)).unwrap();
    BlockCache::open(&bench.root(), ByteCount(64 << 20), "here").unwrap_err();
}

#[test]
fn a_damaged_or_planted_entry_is_a_miss_and_is_replaced() {
    let bench = Bench::new();
    bench.read_all(&bench.near(64 << 20).0);
    let whole: Vec<(PathBuf, Vec<u8>)> = entries(&bench.root())
        .into_iter()
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect();
    assert_eq!(whole.len(), CHUNKS + 1);
    let damages: [fn(&mut Vec<u8>); 6] = [
        |bytes| bytes.clear(),
        |bytes| bytes.truncate(47),
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| bytes.push(0),
        |bytes| bytes[9] ^= 1,
        |bytes| *bytes.last_mut().unwrap() ^= 1,
    ];
    for damage in damages {
        for (path, bytes) in &whole {
            let mut bytes = bytes.clone();
            damage(&mut bytes);
            fs::write(path, bytes).unwrap();
        }
        let before = bench.asked();
        bench.read_all(&bench.near(64 << 20).0);
        assert!(bench.asked() > before);
        for (path, bytes) in &whole {
            assert!(fs::read(path).unwrap() == *bytes, "it is whole again");
        }
    }
    // Whoever can write there can give an entry the right sum, but not the right content: each chunk
    // is put under the name of the next, and the head says another size.
    let (_, cache) = bench.near(64 << 20);
    for chunk in 0..39 {
        let other = cache.get(&object(), Part::Chunk(chunk + 1)).unwrap();
        cache.put(&object(), Part::Chunk(chunk), &other, Push::Yes);
    }
    let mut head = cache.get(&object(), Part::Head).unwrap();
    let total = u64::from_le_bytes(head[..8].try_into().unwrap());
    for wrong in [total - 100, total + 100, total / 2, 0, u64::MAX] {
        head[..8].copy_from_slice(&wrong.to_le_bytes());
        cache.put(&object(), Part::Head, &head, Push::Yes);
        bench.read_all(&bench.near(64 << 20).0);
    }
    // A link is not followed.
    let (path, _) = &whole[0];
    let elsewhere = bench.folder.path().join("elsewhere");
    fs::rename(path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, path).unwrap();
    bench.read_all(&bench.near(64 << 20).0);
    assert!(fs::symlink_metadata(path).unwrap().is_file());
}

#[test]
fn the_cache_stays_within_its_bound_while_others_read() {
    let bench = Bench::new();
    let max = 1 << 20;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..4 {
                    bench.read_all(&bench.near(max).0);
                }
                stop.store(true, Ordering::SeqCst);
            });
        }
        while !stop.load(Ordering::SeqCst) {
            // Each of the three may be writing one more.
            assert!(bytes(&bench.root()) <= max + 3 * limits::CACHE_ENTRY_BYTES);
        }
    });
    bench.read_all(&bench.near(max).0);
    assert!(bytes(&bench.root()) <= max);
    assert!(entries(&bench.root()).len() > 8, "it keeps something");
}

#[test]
fn what_was_used_lately_stays_and_a_read_of_everything_pushes_nothing_out() {
    let bench = Bench::new();
    let (store, cache) = bench.near(1 << 20);
    bench.read(&store, 0, 8);
    let old = SystemTime::now() - Duration::from_secs(3600);
    for path in entries(&bench.root()) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(old).unwrap();
    }
    // Using it makes it young again.
    assert!(cache.get(&object(), Part::Chunk(5)).is_some());
    bench.read(&store, 8, 8);
    bench.read(&store, 16, 4);
    assert!(cache.get(&object(), Part::Chunk(5)).is_some());
    let is_here = |chunk| cache.get(&object(), Part::Chunk(chunk)).is_some();
    assert!((0..8).filter(|chunk| is_here(*chunk)).count() < 8);
    let before: Vec<u64> = (0..40).filter(|chunk| is_here(*chunk)).collect();
    bench.read(&store, 20, 20);
    let after: Vec<u64> = (0..40).filter(|chunk| is_here(*chunk)).collect();
    assert!(
        before.iter().all(|chunk| after.contains(chunk)),
        "{before:?} {after:?}"
    );
}

#[test]
fn what_a_read_of_everything_has_added_goes_first() {
    let bench = Bench::new();
    let (store, cache) = bench.near(1 << 20);
    let is_here = |chunk| cache.get(&object(), Part::Chunk(chunk)).is_some();
    bench.read(&store, 0, 4);
    bench.read(&store, 10, 20);
    let scanned = (10..30)
        .filter(|chunk| entry_is_here(&bench, *chunk))
        .count();
    assert!(scanned > 4, "{scanned}");
    bench.read(&store, 30, 6);
    assert!((0..4).chain(30..36).all(is_here));
}

/// Looks without counting it as a use.
fn entry_is_here(bench: &Bench, chunk: u64) -> bool {
    let (_, cache) = bench.near(1 << 20);
    let name = cache.name(&object(), Part::Chunk(chunk));
    cache.path(&name).exists()
}

#[test]
fn a_cache_that_was_made_smaller_leaves_nothing_behind() {
    let bench = Bench::new();
    bench.read_all(&bench.near(64 << 20).0);
    assert!(bytes(&bench.root()) > 2 << 20);
    bench.read_all(&bench.near(1 << 20).0);
    assert!(bytes(&bench.root()) <= 1 << 20);
    bench.read_all(&bench.near(0).0);
    assert!(bytes(&bench.root()) <= 1 << 20);
}

#[test]
fn a_full_disk_keeps_nothing_and_makes_no_reader_fail() {
    let bench = Bench::new();
    fs::create_dir(bench.root()).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs"])
        .arg(bench.root())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        assert!(!rustix::process::geteuid().is_root(), "root can mount");
        return;
    }
    // Never more than a part of what is free.
    bench.read_all(&bench.near(1 << 20).0);
    let held = bytes(&bench.root());
    assert!((1..=420 << 10).contains(&held), "{held}");
    let filler = bench.root().join("filler");
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[7; 4096]).is_ok() {}
    bench.read_all(&bench.near(1 << 20).0);
    bench.read(&bench.near(1 << 20).0, 0, 40);
    let unmounted = Command::new("umount").arg("-l").arg(bench.root()).status();
    assert!(unmounted.unwrap().success());
}

#[test]
fn many_that_want_the_same_ask_once() {
    let bench = Bench::new();
    let (store, _) = bench.near(64 << 20);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| bench.read(&store, 20, 2));
        }
    });
    // Its size, its header and the two chunks.
    assert_eq!(bench.asked(), 3);
}
