//! Mounts of restore points whose repository is in a bucket: requests are counted, not timed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use holdfast_core::{ByteCount, PointId};
use holdfast_store::object::s3::Timing;
use holdfast_store::object::{Location, NearBlocks};
use holdfast_testing::dirs::TestDir;
use holdfast_testing::s3::{ObjectStorage, S3Proxy};
use holdfast_testing::signals;
use holdfast_vault::Reader;
use holdfast_vault::mount::{Mount, MountRequest, Near};

use super::scene::Scene;

const LIMIT: Duration = Duration::from_secs(60);
const BLOCK: u64 = 8192;
/// The large files of the scene, of 3 MiB each.
const LARGE: [&str; 3] = ["base/1/10", "base/5/10", "global/10"];

/// A restore point in a bucket, and a proxy that counts what its readers ask for.
struct Far {
    scene: Scene,
    proxy: S3Proxy,
    bucket: String,
}

impl Far {
    fn new(seed: u64) -> Self {
        let storage = ObjectStorage::shared().unwrap();
        let bucket = storage.bucket().unwrap();
        storage.grant_least(&bucket).unwrap();
        let proxy = S3Proxy::start(storage.address()).unwrap();
        let written = patient(crate::bucket::location(
            storage.address(),
            &bucket,
            || ObjectStorage::GUEST.to_owned(),
            Duration::from_secs(60),
        ));
        let scene = Scene::at(seed, TestDir::new("far").unwrap(), &written);
        Self {
            scene,
            proxy,
            bucket,
        }
    }

    fn location(&self) -> Location {
        patient(crate::bucket::location(
            self.proxy.address(),
            &self.bucket,
            || ObjectStorage::GUEST.to_owned(),
            Duration::from_secs(60),
        ))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scene.dir.path().join(name)
    }

    /// Mounts a point as a process would that has read nothing yet.
    fn mount(&self, name: &str, point: &PointId, near: Near) -> Mount {
        self.mount_from(&self.location(), name, point, near)
    }

    /// The same, from a repository whose location names the block cache.
    fn mount_near(&self, name: &str) -> Mount {
        let Location::S3(mut bucket) = self.location() else {
            unreachable!("it is in a bucket")
        };
        bucket.near = Some(NearBlocks {
            dir: self.path("cache"),
            bytes_max: ByteCount(256 << 20),
        });
        let (location, point) = (Location::S3(bucket), &self.scene.point);
        self.mount_from(&location, name, point, Near::default())
    }

    fn mount_from(&self, from: &Location, name: &str, point: &PointId, near: Near) -> Mount {
        let reader = Reader::open(from, None, &crate::keys::keys()).unwrap();
        let request = MountRequest {
            point: reader.point(&"prod".parse().unwrap(), point).unwrap(),
            overlay: self.path(&format!("{name}-overlay")),
            mountpoint: self.path(&format!("{name}-mounted")),
            owner: None,
        };
        Mount::open_near(request, near).unwrap()
    }

    /// What was asked of bundles.
    fn asked(&self) -> usize {
        let seen = self.proxy.seen();
        seen.iter().filter(|line| line.contains("bundle-")).count()
    }

    fn kept(&self, path: &str, range: Range<u64>) -> Vec<u8> {
        let all = fs::read(self.scene.kept().join(path)).unwrap();
        let at = |position: u64| usize::try_from(position).unwrap().min(all.len());
        all[at(range.start)..at(range.end)].to_vec()
    }

    fn assert_reads(&self, mount: &Mount, path: &str, range: Range<u64>) {
        let mut found = vec![0; usize::try_from(range.end - range.start).unwrap()];
        let file = File::open(mount.path().join(path)).unwrap();
        let count = file.read_at(&mut found, range.start).unwrap();
        found.truncate(count);
        assert!(found == self.kept(path, range.clone()), "{path} {range:?}");
    }
}

fn patient(location: Location) -> Location {
    let Location::S3(mut bucket) = location else {
        unreachable!("it is in a bucket")
    };
    bucket.timing = Timing::default();
    Location::S3(bucket)
}

/// Another process that mounts the newest point and reads what it is told to.
struct Other(Child);

impl Other {
    fn start(far: &Far) -> Self {
        let state = far.path("state");
        crate::keys::keep(&state.join("keys"));
        let own = std::env::current_exe().unwrap();
        let target = own.parent().and_then(Path::parent).unwrap();
        let child = Command::new(target.join("examples/mount_one"))
            .arg(&state)
            .arg(format!(
                "http://{}/{}/vault",
                far.proxy.address(),
                far.bucket
            ))
            .arg("prod")
            .args([far.path("other-overlay"), far.path("other-mounted")])
            .arg(far.path("cache"))
            .env("MOUNT_ONE_KEY_ID", ObjectStorage::GUEST)
            .env("MOUNT_ONE_KEY", ObjectStorage::SECRET)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut other = Self(child.unwrap());
        assert_eq!(other.hear(), "mounted");
        other
    }

    /// It says one line at a time, and nothing until it is told something.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        let said = self.0.stdout.as_mut().unwrap();
        BufReader::with_capacity(1, said)
            .read_line(&mut line)
            .unwrap();
        line.trim_end().to_owned()
    }

    fn tell(&mut self, path: &str) {
        let stdin = self.0.stdin.as_mut().unwrap();
        writeln!(stdin, "read {path}").unwrap();
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

#[test]
fn two_processes_share_the_cache_and_a_damaged_entry_is_fetched_again() {
    let far = Far::new(31);
    let mut other = Other::start(&far);
    other.tell(LARGE[0]);
    assert_eq!(other.hear(), (3 << 20).to_string());
    let asked = far.asked();
    assert!(asked > 0);
    let mount = far.mount_near("own");
    far.assert_reads(&mount, LARGE[0], 0..3 << 20);
    assert_eq!(far.asked(), asked, "{:?}", far.proxy.seen());
    // Both at once, and all that the cache has of what comes is damaged meanwhile.
    other.tell(LARGE[1]);
    far.assert_reads(&mount, LARGE[1], 0..3 << 20);
    for folder in fs::read_dir(far.path("cache")).unwrap() {
        for entry in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = entry.unwrap().path();
            let Ok(file) = File::options().write(true).open(path) else {
                continue;
            };
            file.write_all_at(b"damaged", 100).unwrap();
        }
    }
    assert_eq!(other.hear(), (3 << 20).to_string());
    mount.close().unwrap();
    other.end();
    let asked = far.asked();
    let mount = far.mount_near("third");
    for path in LARGE {
        far.assert_reads(&mount, path, 0..3 << 20);
    }
    assert!(far.asked() > asked);
    mount.close().unwrap();
}

/// What a server could touch: the beginning of every file, and blocks here and there.
fn touch(far: &Far, mount: &Mount) {
    for folder in ["base/1", "base/5", "global"] {
        for number in 1..10 {
            far.assert_reads(mount, &format!("{folder}/{number}"), 0..BLOCK);
        }
    }
    for path in LARGE {
        for block in [0, 100, 380, 40, 200, 300, 140, 340, 240, 60, 180] {
            far.assert_reads(mount, path, block * BLOCK..(block + 1) * BLOCK);
        }
    }
}

#[test]
fn what_a_start_touches_comes_with_few_requests_at_the_next_opening_also_of_a_later_point() {
    let far = Far::new(32);
    let near = || Near {
        cache: None,
        hot: Some(far.path("hot")),
    };
    let mount = far.mount("first", &far.scene.point, near());
    touch(&far, &mount);
    mount.keep_hot().unwrap();
    // What comes later is not of the start.
    far.assert_reads(&mount, LARGE[0], 120 * BLOCK..121 * BLOCK);
    mount.close().unwrap();
    let first = far.asked();
    let list = far.path("hot/prod.hot");
    let text = fs::read_to_string(&list).unwrap();
    assert!(text.contains("380 381 base/1/10") && !text.contains("120 121 base/1/10"));

    // A point that was made later has its own objects.
    let later = far.scene.keep();
    let mount = far.mount("second", &later, near());
    let brought = || occupied(&far, "second", LARGE[2]) >= 11 * 8 * 16;
    signals::wait_until(LIMIT, brought).unwrap();
    touch(&far, &mount);
    let second = far.asked() - first;
    mount.keep_hot().unwrap();
    mount.close().unwrap();
    // What was there already when it was opened is remembered as well.
    let again = fs::read_to_string(&list).unwrap();
    for line in text.lines().skip(1) {
        let path = line.rsplit(' ').next().unwrap();
        assert!(again.contains(&format!(" {path}\n")), "{path}: {again}");
    }
    assert!(second * 2 < first, "{second} requests, {first} before");

    // A list that is damaged counts for nothing and harms nothing.
    for text in [
        "",
        "holdfast-hot 1 00000000\n0 1 ../../../etc/passwd\n",
        "\u{0}",
    ] {
        fs::write(&list, text).unwrap();
        let mount = far.mount("third", &later, near());
        far.assert_reads(&mount, LARGE[0], 0..BLOCK);
        mount.close().unwrap();
    }
}

/// Units of 512 bytes that a mount's overlay has of a file that is not whole.
fn occupied(far: &Far, name: &str, path: &str) -> u64 {
    let partial = far.path(&format!("{name}-overlay/partial")).join(path);
    fs::metadata(partial).map_or(0, |facts| facts.blocks())
}

#[test]
fn who_reads_in_order_is_read_ahead_and_who_reads_here_and_there_is_not() {
    let far = Far::new(33);
    let mount = far.mount("own", &far.scene.point, Near::default());
    let [one, other, _] = LARGE;
    for block in 0..3 {
        far.assert_reads(&mount, one, block * BLOCK..(block + 1) * BLOCK);
    }
    // Nobody asks for what comes now.
    let enough = (3 * BLOCK + (256 << 10)) / 512;
    signals::wait_until(LIMIT, || occupied(&far, "own", one) > enough).unwrap();
    for block in 3..384 {
        far.assert_reads(&mount, one, block * BLOCK..(block + 1) * BLOCK);
    }
    let asked = far.asked();
    for block in [300, 5, 200, 90] {
        far.assert_reads(&mount, other, block * BLOCK..(block + 1) * BLOCK);
    }
    assert!(far.asked() - asked <= 4);
    let frame = (128 << 10) / 512;
    assert!(occupied(&far, "own", other) <= 4 * frame + 64);
    mount.close().unwrap();
}

#[test]
fn many_blocks_and_whole_files_come_with_few_requests() {
    let far = Far::new(34);
    let mount = far.mount("own", &far.scene.point, Near::default());
    far.assert_reads(&mount, LARGE[0], 0..BLOCK);
    let asked = far.asked();
    let blocks: Vec<Range<u64>> = (0..384).map(|block| block..block + 1).collect();
    let named: BTreeMap<String, Vec<Range<u64>>> = LARGE
        .iter()
        .map(|path| ((*path).to_owned(), blocks.clone()))
        .collect();
    let brought = mount.prefetch(&named).unwrap();
    assert!((1100..=1152).contains(&brought), "{brought}");
    // 72 frames, 16 at a time, in three files.
    let requests = far.asked() - asked;
    assert!(requests <= 12, "{requests}");
    for path in LARGE {
        far.assert_reads(&mount, path, 0..3 << 20);
    }
    assert_eq!(far.asked() - asked, requests);
    mount.close().unwrap();

    let asked = far.asked();
    let mount = far.mount("all", &far.scene.point, Near::default());
    mount.hydrate(None).unwrap();
    signals::wait_until(LIMIT, || mount.hydration().is_complete).unwrap();
    let requests = far.asked() - asked;
    // 90 frames, 32 at a time, for four threads that each begin somewhere.
    assert!(requests <= 16, "{requests}");
    mount.close().unwrap();
    super::scene::assert_same(&far.scene.kept(), &far.path("all-overlay/data"), "hydrated");
}
