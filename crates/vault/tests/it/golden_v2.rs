//! Repositories of format 2: the script reads what is written today, and the first ones stay readable.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use holdfast_core::{Digest, Lsn, PointId, Timestamp};
use holdfast_store::object::{DirectoryStore, Marker, ObjectStore, Sealed};
use holdfast_vault::{
    EngineStart, FileEntry, FileKind, FileMeta, PatchTo, PointEnd, PointStart, PointWriter,
    PostgresStart, Reader, RecordKind, Repository, WalPlace, system_clock,
};

use crate::kept::{key, server_manifest};
use crate::keys;

/// Bytes of files by path.
type Files = BTreeMap<String, Vec<u8>>;

/// A restore point and what it holds.
struct Made {
    source: &'static str,
    point: PointId,
    files: Files,
}

const SEGMENT: u32 = 1 << 20;
const START: Lsn = Lsn(0x0010_0028);
const STOP: Lsn = Lsn(0x0010_0100);

fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0] & 0x07
    };
    (0..length).map(|_| next()).collect()
}

/// Opens a repository, making it when it is not there.
fn store(directory: &Path) -> Arc<dyn ObjectStore> {
    let marker = Marker {
        format: 2,
        id: "5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e".to_owned(),
        created: Timestamp(1_795_000_000_000_000),
        vault_key: data_encoding::HEXLOWER.encode(key().verifying_key().as_bytes()),
        recipients: keys::keys().recipients(),
    };
    let store = DirectoryStore::create_or_open(directory, &marker).unwrap();
    Arc::new(Sealed::new(store, keys::keys()))
}

fn reader(directory: &Path) -> Reader {
    Reader::over(store(directory), key().verifying_key())
}

/// Writes a repository in which everything occurs that the format has.
fn make(directory: &Path, scratch: &Path) -> Vec<Made> {
    let repository = Repository::over(store(directory), key(), system_clock());
    let first = cluster(&repository, scratch);
    let second = increment(&repository, &first);
    let at = WalPlace {
        source: "prod".parse().unwrap(),
        system_identifier: 77,
        timeline: 1,
        segment_bytes: SEGMENT,
    };
    let segment: Vec<u8> = (0..SEGMENT).map(|n| n.to_le_bytes()[1]).collect();
    repository
        .put_segment(&at, Lsn(0x0010_0000), &segment)
        .unwrap();
    for (start, bytes) in [(0x0020_0000, b"first".as_slice()), (0x0020_0005, b"second")] {
        repository.put_tail(&at, Lsn(start), bytes).unwrap();
    }
    let directory = directory_of_files(&repository);
    vec![first, second, directory]
}

fn write(writer: &mut PointWriter, path: &str, kind: FileKind, content: &[u8]) {
    writer
        .begin_file(FileEntry {
            path: path.to_owned(),
            kind,
            mode: 0o700,
            meta: FileMeta::default(),
        })
        .unwrap();
    for piece in content.chunks(70_001) {
        writer.write(piece).unwrap();
    }
    writer.end_file().unwrap();
}

fn write_files(writer: &mut PointWriter, files: &Files) {
    for (path, content) in files {
        let size = u64::try_from(content.len()).unwrap();
        write(writer, path, FileKind::File { size }, content);
    }
}

fn engine() -> EngineStart {
    EngineStart::Postgres(PostgresStart {
        system_identifier: 77,
        major: 18,
        timeline: 1,
        start_lsn: START,
        segment_bytes: SEGMENT,
        tablespaces: Vec::new(),
    })
}

fn cluster(repository: &Repository, scratch: &Path) -> Made {
    let files = Files::from([
        ("PG_VERSION".to_owned(), b"18\n".to_vec()),
        ("base/5/empty".to_owned(), Vec::new()),
        ("base/5/frame".to_owned(), noise(1, 64 * 1024)),
        ("base/5/gone".to_owned(), noise(2, 9000)),
        ("base/5/large".to_owned(), noise(3, (1 << 20) + 3 * 8192)),
        ("base/5/page".to_owned(), noise(4, 8192)),
        ("postgresql.conf".to_owned(), b"a_b = 'c'\n".to_vec()),
    ]);
    let taken = scratch.join("taken");
    for (path, content) in &files {
        let path = taken.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let manifest = server_manifest(&taken, 77, &START.to_string(), &STOP.to_string());
    let start = PointStart {
        source: "prod".parse().unwrap(),
        engine: engine(),
        parent: None,
    };
    let mut writer = repository.begin_point(start).unwrap();
    for folder in ["base", "base/5", "pg_wal"] {
        write(&mut writer, folder, FileKind::Directory, &[]);
    }
    write_files(&mut writer, &files);
    let end = PointEnd::Postgres {
        stop_lsn: STOP,
        backup_manifest: Some(manifest),
    };
    Made {
        source: "prod",
        point: writer.finish(end).unwrap(),
        files,
    }
}

/// A point that is built on another one: parts of a file, a removal, a new file.
fn increment(repository: &Repository, parent: &Made) -> Made {
    let start = PointStart {
        source: "prod".parse().unwrap(),
        engine: engine(),
        parent: Some(parent.point.clone()),
    };
    let mut files = parent.files.clone();
    let mut writer = repository.begin_point(start).unwrap();
    let large = files.get_mut("base/5/large").unwrap();
    large.resize((1 << 20) + 5 * 8192, 0);
    let to = PatchTo {
        size: u64::try_from(large.len()).unwrap(),
        mode: 0o600,
        meta: FileMeta::default(),
    };
    writer.begin_patch("base/5/large", to).unwrap();
    for (page, count) in [(2, 1), (20, 3), (131, 2)] {
        let bytes = noise(page, count * 8192);
        let offset = usize::from(page) * 8192;
        writer
            .write_at(u64::try_from(offset).unwrap(), &bytes)
            .unwrap();
        large[offset..offset + bytes.len()].copy_from_slice(&bytes);
    }
    writer.end_file().unwrap();
    writer.remove("base/5/gone").unwrap();
    files.remove("base/5/gone");
    let new = Files::from([("base/5/new".to_owned(), noise(9, 20_000))]);
    write_files(&mut writer, &new);
    files.extend(new);
    let end = PointEnd::Postgres {
        stop_lsn: STOP,
        backup_manifest: None,
    };
    Made {
        source: "prod",
        point: writer.finish(end).unwrap(),
        files,
    }
}

fn directory_of_files(repository: &Repository) -> Made {
    let start = PointStart {
        source: "files".parse().unwrap(),
        engine: EngineStart::Directory,
        parent: None,
    };
    let mut sparse = vec![0; 3 << 20];
    sparse[2_000_000..2_010_000].copy_from_slice(&noise(5, 10_000));
    let files = Files::from([
        ("folder/plain".to_owned(), noise(6, 300)),
        ("folder/sparse".to_owned(), sparse),
    ]);
    let mut writer = repository.begin_point(start).unwrap();
    write(&mut writer, "folder", FileKind::Directory, &[]);
    write_files(&mut writer, &files);
    let target = "plain".to_owned();
    write(
        &mut writer,
        "folder/link",
        FileKind::Symlink { target },
        &[],
    );
    let target = "folder/plain".to_owned();
    write(&mut writer, "second", FileKind::Hardlink { target }, &[]);
    Made {
        source: "files",
        point: writer.finish(PointEnd::Directory).unwrap(),
        files,
    }
}

fn run_script(repository: &Path, key: &Path, made: &Made, into: &Path) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/read-repository");
    Command::new(script)
        .args(["--point", made.point.as_str(), "--key"])
        .arg(key)
        .args([repository, Path::new(made.source), into])
        .output()
        .unwrap()
}

/// Lets the script bring a point back, with one key or the other, and compares everything.
fn check_script(repository: &Path, keys: &[PathBuf], made: &Made, scratch: &Path) {
    for (number, key) in keys.iter().enumerate() {
        let into = scratch.join(format!("{}-{number}", made.point));
        let done = run_script(repository, key, made, &into);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{said}");
        for (path, content) in &made.files {
            assert!(fs::read(into.join(path)).unwrap() == *content, "{path}");
        }
        assert!(!into.join("base/5/gone").exists() || made.files.contains_key("base/5/gone"));
        if made.source == "prod" {
            let tail = fs::read(into.join("pg_wal/000000010000000000000002")).unwrap();
            assert!(tail.starts_with(b"firstsecond\0") && tail.len() == 1 << 20);
        } else {
            let link = fs::read_link(into.join("folder/link")).unwrap();
            assert_eq!(link, Path::new("plain"));
            let second = fs::read(into.join("second")).unwrap();
            assert_eq!(second, made.files["folder/plain"]);
        }
    }
}

/// Reads a point back and compares everything.
fn check_reader(reader: &Reader, made: &Made) {
    let source = made.source.parse().unwrap();
    let point = reader.point(&source, &made.point).unwrap();
    let files = point.files().map(Result::unwrap);
    let files: Vec<String> = files
        .filter(|(path, record)| record.kind == RecordKind::File && path != "backup_manifest")
        .map(|(path, _)| path)
        .collect();
    assert!(files.iter().eq(made.files.keys()), "{files:?}");
    for (path, content) in &made.files {
        let read = point.read_at(path, 0, content.len()).unwrap();
        assert!(read == *content, "{path}");
    }
}

/// Writes the identities where `age` finds them: the vault's own and the recovery key.
fn key_files(folder: &Path) -> [PathBuf; 2] {
    let mut number = 0;
    [keys::machine(), keys::recovery()].map(|identity| {
        number += 1;
        let path = folder.join(format!("{number}.key"));
        fs::write(&path, format!("{}\n", identity.to_text().expose())).unwrap();
        path
    })
}

#[test]
fn what_is_written_today_is_read_by_the_script_with_either_key() {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("repository");
    let all = make(&repository, folder.path());
    let reader = reader(&repository);
    let key_files = key_files(folder.path());
    for made in &all {
        check_reader(&reader, made);
        check_script(&repository, &key_files, made, folder.path());
    }
    // How the golden repository was made, and how one of a later format will be.
    if let Some(into) = std::env::var_os("HOLDFAST_WRITE_GOLDEN") {
        keep(&repository, &all, Path::new(&into));
    }
}

/// Copies a repository, with the names and sums of what its points hold.
fn keep(repository: &Path, all: &[Made], into: &Path) {
    let copied = Command::new("cp")
        .arg("-r")
        .args([repository, &into.join("repository-v2")])
        .status();
    assert!(copied.unwrap().success());
    let mut text = String::new();
    for made in all {
        for (path, content) in &made.files {
            let sum = Digest::of(content);
            text += &format!(
                "{} {} {sum} {} {path}\n",
                made.source,
                made.point,
                content.len()
            );
        }
    }
    fs::write(into.join("repository-v2.sums"), text).unwrap();
}

#[test]
fn the_first_repository_of_version_2_is_still_read_by_us_and_by_the_script() {
    let folder = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let repository = golden.join("repository-v2");
    let reader = reader(&repository);
    let text = fs::read_to_string(golden.join("repository-v2.sums")).unwrap();
    let key_files = key_files(folder.path());
    let mut points: BTreeMap<String, Made> = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let mut next = || fields.next().unwrap();
        let (source, point, sum, length, path) = (next(), next(), next(), next(), next());
        let source = if source == "prod" { "prod" } else { "files" };
        let made = points.entry(point.to_owned()).or_insert_with(|| Made {
            source,
            point: point.parse().unwrap(),
            files: Files::new(),
        });
        let read = reader.point(&source.parse().unwrap(), &made.point).unwrap();
        let content = read.read_at(path, 0, length.parse().unwrap()).unwrap();
        assert_eq!(Digest::of(&content).to_string(), sum, "{path}");
        made.files.insert(path.to_owned(), content);
    }
    assert_eq!(points.len(), 3);
    for made in points.values() {
        check_reader(&reader, made);
        check_script(&repository, &key_files, made, folder.path());
    }
}

#[test]
fn the_script_refuses_what_is_damaged_moved_or_signed_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("repository");
    let all = make(&repository, folder.path());
    let [machine, _] = key_files(folder.path());
    let newest = &all[1];
    let mut attempt = 0;
    let mut refuses = |what: &str| {
        attempt += 1;
        let into = folder.path().join(format!("bad-{attempt}"));
        let done = run_script(&repository, &machine, newest, &into);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(
            !done.status.success() && said.contains("read-repository:"),
            "{what}: {said}"
        );
    };
    let points = repository.join("prod/point");
    let mut objects: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(&points).unwrap() {
        for object in fs::read_dir(entry.unwrap().path()).unwrap() {
            objects.push(object.unwrap().path());
        }
    }
    // The older point's own manifest and map are not needed for the newest.
    objects.retain(|path| {
        let name = path.to_string_lossy();
        name.contains("/bundle-") || name.contains(newest.point.as_str())
    });
    assert!(objects.len() >= 4, "{objects:?}");
    for object in &objects {
        let good = fs::read(object).unwrap();
        let mut bad = good.clone();
        let last = bad.len() - 20;
        bad[last] ^= 1;
        fs::remove_file(object).unwrap();
        fs::write(object, bad).unwrap();
        refuses("a flipped bit");
        fs::write(object, good).unwrap();
    }
    let marker = repository.join("holdfast-repository.json");
    let text = fs::read_to_string(&marker).unwrap();
    let own = data_encoding::HEXLOWER.encode(key().verifying_key().as_bytes());
    let other = ed25519_dalek::SigningKey::from_bytes(&[8; 32]).verifying_key();
    let other = data_encoding::HEXLOWER.encode(other.as_bytes());
    fs::remove_file(&marker).unwrap();
    fs::write(&marker, text.replace(&own, &other)).unwrap();
    refuses("another vault's key");
}
