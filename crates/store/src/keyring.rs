//! The keys of the vault's objects on disk: identities of the machine, recipients of people.
//!
//! # Shape
//! One folder. `machine-NNNN.key` is an identity of the vault in the format of `age-keygen`, mode 0600;
//! `recovery-NNNN.recipient` is the recipient of a recovery key, whose secret is kept nowhere here. The
//! highest number of each is in use; earlier ones stay, because objects that were sealed to them do.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use holdfast_core::{Secret, Timestamp};

use crate::envelope::{Identity, Recipient};
use crate::key::KeyError;
use crate::limits::KEY_FILE_BYTES_MAX;
use crate::object::Keys;

/// What a folder of keys holds, oldest first.
#[derive(Clone, Debug)]
pub struct Keyring {
    folder: PathBuf,
    /// The vault's own identities.
    pub machine: Vec<Kept<Identity>>,
    /// The recipients of recovery keys.
    pub recovery: Vec<Kept<Recipient>>,
}

/// One key that is kept.
#[derive(Clone, Debug)]
pub struct Kept<K> {
    /// Its number, from 1.
    pub number: u32,
    /// The key.
    pub key: K,
    /// Since when.
    pub since: Option<Timestamp>,
}

impl Keyring {
    /// Reads the keys in `folder`; a folder that is not there has none.
    ///
    /// # Errors
    /// [`KeyError`] when a key cannot be read, can be read by others, or is none.
    pub fn open(folder: &Path) -> Result<Self, KeyError> {
        let mut ring = Self {
            folder: folder.to_owned(),
            machine: Vec::new(),
            recovery: Vec::new(),
        };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ring),
            Err(source) => return Err(failed(folder, source)),
        };
        for entry in entries {
            let path = entry.map_err(|source| failed(folder, source))?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if let Some(number) = numbered(&name, MACHINE) {
                let text = read(&path)?;
                let key = Identity::read_all(text.expose())
                    .ok()
                    .and_then(|mut all| all.pop());
                let key = key.ok_or_else(|| malformed(&path))?;
                ring.machine.push(kept(number, key, &text));
            } else if let Some(number) = numbered(&name, RECOVERY) {
                let text = read(&path)?;
                let mut lines = text.expose().lines().filter(|line| !line.starts_with('#'));
                let key = lines.next().and_then(|line| line.trim().parse().ok());
                let key = key.ok_or_else(|| malformed(&path))?;
                ring.recovery.push(kept(number, key, &text));
            }
        }
        ring.machine.sort_by_key(|kept| kept.number);
        ring.recovery.sort_by_key(|kept| kept.number);
        Ok(ring)
    }

    /// Returns what objects are sealed to and opened with. Without a recovery key nothing is sealed.
    pub fn keys(&self) -> Keys {
        let identities = self.machine.iter().rev().map(|kept| kept.key.clone());
        Keys::new(self.recipients(), identities.collect())
    }

    /// Returns what new objects are sealed to: the newest of both, or nothing when one is missing.
    pub fn recipients(&self) -> Vec<Recipient> {
        match (self.machine.last(), self.recovery.last()) {
            (Some(machine), Some(recovery)) => vec![machine.key.recipient(), recovery.key],
            _ => Vec::new(),
        }
    }

    /// Keeps a new identity of the vault, which is used from now on.
    ///
    /// # Errors
    /// [`KeyError::File`]; what was kept before is as it was.
    pub fn add_machine(&mut self, key: Identity, now: Timestamp) -> Result<(), KeyError> {
        let number = next(&self.machine);
        let text = identity_file(&key, now, "a machine key of a Holdfast vault");
        self.write(number, MACHINE, text.expose())?;
        self.machine.push(Kept {
            number,
            key,
            since: Some(now),
        });
        Ok(())
    }

    /// Keeps the recipient of a new recovery key, which is used from now on.
    ///
    /// # Errors
    /// [`KeyError::File`]; what was kept before is as it was.
    pub fn add_recovery(&mut self, key: Recipient, now: Timestamp) -> Result<(), KeyError> {
        let number = next(&self.recovery);
        let text = format!(
            "# the recipient of a recovery key, whose secret a person keeps\n{SINCE}{now}\n{key}\n"
        );
        self.write(number, RECOVERY, &text)?;
        self.recovery.push(Kept {
            number,
            key,
            since: Some(now),
        });
        Ok(())
    }

    fn write(
        &self,
        number: u32,
        (prefix, suffix): (&str, &str),
        text: &str,
    ) -> Result<(), KeyError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|source| failed(&self.folder, source))?;
        let path = self.folder.join(format!("{prefix}{number:04}{suffix}"));
        write_new(&path, text)
    }
}

/// Returns the text of a file that `age -d -i` takes.
pub fn identity_file(key: &Identity, now: Timestamp, what: &str) -> Secret {
    let (recipient, secret) = (key.recipient(), key.to_text());
    Secret::new(format!(
        "# {what}\n{SINCE}{now}\n# public key: {recipient}\n{}\n",
        secret.expose()
    ))
}

/// Writes a file that is not there yet, readable by its owner alone, and makes it durable.
///
/// # Errors
/// [`KeyError::File`], also when there is one; it is then as it was.
pub fn write_new(path: &Path, text: &str) -> Result<(), KeyError> {
    let staged = path.with_extension("new");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staged)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        // A link, not a rename: it never replaces.
        .and_then(|()| fs::hard_link(&staged, path));
    let removed = fs::remove_file(&staged);
    written
        .and(removed)
        .map_err(|source| failed(path, source))?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))
        .and_then(|folder| folder.sync_all())
        .map_err(|source| failed(path, source))
}

/// Reads a small file that nobody else may read.
///
/// # Errors
/// [`KeyError::File`], [`KeyError::Exposed`], [`KeyError::Malformed`] when it is larger than any key.
pub fn read(path: &Path) -> Result<Secret, KeyError> {
    let file = File::open(path).map_err(|source| failed(path, source))?;
    let mode = file
        .metadata()
        .map_err(|source| failed(path, source))?
        .mode()
        & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    read_from(file)
        .map_err(|source| failed(path, source))?
        .ok_or_else(|| malformed(path))
}

/// Reads the text of a key from anywhere: `None` when it is no text or larger than any key.
///
/// # Errors
/// What the system said.
pub fn read_from(from: impl Read) -> io::Result<Option<Secret>> {
    let mut bytes = Vec::with_capacity(KEY_FILE_BYTES_MAX.saturating_add(1));
    let most = u64::try_from(KEY_FILE_BYTES_MAX).unwrap_or(u64::MAX);
    from.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    let fits = bytes.len() <= KEY_FILE_BYTES_MAX && std::str::from_utf8(&bytes).is_ok();
    let text = Secret::from_bytes(bytes);
    Ok(fits.then_some(text))
}

/// How a machine's keys are called, around their number.
const MACHINE: (&str, &str) = ("machine-", ".key");
/// How recipients of recovery keys are called.
const RECOVERY: (&str, &str) = ("recovery-", ".recipient");
/// What the line begins with that says since when.
const SINCE: &str = "# since ";

fn numbered(name: &str, (prefix, suffix): (&str, &str)) -> Option<u32> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    digits.parse().ok()
}

fn kept<K>(number: u32, key: K, text: &Secret) -> Kept<K> {
    let since = text
        .expose()
        .lines()
        .find_map(|line| line.strip_prefix(SINCE));
    Kept {
        number,
        key,
        since: since.and_then(|since| since.trim().parse().ok()),
    }
}

fn next<K>(all: &[Kept<K>]) -> u32 {
    all.last().map_or(1, |last| last.number.saturating_add(1))
}

fn failed(path: &Path, source: io::Error) -> KeyError {
    KeyError::File {
        path: path.to_owned(),
        source,
    }
}

fn malformed(path: &Path) -> KeyError {
    KeyError::Malformed {
        path: path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_kept_in_order_and_the_newest_are_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let mut ring = Keyring::open(&path).unwrap();
        assert!(ring.recipients().is_empty());
        let machines = [Identity::generate().unwrap(), Identity::generate().unwrap()];
        let recovery = Identity::generate().unwrap().recipient();
        ring.add_machine(machines[0].clone(), Timestamp(1_000_000))
            .unwrap();
        assert!(
            ring.recipients().is_empty(),
            "nothing is sealed that only this machine could open"
        );
        ring.add_recovery(recovery, Timestamp(2_000_000)).unwrap();
        ring.add_machine(machines[1].clone(), Timestamp(3_000_000))
            .unwrap();

        let read = Keyring::open(&path).unwrap();
        assert_eq!(read.recipients(), [machines[1].recipient(), recovery]);
        assert_eq!(read.machine.len(), 2);
        assert_eq!(read.machine[0].since, Some(Timestamp(1_000_000)));
        assert_eq!(read.recovery[0].number, 1);
        let mode = fs::metadata(path.join("machine-0001.key")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_key_file_that_is_exposed_damaged_or_too_large_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("machine-0001.key");
        let key = Identity::generate().unwrap();
        let good = identity_file(&key, Timestamp(0), "a test");
        write_new(&path, good.expose()).unwrap();
        assert!(Keyring::open(folder.path()).is_ok());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let exposed = Keyring::open(folder.path()).unwrap_err();
        assert!(matches!(exposed, KeyError::Exposed { mode: 0o640, .. }));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for bad in [
            &good.expose()[..good.expose().len() - 4],
            "",
            &"#".repeat(9_000),
        ] {
            fs::write(&path, bad).unwrap();
            let refused = Keyring::open(folder.path()).unwrap_err();
            assert!(matches!(refused, KeyError::Malformed { .. }), "{refused}");
        }
    }

    #[test]
    fn a_file_that_is_there_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recovery");
        write_new(&path, "one").unwrap();
        assert!(write_new(&path, "two").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
