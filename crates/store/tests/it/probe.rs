//! What may be promised of a place, and how it is found out.

#![cfg(target_os = "linux")]

use std::os::unix::fs::PermissionsExt;

use holdfast_core::CheckOutcome;
use holdfast_store::object::probe::{TargetReport, probe};
use holdfast_store::object::s3::{CredentialSource, S3Location};
use holdfast_store::object::{Location, Promise};
use holdfast_testing::s3::{Ask, Fault, ObjectStorage, S3Proxy};

use crate::s3::{credentials, location};

fn try_it(place: &S3Location, strong: Option<&str>) -> TargetReport {
    let strong = strong.map(|id| {
        let id = id.to_owned();
        CredentialSource::new(move || Ok(credentials(&id)))
    });
    probe(&Location::S3(Box::new(place.clone())), strong.as_ref()).unwrap()
}

fn outcome(report: &TargetReport, name: &str) -> CheckOutcome {
    let check = report.checks.iter().find(|check| check.name == name);
    let check = check.unwrap_or_else(|| panic!("no `{name}` in {report:#?}"));
    check.outcome
}

fn why(report: &TargetReport) -> &str {
    match &report.promise {
        Promise::Advisory { why } => why,
        Promise::Compliance => panic!("{report:#?}"),
    }
}

#[test]
fn a_bucket_is_called_immutable_after_a_key_that_may_delete_was_refused_everything() {
    let storage = ObjectStorage::shared().unwrap();
    let bucket = storage.bucket().unwrap();
    let report = try_it(&location(storage.address(), &bucket), None);
    assert_eq!(report.promise, Promise::Compliance, "{report:#?}");
    let passed = |name: &&str| outcome(&report, name) == CheckOutcome::Passed;
    let names: Vec<&str> = report.checks.iter().map(|c| c.name.as_str()).collect();
    assert!(names.iter().all(passed), "{report:#?}");
    assert_eq!(
        names,
        [
            "versions",
            "object lock",
            "stored with a lock",
            "create only",
            "overwrite",
            "delete marker",
            "lengthen",
            "shorten",
            "change the mode",
            "shorten past governance",
            "change the mode past governance",
            "take the lock away",
            "delete",
            "delete past governance",
            "delete among several",
            "suspend versions",
            "a wrong key",
            "delete what is not locked",
            "the object afterwards"
        ]
    );
    // What the probe leaves behind is in nobody's way.
    let place = Location::S3(Box::new(location(storage.address(), &bucket)));
    let store = place.create_or_open(&crate::conformance::marker()).unwrap();
    assert!(store.list("").unwrap().is_empty());
}

#[test]
fn refusals_to_a_key_that_may_not_delete_anyway_prove_nothing() {
    let storage = ObjectStorage::shared().unwrap();
    let bucket = storage.bucket().unwrap();
    storage.grant_least(&bucket).unwrap();
    let mut place = location(storage.address(), &bucket);
    place.credentials = CredentialSource::new(|| Ok(credentials(ObjectStorage::GUEST)));
    let report = try_it(&place, None);
    assert!(
        why(&report).contains("no key that may delete"),
        "{report:#?}"
    );
    assert_eq!(outcome(&report, "delete"), CheckOutcome::Passed);
    assert_eq!(
        outcome(&report, "delete what is not locked"),
        CheckOutcome::NotRun
    );
    // Another key, for the probe alone, shows it.
    let report = try_it(&place, Some(ObjectStorage::OWNER));
    assert_eq!(report.promise, Promise::Compliance, "{report:#?}");
}

#[test]
fn a_bucket_that_locks_everything_by_default_is_tried_as_well() {
    let storage = ObjectStorage::shared().unwrap();
    let bucket = storage.bucket().unwrap();
    let rule = b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>\
        <DefaultRetention><Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule>\
        </ObjectLockConfiguration>";
    let set = Ask {
        key: ObjectStorage::OWNER,
        method: "PUT",
        path: &format!("/{bucket}"),
        query: "object-lock=",
        headers: &[],
        body: rule,
    };
    assert_eq!(storage.ask(&set).unwrap().status, 200);
    let report = try_it(&location(storage.address(), &bucket), None);
    assert_eq!(report.promise, Promise::Compliance, "{report:#?}");
    let lock = report.checks.iter().find(|c| c.name == "object lock");
    assert!(lock.unwrap().detail.contains("COMPLIANCE for 1 days"));
}

#[test]
fn a_bucket_without_locks_is_called_advisory_and_why() {
    let storage = ObjectStorage::shared().unwrap();
    let bucket = storage.plain_bucket().unwrap();
    let report = try_it(&location(storage.address(), &bucket), None);
    assert!(why(&report).starts_with("versions:"), "{report:#?}");
    assert_eq!(outcome(&report, "object lock"), CheckOutcome::Failed);
    assert_eq!(outcome(&report, "stored with a lock"), CheckOutcome::Failed);
}

/// A storage that says yes to one of the things that it must refuse is not called immutable.
#[test]
fn a_storage_that_gives_way_once_is_called_advisory_and_why() {
    let storage = ObjectStorage::shared().unwrap();
    let bucket = storage.bucket().unwrap();
    for (on, past, name) in [
        ("?retention=", 2, "shorten"),
        ("?retention=", 3, "change the mode"),
        ("?retention=", 6, "take the lock away"),
        ("DELETE /", 2, "delete"),
        ("DELETE /", 3, "delete past governance"),
        ("POST /", 1, "delete among several"),
        ("?versioning=", 2, "suspend versions"),
    ] {
        let proxy = S3Proxy::start(storage.address()).unwrap();
        proxy.pass(on, past - 1);
        let yes = Fault::Answer {
            status: 200,
            code: "",
            header: "",
        };
        proxy.on(on, yes, 1);
        let report = try_it(&location(proxy.address(), &bucket), None);
        assert!(why(&report).starts_with(&format!("{name}:")), "{report:#?}");
        assert!(why(&report).contains("was permitted"), "{report:#?}");
        assert_eq!(report.failed().count(), 1, "{report:#?}");
    }
}

#[test]
fn a_storage_that_cannot_be_asked_leads_to_no_report() {
    let storage = ObjectStorage::shared().unwrap();
    let bucket = storage.bucket().unwrap();
    let proxy = S3Proxy::start(storage.address()).unwrap();
    let busy = Fault::Answer {
        status: 503,
        code: "SlowDown",
        header: "",
    };
    proxy.on("?retention=", busy, 99);
    let place = Location::S3(Box::new(location(proxy.address(), &bucket)));
    let error = probe(&place, None).unwrap_err();
    assert_eq!(holdfast_core::Coded::code(&error).as_str(), "ZS261");
}

#[test]
fn a_directory_is_always_called_advisory_and_its_rights_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repository");
    let report = probe(&Location::Directory(root.clone()), None).unwrap();
    assert!(
        why(&report).contains("who rules this machine"),
        "{report:#?}"
    );
    for name in ["create only", "read-only files"] {
        assert_eq!(outcome(&report, name), CheckOutcome::Passed, "{report:#?}");
    }
    assert_ne!(outcome(&report, "immutable flag"), CheckOutcome::Failed);
    assert_eq!(
        std::fs::read_dir(&root).unwrap().count(),
        0,
        "it left something"
    );
    if rustix::process::geteuid().is_root() {
        assert_eq!(outcome(&report, "separate owner"), CheckOutcome::NotRun);
    } else {
        std::fs::set_permissions(&root, PermissionsExt::from_mode(0o777)).unwrap();
        let report = probe(&Location::Directory(root), None).unwrap();
        assert!(
            why(&report).contains("others than the vault"),
            "{report:#?}"
        );
    }
    let open = folder.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
    let report = probe(&Location::Directory(open.join("repository")), None).unwrap();
    assert!(
        why(&report).contains("can move the repository away"),
        "{report:#?}"
    );
}
