//! Where everything is: what is kept for later runs, and the folder of this one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use holdfast_testing::dirs;
use holdfast_testing::postgres::Installation;

use super::Scene;
use super::ended::{Watch, end_all};
use crate::ground::Ground;
use crate::limits;
use crate::machine::as_f64;

/// The folder that is kept.
pub struct Work {
    /// Its path.
    pub base: PathBuf,
    /// The PostgreSQL that is measured.
    pub postgres: Installation,
}

/// The folder of this run; what runs in it is ended before it is removed.
pub struct Run {
    /// The folder.
    pub ground: Ground,
    _watch: Watch,
}

impl Work {
    /// Opens the folder, and cleans up behind runs that were killed.
    pub fn open(base: Option<&Path>, postgres: Installation) -> Result<Self> {
        let usual = || std::env::temp_dir().join("holdfast-bench");
        let base = base.map_or_else(usual, Path::to_path_buf);
        fs::create_dir_all(&base).with_context(|| format!("make {}", base.display()))?;
        let base = fs::canonicalize(&base).context("find the work folder")?;
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&base, open).context("let the server's user enter")?;
        for folder in dirs::abandoned(&base) {
            end_all(&folder);
        }
        Ok(Self { base, postgres })
    }

    /// Makes the folder of a run, on the same disk.
    pub fn run(&self) -> Result<Run> {
        let ground = Ground::within(&self.base, self.postgres.clone())?;
        let watch = Watch::over(&ground.path(""))?;
        Ok(Run {
            ground,
            _watch: watch,
        })
    }

    /// A folder that is kept.
    pub fn kept(&self, name: &str) -> Result<Ground> {
        let name = format!("{name}-pg{}", self.postgres.major);
        Ground::kept(self.base.join(name), self.postgres.clone())
    }

    /// Bytes that are free.
    pub fn free_bytes(&self) -> Result<u64> {
        let told = Command::new("df")
            .args(["-B1", "--output=avail"])
            .arg(&self.base)
            .output()
            .context("run df")?;
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        let free = text.lines().last().unwrap_or_default().trim().parse();
        free.context("read what df says")
    }

    /// Refuses what would fill the disk.
    pub fn need(&self, bytes: u64, what: &str) -> Result<()> {
        let free = self.free_bytes()?;
        ensure!(
            free > bytes.saturating_add(limits::DISK_RESERVE),
            "{what} needs {:.1} GB and {:.1} GB to spare, and {:.1} GB are free in {}: \
             name another folder with --work, or a smaller --size",
            as_f64(bytes) / 1e9,
            as_f64(limits::DISK_RESERVE) / 1e9,
            as_f64(free) / 1e9,
            self.base.display()
        );
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        end_all(&self.ground.path(""));
    }
}

impl Scene<'_> {
    /// Whether what was read before is forgotten before something is measured.
    pub fn drops_caches(&self) -> bool {
        !self.options.quick && fs::OpenOptions::new().write(true).open(CACHES).is_ok()
    }

    /// Lets the system forget what it has read, as after hours of other work.
    pub fn drop_caches(&self) -> Result<()> {
        let written = Command::new("sync").status().context("run sync")?;
        ensure!(written.success(), "sync: {written}");
        if self.drops_caches() {
            fs::write(CACHES, "3").context("empty the system's file cache")?;
        }
        Ok(())
    }
}

// SOURCE: Linux, Documentation/admin-guide/sysctl/vm.rst, drop_caches
const CACHES: &str = "/proc/sys/vm/drop_caches";
