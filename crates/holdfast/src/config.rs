//! The configuration: defaults < `holdfast.toml` < `HOLDFAST_*` < flags, read once.

mod error;
mod guard;
mod secret;
mod source;
mod storage;
mod vault;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use error::ConfigError;
pub use guard::{BeforeRehearsal, GuardConfig};
use holdfast_core::Untrusted;
use holdfast_store::object::Location;
use holdfast_store::object::s3::CredentialSource;
pub use secret::SecretRef;
use serde::Deserialize;
pub use source::SourceConfig;
pub use vault::{ObjectStorageConfig, VaultConfig};

/// The file that `holdfast init` writes.
pub const FILE: &str = "holdfast.toml";

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    #[serde(default)]
    state_dir: Option<PathBuf>,
    #[serde(default)]
    guard: GuardConfig,
    #[serde(default)]
    vault: VaultConfig,
    #[serde(default)]
    source: Vec<SourceConfig>,
}

/// The configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from.
    pub file: PathBuf,
    /// The folder of the file; relative paths begin there.
    pub base: PathBuf,
    /// Where keys, ledgers and state lie.
    pub state_dir: PathBuf,
    /// Guard's part.
    pub guard: GuardConfig,
    /// The vault's part.
    pub vault: VaultConfig,
    /// What is protected.
    pub sources: Vec<SourceConfig>,
    /// Where the repository is.
    pub location: Location,
    /// A key that may delete from it, for the probe alone.
    pub probe: Option<CredentialSource>,
    /// A key that may delete from it, for expiry alone.
    pub expire: Option<CredentialSource>,
}

impl Config {
    /// Reads `file` and applies `HOLDFAST_STATE_DIR`.
    ///
    /// # Errors
    /// [`ConfigError`]; unknown keys are errors.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ConfigError::Absent {
                    path: file.to_owned(),
                });
            }
            Err(source) => {
                return Err(ConfigError::File {
                    path: file.to_owned(),
                    source,
                });
            }
        };
        let base = file
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let base = std::path::absolute(base).map_err(|source| ConfigError::File {
            path: file.to_owned(),
            source,
        })?;
        let mut config = Self::parse(&text, file, &base)?;
        if let Some(folder) = std::env::var_os("HOLDFAST_STATE_DIR") {
            config.state_dir = config.base.join(folder);
            config.locate()?;
        }
        if let Ok(form) = std::env::var("HOLDFAST_CLONE_FORM") {
            let malformed = |why| ConfigError::Malformed {
                path: PathBuf::from("HOLDFAST_CLONE_FORM"),
                why,
            };
            config.vault.clones.form = form.parse().map_err(malformed)?;
        }
        Ok(config)
    }

    /// Takes another repository than the file names.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`] when a bucket cannot be reached with what the file says of it.
    pub fn take_repository(&mut self, repository: String) -> Result<(), ConfigError> {
        self.vault.repository = repository;
        self.locate()
    }

    fn locate(&mut self) -> Result<(), ConfigError> {
        let located = locate(&self.vault, &self.base, &self.state_dir);
        self.location = located.map_err(|why| ConfigError::Malformed {
            path: self.file.clone(),
            why,
        })?;
        Ok(())
    }

    /// Reads the text of a configuration file that lies in `base`.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`] and [`ConfigError::Twice`].
    pub fn parse(text: &str, file: &Path, base: &Path) -> Result<Self, ConfigError> {
        let malformed = |why: String| ConfigError::Malformed {
            path: file.to_owned(),
            why,
        };
        let raw: RawConfig = toml::from_str(text).map_err(|error| malformed(one_line(&error)))?;
        let mut names = BTreeSet::new();
        for source in &raw.source {
            if source.directory.is_some() && source.vault_url.is_some() {
                let why = "has both `directory` and `vault_url`: make two sources of it";
                return Err(malformed(format!("the source `{}` {why}", source.name)));
            }
            if !names.insert(source.name.clone()) {
                return Err(ConfigError::Twice(source.name.clone()));
            }
        }
        let state_dir = base.join(
            raw.state_dir
                .unwrap_or_else(|| PathBuf::from("holdfast-state")),
        );
        let location = locate(&raw.vault, base, &state_dir).map_err(&malformed)?;
        let storage = &raw.vault.object_storage;
        let probe = storage::probe(storage, base).map_err(&malformed)?;
        let expire = storage::expire(storage, base).map_err(malformed)?;
        Ok(Self {
            file: file.to_owned(),
            base: base.to_owned(),
            state_dir,
            guard: raw.guard,
            vault: raw.vault,
            location,
            probe,
            expire,
            sources: raw.source,
        })
    }

    /// Returns the source of that name.
    ///
    /// # Errors
    /// [`ConfigError::UnknownSource`].
    pub fn source(&self, name: &str) -> Result<&SourceConfig, ConfigError> {
        let found = self
            .sources
            .iter()
            .find(|source| source.name.as_str() == name);
        found.ok_or_else(|| ConfigError::UnknownSource(Untrusted(name).to_string()))
    }

    /// Returns where the vault's repository lies.
    pub fn repository(&self) -> Location {
        self.location.clone()
    }

    /// Returns the same place as expiry reaches it: with the key that may delete, if one is named.
    pub fn expiring(&self) -> Location {
        let mut location = self.location.clone();
        if let (Location::S3(bucket), Some(expire)) = (&mut location, &self.expire) {
            bucket.credentials = expire.clone();
        }
        location
    }

    /// Returns guard's folder in the state.
    pub fn guard_dir(&self) -> PathBuf {
        self.state_dir.join("guard")
    }

    /// Returns the vault's folder in the state.
    pub fn vault_dir(&self) -> PathBuf {
        self.state_dir.join("vault")
    }
}

fn locate(vault: &VaultConfig, base: &Path, state: &Path) -> Result<Location, String> {
    storage::location(vault, (base, state))
}

/// TOML's errors draw the line over several lines; messages of ours are one line.
fn one_line(error: &toml::de::Error) -> String {
    error.message().replace('\n', ", ")
}

#[cfg(test)]
mod tests {
    use holdfast_core::{Code, Coded};

    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("holdfast.toml"), Path::new("/base"))
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config.state_dir, Path::new("/base/holdfast-state"));
        assert!(config.guard.pg_listen.ip().is_loopback());
        assert_eq!(
            config.repository(),
            Location::Directory("/base/holdfast-state/repository".into())
        );
    }

    #[test]
    fn a_repository_is_a_directory_or_a_bucket() {
        let with = |more: &str| parse(&format!("[vault]\nrepository = \"s3://bkt/vault\"\n{more}"));
        let keys =
            "[vault.object_storage]\naccess_key_id = \"env:A\"\nsecret_access_key = \"file:b\"\n";
        let config = with(keys).unwrap();
        let Location::S3(location) = config.repository() else {
            panic!("{}", config.repository());
        };
        assert_eq!(
            location.endpoint.to_string(),
            "https://s3.us-east-1.amazonaws.com"
        );
        assert_eq!(location.bucket.to_string(), "s3://bkt/vault");
        assert!(!format!("{config:?}").contains("hunter2"));
        for (more, why) in [
            ("", "access_key_id` is missing"),
            (
                "[vault.object_storage]\naccess_key_id = \"AKIA\"",
                "env:NAME",
            ),
            (
                &format!("{keys}endpoint = \"http://s3.example.com\""),
                "without TLS",
            ),
            (&format!("lock_for = \"0\"\n{keys}"), "would not be locked"),
            (&format!("{keys}lock = 1"), "unknown field"),
            (
                &format!("{keys}probe_access_key_id = \"env:P\""),
                "probe_secret_access_key` is missing",
            ),
            (
                &format!("{keys}expire_secret_access_key = \"env:E\""),
                "expire_access_key_id` is missing",
            ),
        ] {
            let error = with(more).unwrap_err().to_string();
            assert!(error.contains(why), "{more}: {error}");
        }
        assert!(
            with(&format!(
                "{keys}endpoint = \"http://10.0.0.1\"\nplain_http = true"
            ))
            .is_ok()
        );
    }

    #[test]
    fn unknown_keys_inline_secrets_and_doubles_are_refused() {
        for (text, why) in [
            ("colour = 1", "unknown field"),
            ("[vault]\nretain = 1", "unknown field"),
            ("[[source]]\nname = \"Prod\"", "is not a source name"),
            (
                "[[source]]\nname = \"p\"\nvault_url = \"postgres://u:p@h/d\"",
                "env:NAME",
            ),
            (
                "[[source]]\nname = \"p\"\n[[source]]\nname = \"p\"",
                "twice",
            ),
            ("state_dir = ", "string values must be quoted"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_secret_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("url");
        std::fs::write(&path, "postgres://u:hunter2@h/d\n").unwrap();
        let reference = SecretRef::File("url".into());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = reference
            .read("prod", folder.path())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("chmod 600") && !error.contains("hunter2"),
            "{error}"
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(
            reference.read("prod", folder.path()).unwrap().expose(),
            "postgres://u:hunter2@h/d"
        );
        assert!(
            SecretRef::Env("HOLDFAST_NO_SUCH".into())
                .read("x", folder.path())
                .is_err()
        );
    }

    #[test]
    fn resources_name_their_source() {
        let config =
            parse("[[source]]\nname = \"prod\"\nresources = [\"railway:volume:3d2c\"]").unwrap();
        let resource = config.source("prod").unwrap().resources().remove(0);
        assert_eq!(
            (resource.kind.as_str(), resource.name.as_str()),
            ("railway:volume", "3d2c")
        );
        assert_eq!(resource.source.unwrap().as_str(), "prod");
        assert_eq!(config.source("other").unwrap_err().code(), Code::ZU603);
    }
}
