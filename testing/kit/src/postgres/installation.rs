//! Finds the PostgreSQL installations of this machine.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};

use super::{ServerUser, cache_dir};

/// One installed PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Installation {
    /// The major version, 13 or later.
    pub major: u32,
    /// The folder with `postgres` and `initdb`; the user that servers run as can reach it.
    pub bin_dir: PathBuf,
    version: String,
}

impl Installation {
    /// The path of one of its programs, which need not exist: small installations lack most tools.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }

    /// The full version as `postgres --version` prints it, such as `15.18 (Debian 15.18-0+deb12u1)`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// Every usable installation, one for each major version, oldest first.
///
/// Looked for in this order, the first of a major wins: Debian and Ubuntu, Homebrew,
/// `$HOLDFAST_POSTGRES_DIRS` (folders separated by colons, each an installation or a folder of
/// them), and `.postgres/<major>` in the workspace, where `make setup` puts them.
#[must_use]
pub fn installations() -> Vec<Installation> {
    static FOUND: OnceLock<Vec<Installation>> = OnceLock::new();
    FOUND.get_or_init(look).clone()
}

/// The installation of one major version.
///
/// # Errors
/// When it is missing; the message names the command that installs it.
pub fn installation(major: u32) -> Result<Installation> {
    let found = installations();
    match found.iter().find(|one| one.major == major) {
        Some(one) => Ok(one.clone()),
        None => bail!(
            "PostgreSQL {major} is missing ({}): run `make setup`",
            list(&found)
        ),
    }
}

/// The installation with the highest major version.
///
/// # Errors
/// When there is none.
pub fn newest() -> Result<Installation> {
    installations()
        .pop()
        .context("no PostgreSQL is installed: run `make setup`")
}

/// The oldest installation that everything of Holdfast runs on: PostgreSQL 15.
///
/// The vault alone captures older ones as well: its tests of that use [`every`].
///
/// # Errors
/// When it is missing; the message names the command that installs it.
pub fn oldest() -> Result<Installation> {
    installation(OLDEST_EVERYWHERE)
}

/// Every major that the vault captures, oldest first.
///
/// # Errors
/// When one is missing where `make setup` could have installed it.
pub fn every() -> Result<Vec<Installation>> {
    let found = installations();
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        for major in OLDEST_CAPTURED..=NEWEST_CAPTURED {
            installation(major)?;
        }
    }
    Ok(found)
}

/// The two installations that tests run on: PostgreSQL 15 and the newest major.
///
/// # Errors
/// When one of them is missing; the message names the command that installs it.
pub fn all() -> Result<[Installation; 2]> {
    let oldest = oldest()?;
    let newest = newest()?;
    ensure!(
        newest.major > OLDEST_EVERYWHERE,
        "tests need a PostgreSQL newer than {OLDEST_EVERYWHERE} as well: run `make setup`"
    );
    Ok([oldest, newest])
}

fn look() -> Vec<Installation> {
    let mut found: Vec<Installation> = Vec::new();
    for bin_dir in candidates() {
        let Ok(one) = examine(&bin_dir) else { continue };
        let known = found.iter().any(|seen| seen.major == one.major);
        if one.major >= OLDEST_CAPTURED && !known {
            found.push(one);
        }
    }
    found.sort();
    found
}

fn candidates() -> Vec<PathBuf> {
    let mut homes = children(Path::new("/usr/lib/postgresql"));
    for brew in [
        "/opt/homebrew/opt",
        "/usr/local/opt",
        "/home/linuxbrew/.linuxbrew/opt",
    ] {
        let is_postgres = |p: &PathBuf| p.to_string_lossy().contains("/postgresql");
        homes.extend(children(Path::new(brew)).into_iter().filter(is_postgres));
    }
    let given = std::env::var_os("HOLDFAST_POSTGRES_DIRS").unwrap_or_default();
    for dir in std::env::split_paths(&given).filter(|dir| !dir.as_os_str().is_empty()) {
        homes.extend(children(&dir));
        homes.push(dir);
    }
    homes.extend(children(&workspace_root().join(".postgres")));
    homes
        .iter()
        .flat_map(|home| [home.join("bin"), home.clone()])
        .filter(is_bin_dir)
        .collect()
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[expect(clippy::ptr_arg, reason = "used as a filter over owned paths")]
fn is_bin_dir(dir: &PathBuf) -> bool {
    dir.join("postgres").is_file() && dir.join("initdb").is_file()
}

fn workspace_root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own)
}

fn examine(bin_dir: &Path) -> Result<Installation> {
    let answer = Command::new(bin_dir.join("postgres"))
        .arg("--version")
        .output()?;
    ensure!(
        answer.status.success(),
        "`postgres --version` in {} fails",
        bin_dir.display()
    );
    let text = String::from_utf8_lossy(&answer.stdout);
    let version = text
        .trim()
        .trim_start_matches("postgres (PostgreSQL) ")
        .to_owned();
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    let major = digits
        .parse()
        .with_context(|| format!("an unknown version `{version}`"))?;
    let bin_dir = reachable(bin_dir, &version)?;
    Ok(Installation {
        major,
        bin_dir,
        version,
    })
}

/// The same installation at a path that the server's user can reach: a checkout below `/root` is
/// closed to it, so the installation is then copied once.
fn reachable(bin_dir: &Path, version: &str) -> Result<PathBuf> {
    let user = ServerUser::current()?;
    let bin_dir = fs::canonicalize(bin_dir).context("resolve the path of PostgreSQL")?;
    if user.reaches(&bin_dir) {
        return Ok(bin_dir);
    }
    let home = bin_dir
        .parent()
        .context("the folder of PostgreSQL has no parent")?;
    let copies = cache_dir()?.join("installations");
    fs::create_dir_all(&copies).context("make the folder of copies")?;
    let lock = File::create(copies.join("lock")).context("write the lock of copies")?;
    lock.lock().context("lock the folder of copies")?;
    let copy = copies.join(super::template::slug(&format!(
        "{version} {}",
        home.display()
    )));
    if !copy.exists() {
        let unfinished = copies.join("unfinished");
        let _ = fs::remove_dir_all(&unfinished);
        let done = Command::new("cp")
            .arg("-a")
            .arg(home)
            .arg(&unfinished)
            .status()?;
        ensure!(
            done.success(),
            "copy {} to {}: {done}",
            home.display(),
            unfinished.display()
        );
        let opened = Command::new("chmod")
            .args(["-R", "a+rX"])
            .arg(&unfinished)
            .status()?;
        ensure!(
            opened.success(),
            "open {} for reading: {opened}",
            unfinished.display()
        );
        fs::rename(&unfinished, &copy).context("finish a copy of PostgreSQL")?;
    }
    Ok(copy.join("bin"))
}

fn list(found: &[Installation]) -> String {
    match found {
        [] => "none was found".to_owned(),
        _ => {
            let majors: Vec<String> = found.iter().map(|one| one.major.to_string()).collect();
            format!("found {}", majors.join(", "))
        }
    }
}

const OLDEST_CAPTURED: u32 = 13;
const OLDEST_EVERYWHERE: u32 = 15;
const NEWEST_CAPTURED: u32 = 18;
