//! A source that was recovered: which server has taken its place.
//!
//! The note lies with the source's spool. It says which connection string it replaces, so that it ends
//! by itself as soon as the configuration names another server.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use holdfast_core::{Code, Coded, Digest, SourceName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::source::{ConnectionUrl, SslMode};

/// The note's name in the folder of a source's spool.
const NOTE: &str = "moved.json";

/// The server that took a source's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    /// Always of this machine.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its data directory.
    pub directory: PathBuf,
    /// When.
    pub at: Timestamp,
    /// Digest of the server's address and database that it replaces.
    replaces: String,
}

/// Why the note about a recovered server cannot be kept or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} the note `{}` about the recovered server", path.display())]
pub struct MovedError {
    /// What was attempted.
    step: &'static str,
    /// Which file.
    path: PathBuf,
    /// What the system said.
    source: io::Error,
}

impl Coded for MovedError {
    fn code(&self) -> Code {
        Code::ZS304
    }

    fn hint(&self) -> Option<String> {
        Some("the recovered server runs; name its address in the source's connection string, and the vault goes on with it".to_owned())
    }
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Moved {
    /// Says that a server of this machine is the source from now on.
    pub fn new(configured: &ConnectionUrl, port: u16, directory: PathBuf, at: Timestamp) -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port,
            directory,
            at,
            replaces: address(configured),
        }
    }

    /// Returns how it is reached: as the configured server, at another address.
    pub fn url(&self, configured: &ConnectionUrl) -> ConnectionUrl {
        ConnectionUrl {
            host: self.host.clone(),
            port: self.port,
            // It listens on the loopback alone and has no certificate.
            ssl: SslMode::Disable,
            root_certificate: None,
            ..configured.clone()
        }
    }

    /// Keeps the note below a vault's state directory.
    ///
    /// # Errors
    /// [`MovedError`] when it cannot be written.
    pub fn keep(&self, state: &Path, source: &SourceName) -> Result<(), MovedError> {
        let path = path(state, source);
        let failed = |step| {
            let path = path.clone();
            move |source| MovedError { step, path, source }
        };
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| failed("write")(io::Error::other(error)))?;
        if let Some(folder) = path.parent() {
            holdfast_store::durable::make_folder(folder).map_err(failed("make a folder for"))?;
        }
        replace(&path, &text).map_err(failed("write"))
    }

    /// Reads the note, if there is one that replaces the configured server.
    pub fn read(state: &Path, source: &SourceName, configured: &ConnectionUrl) -> Option<Self> {
        let text = fs::read(path(state, source)).ok()?;
        let moved: Self = serde_json::from_slice(&text).ok()?;
        (moved.replaces == address(configured)).then_some(moved)
    }
}

/// Writes a file beside the old one and gives it the old one's name when it is durable.
pub(crate) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(folder) => holdfast_store::durable::sync_folder(folder),
        None => Ok(()),
    }
}

fn path(state: &Path, source: &SourceName) -> PathBuf {
    state.join("spool").join(source.as_str()).join(NOTE)
}

/// No password is part of it.
fn address(url: &ConnectionUrl) -> String {
    let text = format!("{}\n{}\n{}", url.host, url.port, url.database);
    Digest::of(text.as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_holds_as_long_as_the_configuration_names_the_server_that_it_replaces() {
        let state = tempfile::tempdir().unwrap();
        let source: SourceName = "prod".parse().unwrap();
        let url: ConnectionUrl = "postgresql://v:secret@db:5432/shop".parse().unwrap();
        assert_eq!(Moved::read(state.path(), &source, &url), None);
        let moved = Moved::new(&url, 6001, PathBuf::from("/new"), Timestamp(1));
        moved.keep(state.path(), &source).unwrap();
        let read = Moved::read(state.path(), &source, &url).unwrap();
        assert_eq!(read, moved);
        assert_eq!(read.url(&url).address(), "127.0.0.1:6001");
        assert_eq!(read.url(&url).user, "v");
        let text = fs::read_to_string(path(state.path(), &source)).unwrap();
        assert!(!text.contains("secret"));
        let other: ConnectionUrl = "postgresql://v:secret@new-db:5432/shop".parse().unwrap();
        assert_eq!(Moved::read(state.path(), &source, &other), None);
    }
}
