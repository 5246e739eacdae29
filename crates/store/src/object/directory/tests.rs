use std::os::unix::fs::PermissionsExt;

use super::*;

fn marker() -> Marker {
    Marker {
        format: 1,
        id: "repo-test".to_owned(),
        created: Timestamp(0),
        vault_key: String::new(),
        recipients: Vec::new(),
    }
}

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

#[test]
fn an_object_is_read_back_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let store = DirectoryStore::create_or_open(folder.path(), &marker()).unwrap();
    store.create_new(&key("a/b"), b"one").unwrap();
    assert!(matches!(
        store.create_new(&key("a/b"), b"two"),
        Err(ObjectError::Exists(_))
    ));
    assert_eq!(store.get(&key("a/b"), ByteCount(3)).unwrap(), b"one");
    let range = Range {
        offset: 1,
        length: 2,
    };
    assert_eq!(store.get_range(&key("a/b"), range).unwrap(), b"ne");
    let mode = fs::metadata(folder.path().join("a/b"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o400);
}

#[test]
fn what_is_absent_or_of_another_size_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = DirectoryStore::create_or_open(folder.path(), &marker()).unwrap();
    store.create_new(&key("a/b"), b"one").unwrap();
    assert!(matches!(
        store.get(&key("a/c"), ByteCount(9)),
        Err(ObjectError::Missing(_))
    ));
    assert!(matches!(
        store.get(&key("a/b"), ByteCount(2)),
        Err(ObjectError::TooLarge { .. })
    ));
    let range = Range {
        offset: 2,
        length: 2,
    };
    assert!(matches!(
        store.get_range(&key("a/b"), range),
        Err(ObjectError::Short(_))
    ));
    assert_eq!(
        store.head(&key("a/b")).unwrap().unwrap().bytes,
        ByteCount(3)
    );
    assert_eq!(store.head(&key("x")).unwrap(), None);
}

#[test]
fn a_listing_has_whole_segments_and_no_staging() {
    let folder = tempfile::tempdir().unwrap();
    let store = DirectoryStore::create_or_open(folder.path(), &marker()).unwrap();
    for name in ["a/wal/2", "a/wal/1", "a/walnut/3", "b/1"] {
        store.create_new(&key(name), b"").unwrap();
    }
    let names = |prefix: &str| -> Vec<String> {
        store
            .list(prefix)
            .unwrap()
            .iter()
            .map(|(key, _)| key.to_string())
            .collect()
    };
    assert_eq!(names("a/wal"), ["a/wal/1", "a/wal/2"]);
    assert_eq!(names("nothing"), Vec::<String>::new());
    assert_eq!(names("").len(), 4);
}

#[test]
fn a_directory_of_something_else_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.tex"), "x").unwrap();
    assert!(matches!(
        DirectoryStore::create_or_open(folder.path(), &marker()),
        Err(ObjectError::NotARepository { .. })
    ));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_newer_format_and_a_torn_marker_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(MARKER);
    fs::write(&path, r#"{"format":3,"other":"shape"}"#).unwrap();
    assert!(matches!(
        DirectoryStore::create_or_open(folder.path(), &marker()),
        Err(ObjectError::NewerFormat { found: 3, .. })
    ));
    fs::write(&path, r#"{"format":1,"#).unwrap();
    assert!(matches!(
        DirectoryStore::open(folder.path()),
        Err(ObjectError::Unreadable { .. })
    ));
}

#[test]
fn a_second_writer_is_refused_and_told_who_writes() {
    let folder = tempfile::tempdir().unwrap();
    let store = DirectoryStore::create_or_open(folder.path(), &marker()).unwrap();
    let other = DirectoryStore::create_or_open(folder.path(), &marker()).unwrap();
    let lock = store.lock("process 7 on host a").unwrap();
    let refused = other.lock("process 8").unwrap_err();
    assert!(
        refused.to_string().contains("process 7 on host a"),
        "{refused}"
    );
    drop(lock);
    assert!(other.lock("process 8").is_ok());
}

#[test]
fn what_a_dead_writer_left_half_written_is_never_an_object() {
    let folder = tempfile::tempdir().unwrap();
    let store = DirectoryStore::create_or_open(folder.path(), &marker()).unwrap();
    fs::create_dir_all(folder.path().join(STAGING)).unwrap();
    fs::write(folder.path().join(STAGING).join("1-1"), "half").unwrap();
    assert!(store.list("").unwrap().is_empty());
    let _lock = store.lock("me").unwrap();
    assert_eq!(
        fs::read_dir(folder.path().join(STAGING)).unwrap().count(),
        0
    );
}

#[test]
fn a_lock_of_a_directory_only_grows_and_is_called_advisory() {
    let folder = tempfile::tempdir().unwrap();
    let store = DirectoryStore::create_or_open(folder.path(), &marker()).unwrap();
    let day = Duration::from_secs(86_400);
    let until = store.now().unwrap().plus(day);
    assert!(matches!(
        store.lock_until(&key("a/b"), until),
        Err(ObjectError::Missing(_))
    ));
    store.create_new(&key("a/b"), b"one").unwrap();
    let locked_until = || store.head(&key("a/b")).unwrap().unwrap().locked_until;
    assert_eq!(locked_until(), None);
    store.lock_until(&key("a/b"), until).unwrap();
    assert_eq!(locked_until(), Some(until));
    store.lock_until(&key("a/b"), until.minus(day)).unwrap();
    assert_eq!(locked_until(), Some(until), "a lock was shortened");
    store.lock_until(&key("a/b"), until.plus(day)).unwrap();
    assert_eq!(locked_until(), Some(until.plus(day)));
    assert!(matches!(store.promise(), Promise::Advisory { .. }));
}
