//! A storage that fails in every way a network and its servers do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use holdfast_core::{ByteCount, Coded};
use holdfast_store::object::s3::{CredentialSource, S3Location, S3Store};
use holdfast_store::object::{ObjectError, ObjectStore, Range};
use holdfast_testing::s3::{Fault, ObjectStorage, S3Proxy};

use super::{credentials, location};
use crate::conformance::{key, marker};

/// A store behind a proxy that still behaves.
fn scene() -> (ObjectStorage, S3Proxy, S3Location, S3Store) {
    let storage = ObjectStorage::shared().unwrap();
    let proxy = S3Proxy::start(storage.address()).unwrap();
    let mut place = location(proxy.address(), &storage.bucket().unwrap());
    place.timing.request = Duration::from_secs(1);
    let store = S3Store::create_or_open(&place, &marker()).unwrap();
    (storage, proxy, place, store)
}

fn answer(status: u16, code: &'static str) -> Fault {
    Fault::Answer {
        status,
        code,
        header: "",
    }
}

fn read(store: &S3Store, name: &str) -> Result<Vec<u8>, ObjectError> {
    store.get(&key(name), ByteCount(1 << 20))
}

/// How many versions lie under a name.
fn versions(storage: &ObjectStorage, place: &S3Location, name: &str) -> usize {
    let query = format!("prefix=vault%2F{}&versions=", name.replace('/', "%2F"));
    let listed = super::owner(storage, "GET", &format!("/{}", place.bucket.bucket), &query);
    listed.body.matches("<Version>").count()
}

#[test]
fn what_passes_is_tried_again() {
    let (_storage, proxy, _, store) = scene();
    for (number, fault) in [
        answer(503, "SlowDown"),
        answer(500, "InternalError"),
        answer(503, ""),
        answer(409, "ConditionalRequestConflict"),
        Fault::CutBefore,
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("retry/{number}");
        proxy.on("PUT", fault.clone(), 2);
        store.create_new(&key(&name), b"one").unwrap();
        if fault == answer(409, "ConditionalRequestConflict") {
            continue;
        }
        for wanted in ["GET", "HEAD"] {
            proxy.on(wanted, fault.clone(), 2);
        }
        assert_eq!(read(&store, &name).unwrap(), b"one", "{fault:?}");
        assert!(store.head(&key(&name)).unwrap().is_some());
        proxy.heal();
    }
}

/// The answer is lost, the object is not: it is found, compared and taken as stored, once.
#[test]
fn an_answer_lost_after_success_stores_one_object() {
    let (storage, proxy, place, store) = scene();
    for (number, fault) in [Fault::CutAfterSuccess, Fault::Silence]
        .into_iter()
        .enumerate()
    {
        let name = format!("unknown/{number}");
        proxy.on("PUT", fault, 1);
        store.create_new(&key(&name), b"one").unwrap();
        assert_eq!(read(&store, &name).unwrap(), b"one");
        assert_eq!(versions(&storage, &place, &name), 1, "it was stored twice");
        assert!(matches!(
            store.create_new(&key(&name), b"two"),
            Err(ObjectError::Exists(_))
        ));
    }
}

#[test]
fn an_outcome_that_cannot_be_learnt_is_called_unknown() {
    let (_storage, proxy, _, store) = scene();
    proxy.on("PUT", Fault::CutAfterSuccess, 1);
    proxy.on("versions=", answer(503, "SlowDown"), 99);
    let error = store.create_new(&key("unknown/a"), b"one").unwrap_err();
    assert_eq!(error.code().as_str(), "ZS263");
    proxy.heal();
    // Later it turns out that it is there, and it is ours.
    assert!(matches!(
        store.create_new(&key("unknown/a"), b"one"),
        Err(ObjectError::Exists(_))
    ));
    assert_eq!(read(&store, "unknown/a").unwrap(), b"one");
}

#[test]
fn what_does_not_pass_is_told_with_its_code_and_bounded_in_time() {
    let (_storage, proxy, _, store) = scene();
    store.create_new(&key("prod/a"), &[7; 100_000]).unwrap();
    for (fault, code) in [
        (answer(503, "SlowDown"), "ZS261"),
        (answer(500, ""), "ZS261"),
        (answer(501, "NotImplemented"), "ZS261"),
        (answer(403, "AccessDenied"), "ZL261"),
        (answer(403, "ExpiredToken"), "ZL260"),
        (answer(400, "ExpiredToken"), "ZL260"),
        (
            Fault::Answer {
                status: 307,
                code: "TemporaryRedirect",
                header: "location: http://127.0.0.1:1/elsewhere",
            },
            "ZU260",
        ),
        (answer(301, "PermanentRedirect"), "ZU260"),
        (Fault::CutBefore, "ZS262"),
        (Fault::CutAfterSuccess, "ZS262"),
        (Fault::Truncate(50_000), "ZS262"),
        (Fault::Truncate(0), "ZS262"),
        (Fault::Shorten(1), "ZS262"),
        (Fault::Silence, "ZS260"),
        (Fault::Drip(Duration::from_millis(20)), "ZS260"),
    ] {
        proxy.on("GET", fault.clone(), 99);
        let began = Instant::now();
        let error = read(&store, "prod/a").unwrap_err();
        assert_eq!(error.code().as_str(), code, "{fault:?}: {error}");
        assert!(error.hint().is_some(), "{fault:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "{fault:?}");
        proxy.heal();
        assert_eq!(read(&store, "prod/a").unwrap().len(), 100_000, "{fault:?}");
    }
}

#[test]
fn a_range_is_exact_or_an_error() {
    let (_storage, proxy, _, store) = scene();
    store.create_new(&key("prod/a"), &[7; 10_000]).unwrap();
    let part = Range {
        offset: 5_000,
        length: 100,
    };
    for fault in [Fault::Shorten(1), Fault::Truncate(99), answer(200, "")] {
        proxy.on("GET", fault.clone(), 99);
        let error = store.get_range(&key("prod/a"), part).unwrap_err();
        assert_eq!(error.code().as_str(), "ZS262", "{fault:?}: {error}");
        proxy.heal();
    }
    assert_eq!(store.get_range(&key("prod/a"), part).unwrap(), [7; 100]);
}

#[test]
fn a_list_that_is_cut_is_never_a_short_list() {
    let (_storage, proxy, _, store) = scene();
    for number in 0..5 {
        store
            .create_new(&key(&format!("prod/{number}")), b"x")
            .unwrap();
    }
    for fault in [Fault::Shorten(30), Fault::Truncate(300), answer(200, "")] {
        proxy.on("versions=", fault.clone(), 99);
        let error = store.list("prod").unwrap_err();
        assert_eq!(error.code().as_str(), "ZS262", "{fault:?}: {error}");
        proxy.heal();
    }
    assert_eq!(store.list("prod").unwrap().len(), 5);
}

#[test]
fn renewed_credentials_are_read_again_by_itself() {
    let storage = ObjectStorage::shared().unwrap();
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reads);
    let mut place = location(storage.address(), &storage.bucket().unwrap());
    place.credentials = CredentialSource::new(move || {
        Ok(match counted.fetch_add(1, Ordering::Relaxed) {
            0 => credentials("EXPIRED"),
            _ => credentials(ObjectStorage::OWNER),
        })
    });
    let store = S3Store::create_or_open(&place, &marker()).unwrap();
    store.create_new(&key("prod/a"), b"one").unwrap();
    assert_eq!(reads.load(Ordering::Relaxed), 2);
}

#[test]
fn a_lock_that_is_missing_after_storing_is_noticed() {
    let (_storage, proxy, _, store) = scene();
    // The first look finds the name free; the second is what makes sure of the lock.
    proxy.on(
        "versionId=",
        Fault::Answer {
            status: 200,
            code: "",
            header: "x-amz-object-lock-mode: GOVERNANCE",
        },
        1,
    );
    let error = store.create_new(&key("prod/a"), b"").unwrap_err();
    assert_eq!(error.code().as_str(), "ZI260", "{error}");
}

#[test]
fn connections_are_kept_and_shared_by_threads() {
    let (_storage, _proxy, _, store) = scene();
    let body = vec![3; 300_000];
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (store, body) = (&store, &body);
            scope.spawn(move || {
                for number in 0..5 {
                    let name = format!("many/{thread}-{number}");
                    store.create_new(&key(&name), body).unwrap();
                    assert_eq!(read(store, &name).unwrap(), *body);
                }
            });
        }
    });
    assert_eq!(store.list("many").unwrap().len(), 30);
}
