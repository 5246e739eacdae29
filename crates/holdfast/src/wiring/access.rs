//! With what the repository is read: the vault's own state, or a recovery key when that is lost.

use std::path::PathBuf;

use clap::Args;
use data_encoding::HEXLOWER_PERMISSIVE;
use ed25519_dalek::VerifyingKey;
use holdfast_core::{Code, SourceName};
use holdfast_store::object::Keys;
use holdfast_vault::Place;

use crate::cli::Shared;
use crate::config::{Config, ConfigError};
use crate::report::{Failure, Output};
use crate::wiring::{Half, recovery, vault};

/// What is given when the vault's machine, its keys or its configuration are lost.
#[derive(Clone, Debug, Default, Args)]
pub struct Access {
    /// Read with this recovery key instead of the vault's own keys; `-` reads it from stdin.
    #[arg(long, value_name = "FILE", help_heading = "When the vault is lost")]
    pub recovery_key: Option<PathBuf>,
    /// The repository, when there is no configuration: a directory, or `s3://BUCKET[/PREFIX]`.
    #[arg(long, value_name = "DIR", help_heading = "When the vault is lost")]
    pub repository: Option<String>,
    /// The vault's public key, 64 hexadecimal digits: what it did not sign is refused.
    #[arg(long, value_name = "HEX", help_heading = "When the vault is lost")]
    pub vault_key: Option<String>,
}

/// A repository that can be read, and what is known beside it.
pub struct Reading {
    /// The configuration; nothing but defaults when it is lost.
    pub config: Config,
    /// Where the vault's things are.
    pub place: Place,
    /// The configuration is lost, so that sources are known by the repository alone.
    is_alone: bool,
}

impl Access {
    /// Finds the repository and the keys.
    ///
    /// # Errors
    /// When there is neither configuration nor repository, or a key cannot be used.
    pub fn open(&self, shared: &Shared, output: Output) -> Result<Reading, Failure> {
        let (mut config, is_alone) = match shared.config() {
            Ok(config) => (config, false),
            Err(ConfigError::Absent { .. }) if self.repository.is_some() => (alone(shared)?, true),
            Err(error) => return Err(error.into()),
        };
        if let Some(repository) = &self.repository {
            config.take_repository(absolute(repository)?)?;
        }
        let Some(from) = &self.recovery_key else {
            let mut place = match is_alone {
                true => vault::place_without_key(&config)?,
                false => vault::place(&config)?,
            };
            place.vault_key = match &self.vault_key {
                Some(text) => Some(verifying(text)?),
                None => place.vault_key,
            };
            return Ok(Reading {
                config,
                place,
                is_alone,
            });
        };
        let kept = recovery::read(from)?;
        let mut place = vault::place_without_key(&config)?;
        place.keys = Keys::new(Vec::new(), kept.identities);
        let stated = self.vault_key.as_ref().or(kept.vault_key.as_ref());
        place.vault_key = match stated {
            Some(text) => Some(verifying(text)?),
            None => Half::Vault.public_key(&config).ok(),
        };
        if place.vault_key.is_none() {
            output.say(
                "warning: which vault wrote the repository is taken from the repository itself; whoever could \
                 write there could have forged it. Give --vault-key HEX, which `init` showed beside the recovery key.",
            );
        }
        Ok(Reading {
            config,
            place,
            is_alone,
        })
    }
}

impl Reading {
    /// Returns a source by its name: of the configuration, or of the repository when that is lost.
    ///
    /// # Errors
    /// When it is not known.
    pub fn source(&self, name: &str) -> Result<SourceName, Failure> {
        if !self.is_alone {
            return Ok(self.config.source(name)?.name.clone());
        }
        name.parse().map_err(|_| {
            let name = name.to_owned();
            ConfigError::UnknownSource(name).into()
        })
    }
}

fn alone(shared: &Shared) -> Result<Config, Failure> {
    let here =
        std::env::current_dir().map_err(|error| super::system("find this folder", &error))?;
    Ok(Config::parse("", &shared.config, &here)?)
}

fn verifying(text: &str) -> Result<VerifyingKey, Failure> {
    HEXLOWER_PERMISSIVE
        .decode(text.trim().as_bytes())
        .ok()
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok())
        .ok_or_else(|| {
            Failure::new(
                Code::ZU606,
                "the vault's public key is not 64 hexadecimal digits",
                "it stands in `vault.pub`, in a file with the recovery key, and was shown by `holdfast init`",
            )
        })
}

/// Returns the repository as a configuration would name it from anywhere.
fn absolute(repository: &str) -> Result<String, Failure> {
    if repository.starts_with("s3://") {
        return Ok(repository.to_owned());
    }
    let path = std::path::absolute(repository)
        .map_err(|error| super::system("find the repository", &error))?;
    path.into_os_string().into_string().map_err(|_| {
        Failure::new(
            Code::ZU603,
            "the repository's path is not UTF-8",
            "link to it from a path that is, and name that",
        )
    })
}
