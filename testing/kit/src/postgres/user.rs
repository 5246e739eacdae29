//! The user that servers run as.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Who runs the servers: ourselves, or `postgres` when we are root, because PostgreSQL refuses root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerUser {
    other: Option<Ids>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ids {
    user: u32,
    group: u32,
}

impl ServerUser {
    /// Finds the user.
    ///
    /// # Errors
    /// When we are root and the system has no user to hand over to.
    pub fn current() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { other: None });
        }
        let passwd = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
        let Some(ids) = NAMES.iter().find_map(|name| look_up(&passwd, name)) else {
            bail!("PostgreSQL refuses to run as root, and none of the users {NAMES:?} exists");
        };
        Ok(Self { other: Some(ids) })
    }

    /// Gives one file or folder to the user.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn own(self, path: &Path) -> Result<()> {
        let Some(ids) = self.other else { return Ok(()) };
        chown(path, Some(ids.user), Some(ids.group))
            .with_context(|| format!("give {} to the server's user", path.display()))
    }

    /// Gives a folder and everything in it to the user; links are not followed.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn own_tree(self, path: &Path) -> Result<()> {
        let Some(ids) = self.other else { return Ok(()) };
        let status = Command::new("chown")
            .args(["-R", "-h", &format!("{}:{}", ids.user, ids.group)])
            .arg(path)
            .status()
            .context("run `chown`")?;
        ensure!(
            status.success(),
            "give {} to the server's user: {status}",
            path.display()
        );
        Ok(())
    }

    /// A command that runs as the user, in its own process group, with a clean environment.
    #[must_use]
    pub fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // Without a valid locale the server on macOS complains of threads and stops.
            .env("LC_ALL", "C")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null());
        if let Some(ids) = self.other {
            // Setting the user as root also drops the supplementary groups.
            command.uid(ids.user).gid(ids.group);
        }
        command
    }

    /// Whether the user may enter every folder above `path`, as far as the permission bits say.
    pub(super) fn reaches(self, path: &Path) -> bool {
        use std::os::unix::fs::PermissionsExt;
        let open =
            |dir: &Path| fs::metadata(dir).is_ok_and(|m| m.permissions().mode() & 0o001 != 0);
        self.other.is_none() || path.ancestors().all(open)
    }
}

fn look_up(passwd: &str, name: &str) -> Option<Ids> {
    let mut fields = passwd
        .lines()
        .find(|l| l.split(':').next() == Some(name))?
        .split(':')
        .skip(2);
    let user = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    Some(Ids { user, group })
}

const NAMES: [&str; 3] = ["postgres", "_postgres", "nobody"];
