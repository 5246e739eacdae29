//! Restores that are killed and go on, that take from an older copy, that are read back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_core::{Coded, Digest};
use holdfast_testing::postgres;
use holdfast_vault::{
    Came, EngineStart, FileEntry, FileKind, FileMeta, Place, PointEnd, PointStart, ReadBack,
    RestoreError, RestoreRequest, RestoreTarget, Start, Ways, restore,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::kept::{Kept, quiet};
use crate::stock::Stock;

const LIMIT: Duration = Duration::from_secs(60);
/// The rows that the log brings.
const ROWS: &str = "SELECT count(*)::text || md5(string_agg(body, '' ORDER BY n)) FROM t";

/// Puts files into the server's directory that do not compress: a backup brings them along.
fn ballast(kept: &Kept, files: usize, bytes: usize) {
    let mut random = StdRng::seed_from_u64(7);
    for number in 0..files {
        let mut content = vec![0; bytes];
        random.fill(content.as_mut_slice());
        fs::write(
            kept.server.data_dir().join(format!("ballast-{number}")),
            content,
        )
        .unwrap();
    }
}

fn log_to_replay(kept: &Kept) {
    kept.sql(
        "CREATE TABLE t (n int PRIMARY KEY, body text);
         INSERT INTO t SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 15000) n",
    );
}

/// Every file below a folder with its sum.
fn sums(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let facts = fs::symlink_metadata(&path).unwrap();
            let said = if facts.is_dir() {
                folders.push(path.clone());
                "folder".to_owned()
            } else if facts.is_file() {
                format!(
                    "{} {}",
                    facts.nlink(),
                    Digest::of(&fs::read(&path).unwrap())
                )
            } else {
                format!("{:?}", facts.file_type())
            };
            all.insert(path.strip_prefix(root).unwrap().to_owned(), said);
        }
    }
    all
}

fn occupied(root: &Path) -> u64 {
    let mut bytes = 0;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(facts) = entry.metadata() else {
                continue;
            };
            if facts.is_dir() {
                folders.push(entry.path());
            }
            bytes += facts.blocks() * 512;
        }
    }
    bytes
}

fn command(place: &Place, source: &str, into: &Path) -> Command {
    crate::keys::keep(&place.state.join("keys"));
    let own = std::env::current_exe().unwrap();
    let target = own.parent().and_then(Path::parent).unwrap();
    let mut command = Command::new(target.join("examples/restore_one"));
    command
        .arg(&place.state)
        .arg(place.repository.directory().unwrap())
        .args([source.as_ref(), into.as_os_str()]);
    command
}

/// Begins a restore and kills it with kill -9 when so many bytes are there; `false` when it was faster.
fn killed_at(mut command: Command, into: &Path, bytes: u64) -> bool {
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while occupied(into) < bytes {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(began.elapsed() < LIMIT);
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap().code().is_none()
}

fn ended(mut command: Command) -> serde_json::Value {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn came(told: &serde_json::Value) -> Came {
    serde_json::from_value(told["came"].clone()).unwrap()
}

/// Makes a part of an object unreadable.
fn spoil(object: &Path, (from, to): (u64, u64)) {
    let mut permissions = fs::metadata(object).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(object, permissions).unwrap();
    let file = fs::File::options().write(true).open(object).unwrap();
    let length = file.metadata().unwrap().len();
    let noise = vec![0x55; usize::try_from(length.min(to) - from).unwrap()];
    file.write_all_at(&noise, from).unwrap();
}

fn object(root: &Path, name: &str) -> PathBuf {
    let found = sums(root).into_keys().find(|path| {
        let file = path.file_name().unwrap().to_str().unwrap();
        file.starts_with(name)
    });
    root.join(found.unwrap())
}

#[test]
fn a_restore_that_is_killed_goes_on_and_fetches_only_what_is_missing() {
    let installation = postgres::newest().unwrap();
    let mut kept = Kept::start(&installation, &[]);
    ballast(&kept, 8, 8 << 20);
    kept.base();
    log_to_replay(&kept);
    kept.ship();
    let wanted = kept.ask(ROWS);
    let place = kept.place();
    let whole = kept.folder.path().join("whole");
    let all = came(&ended(command(&place, "prod", &whole)));
    assert_eq!((all.resumed.0, all.copied.0), (0, 0));
    assert!(all.fetched.0 > 64 << 20, "{all:?}");

    let into = kept.folder.path().join("killed");
    let mut round = 0;
    while !killed_at(command(&place, "prod", &into), &into, 54 << 20) {
        // It was faster than we could look: begin anew elsewhere.
        round += 1;
        assert!(round < 20, "no restore could be killed in the middle");
        fs::rename(&into, kept.folder.path().join(format!("fast-{round}"))).unwrap();
    }
    let there = occupied(&into);
    // What is on the disk is not read again, and cannot be: the first half of the first bundle is spoilt,
    // behind its index. Of its second half a thread may have been late.
    let repository = kept.folder.path().join("repository");
    let bundle = object(&repository.join("prod/point"), "bundle-000001");
    spoil(&bundle, (400_000, 16 << 20));
    let told = ended(command(&place, "prod", &into));
    let came = came(&told);
    println!("whole: {all:?}; killed with {there} bytes there, then {came:?}");
    assert!(came.resumed.0 > 24 << 20, "{came:?}");
    assert!(
        came.fetched.0 < all.fetched.0 - (20 << 20),
        "{came:?} {all:?}"
    );
    assert_eq!(only_what_it_restored(&into), only_what_it_restored(&whole));
    for note in ["holdfast-restore.json", "holdfast-restore.wal"] {
        assert!(!into.join(note).exists(), "{note}");
    }

    // A complete one is nobody's to go on with.
    let request = RestoreRequest::new(
        "prod".parse().unwrap(),
        RestoreTarget::Latest,
        into.clone(),
        Start::No,
    );
    let refused = restore(&place, &request, &quiet()).unwrap_err();
    assert_eq!(refused.code().as_str(), "ZU305", "{refused}");
    assert!(refused.to_string().contains("complete"), "{refused}");
    let restored = Stock::start(&installation, &into, kept.server.password());
    assert_eq!(restored.ask(ROWS), wanted);
}

#[test]
fn a_restore_that_is_killed_at_random_moments_always_goes_on_to_the_same_end() {
    let seed = match std::env::var("HOLDFAST_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => rand::random(),
    };
    println!("seed {seed}: set HOLDFAST_SEED to it to play this again");
    let mut random = StdRng::seed_from_u64(seed);
    let installation = postgres::newest().unwrap();
    let mut kept = Kept::start(&installation, &[]);
    ballast(&kept, 2, 4 << 20);
    kept.base();
    log_to_replay(&kept);
    kept.ship();
    let place = kept.place();
    let whole = kept.folder.path().join("whole");
    let began = Instant::now();
    ended(command(&place, "prod", &whole));
    let takes = u64::try_from(began.elapsed().as_micros()).unwrap();
    let wanted = only_what_it_restored(&whole);
    let long = std::env::var_os("HOLDFAST_LONG").is_some();
    for round in 0..if long { 25 } else { 2 } {
        let into = kept.folder.path().join(format!("killed-{round}"));
        let mut kills = 0;
        // Late ones as well, where settings are written and notes are taken away.
        while kills < 4 {
            let mut child = command(&place, "prod", &into)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let moment = Duration::from_micros(random.random_range(0..takes));
            let began = Instant::now();
            while began.elapsed() < moment && child.try_wait().unwrap().is_none() {
                std::hint::spin_loop();
            }
            child.kill().unwrap();
            if child.wait().unwrap().code().is_some() {
                break;
            }
            kills += 1;
        }
        let is_complete =
            into.join("recovery.signal").exists() && !into.join("holdfast-restore.json").exists();
        if !is_complete {
            ended(command(&place, "prod", &into));
        }
        assert_eq!(
            only_what_it_restored(&into),
            wanted,
            "round {round}, {kills} kills"
        );
        fs::remove_dir_all(&into).unwrap();
    }
    // Killed when all was there but for the notes: everything is compared, and nothing is new.
    let note = format!(
        r#"{{"format":1,"source":"prod","at":"latest","timeline":null,"point":"{}","stage":"contents"}}"#,
        kept.repository
            .newest_base(&kept.at.source)
            .unwrap()
            .unwrap()
            .point
    );
    fs::write(whole.join("holdfast-restore.json"), note).unwrap();
    let told = ended(command(&place, "prod", &whole));
    assert!(came(&told).resumed.0 > 8 << 20, "{told}");
    assert_eq!(only_what_it_restored(&whole), wanted);
}

/// What a restore brought, without what names its own place.
fn only_what_it_restored(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = sums(directory);
    assert!(all.remove(Path::new("postgresql.auto.conf")).is_some());
    all
}

#[test]
fn the_log_that_was_brought_is_not_brought_again() {
    let installation = postgres::oldest().unwrap();
    let mut kept = Kept::start(&installation, &[]);
    kept.base();
    log_to_replay(&kept);
    ballast(&kept, 1, 4096);
    kept.ship();
    let wanted = kept.ask(ROWS);
    let place = kept.place();
    let into = kept.folder.path().join("killed");
    let mut round = 0;
    let noted = |into: &Path| {
        let text = fs::read_to_string(into.join("holdfast-restore.wal")).unwrap_or_default();
        text.lines().count()
    };
    loop {
        let mut child = command(&place, "prod", &into)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while noted(&into) < 6 && child.try_wait().unwrap().is_none() {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        if child.wait().unwrap().code().is_none() && noted(&into) >= 6 {
            break;
        }
        round += 1;
        assert!(round < 20, "no restore could be killed in the middle");
        fs::rename(&into, kept.folder.path().join(format!("fast-{round}"))).unwrap();
    }
    let text = fs::read_to_string(into.join("holdfast-restore.wal")).unwrap();
    let mut spoilt = 0;
    for line in text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
    {
        let name = line.split(' ').next().unwrap();
        let wal = kept.folder.path().join("repository/prod/wal");
        spoil(&object(&wal, name), (0, u64::MAX));
        spoilt += 1;
    }
    let told = ended(command(&place, "prod", &into));
    assert!(spoilt >= 5 && came(&told).resumed.0 >= 5 << 20, "{told}");
    let restored = Stock::start(&installation, &into, kept.server.password());
    assert_eq!(restored.ask(ROWS), wanted);
}

#[test]
fn only_the_restore_that_was_begun_goes_on_in_a_directory() {
    let installation = postgres::newest().unwrap();
    let mut kept = Kept::start(&installation, &[]);
    ballast(&kept, 8, 8 << 20);
    kept.base();
    kept.ship();
    let place = kept.place();
    let into = kept.folder.path().join("killed");
    let begin = |into: &Path| killed_at(command(&place, "prod", into), into, 24 << 20);
    let mut tries = 0..20;
    while !begin(&into) {
        let number = tries.next().unwrap();
        fs::rename(&into, kept.folder.path().join(format!("fast-{number}"))).unwrap();
    }
    let before = sums(&into);
    let asks = |at: RestoreTarget| {
        let source = "prod".parse().unwrap();
        let request = RestoreRequest::new(source, at, into.clone(), Start::No);
        restore(&place, &request, &quiet())
    };
    let refused = |why: &str, at: RestoreTarget| {
        let error = asks(at).unwrap_err();
        assert_eq!(error.code().as_str(), "ZU331", "{error}");
        assert!(error.to_string().contains(why), "{error}");
    };
    refused("was begun in it", RestoreTarget::BeforeLsn(kept.flushed()));
    // A link would lead a write out of the directory.
    let outside = kept.folder.path().join("outside");
    fs::write(&outside, "precious").unwrap();
    symlink(&outside, into.join("base/link")).unwrap();
    refused("is a link", RestoreTarget::Latest);
    fs::remove_file(into.join("base/link")).unwrap();
    fs::hard_link(&outside, into.join("base/link")).unwrap();
    refused("is a link", RestoreTarget::Latest);
    fs::remove_file(into.join("base/link")).unwrap();
    fs::write(into.join("postmaster.pid"), "1\n").unwrap();
    refused("a server was started", RestoreTarget::Latest);
    fs::remove_file(into.join("postmaster.pid")).unwrap();
    let note = fs::read(into.join("holdfast-restore.json")).unwrap();
    fs::write(into.join("holdfast-restore.json"), &note[..note.len() / 2]).unwrap();
    refused("not readable", RestoreTarget::Latest);
    fs::write(into.join("holdfast-restore.json"), &note).unwrap();
    assert_eq!(sums(&into), before);
    assert_eq!(fs::read(&outside).unwrap(), b"precious");
    // A newer point changes nothing: the one that was begun is finished, whatever lies there.
    let older = kept
        .repository
        .newest_base(&kept.at.source)
        .unwrap()
        .unwrap();
    kept.base();
    let file = fs::File::options()
        .write(true)
        .open(into.join("PG_VERSION"))
        .unwrap();
    file.write_all_at(b"x", 0).unwrap();
    let done = asks(RestoreTarget::Latest).unwrap();
    assert_eq!(done.point, older.point);
    assert_ne!(fs::read(into.join("PG_VERSION")).unwrap()[0], b'x');
}

#[test]
fn what_an_older_copy_has_is_not_fetched_and_the_copy_is_only_read() {
    for installation in postgres::all().unwrap() {
        let mut kept = Kept::start(&installation, &[]);
        ballast(&kept, 3, 4 << 20);
        log_to_replay(&kept);
        kept.base();
        let mut request = kept.request(RestoreTarget::Latest);
        request.start = Start::No;
        let old = request.into.clone();
        let first = restore(&kept.place(), &request, &quiet()).unwrap();
        kept.sql("UPDATE t SET body = 'changed' WHERE n % 1000 = 0");
        kept.base();
        // Whatever the copy holds, a byte of it counts only when it is the one that is wanted.
        let outside = kept.folder.path().join("outside");
        fs::write(&outside, vec![1; 4 << 20]).unwrap();
        fs::remove_file(old.join("ballast-0")).unwrap();
        symlink(&outside, old.join("ballast-0")).unwrap();
        fs::remove_file(old.join("ballast-1")).unwrap();
        fs::hard_link(&outside, old.join("ballast-1")).unwrap();
        let file = fs::File::options()
            .write(true)
            .open(old.join("ballast-2"))
            .unwrap();
        file.write_all_at(b"rot", 5000).unwrap();
        let pipe = old.join("PG_VERSION");
        fs::remove_file(&pipe).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        let before = sums(&old);
        let mut request = kept.request(RestoreTarget::Latest);
        request.ways.delta_from = Some(old.clone());
        request.ways.jobs = Some(2);
        request.ways.check = ReadBack::Yes;
        let restored = kept.bring(&request).unwrap();
        assert_eq!(sums(&old), before);
        assert_eq!(restored.ask(ROWS), kept.ask(ROWS));
        let came = restored.restored.came;
        println!("PostgreSQL {}: {came:?}", installation.major);
        // 4 MiB of the copy are right, and all of the tables that did not change.
        assert!(came.copied.0 > 16 << 20, "{came:?}");
        assert!(
            came.fetched.0 < first.came.fetched.0 * 3 / 4,
            "{came:?} {:?}",
            first.came
        );
        let verified = restored.restored.verified.clone().unwrap();
        let pages = verified.pages.unwrap();
        assert!(verified.files > 500 && verified.bytes.0 > 20 << 20);
        // Since PostgreSQL 18 `initdb` makes checksums.
        assert_eq!(pages.has_none, installation.major < 18, "{pages:?}");
        assert_eq!((pages.wrong, pages.first_wrong), (0, None));
        assert_eq!(pages.right > 1000, installation.major >= 18);
        for name in ["ballast-0", "ballast-1", "ballast-2", "PG_VERSION"] {
            let source = fs::read(kept.server.data_dir().join(name)).unwrap();
            assert!(
                fs::read(request.into.join(name)).unwrap() == source,
                "{name}"
            );
        }
    }
}

#[test]
fn an_older_copy_that_is_none_is_refused_before_anything_is_written() {
    let installation = postgres::oldest().unwrap();
    let mut kept = Kept::start(&installation, &[]);
    kept.base();
    let mut request = kept.request(RestoreTarget::Latest);
    request.start = Start::No;
    restore(&kept.place(), &request, &quiet()).unwrap();
    let old = request.into;
    let other = kept.folder.path().join("other");
    fs::create_dir_all(other.join("global")).unwrap();
    fs::write(other.join("global/pg_control"), [3; 512]).unwrap();
    let empty = kept.folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let linked = kept.folder.path().join("linked");
    symlink(&old, &linked).unwrap();
    let new = kept.folder.path().join("new");
    for (from, into, why) in [
        (
            kept.folder.path().join("absent"),
            new.clone(),
            "No such file",
        ),
        (other, new.clone(), "another cluster"),
        (empty, new, "no data directory"),
        (old.clone(), old.join("base/new"), "in each other"),
        (linked.join("base"), old.clone(), "in each other"),
    ] {
        let mut request = RestoreRequest::new(
            "prod".parse().unwrap(),
            RestoreTarget::Latest,
            into.clone(),
            Start::No,
        );
        request.ways.delta_from = Some(from);
        let before = sums(&old);
        let refused = restore(&kept.place(), &request, &quiet()).unwrap_err();
        assert_eq!(refused.code().as_str(), "ZU332", "{refused}");
        assert!(refused.to_string().contains(why), "{why}: {refused}");
        assert_eq!(sums(&old), before);
        assert!(into == old || !into.exists());
    }
}

#[test]
fn a_disk_without_room_is_refused_with_both_sizes_before_a_byte_is_written() {
    let installation = postgres::oldest().unwrap();
    let mut kept = Kept::start(&installation, &[]);
    kept.base();
    let disk = kept.folder.path().join("small");
    fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
        .arg(&disk)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("not run: only root can mount a small disk");
        return;
    }
    let mut request = kept.request(RestoreTarget::Latest);
    request.into = disk.join("new/data");
    let refused = kept.bring(&request).err();
    let left = fs::read_dir(&disk).unwrap().count();
    let unmounted = Command::new("umount").arg(&disk).status().unwrap();
    assert!(unmounted.success());
    let refused = refused.unwrap();
    assert_eq!(refused.code().as_str(), "ZS331", "{refused}");
    let RestoreError::NoRoom { needed, free, .. } = &refused else {
        panic!("{refused:?}");
    };
    assert!(needed.0 > 16 << 20 && free.0 <= 8 << 20, "{refused}");
    assert!(refused.hint().unwrap().contains("larger disk"));
    assert_eq!(left, 0);
}

/// A directory of files that do not compress, with links, and its newest point.
fn directory(kept: &Kept) -> BTreeMap<&'static str, Vec<u8>> {
    let mut random = StdRng::seed_from_u64(11);
    let mut writer = kept
        .repository
        .begin_point(PointStart {
            source: "files".parse().unwrap(),
            engine: EngineStart::Directory,
            parent: None,
        })
        .unwrap();
    let mut contents = BTreeMap::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        let mut content = vec![0; 8 << 20];
        random.fill(content.as_mut_slice());
        let entry = |path: &str, kind| FileEntry {
            path: path.to_owned(),
            kind,
            mode: 0o640,
            meta: FileMeta::default(),
        };
        let size = 8 << 20;
        writer
            .begin_file(entry(name, FileKind::File { size }))
            .unwrap();
        writer.write(&content).unwrap();
        writer.end_file().unwrap();
        let target = name.to_owned();
        for (path, kind) in [
            (
                format!("{name}-hard"),
                FileKind::Hardlink {
                    target: target.clone(),
                },
            ),
            (format!("{name}-soft"), FileKind::Symlink { target }),
        ] {
            writer.begin_file(entry(&path, kind)).unwrap();
            writer.end_file().unwrap();
        }
        contents.insert(name, content);
    }
    writer.finish(PointEnd::Directory).unwrap();
    contents
}

#[test]
fn a_directorys_restore_that_is_killed_goes_on_and_leaves_nothing_of_its_own() {
    let installation = postgres::oldest().unwrap();
    let kept = Kept::start(&installation, &[]);
    let contents = directory(&kept);
    let place = kept.place();
    let into = kept.folder.path().join("killed");
    let mut tries = 0..20;
    while !killed_at(command(&place, "files", &into), &into, 24 << 20) {
        let number = tries.next().unwrap();
        fs::rename(&into, kept.folder.path().join(format!("fast-{number}"))).unwrap();
    }
    let told = ended(command(&place, "files", &into));
    let came = came(&told);
    println!("{came:?}");
    assert!(
        came.resumed.0 > 8 << 20 && came.fetched.0 < 42 << 20,
        "{came:?}"
    );
    assert_eq!(fs::read_dir(&into).unwrap().count(), contents.len() * 3);
    for (name, content) in &contents {
        assert!(fs::read(into.join(name)).unwrap() == *content, "{name}");
        let soft = fs::read_link(into.join(format!("{name}-soft"))).unwrap();
        assert_eq!(soft, Path::new(name));
        assert_eq!(fs::metadata(into.join(name)).unwrap().nlink(), 2);
    }
    let older = Ways {
        delta_from: Some(into.clone()),
        jobs: Some(1),
        check: ReadBack::Yes,
    };
    let request = holdfast_vault::DirectoryRequest {
        source: "files".parse().unwrap(),
        at: RestoreTarget::Latest,
        into: kept.folder.path().join("second"),
        ways: older,
    };
    let again = holdfast_vault::restore_directory(&place, &request, &quiet()).unwrap();
    assert_eq!((again.came.fetched.0, again.came.copied.0), (0, 48 << 20));
    assert_eq!(again.verified.unwrap().files, 6);
    assert_eq!(sums(&request.into), sums(&into));
}
