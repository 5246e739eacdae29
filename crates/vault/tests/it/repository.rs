//! The repository without a server: what goes in comes out, and what is wrong is found.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use holdfast_core::{Coded, Lsn, PointId, Timestamp};
use holdfast_vault::{
    EngineStart, LagAgainst, Place, PointEnd, PointStart, PostgresConfig, PostgresStart, Reader,
    Repository, RestoreError, RestoreRequest, RestoreTarget, Running, Start, WalPlace, points,
    restore, system_clock,
};
use tempfile::TempDir;

use crate::kept::{key, put_files, quiet, server_manifest};

const SEGMENT: u32 = 1 << 20;
const START: Lsn = Lsn(0x0010_0028);
const STOP: Lsn = Lsn(0x0010_0100);

fn at() -> WalPlace {
    WalPlace {
        source: "prod".parse().unwrap(),
        system_identifier: 77,
        timeline: 1,
        segment_bytes: SEGMENT,
    }
}

/// Files of every size that matters to frames, and what they hold.
fn taken(folder: &Path) -> PathBuf {
    let taken = folder.join("taken");
    fs::create_dir_all(taken.join("base/5")).unwrap();
    fs::create_dir_all(taken.join("pg_wal")).unwrap();
    let mut seed = 1_u32;
    let mut noise = |length: usize| -> Vec<u8> {
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed.to_be_bytes()[0] & 0x1F
        };
        (0..length).map(|_| next()).collect()
    };
    for (name, length) in [
        ("PG_VERSION", 3),
        ("base/5/empty", 0),
        ("base/5/one", 1),
        ("base/5/frame", 128 * 1024),
        ("base/5/frame-and-one", 128 * 1024 + 1),
        ("base/5/many", 5 * 128 * 1024 + 77),
        ("base/5/page", 8192),
        ("postgresql.conf", 10),
    ] {
        let mut content = noise(length);
        if name == "postgresql.conf" {
            content = b"a_b = 'c'\n".to_vec();
        }
        fs::write(taken.join(name), content).unwrap();
    }
    taken
}

fn start() -> PointStart {
    PointStart {
        source: at().source,
        engine: EngineStart::Postgres(PostgresStart {
            system_identifier: 77,
            major: 18,
            timeline: 1,
            start_lsn: START,
            segment_bytes: SEGMENT,
            tablespaces: Vec::new(),
        }),
        parent: None,
    }
}

/// A repository with one base and its log: a whole segment, then two tails.
fn filled(folder: &Path) -> (Repository, PointId) {
    let repository = Repository::open_writer(
        &folder.join("repository").into(),
        key(),
        &crate::keys::keys(),
        system_clock(),
    )
    .unwrap();
    let taken = taken(folder);
    let manifest = server_manifest(&taken, 77, &START.to_string(), &STOP.to_string());
    let mut writer = repository.begin_point(start()).unwrap();
    put_files(&mut writer, &taken, Path::new("")).unwrap();
    let end = PointEnd::Postgres {
        stop_lsn: STOP,
        backup_manifest: Some(manifest),
    };
    let point = writer.finish(end).unwrap();
    let segment: Vec<u8> = (0..SEGMENT).map(|n| n.to_le_bytes()[1]).collect();
    repository
        .put_segment(&at(), Lsn(0x0010_0000), &segment)
        .unwrap();
    repository
        .put_tail(&at(), Lsn(0x0020_0000), b"first")
        .unwrap();
    repository
        .put_tail(&at(), Lsn(0x0020_0005), b"second")
        .unwrap();
    (repository, point)
}

fn bring_back(folder: &Path, name: &str) -> Result<PathBuf, RestoreError> {
    let place = Place {
        state: folder.join("state"),
        repository: folder.join("repository").into(),
        keys: crate::keys::keys(),
        vault_key: Some(key().verifying_key()),
        postgres: PostgresConfig::default(),
    };
    let into = folder.join(name);
    let request = RestoreRequest::new(at().source, RestoreTarget::Latest, into.clone(), Start::No);
    restore(&place, &request, &quiet())?;
    Ok(into)
}

/// Returns all files below a folder, objects only.
fn objects(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "age") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_restored_equals_what_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (repository, point) = filled(folder.path());
    assert_eq!(repository.log_end(&at()).unwrap(), Some(Lsn(0x0020_000B)));
    assert_eq!(
        repository.newest_base(&at().source).unwrap().unwrap().point,
        point
    );
    let into = bring_back(folder.path(), "restored").unwrap();
    for name in [
        "PG_VERSION",
        "base/5/empty",
        "base/5/one",
        "base/5/frame",
        "base/5/frame-and-one",
        "base/5/many",
        "base/5/page",
    ] {
        let (kept, back) = (folder.path().join("taken").join(name), into.join(name));
        assert_eq!(fs::read(kept).unwrap(), fs::read(back).unwrap(), "{name}");
    }
    let open = fs::read(into.join("pg_wal/000000010000000000000002")).unwrap();
    assert!(open.starts_with(b"firstsecond\0") && open.len() == 1 << 20);
    let mode = fs::metadata(&into).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_flipped_bit_or_a_cut_in_any_object_is_found_and_the_object_named() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(folder.path()));
    let mut number = 0;
    let all = objects(&folder.path().join("repository"));
    assert_eq!(all.len(), 6, "{all:?}");
    for path in all {
        let good = fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let places = [0, 17, 30, 40, 70, 97, 101, good.len() / 2, good.len() - 1];
        let flipped = places.iter().map(|place| {
            let mut bad = good.clone();
            bad[*place] ^= 0x10;
            bad
        });
        let cut = [0, 50, good.len() / 2, good.len() - 1].map(|length| good[..length].to_vec());
        for bad in flipped.chain(cut) {
            number += 1;
            fs::write(&path, bad).unwrap();
            let error = bring_back(folder.path(), &format!("bad-{number}")).unwrap_err();
            assert!(error.to_string().contains(name), "{name}: {error}");
            // A wrapped key that was changed looks like one for somebody else.
            let code = error.code().as_str();
            assert!(["ZI251", "ZI270", "ZL270"].contains(&code), "{error}");
        }
        fs::write(&path, &good).unwrap();
    }
    bring_back(folder.path(), "good").unwrap();
}

#[test]
fn an_interrupted_base_leaves_no_restore_point() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("repository");
    let repository = Repository::open_writer(
        &directory.clone().into(),
        key(),
        &crate::keys::keys(),
        system_clock(),
    )
    .unwrap();
    let taken = taken(folder.path());
    let mut writer = repository.begin_point(start()).unwrap();
    put_files(&mut writer, &taken, Path::new("")).unwrap();
    drop(writer);
    assert_eq!(repository.newest_base(&at().source).unwrap(), None);
    let none = bring_back(folder.path(), "restored").unwrap_err();
    assert_eq!(none.code().as_str(), "ZU307");
}

#[test]
fn a_base_that_is_not_what_postgresql_says_is_refused_and_the_file_named() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("repository");
    let repository = Repository::open_writer(
        &directory.clone().into(),
        key(),
        &crate::keys::keys(),
        system_clock(),
    )
    .unwrap();
    let taken = taken(folder.path());
    let manifest = server_manifest(&taken, 77, &START.to_string(), &STOP.to_string());
    for (name, content) in [("base/5/page", vec![9; 8192]), ("base/5/one", vec![1, 2])] {
        let good = fs::read(taken.join(name)).unwrap();
        fs::write(taken.join(name), content).unwrap();
        let mut writer = repository.begin_point(start()).unwrap();
        put_files(&mut writer, &taken, Path::new("")).unwrap();
        let end = PointEnd::Postgres {
            stop_lsn: STOP,
            backup_manifest: Some(manifest.clone()),
        };
        let refused = writer.finish(end).unwrap_err();
        assert_eq!(refused.code().as_str(), "ZI304");
        assert!(refused.to_string().contains(name), "{refused}");
        fs::write(taken.join(name), good).unwrap();
    }
    assert_eq!(repository.newest_base(&at().source).unwrap(), None);
}

#[test]
fn a_second_writer_another_key_and_a_foreign_directory_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("repository");
    let first = Repository::open_writer(
        &directory.clone().into(),
        key(),
        &crate::keys::keys(),
        system_clock(),
    )
    .unwrap();
    let code = |opened: Result<Repository, holdfast_vault::RepositoryError>| {
        opened.err().unwrap().code().as_str()
    };
    assert_eq!(
        code(Repository::open_writer(
            &directory.clone().into(),
            key(),
            &crate::keys::keys(),
            system_clock()
        )),
        "ZU254"
    );
    drop(first);
    let other = SigningKey::from_bytes(&[8; 32]);
    assert_eq!(
        code(Repository::open_writer(
            &directory.clone().into(),
            other,
            &crate::keys::keys(),
            system_clock()
        )),
        "ZU251"
    );
    let foreign = folder.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("photo.jpg"), "x").unwrap();
    assert_eq!(
        code(Repository::open_writer(
            &foreign.clone().into(),
            key(),
            &crate::keys::keys(),
            system_clock()
        )),
        "ZU251"
    );
    assert!(
        Repository::open_writer(
            &directory.clone().into(),
            key(),
            &crate::keys::keys(),
            system_clock()
        )
        .is_ok()
    );
}

#[test]
fn a_manifest_that_another_key_signed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(folder.path()));
    let other = SigningKey::from_bytes(&[8; 32]).verifying_key();
    let reader = Reader::open(
        &folder.path().join("repository").into(),
        Some(other),
        &crate::keys::keys(),
    )
    .unwrap();
    let refused = reader.bases(&at().source).unwrap_err();
    assert_eq!(refused.code().as_str(), "ZI305");
}

#[test]
fn a_directory_that_is_not_empty_is_refused_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(folder.path()));
    let into = folder.path().join("restored");
    fs::create_dir(&into).unwrap();
    fs::write(into.join("mine"), "x").unwrap();
    let refused = bring_back(folder.path(), "restored").unwrap_err();
    assert_eq!(refused.code().as_str(), "ZU305");
    assert_eq!(fs::read_dir(&into).unwrap().count(), 1);
}

#[test]
fn the_same_log_again_is_fine_and_other_log_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (repository, _) = filled(folder.path());
    repository
        .put_tail(&at(), Lsn(0x0020_0000), b"first")
        .unwrap();
    let other = repository
        .put_tail(&at(), Lsn(0x0020_0000), b"fir5t")
        .unwrap_err();
    assert_eq!(other.code().as_str(), "ZI252");
    let short = repository
        .put_segment(&at(), Lsn(0x0030_0000), b"short")
        .unwrap_err();
    assert_eq!(short.code().as_str(), "ZB301");
    let across = repository
        .put_tail(&at(), Lsn(0x002F_FFFF), b"ab")
        .unwrap_err();
    assert_eq!(across.code().as_str(), "ZB301");
}

#[test]
fn a_full_disk_is_told_and_leaves_no_manifest() {
    let disk = TempDir::new().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(disk.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("not run: only root can mount a small disk");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let directory = disk.path().join("repository");
    let result = std::panic::catch_unwind(|| {
        let repository = Repository::open_writer(
            &directory.clone().into(),
            key(),
            &crate::keys::keys(),
            system_clock(),
        )
        .unwrap();
        let taken = taken(folder.path());
        let manifest = server_manifest(&taken, 77, &START.to_string(), &STOP.to_string());
        let mut writer = repository.begin_point(start()).unwrap();
        put_files(&mut writer, &taken, Path::new("")).unwrap();
        let end = PointEnd::Postgres {
            stop_lsn: STOP,
            backup_manifest: Some(manifest),
        };
        let full = writer.finish(end).unwrap_err();
        assert_eq!(full.code().as_str(), "ZS252", "{full}");
        assert_eq!(repository.newest_base(&at().source).unwrap(), None);
        assert_eq!(objects(&directory), Vec::<PathBuf>::new());
    });
    let unmounted = std::process::Command::new("umount")
        .arg(disk.path())
        .status()
        .unwrap();
    assert!(unmounted.success());
    result.unwrap();
}

#[test]
fn spans_say_from_where_to_where_and_what_they_occupy() {
    let folder = tempfile::tempdir().unwrap();
    let (_repository, point) = filled(folder.path());
    let place = Place {
        state: folder.path().join("state"),
        repository: folder.path().join("repository").into(),
        keys: crate::keys::keys(),
        vault_key: None,
        postgres: PostgresConfig::default(),
    };
    let spans = points(&place, &Running::default(), Timestamp(i64::MAX / 4)).unwrap();
    let [span] = spans.as_slice() else {
        panic!("{spans:?}");
    };
    let log = span.log.as_ref().unwrap();
    assert_eq!((log.from_lsn, log.to_lsn), (STOP, Lsn(0x0020_000B)));
    let [shown] = span.points.as_slice() else {
        panic!("{span:?}");
    };
    assert_eq!((&shown.point, shown.bytes), (&point, span.restored));
    let lag = span.lag.as_ref().unwrap();
    assert_eq!(
        (lag.against, lag.bytes, span.lag_s),
        (LagAgainst::Unknown, None, None)
    );
    let bundles = objects(&folder.path().join("repository")).into_iter();
    let sizes: Vec<u64> = bundles
        .filter(|path| !path.ends_with("manifest.zst.age"))
        .map(|path| fs::metadata(path).unwrap().len())
        .collect();
    // A restore point knows the size of its objects before they are sealed, the log's pieces that after.
    let sealing: u64 = sizes.iter().map(|size| 300 + size / 4000).sum();
    let stored = sizes.iter().sum::<u64>();
    assert!(
        (stored - sealing..=stored).contains(&span.bytes.0),
        "{span:?} of {stored}"
    );
}
