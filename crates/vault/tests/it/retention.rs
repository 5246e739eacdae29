//! Retention on a real directory and in a real bucket: what is kept comes back byte for byte, what goes
//! goes once.

#[cfg(target_os = "linux")]
mod bucket;
mod expire;
mod locks;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use holdfast_core::{ByteCount, PointId, SourceName, Timestamp};
use holdfast_store::ledger::Ledger;
use holdfast_store::object::expire::Expire;
use holdfast_store::object::{
    Backend, DirectoryStore, Head, Location, Marker, ObjectError, ObjectKey, ObjectStore, Promise,
    Range, WriterLock,
};
use holdfast_vault::retention::{Expiry, KeepRules, LogKeep, Span};
use holdfast_vault::{
    Clock, EngineStart, FileEntry, FileKind, FileMeta, PatchTo, PointEnd, PointStart, Reader,
    Repository,
};

const HOUR: Duration = Duration::from_secs(3_600);

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// A directory whose clock the test owns, and whose requests it counts.
pub struct Clocked {
    store: DirectoryStore,
    now: Arc<AtomicI64>,
    heads: AtomicU64,
    locks: AtomicU64,
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
        self.heads.fetch_add(1, Ordering::Relaxed);
        self.store.head(key)
    }
    fn list(&self, prefix: &str) -> Result<Vec<(ObjectKey, ByteCount)>, ObjectError> {
        self.store.list(prefix)
    }
    fn lock_until(&self, key: &ObjectKey, until: Timestamp) -> Result<(), ObjectError> {
        self.locks.fetch_add(1, Ordering::Relaxed);
        self.store.lock_until(key, until)
    }
    fn now(&self) -> Result<Timestamp, ObjectError> {
        Ok(Timestamp(self.now.load(Ordering::Relaxed)))
    }
    fn promise(&self) -> Promise {
        self.store.promise()
    }
}

impl Backend for Clocked {
    fn marker(&self) -> &Marker {
        self.store.marker()
    }
    fn make_immutable(&self) -> Result<(), ObjectError> {
        self.store.make_immutable()
    }
    fn lock(&self, holder: &str) -> Result<WriterLock, ObjectError> {
        self.store.lock(holder)
    }
}

/// What a point must bring back.
type Content = BTreeMap<String, Vec<u8>>;

/// A source of files, and what each of its points must bring back.
#[derive(Default)]
pub struct Files {
    content: Content,
    points: Vec<(PointId, Content)>,
    seed: u8,
}

/// A source of files and its repository, with a clock that the test owns.
pub struct Scene {
    folder: tempfile::TempDir,
    now: Arc<AtomicI64>,
    store: Arc<Clocked>,
    repository: Repository,
    files: Files,
}

impl Scene {
    /// Begins sixty days ago, so that the locks of a directory, which knows one clock, still mean something.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let marker = Marker {
            recipients: Vec::new(),
            format: 2,
            id: "0a".repeat(16),
            created: Timestamp(0),
            vault_key: data_encoding::HEXLOWER.encode(key().verifying_key().as_bytes()),
        };
        let root = folder.path().join("repository");
        let begin = Timestamp::from(std::time::SystemTime::now()).minus(60 * 24 * HOUR);
        let now = Arc::new(AtomicI64::new(begin.0));
        let store = Arc::new(Clocked {
            store: DirectoryStore::create_or_open(&root, &marker).unwrap(),
            now: now.clone(),
            heads: AtomicU64::new(0),
            locks: AtomicU64::new(0),
        });
        let repository = Repository::over(store.clone(), key(), clock(&now));
        Self {
            folder,
            now,
            store,
            repository,
            files: Files::default(),
        }
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    pub fn source(&self) -> SourceName {
        source()
    }

    pub fn pass(&self, time: Duration) {
        let micros = i64::try_from(time.as_micros()).unwrap();
        self.now.fetch_add(micros, Ordering::Relaxed);
    }

    pub fn reader(&self) -> Reader {
        Reader::over(self.store.clone(), key().verifying_key())
    }

    pub fn point(&mut self) -> PointId {
        self.files.point(&self.repository)
    }

    /// Reads every point that is there, whole, with nothing kept in memory from before.
    pub fn check(&self) -> Vec<PointId> {
        self.files.check(&self.reader())
    }

    pub fn ledger(&self) -> Ledger {
        let folder = self.folder.path().join("retention");
        let now = Timestamp(self.now.load(Ordering::Relaxed));
        Ledger::open(&folder, SigningKey::from_bytes(&[9; 32]), now).unwrap()
    }

    pub fn expiry(&self, rules: KeepRules) -> Expiry {
        Expiry {
            backend: self.store.clone(),
            reader: self.reader(),
            rules: BTreeMap::from([(self.source(), rules)]),
            lock_for: Span::ZERO,
            ledger: self.ledger(),
            vault_ledger: None,
            clock: clock(&self.now),
        }
    }

    pub fn remover(&self) -> Box<dyn Expire> {
        holdfast_store::object::expire::open(&Location::Directory(self.root())).unwrap()
    }

    /// Returns the names of all objects.
    pub fn objects(&self) -> Vec<ObjectKey> {
        let listed = self.store.list("").unwrap();
        listed.into_iter().map(|(key, _)| key).collect()
    }
}

impl Files {
    /// Changes a part of one file, writes another one anew, and makes a point of it on the newest one.
    pub fn point(&mut self, repository: &Repository) -> PointId {
        self.seed = self.seed.wrapping_add(1);
        let seed = self.seed;
        let start = PointStart {
            source: source(),
            engine: EngineStart::Directory,
            parent: self.points.last().map(|(point, _)| point.clone()),
        };
        let mut writer = repository.begin_point(start).unwrap();
        let entry = |path: &str, size: usize| FileEntry {
            path: path.to_owned(),
            kind: FileKind::File {
                size: u64::try_from(size).unwrap(),
            },
            mode: 0o600,
            meta: FileMeta::default(),
        };
        let small = vec![seed; 2_000];
        writer.begin_file(entry("small", small.len())).unwrap();
        writer.write(&small).unwrap();
        writer.end_file().unwrap();
        self.content.insert("small".to_owned(), small);
        let large = self.content.entry("large".to_owned()).or_default();
        if large.is_empty() {
            *large = (0..3_000_000_u32)
                .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
                .collect();
            writer.begin_file(entry("large", large.len())).unwrap();
            writer.write(large).unwrap();
        } else {
            // The same few places over and over, so that bundles fall out of use.
            let at = usize::from(seed % 8) * 8_192;
            large[at..at + 8_192].fill(seed);
            let to = PatchTo {
                size: u64::try_from(large.len()).unwrap(),
                mode: 0o600,
                meta: FileMeta::default(),
            };
            writer.begin_patch("large", to).unwrap();
            writer
                .write_at(u64::try_from(at).unwrap(), &large[at..at + 8_192])
                .unwrap();
        }
        writer.end_file().unwrap();
        let point = writer.finish(PointEnd::Directory).unwrap();
        self.points.push((point.clone(), self.content.clone()));
        point
    }

    /// Reads every point that is there, whole.
    pub fn check(&self, reader: &Reader) -> Vec<PointId> {
        let mut found = Vec::new();
        for summary in reader.points(&source()).unwrap() {
            let point = reader.point(&source(), &summary.point).unwrap();
            let known = self.points.iter().find(|(id, _)| *id == summary.point);
            let (id, content) = known.unwrap();
            for (path, bytes) in content {
                let read = point.read_at(path, 0, bytes.len() + 1).unwrap();
                assert!(read == *bytes, "{id}: {path}");
            }
            found.push(id.clone());
        }
        found
    }
}

pub fn source() -> SourceName {
    "files".parse().unwrap()
}

pub fn clock(now: &Arc<AtomicI64>) -> Clock {
    let now = now.clone();
    Arc::new(move || Timestamp(now.load(Ordering::Relaxed)))
}

/// Few days of everything, a fortnight of days.
pub fn rules() -> KeepRules {
    KeepRules {
        all_for: Span::days(2),
        hourly_for: Span::ZERO,
        daily_for: Span::days(14),
        weekly_for: Span::days(28),
        log: LogKeep::Continuous,
    }
}

/// Sixty days with two points a day.
pub fn sixty_days() -> Scene {
    let mut scene = Scene::new();
    for _ in 0..120 {
        scene.point();
        scene.pass(12 * HOUR);
    }
    scene.point();
    scene.pass(Duration::from_secs(600));
    scene
}

pub fn bytes(folder: &Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        sum += match entry.metadata().unwrap() {
            metadata if metadata.is_dir() => bytes(&entry.path()),
            metadata => metadata.len(),
        };
    }
    sum
}
