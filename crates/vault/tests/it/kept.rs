//! A server whose base backups and log are put into a repository by hand, without capture.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use holdfast_core::{Digest, Lsn, PointId};
use holdfast_testing::dirs::TestDir;
use holdfast_testing::postgres::{Installation, Server};
use holdfast_testing::signals::{self, Signal};
use holdfast_vault::clone::ThinClone;
use holdfast_vault::{
    EngineStart, FileEntry, FileKind, FileMeta, Place, PointEnd, PointStart, PointWriter,
    PostgresConfig, PostgresStart, Repository, RepositoryError, RestoreError, RestoreRequest,
    RestoreTarget, Restored, Start, WalPlace, restore, system_clock,
};
use holdfast_wire::pg::basebackup::BackupManifest;
use tokio_postgres::NoTls;

pub const SEGMENT: u32 = 1 << 20;

pub fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

/// What is kept of a server.
pub struct Kept {
    pub server: Server,
    pub folder: TestDir,
    pub repository: Repository,
    pub at: WalPlace,
    shipped: Lsn,
    number: usize,
}

/// A restored server that ends with the test.
pub struct Running {
    pub restored: Restored,
    password: String,
}

impl Kept {
    pub fn start(installation: &Installation, settings: &[(&str, &str)]) -> Self {
        let mut builder = Server::builder(installation)
            .initdb_arg("--wal-segsize=1")
            .setting("wal_keep_size", "400MB")
            .setting("autovacuum", "off");
        for (name, value) in settings {
            builder = builder.setting(name, value);
        }
        let server = builder.start().unwrap();
        let folder = TestDir::for_server("kept").unwrap();
        let repository = Repository::open_writer(
            &folder.path().join("repository").into(),
            key(),
            &crate::keys::keys(),
            system_clock(),
        )
        .unwrap();
        let id = ask(
            &server.url(),
            "SELECT system_identifier::text FROM pg_control_system()",
        );
        let at = WalPlace {
            source: "prod".parse().unwrap(),
            system_identifier: id.parse().unwrap(),
            timeline: 1,
            segment_bytes: SEGMENT,
        };
        Self {
            server,
            folder,
            repository,
            at,
            shipped: Lsn::ZERO,
            number: 0,
        }
    }

    pub fn sql(&self, sql: &str) {
        execute(&self.server.url(), sql);
    }

    pub fn ask(&self, sql: &str) -> String {
        ask(&self.server.url(), sql)
    }

    /// Takes a base backup by PostgreSQL's low-level functions, with a manifest as PostgreSQL's.
    pub fn backup(&mut self) -> PathBuf {
        self.number += 1;
        let taken = self.folder.path().join(format!("taken-{}", self.number));
        let url = self.server.url();
        let data = self.server.data_dir().to_owned();
        let (start, stop, label) = block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
            let driver = tokio::spawn(connection);
            let start = client
                .query_one("SELECT pg_backup_start('kept', true)::text", &[])
                .await
                .unwrap();
            copy_cluster(&data, &taken);
            let stop = client
                .query_one(
                    "SELECT lsn::text, labelfile FROM pg_backup_stop(false)",
                    &[],
                )
                .await
                .unwrap();
            drop(client);
            let _ = driver.await;
            (
                start.get::<_, String>(0),
                stop.get::<_, String>(0),
                stop.get::<_, String>(1),
            )
        });
        fs::write(taken.join("backup_label"), label).unwrap();
        let manifest = server_manifest(&taken, self.at.system_identifier, &start, &stop);
        fs::write(taken.join("backup_manifest"), manifest).unwrap();
        taken
    }

    /// Begins a base of what was taken and returns what its end needs.
    pub fn begin(&self, taken: &Path) -> (PointWriter, PointEnd) {
        let backup_manifest = fs::read(taken.join("backup_manifest")).unwrap();
        let manifest = BackupManifest::parse(&backup_manifest).unwrap();
        let range = manifest.wal[0];
        let writer = self
            .repository
            .begin_point(PointStart {
                source: self.at.source.clone(),
                engine: EngineStart::Postgres(PostgresStart {
                    system_identifier: self.at.system_identifier,
                    major: self.server.installation().major,
                    timeline: range.timeline,
                    start_lsn: range.start,
                    segment_bytes: SEGMENT,
                    tablespaces: Vec::new(),
                }),
                parent: None,
            })
            .unwrap();
        let end = PointEnd::Postgres {
            stop_lsn: range.end,
            backup_manifest: Some(backup_manifest),
        };
        (writer, end)
    }

    /// Takes a base backup into the repository, with the log that it needs.
    pub fn base(&mut self) -> PointId {
        let taken = self.backup();
        let (mut writer, end) = self.begin(&taken);
        put_files(&mut writer, &taken, Path::new("")).unwrap();
        let point = writer.finish(end).unwrap();
        self.ship();
        point
    }

    /// Puts everything that the server has flushed into the repository: segments and a tail.
    pub fn ship(&mut self) -> Lsn {
        let end = self.flushed();
        let segment = u64::from(SEGMENT);
        let first = if self.shipped == Lsn::ZERO {
            self.first_segment()
        } else {
            self.shipped
        };
        let mut at = first;
        while at < end {
            let start = self.at.segment_start(at);
            let path = self
                .server
                .data_dir()
                .join("pg_wal")
                .join(self.at.segment_name(start));
            let bytes = fs::read(path).unwrap();
            if end.0 >= start.0 + segment {
                self.repository
                    .put_segment(&self.at, start, &bytes)
                    .unwrap();
                at = Lsn(start.0 + segment);
            } else {
                let from = usize::try_from(at.0 - start.0).unwrap();
                let to = usize::try_from(end.0 - start.0).unwrap();
                self.repository
                    .put_tail(&self.at, at, &bytes[from..to])
                    .unwrap();
                at = end;
            }
        }
        self.shipped = end;
        end
    }

    /// Puts the newest part of the log into a spool instead, as capture would before it ships.
    pub fn spool(&self) -> Lsn {
        let end = self.flushed();
        let spool = self.folder.path().join("state/spool/prod");
        fs::create_dir_all(&spool).unwrap();
        let mut at = self.at.segment_start(self.shipped);
        while at < end {
            let name = self.at.segment_name(at);
            let bytes = fs::read(self.server.data_dir().join("pg_wal").join(&name)).unwrap();
            let length = usize::try_from((end.0 - at.0).min(u64::from(SEGMENT))).unwrap();
            fs::write(spool.join(name), &bytes[..length]).unwrap();
            at = Lsn(at.0 + u64::from(SEGMENT));
        }
        end
    }

    /// Leaves out everything up to the segment that is written now: a hole.
    pub fn skip(&mut self) {
        self.sql("SELECT pg_switch_wal(); CREATE TABLE skipped (n int); SELECT pg_switch_wal()");
        self.sql("DROP TABLE skipped");
        self.shipped = self.at.segment_start(self.flushed());
    }

    /// Puts the whole log of a server that was restored from here into the repository, on its timeline.
    pub fn ship_descendant(&self, restored: &Running, timeline: u32) -> WalPlace {
        let at = WalPlace {
            timeline,
            ..self.at.clone()
        };
        let end: Lsn = restored
            .ask("SELECT pg_current_wal_flush_lsn()::text")
            .parse()
            .unwrap();
        let wal = restored.restored.directory.join("pg_wal");
        let history = fs::read(wal.join(format!("{timeline:08X}.history"))).unwrap();
        self.repository.put_history(&at, &history).unwrap();
        for entry in fs::read_dir(&wal).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Some(start) = at.read_segment_name(&name).filter(|start| *start < end) else {
                continue;
            };
            let bytes = fs::read(wal.join(&name)).unwrap();
            let length = usize::try_from(end.0 - start.0).unwrap();
            match bytes.get(..length) {
                Some(front) => self.repository.put_tail(&at, start, front).unwrap(),
                None => self.repository.put_segment(&at, start, &bytes).unwrap(),
            }
        }
        at
    }

    pub fn flushed(&self) -> Lsn {
        self.ask("SELECT pg_current_wal_flush_lsn()::text")
            .parse()
            .unwrap()
    }

    fn first_segment(&self) -> Lsn {
        let names = fs::read_dir(self.server.data_dir().join("pg_wal")).unwrap();
        let starts = names.filter_map(|entry| {
            let name = entry.unwrap().file_name();
            self.at.read_segment_name(name.to_str()?)
        });
        starts.min().unwrap()
    }

    pub fn place(&self) -> Place {
        let bin = self.server.installation().bin_dir.clone();
        Place {
            state: self.folder.path().join("state"),
            repository: self.folder.path().join("repository").into(),
            keys: crate::keys::keys(),
            vault_key: Some(key().verifying_key()),
            postgres: PostgresConfig {
                dirs: vec![bin],
                run_as: None,
            },
        }
    }

    pub fn request(&mut self, at: RestoreTarget) -> RestoreRequest {
        self.number += 1;
        RestoreRequest::new(
            self.at.source.clone(),
            at,
            self.folder.path().join(format!("restored-{}", self.number)),
            Start::Yes { port: None },
        )
    }

    /// Restores and starts.
    pub fn restore(&mut self, at: RestoreTarget) -> Result<Running, RestoreError> {
        let request = self.request(at);
        self.bring(&request)
    }

    /// Does what a request says.
    pub fn bring(&self, request: &RestoreRequest) -> Result<Running, RestoreError> {
        let restored = restore(&self.place(), request, &quiet())?;
        Ok(Running {
            restored,
            password: self.server.password().to_owned(),
        })
    }
}

impl Kept {
    /// Opens a clone.
    pub fn open_clone(&self, request: &holdfast_vault::clone::CloneRequest) -> ThinClone {
        holdfast_vault::clone::open(&self.place(), request, &quiet()).unwrap()
    }
}

/// Tells nobody.
pub fn quiet() -> holdfast_vault::ProgressFn {
    Arc::new(|_| {})
}

impl Running {
    pub fn url(&self) -> String {
        let port = self.restored.server.as_ref().unwrap().port;
        format!(
            "postgres://postgres:{}@127.0.0.1:{port}/postgres",
            self.password
        )
    }

    pub fn ask(&self, sql: &str) -> String {
        ask(&self.url(), sql)
    }

    pub fn sql(&self, sql: &str) {
        execute(&self.url(), sql);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(server) = &self.restored.server {
            let _ = signals::send(server.pid, Signal::QUIT);
            let gone = || fs::metadata(self.restored.directory.join("postmaster.pid")).is_err();
            let _ = signals::wait_until(std::time::Duration::from_secs(20), gone);
        }
    }
}

/// Puts all files below `folder` into a base.
pub fn put_files(
    writer: &mut PointWriter,
    root: &Path,
    folder: &Path,
) -> Result<(), RepositoryError> {
    let mut entries: Vec<PathBuf> = fs::read_dir(root.join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let relative = path.strip_prefix(root).unwrap().to_owned();
        let text = relative.to_str().unwrap().to_owned();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if text == "backup_manifest" {
            continue;
        }
        if metadata.is_dir() {
            put(writer, &text, FileKind::Directory, &[])?;
            put_files(writer, root, &relative)?;
        } else {
            let content = fs::read(&path).unwrap();
            put(
                writer,
                &text,
                FileKind::File {
                    size: metadata.len(),
                },
                &content,
            )?;
        }
    }
    Ok(())
}

fn put(
    writer: &mut PointWriter,
    path: &str,
    kind: FileKind,
    content: &[u8],
) -> Result<(), RepositoryError> {
    writer.begin_file(FileEntry {
        path: path.to_owned(),
        kind,
        mode: 0o600,
        meta: FileMeta::default(),
    })?;
    // Odd pieces, as a network gives them.
    for piece in content.chunks(70_001) {
        writer.write(piece)?;
    }
    writer.end_file()
}

pub fn execute(url: &str, sql: &str) {
    block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
        drop(client);
        let _ = driver.await;
    });
}

pub fn try_execute(url: &str, sql: &str) -> Result<(), tokio_postgres::Error> {
    block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        let driver = tokio::spawn(connection);
        let done = client.batch_execute(sql).await;
        drop(client);
        let _ = driver.await;
        done
    })
}

pub fn ask(url: &str, sql: &str) -> String {
    try_ask(url, sql).unwrap()
}

pub fn try_ask(url: &str, sql: &str) -> Result<String, tokio_postgres::Error> {
    block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        let driver = tokio::spawn(connection);
        let row = client.query_one(sql, &[]).await;
        drop(client);
        let _ = driver.await;
        Ok(row?.get::<_, Option<String>>(0).unwrap_or_default())
    })
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// Copies what `BASE_BACKUP` would send.
fn copy_cluster(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let target = to.join(&name);
        if entry.metadata().unwrap().is_dir() {
            if EMPTY.contains(&name.as_str()) {
                fs::create_dir(&target).unwrap();
            } else {
                copy_cluster(&entry.path(), &target);
            }
        } else if !name.starts_with("postmaster.") {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

const EMPTY: [&str; 7] = [
    "pg_wal",
    "pg_replslot",
    "pg_dynshmem",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_subtrans",
];

/// SOURCE: <https://www.postgresql.org/docs/18/backup-manifest-format.html>
pub fn server_manifest(taken: &Path, identifier: u64, start: &str, stop: &str) -> Vec<u8> {
    let mut files = Vec::new();
    let mut folders = vec![taken.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let content = fs::read(&path).unwrap();
            files.push(format!(
                "{{ \"Path\": {:?}, \"Size\": {}, \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{}\" }}",
                path.strip_prefix(taken).unwrap(),
                content.len(),
                HEXLOWER.encode(&crc32c::crc32c(&content).to_le_bytes())
            ));
        }
    }
    let body = format!(
        "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {identifier},\n\
         \"Files\": [\n{}\n],\n\"WAL-Ranges\": [\n{{ \"Timeline\": 1, \"Start-LSN\": \"{start}\", \
         \"End-LSN\": \"{stop}\" }}\n],\n",
        files.join(",\n")
    );
    let sum = Digest::of(body.as_bytes());
    format!("{body}\"Manifest-Checksum\": \"{sum}\"}}\n").into_bytes()
}
