//! A session in which the source is in backup mode: begin, what there is, reading, end.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use holdfast_core::Lsn;
use holdfast_wire::pg::replication::{row, server_message};
use tokio_util::sync::CancellationToken;

use super::IncrementalError;
use super::files;
use super::plan::{BLOCK, Listed, Listing};
use crate::capture::CaptureError;
use crate::limits;
use crate::repository::Tablespace;
use crate::source::{
    Connection, ConnectionUrl, Purpose, Reply, SourceError, from_reply, missing_rights,
};

const BEGIN: &str = "begin a backup";
const LIST: &str = "list the files of the source";
const READ: &str = "read files of the source";
const END: &str = "end a backup";

/// What a session needs and the source does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unable {
    /// The role may not log in to a database; what the server said.
    Login(String),
    /// The source is a standby.
    Recovery,
    /// These functions may not be executed.
    Rights(Vec<&'static str>),
}

impl fmt::Display for Unable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Login(said) => f.write_str(said),
            Self::Recovery => f.write_str("the source is a standby"),
            Self::Rights(functions) => {
                write!(f, "the role may not execute {}", functions.join(", "))
            }
        }
    }
}

/// What was learned of the source before the backup.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) system_identifier: u64,
    /// Blocks of a relation in one file.
    pub(super) segment_blocks: u32,
    /// Pages have checksums.
    pub(super) checksums: bool,
    /// Permissions of files; those of folders are the same with the right to enter.
    pub(super) file_mode: u32,
}

/// A part of a file that is to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    pub(super) path: &'a str,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// What the end of a backup says.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) stop_lsn: Lsn,
    pub(super) label: String,
    /// Empty without tablespaces.
    pub(super) map: String,
}

/// Whose files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The mirror's: a standby, with settings of its own.
    Mirror,
    /// The source's.
    Source,
}

/// A session in which a backup can be begun. Dropped, it ends the backup without a result.
pub(super) struct Session {
    connection: Connection,
    pub(super) shape: Shape,
    pub(super) whose: Whose,
}

impl Session {
    /// Connects for SQL and looks at the source; nothing is changed by that.
    pub(super) fn open(
        url: &ConnectionUrl,
        stop: &CancellationToken,
    ) -> Result<Result<Self, Unable>, CaptureError> {
        let mut connection = Connection::open_until(url, Purpose::Query, stop)?;
        let refused = missing_rights(&mut connection)?;
        if !refused.is_empty() {
            return Ok(Err(Unable::Rights(refused)));
        }
        connection.query(PATIENT, BEGIN)?;
        let facts = connection.query(FACTS, BEGIN)?;
        if facts.value("recovery") != Some("f") {
            return Ok(Err(Unable::Recovery));
        }
        let shape = shape(&facts)?;
        let whose = Whose::Source;
        Ok(Ok(Self {
            connection,
            shape,
            whose,
        }))
    }

    /// Begins with a connection to the mirror, whose superuser we are.
    pub(super) fn of_mirror(mut connection: Connection) -> Result<Self, CaptureError> {
        connection.query(PATIENT, BEGIN)?;
        let facts = connection.query(FACTS, BEGIN)?;
        if facts.value("recovery") != Some("t") {
            return Err(SourceError::nonsense(BEGIN, "the mirror does not follow").into());
        }
        Ok(Self {
            shape: shape(&facts)?,
            connection,
            whose: Whose::Mirror,
        })
    }

    /// Puts the source into backup mode and returns where replay must begin, and its timeline.
    pub(super) fn begin(&mut self) -> Result<(u32, Lsn), CaptureError> {
        let sql = if self.connection.major() >= 15 {
            "SELECT pg_backup_start('holdfast', true) AS lsn"
        } else {
            "SELECT pg_start_backup('holdfast', true, false) AS lsn"
        };
        // A checkpoint comes first.
        let reply = self
            .connection
            .query_within(sql, BEGIN, limits::BASE_SILENCE)?;
        let start = lsn(&reply, BEGIN)?;
        if self.whose == Whose::Mirror {
            // A standby begins at its newest restartpoint.
            let sql = "SELECT timeline_id FROM pg_control_checkpoint()";
            let reply = self.connection.query(sql, BEGIN)?;
            let timeline = reply.single().and_then(|text| text.parse().ok());
            let none = || SourceError::nonsense(BEGIN, "no timeline");
            return Ok((timeline.ok_or_else(none)?, start));
        }
        let sql = format!("SELECT pg_walfile_name('{start}') AS name");
        let reply = self.connection.query(&sql, BEGIN)?;
        let timeline = reply
            .value("name")
            .and_then(|name| u32::from_str_radix(name.get(..8)?, 16).ok())
            .ok_or_else(|| SourceError::nonsense(BEGIN, "no timeline"))?;
        Ok((timeline, start))
    }

    /// Returns the tablespaces besides the two that every cluster has.
    pub(super) fn tablespaces(&mut self) -> Result<Vec<Tablespace>, CaptureError> {
        let reply = self.connection.query(TABLESPACES, LIST)?;
        let rows = reply.rows().iter();
        let read = rows.filter_map(|row| match row.as_slice() {
            [Some(oid), Some(location)] => Some(Tablespace {
                oid: oid.parse().ok()?,
                location: location.clone(),
            }),
            _ => None,
        });
        Ok(read.collect())
    }

    /// Lists everything below the data directory that is copied.
    pub(super) fn list(&mut self) -> Result<Listing, CaptureError> {
        let major = self.connection.major();
        let sql = LISTING.replace("MAJOR", &major.to_string());
        let is_mirror = self.whose == Whose::Mirror;
        let mut listing = BTreeMap::new();
        self.rows(&sql, LIST, &mut |values| {
            let text = |at: usize| {
                let value: Option<&Option<Bytes>> = values.get(at);
                value?
                    .as_ref()
                    .and_then(|text| std::str::from_utf8(text).ok())
            };
            let bad = || SourceError::nonsense(LIST, "a file without a name or size");
            let path = text(0).ok_or_else(bad)?;
            let clean = holdfast_wire::pg::basebackup::relative_path(path.as_bytes())
                .map_err(|error| SourceError::nonsense(LIST, error))?;
            let is_own = is_mirror && files::is_of_mirror(&clean);
            if is_own || files::lies_in_emptied(&clean) {
                return Ok(());
            }
            let listed = if text(2) == Some("t") {
                Listed::Folder
            } else {
                let bytes = text(1).and_then(|text| text.parse().ok()).ok_or_else(bad)?;
                Listed::File { bytes }
            };
            listing.insert(clean, listed);
            if listing.len() > limits::SOURCE_FILES {
                return Err(SourceError::nonsense(LIST, "too many files").into());
            }
            Ok(())
        })?;
        Ok(listing)
    }

    /// Reads parts of files in order; `None` is what is no longer there.
    pub(super) fn read(
        &mut self,
        asked: &[Ask<'_>],
        each: &mut dyn FnMut(usize, Option<Bytes>) -> Result<(), CaptureError>,
    ) -> Result<(), CaptureError> {
        let list = |of: &dyn Fn(&Ask<'_>) -> String| {
            let items: Vec<String> = asked.iter().map(of).collect();
            format!("{{{}}}", items.join(","))
        };
        let parameters = [
            list(&|ask| format!("\"{}\"", ask.path.replace('"', "\\\""))),
            list(&|ask| ask.offset.to_string()),
            list(&|ask| ask.bytes.to_string()),
        ];
        let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
        self.connection.begin_binary(PARTS, &parameters, READ)?;
        let mut next = 0_usize;
        self.answers(READ, &mut |mut values| {
            let number = values
                .first()
                .and_then(|value| value.as_ref()?.first_chunk());
            let is_next = number.is_some_and(|number: &[u8; 4]| {
                u32::try_from(next) == Ok(u32::from_be_bytes(*number).wrapping_sub(1))
            });
            let (true, 2, Some(ask)) = (is_next, values.len(), asked.get(next)) else {
                return Err(SourceError::nonsense(READ, "another part than was asked for").into());
            };
            let bytes = values.pop().flatten();
            let length = bytes.as_ref().map_or(0, Bytes::len);
            if u64::try_from(length).map_or(true, |length| length > ask.bytes) {
                return Err(SourceError::nonsense(READ, "more than was asked for").into());
            }
            each(next, bytes)?;
            next = next.saturating_add(1);
            Ok(())
        })?;
        if next != asked.len() {
            return Err(SourceError::nonsense(READ, "fewer parts than were asked for").into());
        }
        Ok(())
    }

    /// Ends the backup.
    pub(super) fn end(mut self) -> Result<Ended, CaptureError> {
        let sql = if self.connection.major() >= 15 {
            "SELECT lsn, labelfile, spcmapfile FROM pg_backup_stop(false)"
        } else {
            "SELECT lsn, labelfile, spcmapfile FROM pg_stop_backup(false, false)"
        };
        let reply = self
            .connection
            .query_within(sql, END, limits::BASE_SILENCE)?;
        let text = |name| reply.value(name).unwrap_or_default().to_owned();
        let label = text("labelfile");
        if label.is_empty() {
            return Err(SourceError::nonsense(END, "no label").into());
        }
        Ok(Ended {
            stop_lsn: lsn(&reply, END)?,
            label,
            map: text("spcmapfile"),
        })
    }

    /// Runs a statement whose rows are too many to be held.
    fn rows(
        &mut self,
        sql: &str,
        step: &'static str,
        each: &mut dyn FnMut(Vec<Option<Bytes>>) -> Result<(), CaptureError>,
    ) -> Result<(), CaptureError> {
        self.connection.begin(sql, step)?;
        self.answers(step, each)
    }

    fn answers(
        &mut self,
        step: &'static str,
        each: &mut dyn FnMut(Vec<Option<Bytes>>) -> Result<(), CaptureError>,
    ) -> Result<(), CaptureError> {
        loop {
            let frame = self.connection.next(limits::BASE_SILENCE, step)?;
            match frame.tag {
                b'D' => each(row(&frame.body).map_err(from_reply(step))?)?,
                b'E' => {
                    return Err(SourceError::Refused {
                        step,
                        source: Box::new(server_message(&frame.body)),
                    }
                    .into());
                }
                b'Z' => return Ok(()),
                b'1' | b'2' | b'A' | b'C' | b'N' | b'S' | b'T' => {}
                other => return Err(SourceError::nonsense(step, format!("message {other}")).into()),
            }
        }
    }
}

fn shape(facts: &Reply) -> Result<Shape, CaptureError> {
    let number = |name: &'static str| -> Result<u64, SourceError> {
        let value = facts.value(name).and_then(|text| text.parse().ok());
        value.ok_or_else(|| SourceError::nonsense(BEGIN, format!("no {name}")))
    };
    let block = number("block")?;
    if block != BLOCK {
        return Err(IncrementalError::Shape { block }.into());
    }
    let mode = facts.value("mode").unwrap_or_default();
    Ok(Shape {
        system_identifier: number("system")?,
        segment_blocks: u32::try_from(number("segment")?)
            .ok()
            .filter(|blocks| *blocks > 0)
            .ok_or_else(|| SourceError::nonsense(BEGIN, "no size of segments"))?,
        checksums: facts.value("checksums") == Some("on"),
        file_mode: if mode == "0750" { 0o640 } else { 0o600 },
    })
}

fn lsn(reply: &Reply, step: &'static str) -> Result<Lsn, SourceError> {
    reply
        .value("lsn")
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| SourceError::nonsense(step, "no position"))
}

/// Lets nothing of the role's or the database's settings end the backup.
const PATIENT: &str = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN \
    ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', \
    'idle_session_timeout', 'transaction_timeout')";

const FACTS: &str = "SELECT pg_is_in_recovery() AS recovery, \
    (SELECT system_identifier FROM pg_control_system()) AS system, \
    current_setting('block_size') AS block, \
    (SELECT setting FROM pg_settings WHERE name = 'segment_size') AS segment, \
    current_setting('data_directory_mode') AS mode, \
    current_setting('data_checksums') AS checksums";

const TABLESPACES: &str = "SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace \
    WHERE oid NOT IN (1663, 1664)";

/// Of a tablespace only the folder of this version is looked at.
const LISTING: &str = "WITH RECURSIVE t (path, size, isdir) AS ( \
    SELECT n.name, s.size, s.isdir FROM pg_ls_dir('.', true, false) AS n(name) \
        CROSS JOIN LATERAL pg_stat_file(n.name, true) AS s \
    UNION ALL \
    SELECT t.path || '/' || n.name, s.size, s.isdir FROM t \
        CROSS JOIN LATERAL pg_ls_dir(t.path, true, false) AS n(name) \
        CROSS JOIN LATERAL pg_stat_file(t.path || '/' || n.name, true) AS s \
        WHERE t.isdir AND t.path NOT IN ('pg_wal', 'pg_replslot', 'pg_subtrans') \
        AND (t.path !~ '^pg_tblspc/[0-9]+$' OR n.name LIKE 'PG\\_MAJOR\\_%') \
    ) SELECT path, size, isdir FROM t WHERE size IS NOT NULL";

const PARTS: &str = "SELECT n::int4, pg_read_binary_file(path, start, length, true) \
    FROM unnest($1::text[], $2::int8[], $3::int8[]) WITH ORDINALITY AS a(path, start, length, n)";
