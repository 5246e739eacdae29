//! Reading a restored directory back from the disk and comparing it with the restore point.

use std::fs::File;
use std::path::PathBuf;

use holdfast_core::{ByteCount, Lsn};
use serde::{Deserialize, Serialize};

use super::frames::{Batch, Task, work_batch};
use super::ground::Ground;
use super::local::{Gap, Gaps, open_below};
use super::{RestoreError, files};
use crate::drill::pages;
use crate::repository::point::Part;
use crate::repository::{Point, RecordKind};

/// What was read back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Files that are on the disk as the restore point has them.
    pub files: u64,
    /// Their bytes.
    pub bytes: ByteCount,
    /// What was found in the pages of a PostgreSQL cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<VerifiedPages>,
}

/// What was found in the pages of a cluster before its log was replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedPages {
    /// Pages whose checksum is right.
    pub right: u64,
    /// Pages that were changed while the base was taken; the log writes them anew.
    pub replayed: u64,
    /// Pages whose checksum is wrong: the source had them so.
    pub wrong: u64,
    /// The first of those: the file, and the page in its relation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_wrong: Option<(PathBuf, u32)>,
    /// The cluster has no page checksums, and nothing could be compared.
    pub has_none: bool,
}

/// Reads all files of a cluster's restore point back, then the checksums of its pages.
///
/// # Errors
/// [`RestoreError::NotAsWritten`] names the file and the place in it.
pub(super) fn cluster(
    point: &Point,
    ground: &Ground<'_>,
    (from, each): (Lsn, &(dyn Fn(u64) + Sync)),
) -> Result<Verified, RestoreError> {
    let wanted = |part: &Part| {
        let path = part.path.as_ref();
        (!files::is_left_out(path)).then(|| PathBuf::from(path))
    };
    let mut verified = contents(point, ground, (&wanted, each))?;
    let read = pages::read_all(ground.directory, &pages::Reading::before_replay(from))
        .map_err(|source| files::failed("read", ground.directory, source))?;
    let has_none = read.has_none();
    verified.pages = Some(VerifiedPages {
        has_none,
        right: read.right,
        replayed: read.newer,
        wrong: if has_none { 0 } else { read.wrong },
        first_wrong: read.first_wrong.filter(|_| !has_none),
    });
    Ok(verified)
}

/// Says where a file of a restore point lies in the directory, if it does.
pub(super) type PathOf<'a> = &'a dyn Fn(&Part) -> Option<PathBuf>;

/// Reads the contents of all files back; `path_of` says where a file lies, or `None` when it does not.
pub(super) fn contents(
    point: &Point,
    ground: &Ground<'_>,
    (path_of, each): (PathOf<'_>, &(dyn Fn(u64) + Sync)),
) -> Result<Verified, RestoreError> {
    let mut verified = Verified::default();
    let mut batch = Batch::default();
    let mut gaps = Gaps::new(ground.directory, Gap::Compare);
    for part in point.walk() {
        let part = part?;
        if part.record.kind != RecordKind::File {
            continue;
        }
        let Some(path) = path_of(&part) else { continue };
        if !part.is_more {
            check_size(ground, &path, part.record.size)?;
            verified.files = verified.files.saturating_add(1);
            let bytes = verified.bytes.0.saturating_add(part.record.size);
            verified.bytes = ByteCount(bytes);
        }
        gaps.add(&path, &part)?;
        batch.add(path, &part);
        if batch.is_full() {
            let full = std::mem::take(&mut batch);
            work_batch(point, full, (ground, Task::Compare), each)?;
        }
    }
    gaps.finish()?;
    work_batch(point, batch, (ground, Task::Compare), each)?;
    Ok(verified)
}

fn check_size(ground: &Ground<'_>, path: &std::path::Path, size: u64) -> Result<(), RestoreError> {
    let length = open_below(ground.directory, path).and_then(|file| {
        forget(&file);
        Ok(file.metadata()?.len())
    });
    match length {
        Ok(length) if length == size => Ok(()),
        other => Err(RestoreError::NotAsWritten {
            path: ground.directory.join(path),
            offset: other.unwrap_or(0).min(size),
        }),
    }
}

/// Lets the system forget what it remembers of a file, so that the disk is read.
fn forget(file: &File) {
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::sync::Arc;

    use ed25519_dalek::SigningKey;
    use holdfast_store::envelope::Identity;
    use holdfast_store::object::Keys;

    use super::super::{DirectoryRequest, ProgressFn, RestoreTarget, Ways, write_directory};
    use super::*;
    use crate::config::system_clock;
    use crate::repository::{EngineStart, FileEntry, FileKind, FileMeta, PointEnd, PointStart};
    use crate::repository::{Repository, RepositoryError};
    use crate::restore::files::Owner;

    fn point(folder: &Path) -> Result<Point, RepositoryError> {
        let place = folder.join("repository").into();
        let key = SigningKey::from_bytes(&[3; 32]);
        let own = Identity::generate().unwrap();
        let keys = Keys::new(vec![own.recipient()], vec![own]);
        let repository = Repository::open_writer(&place, key, &keys, system_clock())?;
        let source = "files".parse().unwrap();
        let mut writer = repository.begin_point(PointStart {
            source,
            engine: EngineStart::Directory,
            parent: None,
        })?;
        for (path, size) in [("a", 300_000_u64), ("b", 70_000), ("hole", 0)] {
            writer.begin_file(FileEntry {
                path: path.to_owned(),
                kind: FileKind::File { size },
                mode: 0o600,
                meta: FileMeta::default(),
            })?;
            let content: Vec<u8> = (1..=size).map(|n| n.to_le_bytes()[1] | 1).collect();
            writer.write(&content)?;
            writer.end_file()?;
        }
        let point = writer.finish(PointEnd::Directory)?;
        repository.reader().point(&"files".parse().unwrap(), &point)
    }

    #[test]
    fn a_byte_that_the_disk_lost_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let point = point(folder.path()).unwrap();
        let into = folder.path().join("back");
        let quiet: ProgressFn = Arc::new(|_| {});
        let request = DirectoryRequest {
            source: "files".parse().unwrap(),
            at: RestoreTarget::Latest,
            into: into.clone(),
            ways: Ways::default(),
        };
        write_directory(&point, &request, &quiet).unwrap();
        let ground = Ground::new(&into, Owner(None), &request.ways);
        let path_of = |part: &Part| Some(PathBuf::from(part.path.as_ref()));
        let read = || contents(&point, &ground, (&path_of, &|_| {}));
        let verified = read().unwrap();
        assert_eq!((verified.files, verified.bytes.0), (3, 370_000));
        // Nothing had to be fetched for it.
        let before = ground.counts.came();
        assert_eq!(before.fetched.0, 0, "{before:?}");
        for (name, offset) in [("a", 0), ("a", 150_000), ("b", 69_999)] {
            let file = File::options()
                .read(true)
                .write(true)
                .open(into.join(name))
                .unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset).unwrap();
            file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
            let wrong = read().unwrap_err();
            let said = format!("{}` is not what was restored, from byte {offset} on", name);
            assert!(wrong.to_string().contains(&said), "{wrong}");
            file.write_all_at(&byte, offset).unwrap();
        }
        let file = File::options().write(true).open(into.join("hole")).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        assert!(read().unwrap_err().to_string().contains("hole` is not"));
        file.set_len(0).unwrap();
        std::fs::remove_file(into.join("b")).unwrap();
        assert!(read().unwrap_err().to_string().contains("b` is not"));
    }
}
