//! What every object store does alike.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::{ByteCount, Timestamp};
use holdfast_store::object::{
    Location, Marker, ObjectError, ObjectKey, ObjectStore, Promise, Range,
};

pub fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

pub fn marker() -> Marker {
    Marker {
        format: 2,
        id: "repo-test".to_owned(),
        created: Timestamp(0),
        vault_key: String::new(),
        recipients: Vec::new(),
    }
}

fn range(offset: u64, length: usize) -> Range {
    Range { offset, length }
}

/// Runs everything against a place where nothing is.
pub fn check(location: &Location) {
    is_made_once(location);
    let store: Arc<dyn ObjectStore> = location.create_or_open(&marker()).unwrap();
    writes_once(store.as_ref());
    reads_exactly(store.as_ref());
    lists_whole_segments(store.as_ref());
    locks_only_grow(store.as_ref());
    one_of_many_writers_wins(&store);
}

fn is_made_once(location: &Location) {
    assert!(matches!(
        location.open().map(|_| ()),
        Err(ObjectError::NotARepository { .. })
    ));
    let made = location.create_or_open(&marker()).unwrap();
    assert_eq!(made.marker().id, "repo-test");
    let other = Marker {
        id: "repo-other".to_owned(),
        ..marker()
    };
    let again = location.create_or_open(&other).unwrap();
    assert_eq!(again.marker().id, "repo-test", "a repository was made over");
    assert_eq!(location.open().unwrap().marker().id, "repo-test");
}

fn writes_once(store: &dyn ObjectStore) {
    store.create_new(&key("once/a"), b"one").unwrap();
    for body in [&b"two"[..], b"one", b""] {
        assert!(matches!(
            store.create_new(&key("once/a"), body),
            Err(ObjectError::Exists(_))
        ));
    }
    assert_eq!(store.get(&key("once/a"), ByteCount(3)).unwrap(), b"one");
    store.create_new(&key("once/empty"), b"").unwrap();
    assert_eq!(store.get(&key("once/empty"), ByteCount(0)).unwrap(), b"");
}

fn reads_exactly(store: &dyn ObjectStore) {
    let body: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    store.create_new(&key("read/a"), &body).unwrap();
    let all = ByteCount(u64::try_from(body.len()).unwrap());
    assert_eq!(store.get(&key("read/a"), all).unwrap(), body);
    assert_eq!(store.head(&key("read/a")).unwrap().unwrap().bytes, all);
    assert!(matches!(
        store.get(&key("read/a"), ByteCount(all.0 - 1)),
        Err(ObjectError::TooLarge { .. })
    ));
    for (offset, length) in [
        (0, 1),
        (0, body.len()),
        (4_096, 65_536),
        (399_999, 1),
        (7, 0),
    ] {
        let read = store
            .get_range(&key("read/a"), range(offset, length))
            .unwrap();
        let begin = usize::try_from(offset).unwrap();
        assert_eq!(read, body[begin..begin + length], "{offset}+{length}");
    }
    for (offset, length) in [
        (399_999, 2),
        (400_000, 1),
        (u64::MAX, 1),
        (0, body.len() + 1),
    ] {
        assert!(matches!(
            store.get_range(&key("read/a"), range(offset, length)),
            Err(ObjectError::Short(_))
        ));
    }
    assert_eq!(store.head(&key("read/absent")).unwrap(), None);
    assert!(matches!(
        store.get(&key("read/absent"), ByteCount(9)),
        Err(ObjectError::Missing(_))
    ));
    assert!(matches!(
        store.get_range(&key("read/absent"), range(0, 1)),
        Err(ObjectError::Missing(_))
    ));
}

fn lists_whole_segments(store: &dyn ObjectStore) {
    for name in [
        "list/wal/2",
        "list/wal/1",
        "list/walnut/3",
        "list/wal-x/4",
        "list/wal/sub/5",
    ] {
        store.create_new(&key(name), name.as_bytes()).unwrap();
    }
    let names = |prefix: &str| -> Vec<String> {
        let listed = store.list(prefix).unwrap();
        listed.iter().map(|(key, _)| key.to_string()).collect()
    };
    assert_eq!(
        names("list/wal"),
        ["list/wal/1", "list/wal/2", "list/wal/sub/5"]
    );
    assert_eq!(names("list/wal/"), names("list/wal"));
    assert_eq!(names("nothing"), Vec::<String>::new());
    let all = names("");
    assert!(all.contains(&"list/walnut/3".to_owned()) && all.contains(&"once/a".to_owned()));
    assert!(all.iter().all(|name| name.contains('/')), "{all:?}");
    assert_eq!(store.list("list/walnut").unwrap()[0].1, ByteCount(13));
}

fn locks_only_grow(store: &dyn ObjectStore) {
    let hour = Duration::from_secs(3600);
    let later = store.now().unwrap().plus(48 * hour);
    assert!(matches!(
        store.lock_until(&key("lock/absent"), later),
        Err(ObjectError::Missing(_))
    ));
    store.create_new(&key("lock/a"), b"one").unwrap();
    let locked_until = || store.head(&key("lock/a")).unwrap().unwrap().locked_until;
    let first = locked_until();
    if store.promise() == Promise::Compliance {
        assert!(first.is_some(), "a new object is not locked");
    }
    store.lock_until(&key("lock/a"), later).unwrap();
    let second = locked_until().unwrap();
    assert!(second >= later && second <= later.plus(Duration::from_secs(1)));
    store.lock_until(&key("lock/a"), later.minus(hour)).unwrap();
    assert_eq!(locked_until(), Some(second), "a lock was shortened");
    store.lock_until(&key("lock/a"), later.plus(hour)).unwrap();
    assert!(locked_until().unwrap() >= later.plus(hour));
}

/// Two that store under one name at the same time: exactly one is told that it did, and that is what
/// is read for ever after.
fn one_of_many_writers_wins(store: &Arc<dyn ObjectStore>) {
    for round in 0..4 {
        let name = key(&format!("race/{round}"));
        let writers: Vec<_> = (0..4_u8)
            .map(|writer| {
                let (store, name) = (Arc::clone(store), name.clone());
                std::thread::spawn(move || match store.create_new(&name, &[writer; 9]) {
                    Ok(()) => Some(writer),
                    Err(ObjectError::Exists(_)) => None,
                    Err(error) => panic!("{error}"),
                })
            })
            .collect();
        let winners: Vec<u8> = writers
            .into_iter()
            .filter_map(|writer| writer.join().unwrap())
            .collect();
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        assert_eq!(store.get(&name, ByteCount(9)).unwrap(), [winners[0]; 9]);
    }
}

#[test]
fn a_directory_conforms() {
    let folder = tempfile::tempdir().unwrap();
    check(&folder.path().join("repository").into());
}
