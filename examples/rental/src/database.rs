//! Where the database is, and one connection to it.
//!
//! A URL holds a password, so it is never shown: what is printed of it is host, port and database.

use std::fmt;
use std::path::{Path, PathBuf};

use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};

use crate::limits::{LIMIT_CONNECT, LIMIT_URL_FILE_BYTES};

/// Where the URL of the database comes from.
#[derive(Debug, Clone)]
pub enum UrlSource {
    /// A file that holds the URL; it is read again before every use, so that a database that came
    /// back elsewhere is found.
    File(PathBuf),
    /// The URL itself.
    Fixed(DatabaseUrl),
}

/// A parsed connection URL; its text, which holds the password, is never shown.
#[derive(Clone)]
pub struct DatabaseUrl {
    text: String,
    config: Box<Config>,
}

/// One open connection; dropping it closes the socket.
#[derive(Debug)]
pub struct Connection {
    /// The client side of the connection.
    pub client: Client,
    /// What the connection was opened with.
    pub url: DatabaseUrl,
    driver: AbortHandle,
}

/// Why there is no connection; nothing was asked of the database.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server did not answer in time.
    #[error("the database at {place} did not answer in time; check that it runs")]
    Late {
        /// Host, port and database.
        place: String,
    },
    /// The server refused the connection, or there is none.
    #[error(
        "cannot connect to the database at {place}; check that it runs and that the URL is right"
    )]
    Refused {
        /// Host, port and database.
        place: String,
        /// What the client library says.
        source: tokio_postgres::Error,
    },
    /// There is no usable URL.
    #[error(transparent)]
    Url(#[from] UrlError),
}

/// Why there is no usable URL of a database.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// The text is not a connection URL; it is not repeated, as it may hold a password.
    #[error(
        "the database URL is not usable: {reason}; it looks like postgresql://user:password@host:5432/name"
    )]
    Malformed {
        /// What is wrong, without the text.
        reason: String,
    },
    /// The file could not be read.
    #[error("cannot read the database URL file {path}; write the URL into it, on one line")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
}

impl UrlSource {
    /// The URL as it is now.
    ///
    /// # Errors
    /// `UrlError::Unreadable` and `UrlError::Malformed`, also for an empty file.
    pub async fn read(&self) -> Result<DatabaseUrl, UrlError> {
        match self {
            Self::File(path) => DatabaseUrl::parse(read_url_file(path).await?.trim()),
            Self::Fixed(url) => Ok(url.clone()),
        }
    }
}

impl DatabaseUrl {
    /// Parses a `postgresql://` URL or a `key=value` connection string.
    ///
    /// # Errors
    /// `UrlError::Malformed`, which does not repeat the text.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let malformed = |reason: &str| UrlError::Malformed {
            reason: reason.to_owned(),
        };
        if text.is_empty() {
            return Err(malformed("it is empty"));
        }
        // The library's own message may quote the text, and with it a password.
        let mut config: Config = text
            .parse()
            .map_err(|_| malformed("it is not a PostgreSQL connection URL"))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(malformed("it names no host"));
        }
        if config.get_application_name().is_none() {
            config.application_name("rental");
        }
        config.connect_timeout(LIMIT_CONNECT);
        Ok(Self {
            text: text.to_owned(),
            config: Box::new(config),
        })
    }

    /// Host, port and database, for people.
    pub fn place(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => self
                .config
                .get_hostaddrs()
                .first()
                .map(ToString::to_string)
                .unwrap_or_default(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let user = self.config.get_user().unwrap_or("postgres");
        let database = self.config.get_dbname().unwrap_or(user);
        format!("{host}:{port}/{database}")
    }

    /// Opens a connection, at the latest by `deadline`.
    ///
    /// # Errors
    /// `ConnectError::Late` and `ConnectError::Refused`.
    pub async fn connect(&self, deadline: Instant) -> Result<Connection, ConnectError> {
        let deadline = deadline.min(Instant::now() + LIMIT_CONNECT);
        let place = || self.place();
        let (client, connection) = timeout_at(deadline, self.config.connect(NoTls))
            .await
            .map_err(|_elapsed| ConnectError::Late { place: place() })?
            .map_err(|source| ConnectError::Refused {
                place: place(),
                source,
            })?;
        let driver = tokio::spawn(async move {
            // The client sees the same error at its next use.
            let _ended = connection.await;
        });
        Ok(Connection {
            client,
            url: self.clone(),
            driver: driver.abort_handle(),
        })
    }
}

impl PartialEq for DatabaseUrl {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DatabaseUrl").field(&self.place()).finish()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn read_url_file(path: &Path) -> Result<String, UrlError> {
    let unreadable = |source| UrlError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let length = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
    if length > LIMIT_URL_FILE_BYTES {
        let reason = format!("the file is longer than {LIMIT_URL_FILE_BYTES} bytes");
        return Err(UrlError::Malformed { reason });
    }
    tokio::fs::read_to_string(path).await.map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::{DatabaseUrl, UrlSource};

    #[test]
    fn a_password_is_never_shown() {
        let url = DatabaseUrl::parse("postgresql://ann:hunter2@db.example:5433/rental").unwrap();
        assert_eq!(url.place(), "db.example:5433/rental");
        assert!(!format!("{url:?}").contains("hunter2"));
        for bad in [
            "postgresql://ann:hunter2@db:port/x",
            "hunter2",
            "postgresql:///hunter2",
        ] {
            let said = DatabaseUrl::parse(bad).unwrap_err();
            assert!(!format!("{said} {said:?}").contains("hunter2"), "{said:?}");
        }
    }

    #[test]
    fn an_empty_url_and_one_without_host_are_refused() {
        for bad in ["", "user=ann", "postgresql://"] {
            let said = DatabaseUrl::parse(bad).unwrap_err().to_string();
            assert!(said.contains("postgresql://user:password@host"), "{said}");
        }
    }

    #[tokio::test]
    async fn the_file_is_read_at_every_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("url");
        let source = UrlSource::File(path.clone());
        assert!(
            source
                .read()
                .await
                .unwrap_err()
                .to_string()
                .contains("cannot read")
        );
        std::fs::write(&path, "postgresql://a@one:1/x\n").unwrap();
        assert_eq!(source.read().await.unwrap().place(), "one:1/x");
        std::fs::write(&path, "postgresql://a@two:2/x\n").unwrap();
        assert_eq!(source.read().await.unwrap().place(), "two:2/x");
    }
}
