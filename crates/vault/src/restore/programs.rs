//! Finding PostgreSQL's programs and the account that may run them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::RestoreError;
use super::files::Owner;
use crate::config::PostgresConfig;

/// An account of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(super) name: String,
    pub(super) user: u32,
    pub(super) group: u32,
}

/// PostgreSQL of the right major version, and who runs it.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) bin: PathBuf,
    /// `None` when we run it as ourselves.
    pub(crate) account: Option<Account>,
    /// The minor version; the highest when there is nothing to ask.
    pub(super) minor: u32,
}

/// Returns the account that restored servers run as; `None` unless we are root.
///
/// # Errors
/// When we are root and the account does not exist: PostgreSQL refuses to run as root.
pub(super) fn account(
    config: &PostgresConfig,
    into: &Path,
) -> Result<Option<Account>, RestoreError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let name = config.run_as.as_deref().unwrap_or("postgres");
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    match passwd.lines().find_map(|line| read_account(line, name)) {
        Some(account) if account.user != 0 => Ok(Some(account)),
        _ => Err(RestoreError::Directory {
            path: into.to_owned(),
            why: format!(
                "PostgreSQL does not run as root, and there is no account `{name}`: make it, or name one under `run_as`"
            ),
        }),
    }
}

fn read_account(line: &str, wanted: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| *name == wanted)?.to_owned();
    let mut numbers = fields.skip(1).map(str::parse);
    let (user, group) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(Account { name, user, group })
}

/// Returns who shall own restored files.
pub(crate) fn owner(account: Option<&Account>) -> Owner {
    Owner(account.map(|account| (account.user, account.group)))
}

/// Checks that the account can enter every folder above the new directory.
///
/// # Errors
/// Names the folder that is closed to it.
pub(super) fn check_reach(account: &Account, into: &Path) -> Result<(), RestoreError> {
    let closed = into.ancestors().skip(1).find(|folder| {
        fs::metadata(folder).is_ok_and(|metadata| {
            let mode = metadata.permissions().mode();
            let bit = if metadata.uid() == account.user {
                0o100
            } else if metadata.gid() == account.group {
                0o010
            } else {
                0o001
            };
            mode & bit == 0
        })
    });
    match closed {
        None => Ok(()),
        Some(folder) => Err(RestoreError::Directory {
            path: into.to_owned(),
            why: format!(
                "the account `{}`, which runs the server, may not enter `{}`",
                account.name,
                folder.display()
            ),
        }),
    }
}

/// Finds the programs of a major version.
///
/// # Errors
/// [`RestoreError::NoPostgres`] lists where they were looked for.
pub(super) fn find(
    config: &PostgresConfig,
    major: u32,
    account: Option<Account>,
) -> Result<Programs, RestoreError> {
    let looked = candidates(config, major);
    let minor = |bin: &PathBuf| {
        let found = bin.join("postgres").is_file();
        let (is, minor) = found.then(|| version(bin, account.as_ref())).flatten()?;
        (is == major).then(|| (bin.clone(), minor))
    };
    match looked.iter().find_map(minor) {
        Some((bin, minor)) => Ok(Programs {
            bin,
            account,
            minor,
        }),
        None => Err(RestoreError::NoPostgres { major, looked }),
    }
}

fn candidates(config: &PostgresConfig, major: u32) -> Vec<PathBuf> {
    let number = major.to_string();
    let mut found = Vec::new();
    for dir in &config.dirs {
        found.extend([dir.join(&number).join("bin"), dir.join("bin"), dir.clone()]);
    }
    found.extend([
        PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")),
        PathBuf::from(format!("/usr/pgsql-{major}/bin")),
        PathBuf::from(format!("/opt/homebrew/opt/postgresql@{major}/bin")),
        PathBuf::from(format!("/usr/local/opt/postgresql@{major}/bin")),
        PathBuf::from("/usr/local/pgsql/bin"),
        PathBuf::from("/usr/local/bin"),
        PathBuf::from("/usr/bin"),
    ]);
    found
}

/// Asks a `postgres` for its major and minor version, as the account that would run it.
fn version(bin: &Path, account: Option<&Account>) -> Option<(u32, u32)> {
    let answer = command(bin.join("postgres").as_os_str(), account)
        .arg("--version")
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let mut numbers = text.split_ascii_whitespace().nth(2)?.split('.');
    let mut number = || {
        let text = numbers.next()?;
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    Some((number()?, number().unwrap_or(0)))
}

/// Returns a command that runs as the account, with a clean environment and no input.
pub(crate) fn command(program: &OsStr, account: Option<&Account>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", SEARCHED)
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null());
    if let Some(account) = account {
        // Setting the user as root also drops the supplementary groups.
        command.uid(account.user).gid(account.group);
    }
    command
}

/// Where `false`, `sh` and `setsid` are on every system that PostgreSQL runs on.
const SEARCHED: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Programs {
    /// Finds what runs a data directory of a major version.
    pub(crate) fn of(
        config: &PostgresConfig,
        major: u32,
        directory: &Path,
    ) -> Result<Self, RestoreError> {
        let account = account(config, directory)?;
        if let Some(account) = &account {
            check_reach(account, directory)?;
        }
        find(config, major, account)
    }

    /// Tells whether it finds a library.
    pub(crate) fn has_library(&self, name: &str) -> bool {
        super::settings::is_installed(name, &self.libraries())
    }

    /// Returns the folders in which this PostgreSQL looks for libraries.
    pub(super) fn libraries(&self) -> Vec<PathBuf> {
        let home = self.bin.parent().unwrap_or(&self.bin);
        [
            "lib",
            "lib/postgresql",
            "lib/pgsql",
            "lib64",
            "lib64/pgsql",
            "lib64/postgresql",
        ]
        .iter()
        .map(|dir| home.join(dir))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let line = "postgres:x:111:115:PostgreSQL administrator:/var/lib/postgresql:/bin/bash";
        let account = read_account(line, "postgres").unwrap();
        assert_eq!((account.user, account.group), (111, 115));
        assert_eq!(read_account(line, "postgre"), None);
        assert_eq!(read_account("postgres:x:eleven:1:", "postgres"), None);
    }

    #[test]
    fn a_folder_that_is_closed_to_the_account_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let closed = folder.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = Account {
            name: "stranger".to_owned(),
            user: 61_234,
            group: 61_234,
        };
        let refused = check_reach(&stranger, &closed.join("new")).unwrap_err();
        assert!(refused.to_string().contains("may not enter"), "{refused}");
    }
}
