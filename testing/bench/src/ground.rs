//! The folder that everything is written below, and who runs what is measured.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use holdfast_testing::dirs::TestDir;
use holdfast_testing::postgres::{Installation, ServerUser};

/// A folder that things are measured in.
pub struct Ground {
    path: PathBuf,
    /// Removes it when it is dropped; a folder that is kept has none.
    _dir: Option<TestDir>,
    user: ServerUser,
    program: PathBuf,
    /// The PostgreSQL that is measured.
    pub postgres: Installation,
}

impl Ground {
    /// Makes a temporary folder and puts this program where the server's user can run it.
    pub fn make(postgres: Installation) -> Result<Self> {
        Self::of(TestDir::for_server("bench")?, postgres)
    }

    /// Makes a temporary folder below `base`, on whose disk it must be.
    pub fn within(base: &Path, postgres: Installation) -> Result<Self> {
        Self::of(TestDir::for_server_in(base, "bench")?, postgres)
    }

    fn of(dir: TestDir, postgres: Installation) -> Result<Self> {
        let program = dir.path().join("holdfast-bench");
        let own = std::env::current_exe().context("find the running program")?;
        fs::copy(own, &program).context("copy the running program")?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
            .context("let everybody run it")?;
        Ok(Self {
            path: dir.path().to_owned(),
            _dir: Some(dir),
            user: ServerUser::current()?,
            program,
            postgres,
        })
    }

    /// Uses a folder that stays, and makes it when it is not there.
    pub fn kept(path: PathBuf, postgres: Installation) -> Result<Self> {
        let user = ServerUser::current()?;
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        user.own(&path)?;
        Ok(Self {
            path,
            _dir: None,
            user,
            program: std::env::current_exe().context("find the running program")?,
            postgres,
        })
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes an empty folder that belongs to the server's user.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        self.user.own(&path)?;
        Ok(path)
    }

    /// Removes a folder and all in it; one that is not there is fine.
    pub fn clear(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// A command of the server's user.
    pub fn command(&self, program: &Path) -> Command {
        self.user.command(program)
    }

    /// This program again, for one part of the work.
    pub fn child(&self, name: &str) -> Command {
        let mut command = self.user.command(&self.program);
        command.args(["child", name]);
        command
    }

    /// The bytes of all files in a folder.
    pub fn bytes(&self, name: &str) -> Result<u64> {
        tree_bytes(&self.path(name))
    }
}

/// The bytes of all files below a folder; what vanishes meanwhile counts nothing.
pub fn tree_bytes(path: &Path) -> Result<u64> {
    let mut sum = 0;
    for file in files(path)? {
        sum += fs::metadata(&file).map_or(0, |metadata| metadata.len());
    }
    Ok(sum)
}

/// All files below a folder, in order of their names.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(path).with_context(|| format!("list {}", path.display()))?;
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path()).unwrap_or_default()),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found.sort();
    Ok(found)
}
