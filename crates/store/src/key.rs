//! Signing keys: files for machines, passphrases for people.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use holdfast_core::{Code, Coded, Secret};

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read, made or written.
    #[error("cannot use the key file `{}`", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read the file.
    #[error("the key file `{}` can be read by others (mode {mode:o})", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not 64 hexadecimal digits.
    #[error("the key file `{}` does not hold a key", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
    /// The passphrase is too short.
    #[error("the passphrase has {0} characters, fewer than 8")]
    ShortPassphrase(usize),
    /// The derivation failed.
    #[error("cannot derive a key from the passphrase")]
    Derivation,
}

impl Coded for KeyError {
    fn code(&self) -> Code {
        Code::ZU201
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::File { path, .. } => format!("check who owns `{}`", path.display()),
            Self::Exposed { path, .. } => format!(
                "run `chmod 600 {}`, and ask who has read it",
                path.display()
            ),
            Self::Malformed { .. } => {
                "put the file back from your copy; a new key cannot sign for the old one".to_owned()
            }
            Self::ShortPassphrase(_) => "choose a longer one".to_owned(),
            Self::Derivation => "free some memory (64 MiB are needed) and try again".to_owned(),
        })
    }
}

/// Reads the Ed25519 key in `path`, or makes one from `random` with mode 0600 if there is no file.
///
/// # Shape
/// The seed as 64 lower-case hexadecimal digits and a line feed.
///
/// # Errors
/// [`KeyError`]; an existing file is never changed.
pub fn load_or_create(path: &Path, random: [u8; 32]) -> Result<SigningKey, KeyError> {
    let failed = |source| KeyError::File {
        path: path.to_owned(),
        source,
    };
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(mut file) => {
            let text = format!("{}\n", HEXLOWER.encode(&random));
            file.write_all(text.as_bytes()).map_err(failed)?;
            file.sync_all().map_err(failed)?;
            if let Some(folder) = path.parent() {
                File::open(folder)
                    .and_then(|folder| folder.sync_all())
                    .map_err(failed)?;
            }
            Ok(SigningKey::from_bytes(&random))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load(path),
        Err(error) => Err(failed(error)),
    }
}

/// Reads the Ed25519 key in `path`.
///
/// # Errors
/// [`KeyError`] when it is absent, readable by others or not a key.
pub fn load(path: &Path) -> Result<SigningKey, KeyError> {
    let failed = |source| KeyError::File {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = String::new();
    file.take(128).read_to_string(&mut text).map_err(failed)?;
    let seed = HEXLOWER.decode(text.trim_end().as_bytes()).ok();
    let seed = seed.and_then(|seed| <[u8; 32]>::try_from(seed).ok());
    seed.map(|seed| SigningKey::from_bytes(&seed))
        .ok_or_else(|| KeyError::Malformed {
            path: path.to_owned(),
        })
}

/// Derives an approver's key from a passphrase, so that no file holds what could approve.
///
/// Argon2id with 64 MiB, 3 passes, 1 lane; at least half a second of work on a small machine.
///
/// # Errors
/// [`KeyError::ShortPassphrase`] below 8 characters.
///
/// # Source
/// RFC 9106, section 4, second recommended option.
pub fn derive(passphrase: &Secret, salt: &[u8; 16]) -> Result<SigningKey, KeyError> {
    let length = passphrase.expose().chars().count();
    if length < 8 {
        return Err(KeyError::ShortPassphrase(length));
    }
    let params =
        argon2::Params::new(64 * 1024, 3, 1, Some(32)).map_err(|_| KeyError::Derivation)?;
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut seed = [0_u8; 32];
    argon2
        .hash_password_into(passphrase.expose().as_bytes(), salt, &mut seed)
        .map_err(|_| KeyError::Derivation)?;
    Ok(SigningKey::from_bytes(&seed))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.key");
        let made = load_or_create(&path, [4; 32]).unwrap();
        let read = load_or_create(&path, [5; 32]).unwrap();
        assert_eq!(made, read);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_cut_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        load_or_create(&path, [4; 32]).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            load(&path),
            Err(KeyError::Exposed { mode: 0o640, .. })
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "04").unwrap();
        assert!(matches!(load(&path), Err(KeyError::Malformed { .. })));
        assert!(matches!(
            load(&folder.path().join("none")),
            Err(KeyError::File { .. })
        ));
    }

    #[test]
    fn the_same_passphrase_and_salt_give_the_same_key_and_no_other() {
        let phrase = Secret::new("correct horse");
        let key = derive(&phrase, &[1; 16]).unwrap();
        assert_eq!(derive(&phrase, &[1; 16]).unwrap(), key);
        assert_ne!(derive(&phrase, &[2; 16]).unwrap(), key);
        assert_ne!(
            derive(&Secret::new("correct horsf"), &[1; 16]).unwrap(),
            key
        );
        assert!(matches!(
            derive(&Secret::new("short"), &[1; 16]),
            Err(KeyError::ShortPassphrase(5))
        ));
    }
}
