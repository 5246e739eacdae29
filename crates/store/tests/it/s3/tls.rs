//! The way to the storage in production: TLS, and nobody but the right one at its end.

use holdfast_core::{ByteCount, Coded};
use holdfast_store::object::ObjectStore;
use holdfast_store::object::s3::{Endpoint, PlainHttp, S3Location, S3Store};
use holdfast_testing::s3::{ObjectStorage, S3Tls};

use super::location;
use crate::conformance::{key, marker};

fn over_tls(storage: &ObjectStorage, tls: &S3Tls, host: &str) -> S3Location {
    let mut place = location(storage.address(), &storage.bucket().unwrap());
    let endpoint = format!("https://{host}:{}", tls.port());
    place.endpoint = Endpoint::parse(&endpoint, PlainHttp::LoopbackOnly).unwrap();
    place.authority_pem = Some(tls.authority_pem().to_vec());
    place
}

#[test]
fn objects_go_to_the_storage_over_tls() {
    let storage = ObjectStorage::shared().unwrap();
    let tls = S3Tls::start(storage.address()).unwrap();
    let store = S3Store::create_or_open(&over_tls(&storage, &tls, "localhost"), &marker()).unwrap();
    let body = vec![5; 3_000_000];
    store.create_new(&key("prod/a"), &body).unwrap();
    assert!(store.get(&key("prod/a"), ByteCount(4_000_000)).unwrap() == body);
    assert_eq!(store.list("prod").unwrap().len(), 1);
    assert!(tls.has_served());
}

#[test]
fn nothing_is_sent_to_somebody_whom_the_authority_does_not_know() {
    let storage = ObjectStorage::shared().unwrap();
    let (tls, other) = (
        S3Tls::start(storage.address()).unwrap(),
        S3Tls::start(storage.address()).unwrap(),
    );
    let good = over_tls(&storage, &tls, "localhost");
    let system = S3Location {
        authority_pem: None,
        ..good.clone()
    };
    let stranger = S3Location {
        authority_pem: Some(other.authority_pem().to_vec()),
        ..good.clone()
    };
    let other_name = over_tls(&storage, &tls, "127.0.0.1");
    for (place, what) in [
        (system, "the system's authorities"),
        (stranger, "another authority"),
        (other_name, "another name"),
    ] {
        let refused = S3Store::create_or_open(&place, &marker()).map(|_| ());
        let error = refused.expect_err(what);
        // Where the system trusts nobody at all, that is said instead.
        assert!(
            ["ZS260", "ZU260"].contains(&error.code().as_str()),
            "{what}: {error}"
        );
    }
    assert!(!tls.has_served(), "a request was sent");
    assert!(S3Store::create_or_open(&good, &marker()).is_ok());
}
