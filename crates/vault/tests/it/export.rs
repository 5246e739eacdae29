//! Exports that stock PostgreSQL and `tar` use, without Holdfast.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use holdfast_core::{Coded, Digest};
use holdfast_testing::postgres::{self, ServerUser};
use holdfast_vault::{
    EngineStart, ExportRequest, ExportTo, FileEntry, FileKind, FileMeta, PointEnd, PointStart,
    RestoreTarget, Ways, export,
};

use crate::kept::{Kept, quiet};
use crate::stock::Stock;

const ROWS: &str = "SELECT count(*)::text || md5(string_agg(t::text, '' ORDER BY n)) FROM t";

fn request(source: &str, at: RestoreTarget) -> ExportRequest {
    ExportRequest {
        source: source.parse().unwrap(),
        at,
        timeline: None,
        ways: Ways::default(),
    }
}

/// Unpacks an archive with the system's `tar`, as the account that runs servers.
fn unpack(archive: &Path, into: &Path) {
    let user = ServerUser::current().unwrap();
    fs::create_dir(into).unwrap();
    user.own(into).unwrap();
    user.own(archive).unwrap();
    let output = user
        .command(Path::new("/usr/bin/tar"))
        .args(["--xattrs", "-xpf"])
        .arg(archive)
        .arg("-C")
        .arg(into)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.is_empty(), "{told}");
}

#[test]
fn stock_postgres_starts_on_an_export_with_every_row_and_no_holdfast() {
    for installation in postgres::all().unwrap() {
        let mut kept = Kept::start(&installation, &[("work_mem", "5MB")]);
        kept.sql(
            "CREATE TABLE t (n int PRIMARY KEY, body text);
             INSERT INTO t SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 20000) n;
             CHECKPOINT",
        );
        kept.base();
        kept.sql("INSERT INTO t SELECT n, 'later' FROM generate_series(20001, 21000) n");
        let before = kept.ask(ROWS);
        let position = kept.flushed();
        kept.sql("DROP TABLE t");
        kept.ship();
        let place = kept.place();
        let at = RestoreTarget::BeforeLsn(position);
        let folder = kept.folder.path().to_owned();

        let archive = folder.join("prod.tar");
        let to = ExportTo::Tar(&archive);
        let exported = export(&place, &request("prod", at.clone()), to, &quiet()).unwrap();
        assert_eq!(exported.bytes.0, fs::metadata(&archive).unwrap().len());
        assert_eq!(fs::metadata(&archive).unwrap().mode() & 0o777, 0o600);
        let unpacked = folder.join("unpacked");
        unpack(&archive, &unpacked);
        let server = Stock::start(&installation, &unpacked, kept.server.password());
        assert_eq!(
            server.ask(ROWS),
            before,
            "PostgreSQL {}",
            installation.major
        );
        assert_eq!(server.ask("SHOW work_mem"), "5MB");
        assert_eq!(server.ask("SHOW archive_mode"), "off");
        drop(server);

        // A directory, taken elsewhere before anybody starts it, has the same files.
        let plain = folder.join("plain");
        let to = ExportTo::Directory(&plain);
        let exported = export(&place, &request("prod", at.clone()), to, &quiet()).unwrap();
        assert_eq!(exported.to.as_ref(), Some(&plain));
        let elsewhere = folder.join("elsewhere");
        fs::rename(&plain, &elsewhere).unwrap();
        let second = folder.join("second");
        unpack(&archive, &second);
        assert_eq!(sums(&elsewhere), sums(&second));
        let server = Stock::start(&installation, &elsewhere, kept.server.password());
        assert_eq!(server.ask(ROWS), before);
        drop(server);

        // A stream has the very bytes of the file.
        let mut stream = Vec::new();
        let to = ExportTo::Stream(&mut stream);
        export(&place, &request("prod", at), to, &quiet()).unwrap();
        assert!(stream == fs::read(&archive).unwrap());
        println!(
            "PostgreSQL {}: an archive of {} bytes",
            installation.major,
            stream.len()
        );
    }
}

/// Every file below a folder with its sum.
fn sums(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let facts = fs::symlink_metadata(&path).unwrap();
            let mode = facts.permissions().mode();
            let said = if facts.is_dir() {
                folders.push(path.clone());
                format!("{mode:o}")
            } else {
                format!("{mode:o} {}", Digest::of(&fs::read(&path).unwrap()))
            };
            all.insert(path.strip_prefix(root).unwrap().to_owned(), said);
        }
    }
    all
}

#[test]
fn an_export_that_cannot_be_leaves_nothing_and_writes_over_nothing() {
    let installation = postgres::oldest().unwrap();
    let mut kept = Kept::start(&installation, &[]);
    let folder = kept.folder.path().to_owned();
    let asks = |kept: &Kept, at: RestoreTarget, to: &Path| {
        export(
            &kept.place(),
            &request("prod", at),
            ExportTo::Tar(to),
            &quiet(),
        )
        .unwrap_err()
    };
    let archive = folder.join("prod.tar");
    assert_eq!(
        asks(&kept, RestoreTarget::Latest, &archive).code().as_str(),
        "ZU307"
    );
    kept.base();
    let impossible = RestoreTarget::BeforeLsn(holdfast_core::Lsn(1));
    assert_eq!(asks(&kept, impossible, &archive).code().as_str(), "ZU304");
    let inside = folder.join("repository/prod.tar");
    assert_eq!(
        asks(&kept, RestoreTarget::Latest, &inside).code().as_str(),
        "ZU305"
    );
    assert!(!archive.exists() && !folder.join("prod.tar.unfinished").exists());
    fs::write(&archive, "precious").unwrap();
    assert_eq!(
        asks(&kept, RestoreTarget::Latest, &archive).code().as_str(),
        "ZU305"
    );
    assert_eq!(fs::read(&archive).unwrap(), b"precious");
    // A reader that goes away is told, and a disk that fills up leaves no archive of that name.
    let mut closed = Full(1 << 20);
    let to = ExportTo::Stream(&mut closed);
    let place = kept.place();
    let refused = export(
        &place,
        &request("prod", RestoreTarget::Latest),
        to,
        &quiet(),
    );
    assert_eq!(refused.unwrap_err().code().as_str(), "ZU305");
    // What an interrupted export has left is no hindrance.
    fs::write(folder.join("again.tar.unfinished"), vec![7; 3 << 20]).unwrap();
    let again = folder.join("again.tar");
    let to = ExportTo::Tar(&again);
    export(
        &place,
        &request("prod", RestoreTarget::Latest),
        to,
        &quiet(),
    )
    .unwrap();
    assert!(!folder.join("again.tar.unfinished").exists());
    let listed = Command::new("tar")
        .arg("-tf")
        .arg(&again)
        .stdout(Stdio::null())
        .status();
    assert!(listed.unwrap().success());
}

/// Takes so many bytes and no more.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self
            .0
            .checked_sub(bytes.len())
            .ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn long() -> String {
    format!("{}/{}", "d".repeat(150), "f".repeat(150))
}

fn large() -> Vec<u8> {
    (0..600_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// A directory with one thing of each kind.
fn directory(kept: &Kept) {
    let mut writer = kept
        .repository
        .begin_point(PointStart {
            source: "files".parse().unwrap(),
            engine: EngineStart::Directory,
            parent: None,
        })
        .unwrap();
    let mut put = |path: &str, kind, content: &[u8], meta| {
        let entry = FileEntry {
            path: path.to_owned(),
            kind,
            mode: 0o640,
            meta,
        };
        writer.begin_file(entry).unwrap();
        if !content.is_empty() {
            writer.write(content).unwrap();
        }
        writer.end_file().unwrap();
    };
    let none = FileMeta::default;
    let mut noted = none();
    noted.mtime_ns = Some(1_500_000_000_123_456_789);
    noted.xattrs = BTreeMap::from([("user.note".to_owned(), "6b00ff".to_owned())]);
    let size = |bytes: &[u8]| FileKind::File {
        size: u64::try_from(bytes.len()).unwrap(),
    };
    // A link comes before its file in the order of names.
    let target = "large".to_owned();
    put("another-name", FileKind::Hardlink { target }, b"", none());
    put(&"d".repeat(150), FileKind::Directory, b"", none());
    put(&long(), size(b"deep"), b"deep", none());
    put("empty", size(b""), b"", none());
    put("large", size(&large()), &large(), noted);
    let target = "../outside".to_owned();
    put("soft", FileKind::Symlink { target }, b"", none());
    put("text", size(b"small"), b"small", none());
    writer.finish(PointEnd::Directory).unwrap();
}

#[test]
fn a_directory_is_exported_with_links_long_names_and_attributes() {
    let installation = postgres::oldest().unwrap();
    let kept = Kept::start(&installation, &[]);
    directory(&kept);
    let (long, large) = (long(), large());
    let archive = kept.folder.path().join("files.tar");
    let to = ExportTo::Tar(&archive);
    let place = kept.place();
    let exported = export(
        &place,
        &request("files", RestoreTarget::Latest),
        to,
        &quiet(),
    )
    .unwrap();
    assert_eq!((exported.timeline, exported.wal_end), (None, None));
    let into = kept.folder.path().join("unpacked");
    unpack(&archive, &into);
    assert!(fs::read(into.join("large")).unwrap() == large);
    assert_eq!(fs::read(into.join(&long)).unwrap(), b"deep");
    assert_eq!(fs::read(into.join("text")).unwrap(), b"small");
    assert_eq!(fs::read(into.join("empty")).unwrap(), b"");
    assert_eq!(
        fs::read_link(into.join("soft")).unwrap(),
        Path::new("../outside")
    );
    let facts = fs::metadata(into.join("large")).unwrap();
    assert_eq!((facts.nlink(), facts.mode() & 0o777), (2, 0o640));
    assert_eq!(
        (facts.mtime(), facts.mtime_nsec()),
        (1_500_000_000, 123_456_789)
    );
    let other = fs::metadata(into.join("another-name")).unwrap();
    assert_eq!(facts.ino(), other.ino());
    let mut value = [0; 8];
    let length = rustix::fs::getxattr(into.join("large"), "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..length], [0x6B, 0, 0xFF]);

    let plain = kept.folder.path().join("plain");
    let to = ExportTo::Directory(&plain);
    export(
        &place,
        &request("files", RestoreTarget::Latest),
        to,
        &quiet(),
    )
    .unwrap();
    let files = |root: &Path| -> Vec<(String, Vec<u8>)> {
        ["large", "text", long.as_str(), "another-name"]
            .map(|name| (name.to_owned(), fs::read(root.join(name)).unwrap()))
            .to_vec()
    };
    assert!(files(&plain) == files(&into));
}
