//! How the rooms are put together: folders, keys, clients, the two halves.

pub mod access;
pub mod clones;
pub mod guard;
pub mod keys;
pub mod recovery;
pub mod rehearsal;
pub mod secrets;
pub mod vault;
pub mod way_back;

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ed25519_dalek::{SigningKey, VerifyingKey};
use holdfast_core::{Code, Coded, Principal, Timestamp};
use holdfast_store::key;

use crate::api::Client;
use crate::config::Config;
use crate::report::Failure;

/// The name of a half's signing key in its folder.
const KEY: &str = "key";

/// Which half of Holdfast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Half {
    /// The doors.
    Guard,
    /// What removes, beside the vault and never in it.
    Retention,
    /// Capture, repository, drills.
    Vault,
}

impl Half {
    /// Both, in the order in which they are shown.
    pub const ALL: [Self; 2] = [Self::Guard, Self::Vault];

    /// Everybody who has a ledger.
    pub const LEDGERS: [Self; 3] = [Self::Guard, Self::Vault, Self::Retention];

    /// Returns its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::Retention => "retention",
            Self::Vault => "vault",
        }
    }

    /// Returns its folder in the state.
    pub fn folder(self, config: &Config) -> PathBuf {
        match self {
            Self::Guard => config.guard_dir(),
            Self::Retention => config.state_dir.join("retention"),
            Self::Vault => config.vault_dir(),
        }
    }

    /// Returns the folder of its ledger.
    pub fn ledger(self, config: &Config) -> PathBuf {
        self.folder(config).join("ledger")
    }

    /// Returns the file with its public key, which the other half and people may read.
    pub fn public_key_file(self, config: &Config) -> PathBuf {
        config.state_dir.join(format!("{}.pub", self.word()))
    }

    /// Returns who can be asked when it runs.
    pub fn client(self, config: &Config) -> Client {
        let name = match self {
            Self::Guard => "guard",
            Self::Retention => "retention",
            Self::Vault => "the vault",
        };
        Client::new(name, &self.folder(config))
    }

    /// Reads its signing key, or makes it with its folder on the first start.
    ///
    /// # Errors
    /// When the folder cannot be made or the key cannot be used.
    pub fn key(self, config: &Config) -> Result<SigningKey, Failure> {
        let folder = self.folder(config);
        state_folder(config)?;
        private_folder(&folder)?;
        let key = key::load_or_create(&folder.join(KEY), random()?)?;
        let public = HEXLOWER.encode(key.verifying_key().as_bytes());
        let file = self.public_key_file(config);
        match std::fs::read_to_string(&file) {
            Ok(text) if text.trim() == public => {}
            Ok(_) => {
                return Err(Failure::new(
                    Code::ZI601,
                    format!(
                        "`{}` is not the public key of `{}`; nothing was started",
                        file.display(),
                        folder.join(KEY).display()
                    ),
                    "put the key back from your copy; a new key cannot vouch for what the old one signed",
                ));
            }
            Err(_) => std::fs::write(&file, format!("{public}\n"))
                .map_err(|error| system("write the public key", &error))?,
        }
        Ok(key)
    }

    /// Reads its public key.
    ///
    /// # Errors
    /// When there is none yet, or it is not one.
    pub fn public_key(self, config: &Config) -> Result<VerifyingKey, Failure> {
        let file = self.public_key_file(config);
        let missing = |why: String| {
            Failure::new(
                Code::ZU606,
                format!(
                    "there is no public key of {} at `{}`: {why}",
                    self.word(),
                    file.display()
                ),
                "`holdfast init` makes the keys; --config may name another configuration",
            )
        };
        let text = std::fs::read_to_string(&file).map_err(|error| missing(error.to_string()))?;
        HEXLOWER
            .decode(text.trim().as_bytes())
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok())
            .ok_or_else(|| missing("it is not 64 hexadecimal digits".to_owned()))
    }
}

/// Makes the state folder: others may pass through it, to the certificate that agents must trust and to
/// the public keys, but not list it; each half's own folder is closed.
///
/// # Errors
/// What the system said.
pub fn state_folder(config: &Config) -> Result<(), Failure> {
    make_folder(&config.state_dir, 0o711)
}

/// Makes a folder that only its owner can enter, if it is not there.
///
/// # Errors
/// What the system said.
pub fn private_folder(path: &Path) -> Result<(), Failure> {
    make_folder(path, 0o700)
}

fn make_folder(path: &Path, mode: u32) -> Result<(), Failure> {
    holdfast_store::durable::make_folder_with(path, mode).map_err(|error| {
        Failure::new(
            Code::ZS603,
            format!("cannot make the folder `{}`: {error}", path.display()),
            "choose another `state_dir`, or let holdfast write there",
        )
    })
}

/// Draws random bytes from the system.
///
/// # Errors
/// When the system has none.
pub fn random<const N: usize>() -> Result<[u8; N], Failure> {
    holdfast_guard::clock::random().map_err(|error| {
        Failure::new(
            Code::ZS603,
            error.to_string(),
            "mend the system; without randomness there are no keys",
        )
    })
}

/// Returns the time.
pub fn now() -> Timestamp {
    holdfast_guard::clock::now()
}

/// Returns the person at the keyboard, by the name of the account.
pub fn operator() -> Principal {
    let name = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER"));
    Principal::human(name.unwrap_or_else(|_| "operator".to_owned()))
}

/// Turns an error of the operating system into a failure.
pub fn system(step: &str, error: &std::io::Error) -> Failure {
    Failure::new(
        Code::ZS603,
        format!("cannot {step}: {error}"),
        "mend what the system names, then try again",
    )
}

/// Turns an error with a code into a failure.
pub fn failure(error: &(impl Coded + 'static)) -> Failure {
    Failure {
        code: error.code(),
        message: holdfast_core::ErrorChain(error).to_string(),
        hint: error.hint(),
    }
}
