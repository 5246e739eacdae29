//! Tablespaces that the log makes: replaying that empties their place first.
//!
//! Where the source runs on this machine, that place is its live data. PostgreSQL has no setting
//! against it, so such a replay is refused before a server is started.

use std::fs;
use std::io;
use std::path::Path;

use holdfast_core::Lsn;
use holdfast_wire::pg::wal::{Record, Rmgr, WalError};

/// The part of PostgreSQL that writes about tablespaces.
///
/// SOURCE: PostgreSQL 18, `access/rmgrlist.h`, `RM_TBLSPC_ID`
const TABLESPACES: Rmgr = Rmgr(5);
/// SOURCE: PostgreSQL 18, `commands/tablespace.h`, `XLOG_TBLSPC_CREATE`
const CREATE: u8 = 0x00;
/// The upper bits of a record's information say what it is.
const OPERATION: u8 = 0xF0;

/// A tablespace that replay would make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    /// Where its record begins.
    pub(super) record: Lsn,
    /// Where it lies on the source.
    pub(super) location: String,
}

/// Returns the location of the tablespace that this record makes, if it does.
///
/// # Source
/// PostgreSQL 18, `commands/tablespace.h`, `xl_tblspc_create_rec`: object id, then the path and NUL.
pub(crate) fn read(record: &Record<'_>) -> Result<Option<String>, WalError> {
    if record.rmgr != TABLESPACES || record.info & OPERATION != CREATE {
        return Ok(None);
    }
    let path = record.main_data()?.get(4..).unwrap_or_default();
    let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(path).into_owned()))
}

/// Returns the first of those that replay makes whose place on this machine it would empty.
pub(super) fn endangered(made: &[Made], major: u32) -> Option<&Made> {
    made.iter().find(|made| is_in_use(&made.location, major))
}

/// Tells whether a server of this major version keeps something there; doubt counts as yes.
fn is_in_use(location: &str, major: u32) -> bool {
    // Tablespaces inside the data directory have no location.
    if location.is_empty() {
        return false;
    }
    let prefix = format!("PG_{major}_");
    match fs::read_dir(Path::new(location)) {
        Ok(mut entries) => entries.any(|entry| {
            entry.map_or(true, |entry| {
                entry.file_name().to_string_lossy().starts_with(&prefix)
            })
        }),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_use_is_endangered() {
        let folder = tempfile::tempdir().unwrap();
        let made = [Made {
            record: Lsn(100),
            location: folder.path().display().to_string(),
        }];
        assert_eq!(endangered(&made, 18), None);
        fs::create_dir(folder.path().join("PG_18_202506291")).unwrap();
        assert_eq!(endangered(&made, 15), None);
        assert_eq!(endangered(&made, 18), made.first());
        let gone = folder.path().join("gone").display().to_string();
        assert!(!is_in_use(&gone, 18) && !is_in_use("", 18));
    }
}
