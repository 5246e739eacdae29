//! The store in a bucket with Object Lock: what it does, and what others cannot do to it.

#![cfg(target_os = "linux")]

#[cfg(test)]
mod faults;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use holdfast_core::{ByteCount, Coded, Secret};
use holdfast_store::object::s3::{
    Addressing, BucketPath, CredentialSource, Credentials, Endpoint, PlainHttp, S3Location,
    S3Store, Timing,
};
use holdfast_store::object::{Backend, Location, ObjectError, ObjectStore, Promise};
use holdfast_testing::s3::{Ask, ObjectStorage, Reply};

use crate::conformance::{check, key, marker};

/// How long objects of tests are locked.
const LOCK: Duration = Duration::from_secs(3600);

pub fn credentials(id: &str) -> Credentials {
    Credentials {
        access_key_id: id.to_owned(),
        secret_access_key: Secret::new(ObjectStorage::SECRET),
        session_token: None,
    }
}

pub fn location(address: SocketAddr, bucket: &str) -> S3Location {
    S3Location {
        endpoint: Endpoint::parse(&format!("http://{address}"), PlainHttp::LoopbackOnly).unwrap(),
        region: "us-east-1".to_owned(),
        bucket: BucketPath::parse(&format!("s3://{bucket}/vault"))
            .unwrap()
            .unwrap(),
        addressing: Addressing::Path,
        credentials: CredentialSource::new(|| Ok(credentials(ObjectStorage::OWNER))),
        lock: LOCK,
        authority_pem: None,
        timing: Timing {
            request: Duration::from_secs(5),
            tries: 3,
            pause: Duration::from_millis(10),
        },
        promise: Promise::Compliance,
        near: None,
    }
}

/// Asks with the key of the bucket's owner, who may do everything.
fn owner(storage: &ObjectStorage, method: &str, path: &str, query: &str) -> Reply {
    let ask = Ask {
        key: ObjectStorage::OWNER,
        method,
        path,
        query,
        headers: &[],
        body: b"",
    };
    storage.ask(&ask).unwrap()
}

fn overwrite(storage: &ObjectStorage, path: &str, body: &[u8]) {
    let ask = Ask {
        key: ObjectStorage::OWNER,
        method: "PUT",
        path,
        query: "",
        headers: &[],
        body,
    };
    assert_eq!(storage.ask(&ask).unwrap().status, 200);
}

#[test]
fn a_bucket_with_object_lock_conforms() {
    let storage = ObjectStorage::shared().unwrap();
    let location = location(storage.address(), &storage.bucket().unwrap());
    check(&Location::S3(Box::new(location)));
}

/// The owner's key may do everything that can be done at all; the vault's is at most that.
#[test]
fn nobody_can_delete_shorten_or_change_what_is_locked() {
    let storage = ObjectStorage::shared().unwrap();
    let bucket = storage.bucket().unwrap();
    let store = S3Store::create_or_open(&location(storage.address(), &bucket), &marker()).unwrap();
    store.create_new(&key("prod/a"), b"what must stay").unwrap();
    let path = format!("/{bucket}/vault/prod/a");
    let version = owner(&storage, "HEAD", &path, "")
        .header("x-amz-version-id")
        .unwrap();
    let query = format!("versionId={version}");
    assert_eq!(owner(&storage, "DELETE", &path, &query).status, 403);
    let bypass = Ask {
        key: ObjectStorage::OWNER,
        method: "DELETE",
        path: &path,
        query: &query,
        headers: &[("x-amz-bypass-governance-retention", "true")],
        body: b"",
    };
    assert_eq!(storage.ask(&bypass).unwrap().status, 403);
    let until = store
        .head(&key("prod/a"))
        .unwrap()
        .unwrap()
        .locked_until
        .unwrap();
    for mode in ["COMPLIANCE", "GOVERNANCE"] {
        let sooner = until.minus(LOCK / 2).to_string();
        let body = format!(
            "<Retention><Mode>{mode}</Mode><RetainUntilDate>{sooner}</RetainUntilDate></Retention>"
        );
        let shorten = Ask {
            method: "PUT",
            query: &format!("retention=&{query}"),
            body: body.as_bytes(),
            ..bypass
        };
        assert_eq!(storage.ask(&shorten).unwrap().status, 403, "{mode}");
    }
    assert_eq!(
        owner(&storage, "DELETE", &format!("/{bucket}"), "").status,
        409
    );
    assert_eq!(
        store.get(&key("prod/a"), ByteCount(99)).unwrap(),
        b"what must stay"
    );
    assert_eq!(
        store.head(&key("prod/a")).unwrap().unwrap().locked_until,
        Some(until)
    );
}

#[test]
fn a_delete_marker_and_a_newer_version_change_nothing_that_is_read() {
    let storage = ObjectStorage::shared().unwrap();
    let bucket = storage.bucket().unwrap();
    let place = location(storage.address(), &bucket);
    let writer = S3Store::create_or_open(&place, &marker()).unwrap();
    for name in ["prod/hidden", "prod/replaced", "prod/both"] {
        writer
            .create_new(&key(name), b"ours, the true one")
            .unwrap();
    }
    let path = |name: &str| format!("/{bucket}/vault/prod/{name}");
    assert_eq!(owner(&storage, "DELETE", &path("hidden"), "").status, 204);
    overwrite(&storage, &path("replaced"), b"forged");
    overwrite(&storage, &path("both"), b"forged, and hidden");
    assert_eq!(owner(&storage, "DELETE", &path("both"), "").status, 204);
    overwrite(&storage, &path("only-theirs"), b"theirs");
    overwrite(
        &storage,
        &format!("/{bucket}/vault/prod/not%20a%0Akey"),
        b"theirs",
    );
    overwrite(
        &storage,
        &format!("/{bucket}/vault/holdfast-repository.json"),
        b"{}",
    );
    // A reader that knows nothing yet, and the writer that knows its versions.
    let reader = S3Store::open(&place).unwrap();
    assert_eq!(reader.marker().id, "repo-test");
    for store in [&reader, &writer] {
        for name in ["prod/hidden", "prod/replaced", "prod/both"] {
            let read = store.get(&key(name), ByteCount(99)).unwrap();
            assert_eq!(read, b"ours, the true one", "{name}");
            assert!(
                store
                    .head(&key(name))
                    .unwrap()
                    .unwrap()
                    .locked_until
                    .is_some()
            );
            let error = store.create_new(&key(name), b"another").unwrap_err();
            assert!(matches!(error, ObjectError::Exists(_)), "{name}: {error}");
        }
        let listed = store.list("prod").unwrap();
        let listed: Vec<_> = listed
            .iter()
            .map(|(key, size)| (key.name(), size.0))
            .collect();
        assert_eq!(
            listed,
            [
                ("both", 18),
                ("hidden", 18),
                ("only-theirs", 6),
                ("replaced", 18)
            ]
        );
    }
}

#[test]
fn a_list_goes_on_after_a_thousand_versions() {
    let storage = ObjectStorage::shared().unwrap();
    let bucket = storage.bucket().unwrap();
    let place = location(storage.address(), &bucket);
    let store = S3Store::create_or_open(&place, &marker()).unwrap();
    store.create_new(&key("prod/many/0000"), b"ours").unwrap();
    let put = |from: usize| {
        for number in (from..1_150).step_by(4) {
            // Some over the first key, so that one name alone is longer than a page.
            let path = format!(
                "/{bucket}/vault/prod/many/{:04}",
                number.saturating_sub(1_050)
            );
            overwrite(&storage, &path, b"theirs, longer");
        }
    };
    std::thread::scope(|scope| {
        for from in 0..4 {
            scope.spawn(move || put(from));
        }
    });
    let reader = S3Store::open(&place).unwrap();
    let listed = reader.list("prod/many").unwrap();
    assert_eq!(listed.len(), 100);
    assert_eq!(listed[0], (key("prod/many/0000"), ByteCount(4)));
    let fresh = S3Store::open(&place).unwrap();
    assert_eq!(
        fresh.get(&key("prod/many/0000"), ByteCount(99)).unwrap(),
        b"ours"
    );
}

#[test]
fn the_least_policy_is_enough_and_permits_no_delete() {
    let storage = ObjectStorage::shared().unwrap();
    let bucket = storage.bucket().unwrap();
    storage.grant_least(&bucket).unwrap();
    let mut place = location(storage.address(), &bucket);
    place.credentials = CredentialSource::new(|| Ok(credentials(ObjectStorage::GUEST)));
    check(&Location::S3(Box::new(place)));
    for query in ["", "versionId=x"] {
        let refused = Ask {
            key: ObjectStorage::GUEST,
            method: "DELETE",
            path: &format!("/{bucket}/vault/once/a"),
            query,
            headers: &[],
            body: b"",
        };
        assert_eq!(storage.ask(&refused).unwrap().status, 403, "{query}");
    }
}

#[test]
fn what_is_no_place_for_a_repository_is_refused_and_left_alone() {
    let storage = ObjectStorage::shared().unwrap();
    let address = storage.address();
    let code = |place: &S3Location| {
        let refused = S3Store::create_or_open(place, &marker()).map(|_| ());
        let error = refused.unwrap_err();
        assert!(error.hint().is_some_and(|hint| !hint.is_empty()));
        error.code().as_str()
    };
    // A bucket without locks stores nothing for us.
    let plain = storage.plain_bucket().unwrap();
    let refused = code(&location(address, &plain));
    assert!(["ZS261", "ZI260"].contains(&refused), "{refused}");
    assert_eq!(code(&location(address, "no-such-bucket-at-all")), "ZU260");
    // A bucket of somebody else's.
    let bucket = storage.bucket().unwrap();
    let mut foreign = location(address, &bucket);
    foreign.credentials = CredentialSource::new(|| Ok(credentials(ObjectStorage::GUEST)));
    assert_eq!(code(&foreign), "ZL261");
    foreign.credentials = CredentialSource::new(|| {
        Ok(Credentials {
            secret_access_key: Secret::new("wrong"),
            ..credentials(ObjectStorage::OWNER)
        })
    });
    assert_eq!(code(&foreign), "ZL260");
    foreign.credentials = CredentialSource::new(|| Err("`/no/such/file` is absent".to_owned()));
    assert_eq!(code(&foreign), "ZL260");
    // Something else lies there.
    overwrite(&storage, &format!("/{bucket}/vault/thesis.tex"), b"x");
    assert_eq!(code(&location(address, &bucket)), "ZU251");
}
