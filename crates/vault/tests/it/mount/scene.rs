//! A restore point that was made up, and mounts of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_core::{Lsn, PointId};
use holdfast_store::object::Location;
use holdfast_testing::dirs::TestDir;
use holdfast_vault::mount::{Mount, MountError, MountRequest};
use holdfast_vault::{
    EngineStart, Point, PointEnd, PointStart, PostgresStart, Repository, system_clock,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::kept::{SEGMENT, key, put_files, server_manifest};

/// A repository with points of a folder that looks like a cluster.
pub struct Scene {
    pub dir: TestDir,
    repository: Repository,
    pub point: PointId,
}

impl Scene {
    /// Keeps a folder with files of many sizes; returns it as well.
    pub fn new(seed: u64) -> Self {
        let dir = TestDir::new("mount").unwrap();
        let location = dir.path().join("repository").into();
        Self::at(seed, dir, &location)
    }

    /// Keeps it in a repository that is somewhere else.
    pub fn at(seed: u64, dir: TestDir, location: &Location) -> Self {
        let repository =
            Repository::open_writer(location, key(), &crate::keys::keys(), system_clock()).unwrap();
        let kept = dir.path().join("kept");
        make_cluster(&kept, &mut StdRng::seed_from_u64(seed));
        let mut scene = Self {
            dir,
            repository,
            point: PointId::from_random(Default::default()),
        };
        scene.point = scene.keep();
        scene
    }

    /// Makes a restore point of the folder as it is now.
    pub fn keep(&self) -> PointId {
        let kept = self.kept();
        let manifest = server_manifest(&kept, 7, "0/1000028", "0/1000100");
        let start = PointStart {
            source: "prod".parse().unwrap(),
            engine: EngineStart::Postgres(PostgresStart {
                system_identifier: 7,
                major: 18,
                timeline: 1,
                start_lsn: Lsn(0x0100_0028),
                segment_bytes: SEGMENT,
                tablespaces: Vec::new(),
            }),
            parent: None,
        };
        let mut writer = self.repository.begin_point(start).unwrap();
        put_files(&mut writer, &kept, Path::new("")).unwrap();
        let end = PointEnd::Postgres {
            stop_lsn: Lsn(0x0100_0100),
            backup_manifest: Some(manifest),
        };
        writer.finish(end).unwrap()
    }

    /// What was kept.
    pub fn kept(&self) -> PathBuf {
        self.dir.path().join("kept")
    }

    pub fn overlay(&self) -> PathBuf {
        self.dir.path().join("overlay")
    }

    pub fn mountpoint(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    pub fn open_point(&self, point: &PointId) -> Point {
        let source = "prod".parse().unwrap();
        self.repository.reader().point(&source, point).unwrap()
    }

    pub fn request(&self) -> MountRequest {
        MountRequest {
            point: self.open_point(&self.point),
            overlay: self.overlay(),
            mountpoint: self.mountpoint(),
            owner: None,
        }
    }

    pub fn mount(&self) -> Result<Mount, MountError> {
        force_away(self.mountpoint());
        Mount::open(self.request())
    }
}

/// A process that waits for its own mount cannot even be killed: when a test takes too long, the
/// mount is taken away by force.
fn force_away(path: PathBuf) {
    std::thread::spawn(move || {
        std::thread::park_timeout(Duration::from_secs(150));
        let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::FORCE);
    });
}

/// Everything below a folder: paths and contents, folders without.
pub fn contents(root: &Path) -> Vec<(String, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            if path.is_dir() {
                folders.push(path);
                found.push((name, None));
            } else {
                found.push((name, Some(fs::read(&path).unwrap())));
            }
        }
    }
    // What the server said of the base is kept beside the files of it.
    found.retain(|(name, _)| name != "backup_manifest");
    found.sort();
    found
}

/// Fails with the first difference between two folders.
pub fn assert_same(one: &Path, other: &Path, when: &str) {
    let (one, other) = (contents(one), contents(other));
    let names = |all: &[(String, Option<Vec<u8>>)]| {
        let names = all.iter().map(|(name, _)| name.clone());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(&one), names(&other), "names, {when}");
    for ((name, one), (_, other)) in one.iter().zip(&other) {
        let (one, other) = (one.as_deref(), other.as_deref());
        let lengths = (one.map(<[u8]>::len), other.map(<[u8]>::len));
        assert_eq!(lengths.0, lengths.1, "length of {name}, {when}");
        let at = one
            .zip(other)
            .and_then(|(one, other)| one.iter().zip(other).position(|(one, other)| one != other));
        assert_eq!(at, None, "first differing byte of {name}, {when}");
    }
}

/// Makes a folder with what counts: empty files, small ones, odd ends, large ones, holes.
fn make_cluster(root: &Path, random: &mut StdRng) {
    for folder in ["base/1", "base/5", "global", "pg_xact"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for folder in ["pg_wal/archive_status", "pg_tblspc", "pg_replslot"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let sizes = [
        0,
        1,
        3,
        8191,
        8192,
        8193,
        16384,
        100_000,
        131_072,
        400_001,
        3 << 20,
    ];
    for (number, size) in sizes.into_iter().enumerate() {
        for folder in ["base/1", "base/5", "global"] {
            let mut bytes = vec![0; size];
            random.fill_bytes(&mut bytes);
            if size > 200_000 {
                // A stretch that compresses, and one of zeros.
                bytes[60_000..150_000].fill(7);
                bytes[160_000..200_000].fill(0);
            }
            fs::write(root.join(folder).join(number.to_string()), bytes).unwrap();
        }
    }
    fs::write(root.join("PG_VERSION"), "18\n").unwrap();
    let number: u64 = random.random();
    fs::write(root.join("pg_xact/0000"), number.to_le_bytes()).unwrap();
}
