//! The configuration: defaults < `holdfast.toml` < `HOLDFAST_*` < flags, read once.

mod storage;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use holdfast_core::{Code, Coded, Resource, Secret, SourceName, Untrusted};
use holdfast_store::object::Location;
use holdfast_store::object::s3::{Addressing, CredentialSource};
use holdfast_vault::retention::window::LOCK_FOR;
use holdfast_vault::retention::{KeepRules, Span};
use serde::Deserialize;

/// The file that `holdfast init` writes.
pub const FILE: &str = "holdfast.toml";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file.
    #[error("there is no configuration at `{}`", path.display())]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration `{}`", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key or a value of the wrong type.
    #[error("the configuration `{}` is not valid: {why}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Line and reason.
        why: String,
    },
    /// Two sources with one name.
    #[error("the configuration names the source `{0}` twice")]
    Twice(SourceName),
    /// A secret stands in the file itself, or its reference leads nowhere.
    #[error("the secret for {what} cannot be had: {why}")]
    Secret {
        /// What it is for.
        what: String,
        /// Why not; never contains the secret.
        why: String,
    },
    /// No source of that name.
    #[error("there is no source `{0}` in the configuration")]
    UnknownSource(String),
}

impl Coded for ConfigError {
    fn code(&self) -> Code {
        match self {
            Self::Absent { .. } | Self::File { .. } | Self::Malformed { .. } | Self::Twice(_) => {
                Code::ZU601
            }
            Self::Secret { .. } => Code::ZU602,
            Self::UnknownSource(_) => Code::ZU603,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Absent { .. } => "run `holdfast init`, or name the file with --config".to_owned(),
            Self::File { .. } => "check who owns the file".to_owned(),
            Self::Malformed { .. } | Self::Twice(_) => {
                "docs/configuration.md lists every key".to_owned()
            }
            Self::Secret { .. } => {
                "write `env:NAME` or `file:PATH`; a file must be readable by you alone".to_owned()
            }
            Self::UnknownSource(_) => "`holdfast source list` shows them".to_owned(),
        })
    }
}

/// A secret by reference: `env:NAME` or `file:PATH`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum SecretRef {
    /// The value of an environment variable.
    Env(String),
    /// The first line of a file that only its owner can read.
    File(PathBuf),
}

impl TryFrom<String> for SecretRef {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err(
                "a secret is written as `env:NAME` or `file:PATH`, never in the file itself"
                    .to_owned(),
            ),
        }
    }
}

impl SecretRef {
    /// Reads the secret.
    ///
    /// # Errors
    /// [`ConfigError::Secret`] when the reference leads nowhere or others may read the file.
    pub fn read(&self, what: &str, base: &Path) -> Result<Secret, ConfigError> {
        let refused = |why: String| ConfigError::Secret {
            what: what.to_owned(),
            why,
        };
        match self {
            Self::Env(name) => std::env::var(name)
                .map(Secret::new)
                .map_err(|_| refused(format!("the environment variable {name} is not set"))),
            Self::File(path) => {
                use std::os::unix::fs::MetadataExt;
                let path = base.join(path);
                let shown = path.display();
                let meta = std::fs::metadata(&path)
                    .map_err(|error| refused(format!("`{shown}`: {error}")))?;
                if meta.mode() & 0o077 != 0 {
                    return Err(refused(format!(
                        "`{shown}` can be read by others; run `chmod 600 {shown}`"
                    )));
                }
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| refused(format!("`{shown}`: {error}")))?;
                match text.lines().next().map(str::trim) {
                    Some(line) if !line.is_empty() => Ok(Secret::new(line)),
                    _ => Err(refused(format!("`{shown}` is empty"))),
                }
            }
        }
    }
}

/// One protected PostgreSQL cluster or directory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Its name.
    pub name: SourceName,
    /// What it is for, as policies see it: `production`, `staging`, …
    #[serde(default = "production")]
    pub environment: String,
    /// Connection string of the role that the vault streams with (`REPLICATION`).
    #[serde(default)]
    pub vault_url: Option<SecretRef>,
    /// Connection string of the role that guard makes lease roles with.
    #[serde(default)]
    pub guard_url: Option<SecretRef>,
    /// The directory that is protected, instead of a PostgreSQL cluster; relative to the file.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// Seconds from one restore point of a directory to the next.
    #[serde(default = "every_hour")]
    pub every_s: u64,
    /// Whether commits wait until the vault has them on disk.
    #[serde(default)]
    pub synchronous: bool,
    /// Where the vault must have a position before the source is told so: `spool` or `repository`.
    #[serde(default)]
    pub ack: holdfast_vault::AckAt,
    /// What providers call the things that carry this source, as `kind:name`, such as `railway:volume:3d2c…`.
    #[serde(default)]
    pub resources: Vec<String>,
    /// SQL statements that a drill runs; each must return true.
    #[serde(default)]
    pub assertions: Vec<String>,
    /// How long restore points are kept.
    #[serde(default)]
    pub keep: KeepRules,
}

fn every_hour() -> u64 {
    3600
}

fn production() -> String {
    "production".to_owned()
}

impl SourceConfig {
    /// Returns the resources that carry this source.
    pub fn resources(&self) -> Vec<Resource> {
        let split = |text: &String| {
            let (kind, name) = text.rsplit_once(':').unwrap_or(("", text));
            Resource::new(kind, name).of(self.name.clone())
        };
        self.resources.iter().map(split).collect()
    }
}

/// Where a host really is, for private endpoints.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// The host name that agents ask for.
    pub host: String,
    /// The address that is connected to instead, `ADDRESS:PORT`.
    pub connect: SocketAddr,
    /// A certificate authority to trust for this host, PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// Guard's part.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardConfig {
    /// Where the PostgreSQL door listens.
    pub pg_listen: SocketAddr,
    /// Where the HTTP door listens.
    pub http_listen: SocketAddr,
    /// Cedar text instead of the shipped policy.
    pub policy_file: Option<PathBuf>,
    /// The oldest proof that still is a way back, in seconds.
    pub proof_age_max_s: u64,
    /// Hosts that are reached somewhere else.
    pub upstream: Vec<UpstreamConfig>,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            pg_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 6543)),
            http_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 6480)),
            policy_file: None,
            proof_age_max_s: holdfast_guard::limits::PROOF_AGE_MAX.as_secs(),
            upstream: Vec::new(),
        }
    }
}

/// The vault's part.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VaultConfig {
    /// The directory of the repository, relative to the state folder; or `s3://BUCKET[/PREFIX]`.
    pub repository: String,
    /// How the bucket is reached.
    pub object_storage: ObjectStorageConfig,
    /// Seconds between two drills of a source.
    pub drill_every_s: u64,
    /// Seconds from one restore point to the next, while the source changes.
    pub point_every_s: u64,
    /// Mebibytes of log after which a restore point is taken in any case.
    pub point_every_mib: u64,
    /// Seconds from one restore point that stands on its own to the next.
    pub full_every_s: u64,
    /// How long everything is kept at least, such as `14d`; it can only grow.
    pub lock_for: Span,
    /// Files of the repository get the file system's immutable flag.
    pub immutable: bool,
    /// Seconds from one heartbeat of the writer to the next.
    pub heartbeat_s: u64,
    /// The user that restored servers run as, when the vault runs as root.
    pub run_as: String,
    /// Folders with PostgreSQL's programs, searched first.
    pub postgres_bin_dirs: Vec<PathBuf>,
}

impl Default for VaultConfig {
    fn default() -> Self {
        Self {
            repository: "repository".to_owned(),
            object_storage: ObjectStorageConfig::default(),
            drill_every_s: 900,
            point_every_s: 3600,
            point_every_mib: 1024,
            full_every_s: 7 * 24 * 3600,
            lock_for: LOCK_FOR,
            immutable: false,
            heartbeat_s: holdfast_vault::limits::HEARTBEAT.as_secs(),
            run_as: "postgres".to_owned(),
            postgres_bin_dirs: Vec::new(),
        }
    }
}

/// How the bucket of the repository is reached.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectStorageConfig {
    /// Where requests go; Amazon's endpoint of the region when it is absent.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// The name of the key.
    pub access_key_id: Option<SecretRef>,
    /// The key.
    pub secret_access_key: Option<SecretRef>,
    /// What temporary keys carry as well.
    pub session_token: Option<SecretRef>,
    /// The name of a key that may delete; `vault check-target` alone tries it.
    pub probe_access_key_id: Option<SecretRef>,
    /// That key.
    pub probe_secret_access_key: Option<SecretRef>,
    /// The name of a key that may delete; `vault expire` alone uses it.
    pub expire_access_key_id: Option<SecretRef>,
    /// That key.
    pub expire_secret_access_key: Option<SecretRef>,
    /// How the bucket is named in requests: `path` or `virtual-host`.
    pub addressing: Addressing,
    /// Permits requests without TLS to other machines.
    pub plain_http: bool,
    /// A certificate authority to trust instead of the system's, PEM.
    pub ca_file: Option<PathBuf>,
}

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
