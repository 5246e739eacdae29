//! A mount does what a plain copy does, whatever is done to it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use holdfast_core::ByteCount;
use holdfast_testing::signals;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::scene::{Scene, assert_same};

/// One thing that is done to a folder.
#[derive(Clone, Debug)]
enum Act {
    Allocate(String, u64, u64),
    Append(String, Vec<u8>),
    Create(String),
    Folder(String),
    Link(String, String),
    Read(String, u64, usize),
    RemoveFolder(String),
    Rename(String, String),
    Sync(String),
    Truncate(String, u64),
    Unlink(String),
    Write(String, u64, Vec<u8>),
}

impl Act {
    fn draw(random: &mut StdRng) -> Self {
        let path = |random: &mut StdRng| {
            let folder = ["base/1", "base/5", "global", "base/new"][random.random_range(0..4)];
            format!("{folder}/{}", random.random_range(0..14))
        };
        let offset = |random: &mut StdRng| match random.random_range(0..3) {
            0 => random.random_range(0..50) * 8192,
            1 => random.random_range(0..450_000),
            _ => random.random_range(0..(3 << 20) + 20_000),
        };
        let bytes = |random: &mut StdRng| {
            let length = [1, 100, 8192, 8192, 8192, 20_000, 200_000][random.random_range(0..7)];
            let mut bytes = vec![0; length];
            random.fill_bytes(&mut bytes);
            bytes
        };
        match random.random_range(0..20) {
            0 => Self::Allocate(path(random), offset(random), 30_000),
            1 => Self::Append(path(random), bytes(random)),
            2 => Self::Create(path(random)),
            3 => Self::Folder("base/new".to_owned()),
            4 => Self::Link(path(random), path(random)),
            5 => Self::RemoveFolder(
                ["base/new", "global", "base/1"][random.random_range(0..3)].into(),
            ),
            6 => Self::Rename(path(random), path(random)),
            7 => Self::Truncate(path(random), offset(random)),
            8 => Self::Truncate(path(random), 0),
            9 => Self::Unlink(path(random)),
            10 | 11 => Self::Sync(path(random)),
            12..=14 => Self::Read(path(random), offset(random), 100_000),
            _ => {
                let at = offset(random);
                let aligned = random.random_range(0..2) == 0;
                let at = if aligned { at / 8192 * 8192 } else { at };
                Self::Write(path(random), at, bytes(random))
            }
        }
    }

    /// Does it, and returns what a program would see of it.
    fn perform(&self, root: &Path) -> Result<Vec<u8>, io::ErrorKind> {
        let at = |path: &str| root.join(path);
        let open = |path: &str| OpenOptions::new().read(true).write(true).open(at(path));
        let done: io::Result<Vec<u8>> = (|| {
            match self {
                Self::Allocate(path, offset, length) => {
                    let flags = rustix::fs::FallocateFlags::empty();
                    rustix::fs::fallocate(open(path)?, flags, *offset, *length)?;
                }
                Self::Append(path, bytes) => {
                    let file = open(path)?;
                    file.write_all_at(bytes, file.metadata()?.len())?;
                }
                Self::Create(path) => drop(File::create_new(at(path))?),
                Self::Folder(path) => fs::create_dir(at(path))?,
                Self::Link(from, to) => fs::hard_link(at(from), at(to))?,
                Self::Read(path, offset, length) => {
                    let mut bytes = vec![0; *length];
                    let file = open(path)?;
                    let mut done = 0;
                    loop {
                        let at = offset + u64::try_from(done).unwrap();
                        match file.read_at(&mut bytes[done..], at)? {
                            0 => break,
                            count => done += count,
                        }
                    }
                    bytes.truncate(done);
                    return Ok(bytes);
                }
                Self::RemoveFolder(path) => fs::remove_dir(at(path))?,
                Self::Rename(from, to) => fs::rename(at(from), at(to))?,
                Self::Sync(path) => open(path)?.sync_data()?,
                Self::Truncate(path, size) => open(path)?.set_len(*size)?,
                Self::Unlink(path) => fs::remove_file(at(path))?,
                Self::Write(path, offset, bytes) => open(path)?.write_all_at(bytes, *offset)?,
            }
            Ok(Vec::new())
        })();
        done.map_err(|error| error.kind())
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, &target).unwrap()),
        }
    }
}

/// Two names of one file would be two files after one of them was written: only the plain folder
/// keeps them together, so the link's own name is removed before anything is written.
fn is_safe(act: &Act) -> bool {
    !matches!(act, Act::Link(from, to) if from == to)
}

fn compare(seed: u64, acts: usize) {
    let hydrates = seed % 2 == 1;
    let scene = Scene::new(seed);
    let plain: PathBuf = scene.dir.path().join("plain");
    copy(&scene.kept(), &plain);
    let mut mount = scene.mount().unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let mut last = Vec::new();
    for number in 0..acts {
        let act = Act::draw(&mut random);
        if !is_safe(&act) {
            continue;
        }
        let expected = act.perform(&plain);
        let found = act.perform(mount.path());
        last.push(format!("{act:?}").chars().take(60).collect::<String>());
        let tail = &last[last.len().saturating_sub(12)..];
        assert_eq!(
            found.is_ok(),
            expected.is_ok(),
            "{found:?} {expected:?} seed {seed} {tail:#?}"
        );
        assert!(found == expected, "seed {seed}, act {number}: {tail:#?}");
        if let (Act::Link(from, _), true) = (&act, found.is_ok()) {
            let unlink = Act::Unlink(from.clone());
            assert_eq!(unlink.perform(&plain), unlink.perform(mount.path()));
        }
        if random.random_range(0..150) == 0 {
            assert_same(
                &plain,
                mount.path(),
                &format!("seed {seed}, act {number} {tail:#?}"),
            );
        }
        if hydrates && random.random_range(0..80) == 0 {
            mount.hydrate(Some(ByteCount(64 << 20))).unwrap();
        }
        if random.random_range(0..60) == 0 {
            mount.close().unwrap();
            mount = scene.mount().unwrap();
        }
    }
    assert_same(&plain, mount.path(), &format!("seed {seed}, at the end"));
    mount.close().unwrap();
    let mount = scene.mount().unwrap();
    assert_same(&plain, mount.path(), &format!("seed {seed}, after the end"));
}

#[test]
fn a_hydrated_mount_is_an_ordinary_data_directory() {
    let scene = Scene::new(21);
    let mount = scene.mount().unwrap();
    let file = mount.path().join("base/5/10");
    let opened = OpenOptions::new().read(true).write(true).open(&file);
    let opened = opened.unwrap();
    opened.write_all_at(&[5; 8192], 16_384).unwrap();
    fs::remove_file(mount.path().join("global/3")).unwrap();
    let named = BTreeMap::from([
        ("base/1/10".to_owned(), vec![0..2, 300..301]),
        ("base/1/none".to_owned(), std::iter::once(0..1).collect()),
    ]);
    assert!(mount.prefetch(&named).unwrap() > 0);
    // With a bound it takes its time, and goes on after a remount.
    mount.hydrate(Some(ByteCount(1 << 20))).unwrap();
    assert!(!mount.hydration().is_complete);
    drop(opened);
    mount.close().unwrap();
    let mount = scene.mount().unwrap();
    mount.hydrate(None).unwrap();
    let limit = std::time::Duration::from_secs(60);
    signals::wait_until(limit, || mount.hydration().is_complete).unwrap();
    let how_far = mount.hydration();
    assert_eq!(how_far.failed, None);
    assert_eq!(how_far.done, how_far.total);
    // Written through the kernel alone now.
    let opened = OpenOptions::new().write(true).open(&file).unwrap();
    opened.write_all_at(&[6; 8192], 24_576).unwrap();
    opened.sync_data().unwrap();
    drop(opened);
    mount.close().unwrap();
    let plain = scene.kept();
    let expected = OpenOptions::new().write(true).open(plain.join("base/5/10"));
    let expected = expected.unwrap();
    expected.write_all_at(&[5; 8192], 16_384).unwrap();
    expected.write_all_at(&[6; 8192], 24_576).unwrap();
    fs::remove_file(plain.join("global/3")).unwrap();
    assert_same(&plain, &scene.overlay().join("data"), "hydrated");
}

#[test]
fn files_that_become_whole_can_be_opened_by_many_at_the_same_moment() {
    let scene = Scene::new(22);
    for _ in 0..4 {
        let mount = scene.mount().unwrap();
        for number in 1..10 {
            for folder in ["base/1", "base/5", "global"] {
                let path = mount.path().join(folder).join(number.to_string());
                let together = std::sync::Barrier::new(8);
                std::thread::scope(|scope| {
                    for _ in 0..8 {
                        scope.spawn(|| {
                            together.wait();
                            for _ in 0..5 {
                                let file = File::open(&path).unwrap();
                                file.read_exact_at(&mut [0], 0).unwrap();
                            }
                        });
                    }
                });
            }
        }
        mount.close().unwrap();
        fs::remove_dir_all(scene.overlay()).unwrap();
    }
}

#[test]
fn a_mount_does_what_a_plain_copy_does() {
    let (seeds, acts) = match std::env::var_os("HOLDFAST_LONG").is_some() {
        true => (40, 2000),
        false => (4, 400),
    };
    for seed in 0..seeds {
        compare(seed, acts);
    }
}
