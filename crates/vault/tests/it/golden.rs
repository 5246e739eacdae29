//! Repositories that earlier versions wrote must stay readable, by us and by the script alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_core::Digest;
use holdfast_vault::{Place, PostgresConfig, RestoreRequest, RestoreTarget, Start, restore};

use crate::kept::{key, quiet};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/repository-v1")
}

/// Names and digests of what the golden repository holds.
fn expected() -> Vec<(String, String)> {
    let text = fs::read_to_string(golden().with_extension("sums")).unwrap();
    let line = |line: &str| {
        let (sum, name) = line.split_once("  ").unwrap();
        (name.to_owned(), sum.to_owned())
    };
    text.lines().map(line).collect()
}

fn check(into: &Path) {
    let expected = expected();
    assert!(expected.len() > 5);
    for (name, sum) in expected {
        let found = fs::read(into.join(&name)).unwrap();
        assert_eq!(Digest::of(&found).to_string(), sum, "{name}");
    }
}

#[test]
fn the_first_repository_of_version_1_is_still_read() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("restored");
    let place = Place {
        state: folder.path().join("state"),
        repository: golden().into(),
        keys: crate::keys::keys(),
        vault_key: Some(key().verifying_key()),
        postgres: PostgresConfig::default(),
    };
    let request = RestoreRequest::new(
        "prod".parse().unwrap(),
        RestoreTarget::Latest,
        into.clone(),
        Start::No,
    );
    restore(&place, &request, &quiet()).unwrap();
    check(&into);
}

#[test]
fn the_script_reads_it_without_holdfast() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/read-repository");
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("restored");
    let run = |repository: &Path, into: &Path| {
        Command::new(&script)
            .arg(repository)
            .arg("prod")
            .arg(into)
            .output()
            .unwrap()
    };
    let done = run(&golden(), &into);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    check(&into);
    assert!(into.join("recovery.signal").exists());

    let copy = folder.path().join("copy");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(golden())
        .arg(&copy)
        .status()
        .unwrap();
    assert!(copied.success());
    let base = fs::read_dir(copy.join("prod/base"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let bundle = base.join("bundle-000001.zst");
    let mut bad = fs::read(&bundle).unwrap();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::remove_file(&bundle).unwrap();
    fs::write(&bundle, bad).unwrap();
    let refused = run(&copy, &folder.path().join("bad"));
    assert!(!refused.status.success());
}
