//! `global/pg_control`: what a cluster says of itself.

use std::fmt;

use holdfast_core::{Lsn, Timestamp};

/// Bytes of the file that are looked at; the rest of its 8 KiB is zeros.
pub const CONTROL_BYTES: usize = 512;

/// Where the version of the data checksums stands, in every version of the file.
const CHECKSUMS_AT: usize = 252;

/// What is read of a cluster's control file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// The cluster's identifier.
    pub system_identifier: u64,
    /// Pages have checksums.
    pub checksums: bool,
    /// Where recovery begins: that of the newest checkpoint, or of a standby's newest restartpoint.
    pub redo: Lsn,
    /// The timeline of that checkpoint.
    pub timeline: u32,
    /// When that checkpoint began, in whole seconds.
    pub checkpoint: Timestamp,
    /// A standby's files are not consistent before this position; zero otherwise.
    pub minimum: Lsn,
    /// Settings that a standby's must not be smaller than.
    pub needs: Needs,
}

/// Settings of a primary that a standby's must not be smaller than.
///
/// # Source
/// PostgreSQL 18, `access/transam/xlogrecovery.c`, `CheckRequiredParameterValues`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// `max_connections`
    pub connections: u32,
    /// `max_worker_processes`
    pub workers: u32,
    /// `max_wal_senders`
    pub senders: u32,
    /// `max_prepared_transactions`
    pub prepared: u32,
    /// `max_locks_per_transaction`
    pub locks: u32,
}

impl Needs {
    /// Returns them by their names.
    pub fn settings(&self) -> [(&'static str, u32); 5] {
        [
            ("max_connections", self.connections),
            ("max_worker_processes", self.workers),
            ("max_wal_senders", self.senders),
            ("max_prepared_transactions", self.prepared),
            ("max_locks_per_transaction", self.locks),
        ]
    }
}

/// Why bytes are not a control file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlError {
    /// It is cut off.
    Short,
    /// Its checksum is wrong: it was read while it was written, or is damaged.
    Torn,
    /// A version that is not known.
    Version(u32),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the control file is cut off"),
            Self::Torn => f.write_str("the control file does not match its checksum"),
            Self::Version(version) => {
                write!(f, "the control file has the unknown version {version}")
            }
        }
    }
}

impl std::error::Error for ControlError {}

impl ControlFile {
    /// Reads the front of the file and checks it.
    ///
    /// # Shape
    /// | offset | bytes | field |
    /// |---|---|---|
    /// | 0 | 8 | system identifier, little-endian |
    /// | 8 | 4 | version of the file: 1300, 1700 or 1800 |
    /// | 40 | 8 | where recovery from the newest checkpoint begins |
    /// | 48 | 4 | its timeline |
    /// | 104 | 8 | seconds from 1970 to its beginning |
    /// | 136 | 8 | position before which the files are not consistent |
    /// | 180 | 5 times 4 | settings that a standby needs |
    /// | 252 | 4 | version of the data checksums, 0 for none |
    /// | 288, from 1800 on 292 | 4 | CRC-32C of everything before |
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Source
    /// PostgreSQL 13 to 18, `catalog/pg_control.h`, `ControlFileData`
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        let word = |at: usize| {
            let field = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
            field
                .copied()
                .map(u32::from_le_bytes)
                .ok_or(ControlError::Short)
        };
        let sum_at = match word(8)? {
            1300 | 1700 => 288,
            1800 => 292,
            other => return Err(ControlError::Version(other)),
        };
        let covered = bytes.get(..sum_at).ok_or(ControlError::Short)?;
        if word(sum_at)? != crc32c::crc32c(covered) {
            return Err(ControlError::Torn);
        }
        let long =
            |at: usize| Ok(u64::from(word(at)?) | u64::from(word(at.saturating_add(4))?) << 32);
        Ok(Self {
            system_identifier: long(0)?,
            checksums: word(CHECKSUMS_AT)? != 0,
            redo: Lsn(long(40)?),
            timeline: word(48)?,
            checkpoint: Timestamp(long(104)?.cast_signed().saturating_mul(1_000_000)),
            minimum: Lsn(long(136)?),
            needs: Needs {
                connections: word(180)?,
                workers: word(184)?,
                senders: word(188)?,
                prepared: word(192)?,
                locks: word(196)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn control(version: u32, checksums: u32) -> Vec<u8> {
        let mut bytes = vec![7; 8192];
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        bytes[CHECKSUMS_AT..CHECKSUMS_AT + 4].copy_from_slice(&checksums.to_le_bytes());
        let sum_at = if version == 1800 { 292 } else { 288 };
        let sum = crc32c::crc32c(&bytes[..sum_at]);
        bytes[sum_at..sum_at + 4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    #[test]
    fn a_control_file_says_whether_pages_have_checksums() {
        for version in [1300, 1700, 1800] {
            for checksums in [0, 1] {
                let bytes = control(version, checksums);
                let expected = ControlFile {
                    system_identifier: 0x0707_0707_0707_0707,
                    checksums: checksums == 1,
                    redo: Lsn(0x0707_0707_0707_0707),
                    timeline: 0x0707_0707,
                    checkpoint: Timestamp(0x0707_0707_0707_0707_i64.saturating_mul(1_000_000)),
                    minimum: Lsn(0x0707_0707_0707_0707),
                    needs: Needs {
                        connections: 0x0707_0707,
                        workers: 0x0707_0707,
                        senders: 0x0707_0707,
                        prepared: 0x0707_0707,
                        locks: 0x0707_0707,
                    },
                };
                assert_eq!(ControlFile::parse(&bytes[..CONTROL_BYTES]), Ok(expected));
            }
        }
    }

    #[test]
    fn a_torn_or_cut_or_unknown_control_file_is_refused() {
        let good = control(1800, 1);
        for at in (0..8).chain(12..296) {
            let mut torn = good.clone();
            torn[at] ^= 1;
            assert_eq!(ControlFile::parse(&torn), Err(ControlError::Torn), "{at}");
        }
        assert_eq!(ControlFile::parse(&good[..295]), Err(ControlError::Short));
        assert_eq!(
            ControlFile::parse(&control(1201, 1)),
            Err(ControlError::Version(1201))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = ControlFile::parse(&bytes);
        }
    }
}
