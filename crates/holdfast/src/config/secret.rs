//! Secrets by reference: they never stand in the file itself.

use std::path::{Path, PathBuf};

use holdfast_core::Secret;
use serde::Deserialize;

use super::ConfigError;

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
