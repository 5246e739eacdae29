//! The disk that forgets, used as programs use it.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

use holdfast_testing::disk::{Disk, Fault, Step, Survives};
use holdfast_testing::signals;

#[test]
fn what_is_not_synced_is_gone_after_a_power_cut() {
    let disk = Disk::mount("disk").unwrap();
    let folder = disk.path().join("folder");
    fs::create_dir(&folder).unwrap();
    File::open(disk.path()).unwrap().sync_all().unwrap();
    let mut kept = File::create(folder.join("kept")).unwrap();
    kept.write_all(b"synced").unwrap();
    kept.sync_all().unwrap();
    fs::hard_link(folder.join("kept"), folder.join("linked")).unwrap();
    File::open(&folder).unwrap().sync_all().unwrap();
    kept.write_all(b" and not").unwrap();
    fs::write(folder.join("lost"), "x").unwrap();
    fs::rename(folder.join("linked"), folder.join("renamed")).unwrap();
    assert_eq!(fs::read(folder.join("renamed")).unwrap(), b"synced and not");
    drop(kept);
    disk.power_cut(Survives::None, 0);
    let names = fs::read_dir(&folder).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["kept", "linked"]);
    assert_eq!(fs::read(folder.join("linked")).unwrap(), b"synced");
}

#[test]
fn a_large_file_is_read_back_and_can_be_locked_and_shortened() {
    let disk = Disk::mount("disk").unwrap();
    let path = disk.path().join("large");
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(&path, &content).unwrap();
    assert!(fs::read(&path).unwrap() == content);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    file.lock().unwrap();
    assert!(File::open(&path).unwrap().try_lock().is_err());
    file.set_len(5).unwrap();
    let mut end = [9; 4];
    assert_eq!(file.read_at(&mut end, 3).unwrap(), 2);
    assert_eq!(fs::metadata(&path).unwrap().len(), 5);
}

#[test]
fn faults_come_at_their_step_and_end_when_healed() {
    let disk = Disk::mount("disk").unwrap();
    let path = disk.path().join("f");
    let file = File::create(&path).unwrap();
    disk.arm(Fault::Error { after: 1 });
    file.write_at(b"a", 0).unwrap();
    let failed = file.write_at(b"b", 1).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(5));
    assert_eq!(disk.tripped().unwrap().0, Step::Write);
    file.write_at(b"b", 1).unwrap();
    disk.arm(Fault::Full { after: 0 });
    let full = fs::write(disk.path().join("g"), "x").unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    disk.heal();
    fs::write(disk.path().join("g"), "x").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"ab");
}

#[test]
fn a_victim_is_killed_at_its_step_and_does_nothing_more() {
    let disk = Disk::mount("disk").unwrap();
    let folder = disk.path().display();
    let script = format!("for n in $(seq 1000); do echo $n >{folder}/$n; done");
    let mut victim = Command::new("sh").args(["-c", &script]).spawn().unwrap();
    // Two steps for each file: it is made, and it is written.
    disk.arm(Fault::Kill {
        after: 20,
        victim: victim.id(),
    });
    signals::wait_until(Duration::from_secs(20), || disk.has_tripped()).unwrap();
    let status = victim.wait().unwrap();
    assert!(!status.success());
    disk.heal();
    let files = fs::read_dir(disk.path()).unwrap().count();
    assert!((1..1000).contains(&files), "{files}");
}
