//! Which moment to bring back, as people write it.

use std::fmt;
use std::str::FromStr;

use holdfast_core::{ActionId, Lsn, Timestamp};

use super::RestoreError;

/// Which moment to bring back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreTarget {
    /// Just before what an action destroyed; known from the log itself.
    Before(ActionId),
    /// Just before the record that begins at this position.
    BeforeLsn(Lsn),
    /// Everything that is kept.
    Latest,
    /// Everything up to and including the record at this position.
    Lsn(Lsn),
    /// Everything up to the point that somebody named with `pg_create_restore_point`.
    Name(String),
    /// Every commit up to and including this time.
    Time(Timestamp),
    /// Everything up to and including the end of this transaction; its upper half is not looked at.
    Xid(u64),
}

/// The longest name that PostgreSQL gives a point, in bytes.
///
/// SOURCE: PostgreSQL 18, `access/xlog.h`, `MAXFNAMELEN`, less its zero
const NAME_BYTES_MAX: usize = 63;

impl fmt::Display for RestoreTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before(action) => write!(f, "before:{action}"),
            Self::BeforeLsn(lsn) => write!(f, "before:{lsn}"),
            Self::Latest => f.write_str("latest"),
            Self::Lsn(lsn) => write!(f, "{lsn}"),
            Self::Name(name) => write!(f, "name:{name}"),
            Self::Time(time) => write!(f, "{time}"),
            Self::Xid(xid) => write!(f, "xid:{xid}"),
        }
    }
}

impl FromStr for RestoreTarget {
    type Err = RestoreError;

    /// Reads `latest`, a time, a position, `xid:N`, `name:NAME`, `before:ACTION` or `before:POSITION`.
    fn from_str(text: &str) -> Result<Self, RestoreError> {
        let refused = |why: &str| RestoreError::target(text.chars().take(80).collect(), why, []);
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Some(what) = text.strip_prefix("before:") {
            if let Ok(lsn) = what.parse() {
                return Ok(Self::BeforeLsn(lsn));
            }
            let action = what.parse().map(Self::Before);
            return action.map_err(|_| {
                refused("what follows `before:` is neither an action nor a position")
            });
        }
        if let Some(number) = text.strip_prefix("xid:") {
            let xid = number.parse().ok().filter(|xid: &u64| *xid >= FIRST_XID);
            return xid
                .map(Self::Xid)
                .ok_or_else(|| refused("what follows `xid:` is not the number of a transaction"));
        }
        if let Some(name) = text.strip_prefix("name:") {
            if name.is_empty() || name.len() > NAME_BYTES_MAX {
                return Err(refused("PostgreSQL gives names of 1 to 63 bytes"));
            }
            return Ok(Self::Name(name.to_owned()));
        }
        if let Ok(lsn) = text.parse() {
            return Ok(Self::Lsn(lsn));
        }
        text.parse().map(Self::Time).map_err(|_| {
            refused(
                "it is neither `latest`, a time, a position, `xid:N`, `name:NAME` nor `before:ACTION`",
            )
        })
    }
}

/// The first number that a transaction of a user can have.
///
/// SOURCE: PostgreSQL 18, `access/transam.h`, `FirstNormalTransactionId`
const FIRST_XID: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_they_are_written_and_others_are_refused() {
        for text in [
            "latest",
            "0/16B3740",
            "before:0/16B3740",
            "xid:731",
            "xid:4294968027",
            "name:before the migration",
            "name:before:0/1",
        ] {
            let target: RestoreTarget = text.parse().unwrap();
            assert_eq!(target.to_string(), text);
        }
        let long = format!("name:{}", "x".repeat(64));
        for text in [
            "",
            "lates",
            "xid:",
            "xid:0",
            "xid:2",
            "xid:-1",
            "xid:1.5",
            "name:",
            &long,
            "before:",
            "before:x y",
            "731",
        ] {
            assert!(text.parse::<RestoreTarget>().is_err(), "{text}");
        }
    }
}
