//! Small state that changes: leases, holds, custody, sources. JSON documents in SQLite.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use holdfast_core::{Code, Coded};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::{RECORD_BUSY_WAIT, RECORD_BYTES_MAX};

/// `HFRC`: how SQLite's header marks our file.
const APPLICATION_ID: i64 = 0x4846_5243;
const VERSION: i64 = 1;

/// A kind of document.
pub trait Record: Serialize + DeserializeOwned {
    /// The kind's name, such as `lease`.
    const KIND: &'static str;
}

/// How often a document was written; a writer states which version it read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(i64);

/// Why a document cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// There is one with this id already.
    #[error("{kind} `{id}` exists already")]
    Exists {
        /// Its kind.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// Somebody else wrote it since it was read, or it does not exist.
    #[error("{kind} `{id}` was changed by somebody else")]
    Conflict {
        /// Its kind.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// The document is not what this version writes.
    #[error("{kind} `{id}` is not readable")]
    Malformed {
        /// Its kind.
        kind: &'static str,
        /// Its id.
        id: String,
        /// What JSON said.
        source: serde_json::Error,
    },
    /// The document is larger than may be kept.
    #[error("{kind} `{id}` has {bytes} bytes, more than may be kept")]
    TooLong {
        /// Its kind.
        kind: &'static str,
        /// Its id.
        id: String,
        /// Its length.
        bytes: usize,
    },
    /// Not our file, or one of a newer version.
    #[error("`{}` is not a state file of version 1", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
    },
    /// SQLite failed.
    #[error("cannot use the state file `{}`", path.display())]
    Sqlite {
        /// Which file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl Coded for RecordError {
    fn code(&self) -> Code {
        match self {
            Self::Exists { .. } | Self::Conflict { .. } | Self::TooLong { .. } => Code::ZU203,
            Self::Foreign { .. } => Code::ZU202,
            Self::Malformed { .. } => Code::ZI201,
            Self::Sqlite { .. } => Code::ZS202,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Exists { .. } => "choose another name".to_owned(),
            Self::Conflict { .. } => "look at it again and repeat".to_owned(),
            Self::TooLong { .. } => "make it shorter".to_owned(),
            Self::Foreign { .. } => {
                "name the folder that `holdfast init` made, or update holdfast".to_owned()
            }
            Self::Malformed { .. } => "put the state file back from a copy".to_owned(),
            Self::Sqlite { .. } => {
                "free space or mend the disk; until then agents are refused".to_owned()
            }
        })
    }
}

/// The open state file. Clones share one connection.
#[derive(Clone)]
pub struct Records {
    path: Arc<PathBuf>,
    connection: Arc<Mutex<Connection>>,
}

impl Records {
    /// Opens the state file, or makes one.
    ///
    /// # Errors
    /// [`RecordError::Foreign`] for a file of something else, [`RecordError::Sqlite`] otherwise.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let failed = |source| RecordError::Sqlite {
            path: path.to_owned(),
            source,
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(RECORD_BUSY_WAIT).map_err(failed)?;
        let number = |pragma: &str| -> Result<i64, rusqlite::Error> {
            connection.pragma_query_value(None, pragma, |row| row.get(0))
        };
        let foreign = |error: rusqlite::Error| match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => RecordError::Foreign {
                path: path.to_owned(),
            },
            _ => failed(error),
        };
        let (application, version) = (
            number("application_id").map_err(foreign)?,
            number("user_version").map_err(failed)?,
        );
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(failed)?;
        match (application, version, tables) {
            (0, 0, 0) => connection.execute_batch(SCHEMA).map_err(failed)?,
            (APPLICATION_ID, VERSION, _) => {}
            _ => {
                return Err(RecordError::Foreign {
                    path: path.to_owned(),
                });
            }
        }
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
            .map_err(failed)?;
        restrict(path)
            .map_err(|error| failed(rusqlite::Error::ToSqlConversionFailure(error.into())))?;
        Ok(Self {
            path: Arc::new(path.to_owned()),
            connection: Arc::new(Mutex::new(connection)),
        })
    }

    /// Adds a document. It is durable when this returns.
    ///
    /// # Errors
    /// [`RecordError::Exists`] when there is one with this id.
    pub fn insert<R: Record>(&self, id: &str, record: &R) -> Result<(), RecordError> {
        let json = encode(id, record)?;
        let inserted = self.lock().execute(
            "INSERT INTO record (kind, id, version, json) VALUES (?1, ?2, 1, ?3)",
            params![R::KIND, id, json],
        );
        match inserted {
            Ok(_) => Ok(()),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                Err(RecordError::Exists {
                    kind: R::KIND,
                    id: id.to_owned(),
                })
            }
            Err(source) => Err(self.failed(source)),
        }
    }

    /// Replaces a document that was read as `version`. It is durable when this returns.
    ///
    /// # Errors
    /// [`RecordError::Conflict`] when somebody else wrote it since.
    pub fn replace<R: Record>(
        &self,
        id: &str,
        version: Version,
        record: &R,
    ) -> Result<(), RecordError> {
        let json = encode(id, record)?;
        let changed = self
            .lock()
            .execute(
                "UPDATE record SET version = version + 1, json = ?4
                 WHERE kind = ?1 AND id = ?2 AND version = ?3",
                params![R::KIND, id, version.0, json],
            )
            .map_err(|source| self.failed(source))?;
        if changed == 1 {
            Ok(())
        } else {
            Err(RecordError::Conflict {
                kind: R::KIND,
                id: id.to_owned(),
            })
        }
    }

    /// Reads a document, or `None` when there is none.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn find<R: Record>(&self, id: &str) -> Result<Option<(R, Version)>, RecordError> {
        let row: Option<(String, i64)> = self
            .lock()
            .query_row(
                "SELECT json, version FROM record WHERE kind = ?1 AND id = ?2",
                params![R::KIND, id],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()
            .map_err(|source| self.failed(source))?;
        row.map(|(json, version)| Ok((decode(id, &json)?, Version(version))))
            .transpose()
    }

    /// Reads all documents of a kind, by id.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn list<R: Record>(&self) -> Result<Vec<(R, Version)>, RecordError> {
        let connection = self.lock();
        let failed = |source| self.failed(source);
        let mut statement = connection
            .prepare_cached("SELECT id, json, version FROM record WHERE kind = ?1 ORDER BY id")
            .map_err(failed)?;
        let rows = statement
            .query_map([R::KIND], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, i64>(2)?,
                ))
            })
            .map_err(failed)?;
        let mut records = Vec::new();
        for row in rows {
            let (id, json, version) = row.map_err(failed)?;
            records.push((decode(&id, &json)?, Version(version)));
        }
        Ok(records)
    }

    fn failed(&self, source: rusqlite::Error) -> RecordError {
        RecordError::Sqlite {
            path: self.path.as_ref().clone(),
            source,
        }
    }

    /// A panic while the lock was held cannot leave half a transaction: each call is one statement.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

const SCHEMA: &str = "
BEGIN;
PRAGMA application_id = 1212568131;
PRAGMA user_version = 1;
CREATE TABLE record (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
COMMIT;
";

fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

fn encode<R: Record>(id: &str, record: &R) -> Result<String, RecordError> {
    let kind = R::KIND;
    let json = serde_json::to_string(record).map_err(|source| RecordError::Malformed {
        kind,
        id: id.to_owned(),
        source,
    })?;
    if json.len() > RECORD_BYTES_MAX {
        return Err(RecordError::TooLong {
            kind,
            id: id.to_owned(),
            bytes: json.len(),
        });
    }
    Ok(json)
}

fn decode<R: Record>(id: &str, json: &str) -> Result<R, RecordError> {
    serde_json::from_str(json).map_err(|source| RecordError::Malformed {
        kind: R::KIND,
        id: id.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note {
        text: String,
    }

    impl Record for Note {
        const KIND: &'static str = "note";
    }

    fn note(text: &str) -> Note {
        Note {
            text: text.to_owned(),
        }
    }

    #[test]
    fn documents_survive_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        Records::open(&path)
            .unwrap()
            .insert("a", &note("one"))
            .unwrap();
        let records = Records::open(&path).unwrap();
        assert_eq!(records.find::<Note>("a").unwrap().unwrap().0, note("one"));
        assert_eq!(records.find::<Note>("b").unwrap(), None);
        assert_eq!(records.list::<Note>().unwrap().len(), 1);
    }

    #[test]
    fn the_slower_of_two_writers_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let (one, two) = (Records::open(&path).unwrap(), Records::open(&path).unwrap());
        one.insert("a", &note("first")).unwrap();
        assert!(matches!(
            two.insert("a", &note("again")),
            Err(RecordError::Exists { .. })
        ));
        let (_, read_by_one) = one.find::<Note>("a").unwrap().unwrap();
        let (_, read_by_two) = two.find::<Note>("a").unwrap().unwrap();
        two.replace("a", read_by_two, &note("two")).unwrap();
        let late = one.replace("a", read_by_one, &note("one"));
        assert!(matches!(late, Err(RecordError::Conflict { .. })));
        assert_eq!(one.find::<Note>("a").unwrap().unwrap().0, note("two"));
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text");
        std::fs::write(
            &text,
            "not a database at all, but long enough to be looked at",
        )
        .unwrap();
        assert!(matches!(
            Records::open(&text).map(|_| ()),
            Err(RecordError::Foreign { .. })
        ));
        let other = folder.path().join("other.db");
        Connection::open(&other)
            .unwrap()
            .execute_batch("CREATE TABLE t (a)")
            .unwrap();
        assert!(matches!(
            Records::open(&other).map(|_| ()),
            Err(RecordError::Foreign { .. })
        ));
    }
}
