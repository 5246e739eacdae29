//! Volumes as directories: `volumes/<volume>/` holds the files and `.backups/<backup>/` their copies.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use holdfast_testing::postgres::ServerUser;

/// The folder with all volumes.
#[derive(Debug)]
pub struct Disk {
    volumes: PathBuf,
    user: ServerUser,
}

impl Disk {
    /// Makes the folder, or takes an empty one.
    ///
    /// # Errors
    /// When it holds anything, or the system refuses.
    pub fn new(root: &Path) -> Result<Self> {
        let user = ServerUser::current()?;
        let volumes = root.join("volumes");
        fs::create_dir_all(&volumes).with_context(|| format!("make {}", volumes.display()))?;
        let is_empty = volumes
            .read_dir()
            .context("list the volumes")?
            .next()
            .is_none();
        ensure!(
            is_empty,
            "{} holds volumes of an earlier run: give an empty --root",
            volumes.display()
        );
        user.own(&volumes)?;
        Ok(Self { volumes, user })
    }

    /// The directory of a volume.
    pub fn volume(&self, id: &str) -> PathBuf {
        self.volumes.join(id)
    }

    /// The directory of a backup, inside the volume.
    pub fn backup(&self, volume: &str, id: &str) -> PathBuf {
        self.volume(volume).join(BACKUPS).join(id)
    }

    /// Makes an empty volume.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn create(&self, id: &str) -> Result<()> {
        let dir = self.volume(id);
        fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        self.user.own(&dir)
    }

    /// Removes a volume with everything on it, its backups included; nothing can bring it back.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn delete(&self, id: &str) -> Result<()> {
        let dir = self.volume(id);
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))
    }

    /// Copies the files of a volume into a backup on the same volume.
    ///
    /// # Errors
    /// When the copy fails; what was copied is removed.
    pub fn copy_out(&self, volume: &str, id: &str) -> Result<()> {
        let backup = self.backup(volume, id);
        let backups = self.volume(volume).join(BACKUPS);
        fs::create_dir_all(&backup).context("make the folder of the backup")?;
        self.user.own(&backups)?;
        self.user.own(&backup)?;
        let copied = self.copy(&self.volume(volume), &backup);
        if copied.is_err() {
            let _ = fs::remove_dir_all(&backup);
        }
        copied
    }

    /// Replaces the files of a volume by those of a backup on it.
    ///
    /// # Errors
    /// When the system refuses; the volume then holds a part of them.
    pub fn copy_back(&self, volume: &str, id: &str) -> Result<()> {
        let dir = self.volume(volume);
        for path in files(&dir)? {
            let removed = if path.is_dir() && !path.is_symlink() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.with_context(|| format!("remove {}", path.display()))?;
        }
        self.copy(&self.backup(volume, id), &dir)
    }

    /// Removes one backup.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn delete_backup(&self, volume: &str, id: &str) -> Result<()> {
        let dir = self.backup(volume, id);
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))
    }

    /// The bytes of a folder's files without its backups.
    pub fn size_bytes(&self, dir: &Path) -> u64 {
        let paths = files(dir).unwrap_or_default();
        paths
            .iter()
            .map(|path| size(path))
            .fold(0, u64::saturating_add)
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        for path in files(from)? {
            let mut copy = self.user.command(Path::new("cp"));
            copy.arg("-a");
            if cfg!(target_os = "linux") {
                copy.arg("--reflink=auto");
            }
            let done = copy.arg(&path).arg(to).output().context("start `cp`")?;
            ensure!(
                done.status.success(),
                "copy {}: {}",
                path.display(),
                String::from_utf8_lossy(&done.stderr)
            );
        }
        Ok(())
    }
}

/// What lies in a volume or a backup, without the backups.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.context("list a volume")?.path();
        if !path.ends_with(BACKUPS) {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn size(path: &Path) -> u64 {
    let Ok(facts) = fs::symlink_metadata(path) else {
        return 0;
    };
    if !facts.is_dir() {
        return facts.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| size(&entry.path()))
        .fold(0, u64::saturating_add)
}

const BACKUPS: &str = ".backups";
