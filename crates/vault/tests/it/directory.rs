//! A directory as a source, kept and brought back.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::{CheckOutcome, WayBack};
use holdfast_store::key;
use holdfast_store::ledger::Ledger;
use holdfast_testing::dirs::TestDir;
use holdfast_vault::{
    DirectoryConfig, DirectoryRequest, DrillConfig, LagAgainst, Place, PostgresConfig, ProgressFn,
    ProofState, RestoreTarget, RestoredDirectory, Running, SpanKind, Vault, VaultConfig, Ways,
    points, restore_directory, system_clock,
};

use crate::capture::scene::Scene;

const NAME: &str = "uploads";

struct Kept {
    scene: Scene,
    source: TestDir,
}

impl Kept {
    fn new() -> Self {
        Self {
            scene: Scene::new(),
            source: TestDir::new("uploads").unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.source.path().join("files").join(name)
    }

    fn vault(&self) -> Vault {
        let clock = system_clock();
        fs::create_dir_all(self.scene.state()).unwrap();
        let key = key::load_or_create(&self.scene.state().join("vault.key"), [7; 32]).unwrap();
        let ledger =
            Ledger::open(&self.scene.state().join("ledger"), key.clone(), clock()).unwrap();
        let Place { repository, .. } = self.scene.place();
        let config = VaultConfig {
            keys: crate::keys::keys(),
            state: self.scene.state(),
            repository,
            sources: Vec::new(),
            directories: vec![DirectoryConfig {
                name: NAME.parse().unwrap(),
                directory: self.source.path().join("files"),
                every: Duration::from_secs(3600),
            }],
            postgres: PostgresConfig::default(),
            points: holdfast_vault::PointsConfig::default(),
            drill: DrillConfig::default(),
            retention: holdfast_vault::RetentionConfig::default(),
        };
        Vault::open(config, ledger, key, clock).unwrap()
    }

    fn restore(&self, at: RestoreTarget) -> (TestDir, RestoredDirectory) {
        let dir = TestDir::new("back").unwrap();
        let request = DirectoryRequest {
            source: NAME.parse().unwrap(),
            at,
            into: dir.path().join("files"),
            ways: Ways::default(),
        };
        let quiet: ProgressFn = Arc::new(|_| {});
        let restored = restore_directory(&self.scene.place(), &request, &quiet).unwrap();
        (dir, restored)
    }
}

/// Everything that is to be seen of a tree, by path.
fn seen(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let facts = fs::symlink_metadata(&path).unwrap();
            let mut text = format!("{:o} {}:{}", facts.mode(), facts.uid(), facts.gid());
            if facts.is_dir() {
                text.push_str(&format!(" {}", facts.mtime_nsec()));
                folders.push(path.clone());
            } else if facts.is_symlink() {
                text.push_str(&format!(" -> {}", fs::read_link(&path).unwrap().display()));
            } else {
                let content = fs::read(&path).unwrap();
                let sum = holdfast_core::Digest::of(&content);
                let times = (facts.mtime(), facts.mtime_nsec());
                text.push_str(&format!(
                    " {} {times:?} {sum} {}",
                    facts.len(),
                    facts.nlink()
                ));
            }
            all.insert(path.strip_prefix(root).unwrap().to_owned(), text);
        }
    }
    all
}

fn plant(kept: &Kept) {
    fs::create_dir_all(kept.path("a/b")).unwrap();
    fs::create_dir(kept.path("closed")).unwrap();
    fs::write(kept.path("a/b/small"), "small").unwrap();
    fs::write(kept.path("a.txt"), "between a and a/b").unwrap();
    fs::write(kept.path("empty"), "").unwrap();
    let large: Vec<u8> = (0..900_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(kept.path("large"), &large).unwrap();
    fs::hard_link(kept.path("large"), kept.path("z-other-name")).unwrap();
    symlink("../outside", kept.path("link")).unwrap();
    let odd = OsStr::from_bytes(b"latin-\xE9 \\ line\nbreak");
    fs::write(kept.path("a").join(odd), "odd").unwrap();
    let sparse = File::create(kept.path("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"island", 40 << 20).unwrap();
    fs::set_permissions(kept.path("a/b/small"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::set_permissions(kept.path("closed"), fs::Permissions::from_mode(0o500)).unwrap();
    rustix::fs::setxattr(
        kept.path("a.txt"),
        "user.note",
        b"kept\0too",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_comes_back_with_links_holes_owners_times_and_attributes() {
    let kept = Kept::new();
    plant(&kept);
    let vault = kept.vault();
    let name = NAME.parse().unwrap();
    vault.keep_now(&name).await.unwrap().unwrap();
    let status = vault.directories().pop().unwrap();
    assert_eq!((status.missing, status.unsettled), (0, 0));
    // The holes are not read.
    assert!(status.read.0 < 8 << 20, "{:?}", status.read);
    let (back, restored) = kept.restore(RestoreTarget::Latest);
    assert_eq!(restored.refused, 0);
    let back = back.path().join("files");
    assert_eq!(seen(&kept.path("")), seen(&back));
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(back.join("a.txt"), "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"kept\0too");
    let sparse = fs::metadata(back.join("sparse")).unwrap();
    assert!(
        sparse.blocks() * 512 < 8 << 20,
        "{} blocks",
        sparse.blocks()
    );
    let report = vault.drill(&name).await.unwrap();
    assert!(report.passed(), "{report:#?}");
    assert!(vault.way_back(&name, system_clock()()).is_ok());
    let running = Running {
        sources: Vec::new(),
        directories: vault.directories(),
    };
    let spans = points(&kept.scene.place(), &running, system_clock()()).unwrap();
    let [span] = spans.as_slice() else {
        panic!("{spans:#?}");
    };
    assert_eq!(
        (span.kind, span.from, &span.log),
        (SpanKind::Moments, span.to, &None)
    );
    assert_eq!((span.from, span.restored), (restored.at, status.bytes));
    assert_eq!(
        (&span.points[0].point, span.proof.state),
        (&restored.point, ProofState::Verified)
    );
    assert_eq!(
        (span.lag.as_ref().unwrap().against, span.lag_s),
        (LagAgainst::Unknown, None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_is_not_read_again_and_older_points_stay() {
    let kept = Kept::new();
    plant(&kept);
    // Only what has been left alone for a while is known not to change unseen.
    let vault = kept.vault();
    let name = NAME.parse().unwrap();
    let began = std::time::Instant::now();
    let before = seen(&kept.path(""));
    let first = loop {
        let point = vault.keep_now(&name).await.unwrap().unwrap();
        vault.keep_now(&name).await.unwrap().unwrap();
        if vault.directories().pop().unwrap().read.0 == 0 {
            break point;
        }
        assert!(began.elapsed() < Duration::from_secs(30));
        // WAIT: files settle as time goes by, and nothing announces it.
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let at = vault.directories().pop().unwrap().at.unwrap();
    let large = File::options()
        .write(true)
        .open(kept.path("large"))
        .unwrap();
    large
        .write_all_at(b"changed in the middle", 2_000_000)
        .unwrap();
    fs::remove_file(kept.path("a.txt")).unwrap();
    fs::remove_dir_all(kept.path("a/b")).unwrap();
    fs::write(kept.path("a/b"), "a folder became a file").unwrap();
    fs::rename(kept.path("sparse"), kept.path("moved")).unwrap();
    let second = vault.keep_now(&name).await.unwrap().unwrap();
    assert_ne!(first, second);
    let (back, _) = kept.restore(RestoreTarget::Latest);
    assert_eq!(seen(&kept.path("")), seen(&back.path().join("files")));
    let (back, _) = kept.restore(RestoreTarget::Time(at));
    assert_eq!(before, seen(&back.path().join("files")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_is_named_and_no_drill_passes_over_it() {
    let kept = Kept::new();
    fs::create_dir_all(kept.path("")).unwrap();
    fs::write(kept.path("good"), "good").unwrap();
    // Longer than a restore point can have: every folder is fine by itself.
    let mut deep = kept.path("");
    for _ in 0..6 {
        deep.push("x".repeat(200));
        fs::create_dir(&deep).unwrap();
    }
    std::os::unix::net::UnixListener::bind(kept.path("socket")).unwrap();
    let vault = kept.vault();
    let name = NAME.parse().unwrap();
    vault.keep_now(&name).await.unwrap().unwrap();
    let status = vault.directories().pop().unwrap();
    assert_eq!(status.missing, 1, "{:?}", status.left_out);
    assert!(status.left_out[0].why.contains("too long"));
    let report = vault.drill(&name).await.unwrap();
    let failed: Vec<_> = report
        .checks
        .iter()
        .filter(|check| check.outcome == CheckOutcome::Failed)
        .collect();
    assert_eq!(failed.len(), 1, "{report:#?}");
    assert!(vault.way_back(&name, system_clock()()).is_err());
    fs::remove_dir_all(kept.path("x".repeat(200).as_str())).unwrap();
    vault.keep_now(&name).await.unwrap().unwrap();
    assert!(vault.drill(&name).await.unwrap().passed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_gone_or_holds_the_vault_itself_is_refused_and_points_stay() {
    let kept = Kept::new();
    plant(&kept);
    let vault = kept.vault();
    let name = NAME.parse().unwrap();
    vault.keep_now(&name).await.unwrap().unwrap();
    let before = seen(&kept.path(""));
    let away = kept.source.path().join("away");
    fs::rename(kept.path(""), &away).unwrap();
    vault.keep_now(&name).await.unwrap().unwrap_err();
    assert_eq!(
        vault.directories().pop().unwrap().trouble.unwrap().code,
        "ZS340"
    );
    let (back, _) = kept.restore(RestoreTarget::Latest);
    assert_eq!(before, seen(&back.path().join("files")));
}
