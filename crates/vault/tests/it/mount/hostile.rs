//! What is not as it should be is refused, and never read as zeros.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_core::Coded;
use holdfast_vault::mount::{Mount, MountRequest, possible, sweep};

use super::scene::{Scene, assert_same};

const EIO: Option<i32> = Some(5);
const ENOSPC: Option<i32> = Some(28);

#[test]
fn an_overlay_of_another_point_or_in_use_or_damaged_is_refused() {
    possible().unwrap();
    let scene = Scene::new(1);
    let mount = scene.mount().unwrap();
    fs::remove_file(mount.path().join("global/10")).unwrap();
    fs::remove_file(mount.path().join("global/9")).unwrap();
    // A mount that is served is not swept.
    assert!(sweep(scene.dir.path()).unwrap().is_empty());
    let elsewhere = scene.dir.path().join("elsewhere");
    let second = Mount::open(MountRequest {
        mountpoint: elsewhere,
        ..scene.request()
    });
    assert_eq!(second.err().unwrap().code().as_str(), "ZU361");
    mount.close().unwrap();
    let other = scene.keep();
    let refused = Mount::open(MountRequest {
        point: scene.open_point(&other),
        ..scene.request()
    });
    assert_eq!(refused.err().unwrap().code().as_str(), "ZU360");
    let gone = scene.overlay().join("gone");
    let whole = fs::read(&gone).unwrap();
    // A last line that was torn is one that was never written; any other is damage.
    fs::write(&gone, &whole[..whole.len() - 3]).unwrap();
    let mount = scene.mount().unwrap();
    assert!(mount.path().join("global/9").exists());
    assert!(!mount.path().join("global/10").exists());
    mount.close().unwrap();
    let mut flipped = whole;
    flipped[12] ^= 1;
    fs::write(&gone, flipped).unwrap();
    assert_eq!(scene.mount().err().unwrap().code().as_str(), "ZI360");
    let identity = scene.overlay().join("overlay.json");
    fs::write(&identity, "{").unwrap();
    assert_eq!(scene.mount().err().unwrap().code().as_str(), "ZI360");
    fs::remove_file(identity).unwrap();
    assert_eq!(scene.mount().err().unwrap().code().as_str(), "ZI360");
}

#[test]
fn a_presence_record_that_is_cut_short_makes_errors_and_never_zeros() {
    let scene = Scene::new(2);
    let file = "base/5/10";
    let mount = scene.mount().unwrap();
    let opened = OpenOptions::new().write(true).open(mount.path().join(file));
    let opened = opened.unwrap();
    opened.write_all_at(&[1; 8192], 81_920).unwrap();
    opened.sync_data().unwrap();
    drop(opened);
    mount.close().unwrap();
    let note = scene.overlay().join("notes").join(file);
    let whole = fs::read(&note).unwrap();
    for length in [0, 100, whole.len() - 1] {
        fs::write(&note, &whole[..length]).unwrap();
        let mount = scene.mount().unwrap();
        let refused = fs::read(mount.path().join(file)).unwrap_err();
        assert_eq!(refused.raw_os_error(), EIO, "{length}");
        // The others are not affected.
        let other = fs::read(mount.path().join("base/1/10")).unwrap();
        assert_eq!(other, fs::read(scene.kept().join("base/1/10")).unwrap());
        mount.close().unwrap();
    }
    fs::write(&note, whole).unwrap();
    let mount = scene.mount().unwrap();
    let found = fs::read(mount.path().join(file)).unwrap();
    assert_eq!(found[81_920..90_112], [1; 8192]);
}

#[test]
fn what_the_repository_does_not_give_is_an_error() {
    let scene = Scene::new(3);
    let repository = scene.dir.path().join("repository");
    let away = scene.dir.path().join("away");
    let mount = scene.mount().unwrap();
    let path = mount.path().join("base/5/10");
    // The names are known; the bytes are not.
    assert_eq!(fs::metadata(&path).unwrap().len(), 3 << 20);
    let bundles = bundles(&repository);
    assert!(!bundles.is_empty());
    for bundle in &bundles {
        let whole = fs::read(bundle).unwrap();
        let mut damaged = whole;
        let middle = damaged.len() / 2;
        for byte in &mut damaged[middle..] {
            *byte ^= 0x55;
        }
        fs::copy(bundle, away.with_extension(bundle.file_name().unwrap())).unwrap();
        rewrite(bundle, &damaged);
    }
    let refused = fs::read(&path).unwrap_err();
    assert_eq!(refused.raw_os_error(), EIO);
    // What comes whole is whole, and the file is not spoiled by what did not come.
    for bundle in &bundles {
        let whole = fs::read(away.with_extension(bundle.file_name().unwrap())).unwrap();
        rewrite(bundle, &whole);
    }
    let found = fs::read(&path).unwrap();
    assert!(found == fs::read(scene.kept().join("base/5/10")).unwrap());
}

fn rewrite(path: &Path, bytes: &[u8]) {
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, bytes).unwrap();
    fs::rename(fresh, path).unwrap();
}

/// The objects with contents of files.
fn bundles(repository: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![repository.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .contains("bundle")
            {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let scene = Scene::new(4);
    let small = scene.dir.path().join("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(&small)
        .status();
    assert!(mounted.unwrap().success());
    let mount = Mount::open(MountRequest {
        overlay: small.join("overlay"),
        ..scene.request()
    });
    let mount = mount.unwrap();
    let path = mount.path().join("base/5/10");
    let kept = fs::read(scene.kept().join("base/5/10")).unwrap();
    let opened = OpenOptions::new().read(true).write(true).open(&path);
    let opened = opened.unwrap();
    opened.write_all_at(&[9; 8192], 0).unwrap();
    opened.sync_data().unwrap();
    // 3 MiB do not fit: they are read all the same.
    let mut all = vec![0; kept.len()];
    opened.read_exact_at(&mut all, 0).unwrap();
    assert!(all[8192..] == kept[8192..] && all[..8192] == [9; 8192]);
    let mut told = None;
    let mut done = Vec::new();
    for block in (8192..all.len()).step_by(8192) {
        let bytes = [8; 8192];
        match opened.write_all_at(&bytes, u64::try_from(block).unwrap()) {
            Ok(()) => done.push(block),
            Err(error) => {
                told.get_or_insert(error.raw_os_error());
            }
        }
    }
    // Fetched blocks took the room: what was not written is as it was.
    let mut after = vec![0; kept.len()];
    opened.read_exact_at(&mut after, 0).unwrap();
    for block in (8192..all.len()).step_by(8192) {
        let expected = match done.contains(&block) {
            true => &[8; 8192][..],
            false => &kept[block..block + 8192],
        };
        assert!(after[block..block + 8192] == *expected, "block at {block}");
    }
    assert_eq!(told, Some(ENOSPC));
    drop(opened);
    // Nothing else was harmed.
    fs::remove_file(path).unwrap();
    fs::remove_file(scene.kept().join("base/5/10")).unwrap();
    assert_same(&scene.kept(), mount.path(), "after the disk was full");
    let closed = mount.close();
    let unmounted = Command::new("umount").arg("-l").arg(&small).status();
    assert!(unmounted.unwrap().success());
    // There may be no room to record what was fetched; then that is said, and it is fetched again.
    if let Err(error) = closed {
        assert_eq!(error.code().as_str(), "ZS360");
    }
}
