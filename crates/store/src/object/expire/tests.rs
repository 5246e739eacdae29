//! What can be removed from a directory, and what cannot.

use std::os::unix::fs::symlink;

use super::super::{Backend, Marker, Promise};
use super::*;

struct Scene {
    folder: tempfile::TempDir,
    store: DirectoryStore,
    expire: Box<dyn Expire>,
}

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let marker = Marker {
            recipients: Vec::new(),
            format: 1,
            id: "00".repeat(16),
            created: Timestamp(0),
            vault_key: "00".repeat(32),
        };
        let root = folder.path().join("repository");
        let store = DirectoryStore::create_or_open(&root, &marker).unwrap();
        let expire = open(&Location::Directory(root)).unwrap();
        Self {
            folder,
            store,
            expire,
        }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("repository")
    }
}

#[test]
fn an_object_goes_for_good_and_absence_is_no_error() {
    let scene = Scene::new();
    scene.store.create_new(&key("p/wal/a"), b"a").unwrap();
    scene.store.create_new(&key("p/wal/b"), b"b").unwrap();
    assert_eq!(
        scene.expire.expire(&key("p/wal/a")).unwrap(),
        Expired::Removed
    );
    assert_eq!(
        scene.expire.expire(&key("p/wal/a")).unwrap(),
        Expired::Absent
    );
    assert_eq!(
        scene.expire.expire(&key("q/none/a")).unwrap(),
        Expired::Absent
    );
    scene.expire.fold("p/wal").unwrap();
    assert!(scene.store.head(&key("p/wal/b")).unwrap().is_some());
    scene.expire.expire(&key("p/wal/b")).unwrap();
    scene.expire.fold("p/wal").unwrap();
    assert!(!scene.root().join("p/wal").exists() && scene.root().join("p").exists());
}

#[test]
fn a_locked_object_stays() {
    let scene = Scene::new();
    scene.store.create_new(&key("p/wal/a"), b"a").unwrap();
    let until = scene
        .store
        .now()
        .unwrap()
        .plus(std::time::Duration::from_secs(3_600));
    scene.store.lock_until(&key("p/wal/a"), until).unwrap();
    let expired = scene.expire.expire(&key("p/wal/a")).unwrap();
    assert!(matches!(expired, Expired::Locked(_)), "{expired:?}");
    assert!(scene.store.head(&key("p/wal/a")).unwrap().is_some());
}

#[test]
fn the_marker_folders_and_what_links_lead_to_are_never_removed() {
    let scene = Scene::new();
    let elsewhere = scene.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("a"), "mine").unwrap();
    fs::create_dir(scene.root().join("p")).unwrap();
    symlink(&elsewhere, scene.root().join("p/wal")).unwrap();
    symlink(elsewhere.join("a"), scene.root().join("p/a")).unwrap();
    for name in ["holdfast-repository.json", "p/wal/a", "p/a", "p", "p/wal"] {
        assert!(scene.expire.expire(&key(name)).is_err(), "{name}");
    }
    assert!(scene.expire.fold("p/wal").is_err());
    scene.expire.fold("p").unwrap();
    scene.expire.fold("../elsewhere").unwrap_or_default();
    assert!(elsewhere.join("a").exists() && scene.root().join("p").exists());
    assert!(scene.root().join("holdfast-repository.json").exists());
}

/// Says on stderr where the file system or the account has no such flag, and shows the refusal there.
#[test]
fn with_the_immutable_flag_an_object_can_be_changed_by_expire_alone() {
    let scene = Scene::new();
    if let Err(error) = scene.store.make_immutable() {
        assert!(matches!(error, ObjectError::NotImmutable { .. }), "{error}");
        eprintln!("no immutable flag here: {error}");
        return;
    }
    let one = key("p/wal/a");
    scene.store.create_new(&one, b"a").unwrap();
    let path = scene.root().join(one.as_str());
    // Even root is refused while the flag is there.
    for refused in [
        fs::remove_file(&path),
        fs::write(&path, "changed"),
        fs::rename(&path, scene.root().join("p/wal/b")),
    ] {
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
    assert!(fs::remove_dir_all(scene.root().join("p")).is_err());
    let until = scene
        .store
        .now()
        .unwrap()
        .plus(std::time::Duration::from_secs(3_600));
    scene.store.lock_until(&one, until).unwrap();
    assert!(immutable::is_set(&File::open(&path).unwrap()));
    assert!(matches!(
        scene.expire.expire(&one).unwrap(),
        Expired::Locked(_)
    ));
    assert!(immutable::is_set(&File::open(&path).unwrap()));
    let two = key("p/wal/c");
    scene.store.create_new(&two, b"c").unwrap();
    assert_eq!(scene.expire.expire(&two).unwrap(), Expired::Removed);
    // For the folder of the test itself.
    immutable::clear(&File::open(&path).unwrap()).unwrap();
    let Promise::Advisory { why } = scene.store.promise() else {
        panic!("a directory promised compliance");
    };
    assert!(why.contains("root"), "{why}");
}
