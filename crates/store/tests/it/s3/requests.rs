//! How many requests things cost, and that none of them is left out where it is needed.

use holdfast_core::ByteCount;
use holdfast_store::object::s3::{S3Location, S3Store};
use holdfast_store::object::{ObjectError, ObjectStore, Range};
use holdfast_testing::s3::{Fault, ObjectStorage, S3Proxy};

use super::{location, overwrite, owner};
use crate::conformance::{key, marker};

/// A store behind a proxy.
fn scene() -> (ObjectStorage, S3Proxy, S3Location, S3Store) {
    let storage = ObjectStorage::shared().unwrap();
    let proxy = S3Proxy::start(storage.address()).unwrap();
    let place = location(proxy.address(), &storage.bucket().unwrap());
    let store = S3Store::create_or_open(&place, &marker()).unwrap();
    (storage, proxy, place, store)
}

/// Returns the methods of the requests that `work` leads to, sorted; `LIST` for a list.
fn requests(proxy: &S3Proxy, work: impl FnOnce()) -> Vec<String> {
    let before = proxy.seen().len();
    work();
    let seen = proxy.seen();
    let mut found: Vec<String> = seen[before..]
        .iter()
        .map(|line| match line.contains("versions=") {
            true => "LIST".to_owned(),
            false => line.split(' ').next().unwrap().to_owned(),
        })
        .collect();
    found.sort();
    found
}

#[test]
fn an_object_costs_three_requests_a_read_of_it_one_and_a_longer_lock_two() {
    let (_storage, proxy, _, store) = scene();
    let seen = requests(&proxy, || {
        store.create_new(&key("prod/a"), b"one").unwrap();
    });
    assert_eq!(seen, ["HEAD", "LIST", "PUT"]);
    // What was stored is known, and each range is one request more.
    let part = Range {
        offset: 1,
        length: 2,
    };
    let seen = requests(&proxy, || {
        assert_eq!(store.get_range(&key("prod/a"), part).unwrap(), b"ne");
    });
    assert_eq!(seen, ["GET"]);
    let until = store.now().unwrap().plus(super::LOCK * 2);
    let seen = requests(&proxy, || store.lock_until(&key("prod/a"), until).unwrap());
    assert_eq!(seen, ["HEAD", "PUT"]);
}

/// A storage that refuses a second object of one name does not see what a delete marker hides.
#[test]
fn a_name_that_somebody_took_and_hid_is_taken() {
    let (storage, _proxy, place, store) = scene();
    let path = format!("/{}/vault/prod/a", place.bucket.bucket);
    overwrite(&storage, &path, b"theirs");
    assert_eq!(owner(&storage, "DELETE", &path, "").status, 204);
    let stored = store.create_new(&key("prod/a"), b"ours");
    assert!(matches!(stored, Err(ObjectError::Exists(_))), "{stored:?}");
    assert_eq!(store.get(&key("prod/a"), ByteCount(9)).unwrap(), b"theirs");
}

/// A storage that refuses doubles by itself says so, and it is the same to who stores.
#[test]
fn a_name_that_the_storage_says_is_taken_is_taken() {
    let (storage, proxy, place, store) = scene();
    let path = format!("/{}/vault/prod/a", place.bucket.bucket);
    overwrite(&storage, &path, b"theirs");
    proxy.on(
        "PUT",
        Fault::Answer {
            status: 412,
            code: "PreconditionFailed",
            header: "",
        },
        1,
    );
    let stored = store.create_new(&key("prod/a"), b"ours");
    assert!(matches!(stored, Err(ObjectError::Exists(_))), "{stored:?}");
}

/// An object whose storing was not seen to its end gets its lock before anybody relies on it.
#[test]
fn what_was_stored_by_a_try_without_an_end_is_locked_when_it_is_found() {
    let (storage, proxy, place, store) = scene();
    let busy = Fault::Answer {
        status: 503,
        code: "SlowDown",
        header: "",
    };
    // It is stored, and neither its place nor its lock can be looked at.
    proxy.on("HEAD", busy.clone(), 99);
    proxy.on("versions=", busy, 99);
    let error = store.create_new(&key("prod/a"), b"ours").unwrap_err();
    assert_eq!(holdfast_core::Coded::code(&error).as_str(), "ZS261");
    proxy.heal();
    let path = format!("/{}/vault/prod/b", place.bucket.bucket);
    overwrite(&storage, &path, b"without a lock");
    for name in ["prod/a", "prod/b"] {
        let error = store.create_new(&key(name), b"ours").unwrap_err();
        assert!(matches!(error, ObjectError::Exists(_)), "{error}");
        let head = store.head(&key(name)).unwrap().unwrap();
        let soon = store.now().unwrap().plus(super::LOCK / 3);
        assert!(
            head.locked_until.is_some_and(|until| until > soon),
            "{name}"
        );
    }
    let versions = storage.versions(&place.bucket.bucket).unwrap();
    let ours = |version: &&holdfast_testing::s3::StoredVersion| version.name == "vault/prod/a";
    assert_eq!(
        versions.iter().filter(ours).count(),
        1,
        "it was stored twice"
    );
}
