//! Restore points in a store in memory, against a model of bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ed25519_dalek::SigningKey;
use holdfast_core::{ByteCount, PointId, Timestamp};
use holdfast_store::object::{Head, ObjectError, ObjectKey, ObjectStore, Promise, Range};
use proptest::prelude::*;

use super::{
    EngineStart, FileEntry, FileKind, FileMeta, PatchTo, Point, PointEnd, PointStart, Repository,
    RepositoryError,
};
use crate::limits;

/// A store in memory that counts what is done.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) objects: Mutex<BTreeMap<ObjectKey, Vec<u8>>>,
    pub(crate) reads: Mutex<(usize, u64)>,
}

impl ObjectStore for Memory {
    fn create_new(&self, key: &ObjectKey, body: &[u8]) -> Result<(), ObjectError> {
        let mut objects = self.objects.lock().unwrap();
        if objects.contains_key(key) {
            return Err(ObjectError::Exists(key.clone()));
        }
        objects.insert(key.clone(), body.to_vec());
        Ok(())
    }

    fn get(&self, key: &ObjectKey, _limit: ByteCount) -> Result<Vec<u8>, ObjectError> {
        let objects = self.objects.lock().unwrap();
        let body = objects
            .get(key)
            .ok_or_else(|| ObjectError::Missing(key.clone()))?;
        self.count(body.len());
        Ok(body.clone())
    }

    fn get_range(&self, key: &ObjectKey, range: Range) -> Result<Vec<u8>, ObjectError> {
        let objects = self.objects.lock().unwrap();
        let body = objects
            .get(key)
            .ok_or_else(|| ObjectError::Missing(key.clone()))?;
        let begin = usize::try_from(range.offset).unwrap();
        let bytes = body.get(begin..begin.saturating_add(range.length));
        self.count(range.length);
        bytes
            .map(<[u8]>::to_vec)
            .ok_or_else(|| ObjectError::Short(key.clone()))
    }

    fn head(&self, key: &ObjectKey) -> Result<Option<Head>, ObjectError> {
        let objects = self.objects.lock().unwrap();
        Ok(objects.get(key).map(|body| Head {
            bytes: ByteCount(u64::try_from(body.len()).unwrap()),
            locked_until: None,
        }))
    }

    fn list(&self, prefix: &str) -> Result<Vec<(ObjectKey, ByteCount)>, ObjectError> {
        let objects = self.objects.lock().unwrap();
        let below = format!("{prefix}/");
        let listed = objects
            .iter()
            .filter(|(key, _)| prefix.is_empty() || key.as_str().starts_with(&below));
        Ok(listed
            .map(|(key, body)| (key.clone(), ByteCount(u64::try_from(body.len()).unwrap())))
            .collect())
    }

    fn lock_until(&self, key: &ObjectKey, _until: Timestamp) -> Result<(), ObjectError> {
        let found = self.head(key)?.map(|_| ());
        found.ok_or_else(|| ObjectError::Missing(key.clone()))
    }

    fn now(&self) -> Result<Timestamp, ObjectError> {
        Ok(Timestamp(0))
    }

    fn promise(&self) -> Promise {
        Promise::Advisory {
            why: "memory".to_owned(),
        }
    }
}

impl Memory {
    fn count(&self, bytes: usize) {
        let mut reads = self.reads.lock().unwrap();
        reads.0 += 1;
        reads.1 += u64::try_from(bytes).unwrap();
    }

    pub(crate) fn sizes(&self) -> BTreeMap<ObjectKey, usize> {
        let objects = self.objects.lock().unwrap();
        objects
            .iter()
            .map(|(key, body)| (key.clone(), body.len()))
            .collect()
    }
}

/// What a point should have: bytes by path.
type Model = BTreeMap<String, Vec<u8>>;

fn repository(store: &Arc<Memory>) -> Repository {
    let clock = Arc::new(|| Timestamp(1_777_000_000_000_000));
    let store: Arc<dyn ObjectStore> = store.clone();
    Repository::over(store, SigningKey::from_bytes(&[5; 32]), clock)
}

fn start(parent: Option<PointId>) -> PointStart {
    PointStart {
        source: "files".parse().unwrap(),
        engine: EngineStart::Directory,
        parent,
    }
}

fn file(path: &str, size: usize) -> FileEntry {
    FileEntry {
        path: path.to_owned(),
        kind: FileKind::File {
            size: u64::try_from(size).unwrap(),
        },
        mode: 0o600,
        meta: FileMeta::default(),
    }
}

fn patch(size: usize) -> PatchTo {
    PatchTo {
        size: u64::try_from(size).unwrap(),
        mode: 0o640,
        meta: FileMeta::default(),
    }
}

/// One thing that happens to a file in a point.
#[derive(Clone, Debug)]
enum Change {
    Patch {
        size: usize,
        parts: Vec<(usize, usize)>,
        byte: u8,
    },
    Remove,
    Rewrite {
        size: usize,
        byte: u8,
    },
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        3 => 0_usize..20_000,
        2 => (0_usize..40).prop_map(|pages| pages * 8192),
        1 => (limits::SMALL_FILE_BYTES - 9000)..(limits::SMALL_FILE_BYTES + 200_000),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let part = prop_oneof![
        (0_usize..150, 1_usize..4).prop_map(|(page, pages)| (page * 8192, pages * 8192)),
        (0_usize..1_200_000, 1_usize..30_000),
    ];
    prop_oneof![
        5 => (sizes(), prop::collection::vec(part, 0..12), any::<u8>())
            .prop_map(|(size, parts, byte)| Change::Patch { size, parts, byte }),
        1 => Just(Change::Remove),
        3 => (sizes(), any::<u8>()).prop_map(|(size, byte)| Change::Rewrite { size, byte }),
    ]
}

/// Content that tells where in which version it belongs, and zeros for the byte zero.
fn content(offset: usize, length: usize, byte: u8) -> Vec<u8> {
    (offset..offset + length)
        .map(|at| byte.wrapping_mul(u8::try_from(at / 700 % 251).unwrap()))
        .collect()
}

/// Makes a point with these changes and the same changes to the model.
fn next_point(
    repository: &Repository,
    parent: Option<PointId>,
    model: &mut Model,
    changes: &BTreeMap<u8, Change>,
) -> Result<PointId, RepositoryError> {
    let mut writer = repository.begin_point(start(parent))?;
    for (name, change) in changes {
        let path = format!("dir/{name}");
        match change {
            Change::Remove => {
                writer.remove(&path)?;
                model.remove(&path);
            }
            Change::Patch { size, parts, byte } if model.contains_key(&path) => {
                let file = model.get_mut(&path).unwrap();
                file.resize(*size, 0);
                writer.begin_patch(&path, patch(*size))?;
                let mut end = 0;
                let mut parts = parts.clone();
                parts.sort_unstable();
                for (offset, length) in parts {
                    let offset = offset.max(end).min(*size);
                    end = (offset + length).min(*size);
                    let bytes = content(offset, end - offset, *byte);
                    writer.write_at(u64::try_from(offset).unwrap(), &bytes)?;
                    file[offset..end].copy_from_slice(&bytes);
                }
                writer.end_file()?;
            }
            Change::Patch { size, byte, .. } | Change::Rewrite { size, byte } => {
                let bytes = content(0, *size, *byte);
                writer.begin_file(file(&path, *size))?;
                for piece in bytes.chunks(50_001) {
                    writer.write(piece)?;
                }
                writer.end_file()?;
                model.insert(path, bytes);
            }
        }
    }
    writer.finish(PointEnd::Directory)
}

/// Checks that a point has exactly what the model has, and counts what is used as it says.
fn check(point: &Point, model: &Model) {
    let files: Vec<_> = point.files().map(Result::unwrap).collect();
    let expected: Vec<_> = model.iter().collect();
    assert_eq!(files.len(), expected.len());
    assert_eq!(
        point.summary().files,
        u64::try_from(expected.len()).unwrap()
    );
    let bytes: usize = model.values().map(Vec::len).sum();
    assert_eq!(point.summary().bytes.0, u64::try_from(bytes).unwrap());
    let mut live: BTreeMap<u32, u64> = BTreeMap::new();
    for ((path, record), (name, content)) in files.iter().zip(expected) {
        assert_eq!(
            (path, record.size),
            (name, u64::try_from(content.len()).unwrap())
        );
        let read = point.read_at(path, 0, content.len() + 10).unwrap();
        assert!(read == *content, "{path}");
        let middle = content.len() / 2;
        let read = point
            .read_at(path, u64::try_from(middle).unwrap(), 9000)
            .unwrap();
        assert!(
            read == content[middle..(middle + 9000).min(content.len())],
            "{path}"
        );
        let mut end = 0;
        for extent in point.extents(path, 0..u64::MAX).unwrap() {
            assert!(extent.offset >= end, "{path}: extents overlap");
            end = extent.offset + extent.length;
            *live.entry(extent.place.bundle).or_default() += extent.length;
        }
        assert!(end <= record.size);
    }
    let walked = point.walk().map(Result::unwrap);
    let walked: usize = walked.map(|part| part.extents.len()).sum();
    let all = files
        .iter()
        .map(|(path, _)| point.extents(path, 0..u64::MAX).unwrap().len());
    assert_eq!(walked, all.sum::<usize>());
    let (_, manifest) = point.tree().unwrap();
    for serial in 0..manifest.totals.next_bundle {
        let stated = point.bundle(serial).unwrap().map(|record| record.live);
        assert_eq!(stated, live.get(&serial).copied(), "bundle {serial}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_line_of_points_equals_its_model(
        line in prop::collection::vec(prop::collection::btree_map(0_u8..6, change(), 0..6), 1..7),
    ) {
        let store = Arc::new(Memory::default());
        let repository = repository(&store);
        let mut model = Model::new();
        let mut kept = Vec::new();
        let mut parent = None;
        for changes in &line {
            let point = next_point(&repository, parent, &mut model, changes).unwrap();
            kept.push((point.clone(), model.clone()));
            parent = Some(point);
        }
        // Every point of the line is what it was, also for a reader that remembers nothing.
        let fresh = self::repository(&store);
        for (point, model) in &kept {
            let point = fresh.reader().point(&"files".parse().unwrap(), point).unwrap();
            check(&point, model);
        }
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_point_with_one_changed_page_costs_a_page_and_a_path_however_large_the_map_is() {
    let store = Arc::new(Memory::default());
    let repository = repository(&store);
    let mut model = Model::new();
    // A file of which every second page was written later: an extent for each page.
    let pages = 12_000;
    let mut writer = repository.begin_point(start(None)).unwrap();
    writer.begin_file(file("dir/0", pages * 8192)).unwrap();
    for page in 0..pages {
        let seed = u64::try_from(page).unwrap();
        writer
            .write(&[noise(seed, 64), vec![7; 8192 - 64]].concat())
            .unwrap();
    }
    writer.end_file().unwrap();
    let mut parent = writer.finish(PointEnd::Directory).unwrap();
    let mut writer = repository.begin_point(start(Some(parent))).unwrap();
    writer.begin_patch("dir/0", patch(pages * 8192)).unwrap();
    for page in (0..pages).step_by(2) {
        let offset = u64::try_from(page * 8192).unwrap();
        writer.write_at(offset, &[8; 8192]).unwrap();
    }
    writer.end_file().unwrap();
    parent = writer.finish(PointEnd::Directory).unwrap();
    let source = "files".parse().unwrap();
    let large = repository.reader().point(&source, &parent).unwrap();
    assert!(large.extents("dir/0", 0..u64::MAX).unwrap().len() >= pages);

    let before = store.sizes();
    let fresh = self::repository(&store);
    *store.reads.lock().unwrap() = (0, 0);
    let mut writer = fresh.begin_point(start(Some(parent))).unwrap();
    writer.begin_patch("dir/0", patch(pages * 8192)).unwrap();
    writer.write_at(777 * 8192, &noise(9, 8192)).unwrap();
    writer.end_file().unwrap();
    let point = writer.finish(PointEnd::Directory).unwrap();
    let (reads, read) = *store.reads.lock().unwrap();
    let written: BTreeMap<_, _> = store
        .sizes()
        .into_iter()
        .filter(|(key, _)| !before.contains_key(key))
        .collect();
    println!("written {written:?}, {reads} reads of {read} bytes");
    assert_eq!(
        written.len(),
        3,
        "a bundle, a map object, a manifest: {written:?}"
    );
    let total: usize = written.values().sum();
    assert!(total < 8192 + 32_000, "{total} bytes were written");
    assert!(
        reads < 24 && read < 400_000,
        "{reads} reads of {read} bytes"
    );
    let point = fresh.reader().point(&source, &point).unwrap();
    assert_eq!(
        point.read_at("dir/0", 777 * 8192, 8192).unwrap(),
        noise(9, 8192)
    );
    assert_eq!(point.read_at("dir/0", 778 * 8192, 8192).unwrap(), [8; 8192]);
    model.clear();
}

#[test]
fn a_small_file_that_comes_again_unchanged_costs_nothing() {
    let store = Arc::new(Memory::default());
    let repository = repository(&store);
    let mut parent = None;
    let mut sizes = Vec::new();
    for round in 0..3_u8 {
        let before = store.sizes();
        let mut writer = repository.begin_point(start(parent)).unwrap();
        for (path, content) in [("a", noise(1, 70_000)), ("b", vec![round; 900])] {
            writer.begin_file(file(path, content.len())).unwrap();
            writer.write(&content).unwrap();
            writer.end_file().unwrap();
        }
        parent = Some(writer.finish(PointEnd::Directory).unwrap());
        let new = store.sizes();
        let new = new.iter().filter(|(key, _)| !before.contains_key(key));
        sizes.push(new.map(|(_, size)| size).sum::<usize>());
    }
    assert!(
        sizes[0] > 70_000 && sizes[1] < 4_000 && sizes[2] < 4_000,
        "{sizes:?}"
    );
    let source = "files".parse().unwrap();
    let point = repository
        .reader()
        .point(&source, &parent.unwrap())
        .unwrap();
    assert_eq!(point.read_at("a", 0, 70_000).unwrap(), noise(1, 70_000));
    assert_eq!(point.read_at("b", 0, 900).unwrap(), [2; 900]);
    // The two bundles in which nothing is used any more are forgotten.
    assert!(point.bundle(2).unwrap().is_none() && point.bundle(3).unwrap().is_some());
}

#[test]
fn a_line_of_many_points_keeps_its_map_in_few_objects() {
    let store = Arc::new(Memory::default());
    let repository = repository(&store);
    let mut model = Model::new();
    let mut parent = None;
    let source = "files".parse().unwrap();
    for round in 0..80_u8 {
        let change = Change::Rewrite {
            size: 10_000,
            byte: round | 1,
        };
        let mut changes = BTreeMap::from([(round, change.clone())]);
        if round == 0 {
            changes.extend((100..250).map(|name| (name, change.clone())));
        }
        let point = next_point(&repository, parent, &mut model, &changes).unwrap();
        let read = repository.reader().point(&source, &point).unwrap();
        let maps = read.tree().unwrap().1.maps.len();
        assert!(maps <= limits::MAPS_PER_POINT + 1, "{maps}");
        parent = Some(point);
    }
    let point = self::repository(&store)
        .reader()
        .point(&source, &parent.unwrap())
        .unwrap();
    check(&point, &model);
}

#[test]
fn a_flipped_bit_or_a_cut_in_any_object_is_found_and_the_object_named() {
    let store = Arc::new(Memory::default());
    let repository = repository(&store);
    let mut model = Model::new();
    let mut parent = None;
    for round in 1..4_u8 {
        let changes = (0..40).map(|name| {
            let change = if round == 1 {
                Change::Rewrite {
                    size: 3000 + usize::from(name) * 900,
                    byte: name | 1,
                }
            } else {
                let parts = vec![(usize::from(name) * 64, 500)];
                Change::Patch {
                    size: 3000 + usize::from(name) * 900,
                    parts,
                    byte: round,
                }
            };
            (name, change)
        });
        parent = Some(next_point(&repository, parent, &mut model, &changes.collect()).unwrap());
    }
    let source = "files".parse().unwrap();
    let read = |id: &PointId| -> Result<(), RepositoryError> {
        let point = self::repository(&store).reader().point(&source, id)?;
        for file in point.files() {
            let (path, record) = file?;
            point.read_at(&path, 0, usize::try_from(record.size).unwrap())?;
        }
        Ok(())
    };
    let id = parent.unwrap();
    read(&id).unwrap();
    let used: Vec<ObjectKey> = {
        // Manifests of older points are not needed by this one.
        let keys = store.sizes().into_keys();
        keys.filter(|key| !key.name().starts_with("manifest") || key.as_str().contains(id.as_str()))
            .collect()
    };
    assert!(used.len() >= 6, "{used:?}");
    for key in used {
        let good = store.objects.lock().unwrap()[&key].clone();
        let step = (good.len() * 8 / 150).max(1);
        let bits = (0..good.len() * 8).step_by(step).map(|bit| {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            bad
        });
        let cuts = (0..good.len())
            .step_by(step)
            .map(|length| good[..length].to_vec());
        let mut unused = 0;
        for bad in bits.chain(cuts) {
            store.objects.lock().unwrap().insert(key.clone(), bad);
            match read(&id) {
                Err(error) => assert!(error.to_string().contains(key.as_str()), "{key}: {error}"),
                // A frame of which this point uses nothing is not read.
                Ok(()) => unused += 1,
            }
        }
        let is_own = key.as_str().contains(id.as_str());
        assert!(
            unused == 0 || !is_own && unused < 290,
            "{key}: {unused} were not found"
        );
        store.objects.lock().unwrap().insert(key, good);
    }
    read(&id).unwrap();
}

#[test]
fn what_is_out_of_order_is_refused() {
    let store = Arc::new(Memory::default());
    let repository = repository(&store);
    let mut model = Model::new();
    let whole = BTreeMap::from([(
        1,
        Change::Rewrite {
            size: 9000,
            byte: 3,
        },
    )]);
    let parent = next_point(&repository, None, &mut model, &whole).unwrap();
    let misuse = |result: Result<(), RepositoryError>| {
        assert!(
            matches!(result, Err(RepositoryError::Misuse { .. })),
            "{result:?}"
        );
    };
    let begin = || repository.begin_point(start(Some(parent.clone()))).unwrap();
    misuse(begin().begin_patch("dir/2", patch(1)));
    misuse(begin().begin_file(file("../out", 1)));
    misuse(begin().write(b"x"));
    misuse(begin().end_file());
    let mut writer = begin();
    writer.begin_patch("dir/1", patch(9000)).unwrap();
    misuse(writer.write(b"x"));
    writer.write_at(100, &[1; 50]).unwrap();
    misuse(writer.write_at(149, b"x"));
    misuse(writer.write_at(8999, b"xy"));
    misuse(writer.begin_file(file("dir/3", 1)));
    let mut writer = begin();
    writer.remove("dir/1").unwrap();
    misuse(writer.begin_patch("dir/1", patch(1)));
    misuse(writer.begin_file(file("dir/1", 1)));
    misuse(writer.remove("dir/1"));
    let mut writer = begin();
    writer.begin_file(file("dir/4", 3)).unwrap();
    writer.write(b"ab").unwrap();
    misuse(writer.end_file());
    misuse(
        begin()
            .finish(PointEnd::Postgres {
                stop_lsn: holdfast_core::Lsn(1),
                backup_manifest: None,
            })
            .map(|_| ()),
    );
}
