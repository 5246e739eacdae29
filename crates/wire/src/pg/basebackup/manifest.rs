//! The backup manifest: what files a base backup has, with sizes and checksums.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER_PERMISSIVE;
use holdfast_core::{ByteCount, Lsn, Untrusted};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::path::{PathError, relative_path};

/// The largest manifest that is read, in bytes; one file takes about 150.
const LIMIT_MANIFEST_BYTES: usize = 1 << 30;

/// A file's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// CRC-32C.
    Crc32c(u32),
    /// The server made none.
    None,
    /// SHA-256.
    Sha256([u8; 32]),
}

/// One file of a base backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// Its size.
    pub size: ByteCount,
    /// Its checksum.
    pub sum: Sum,
}

/// The write-ahead log without which a base backup is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalRange {
    /// On which timeline.
    pub timeline: u32,
    /// From here.
    pub start: Lsn,
    /// To here.
    pub end: Lsn,
}

/// A backup manifest whose own checksum is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupManifest {
    /// PostgreSQL's system identifier; manifests of version 1 (before PostgreSQL 17) have none.
    pub system_identifier: Option<u64>,
    /// Files by path relative to the data directory; tablespaces lie below `pg_tblspc/<oid>/`.
    pub files: BTreeMap<String, ManifestFile>,
    /// The log that belongs to it, newest timeline first or last as the server listed it.
    pub wal: Vec<WalRange>,
}

/// Why bytes are not a backup manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Its own checksum is wrong or missing.
    #[error("the backup manifest does not match its own checksum")]
    Checksum,
    /// A file is listed twice.
    #[error("the backup manifest lists `{}` twice", Untrusted(.0))]
    Double(String),
    /// Not JSON of this shape.
    #[error("the backup manifest is not readable")]
    Json(#[from] serde_json::Error),
    /// A value that cannot be.
    #[error("the backup manifest has an impossible {what}")]
    Malformed {
        /// Which value.
        what: &'static str,
    },
    /// A path is refused.
    #[error("the backup manifest names a path that is refused")]
    Path(#[from] PathError),
    /// Larger than what is read.
    #[error("the backup manifest has {0} bytes")]
    TooLarge(usize),
    /// Of another version.
    #[error("the backup manifest has version {0}, and 1 and 2 are known")]
    Version(u32),
}

impl BackupManifest {
    /// Reads a manifest and checks its own checksum.
    ///
    /// # Shape
    /// JSON; the last line holds the SHA-256 of everything before it.
    ///
    /// # Errors
    /// [`ManifestError`].
    ///
    /// # Source
    /// <https://www.postgresql.org/docs/18/backup-manifest-format.html>
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > LIMIT_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        check_own_sum(bytes)?;
        let raw: RawManifest = serde_json::from_slice(bytes)?;
        if !matches!(raw.version, 1 | 2) {
            return Err(ManifestError::Version(raw.version));
        }
        let mut files = BTreeMap::new();
        for file in raw.files {
            let path = file.path()?;
            let entry = ManifestFile {
                size: ByteCount(file.size),
                sum: file.sum()?,
            };
            if files.insert(path.clone(), entry).is_some() {
                return Err(ManifestError::Double(path));
            }
        }
        let wal = raw
            .wal
            .into_iter()
            .map(|range| WalRange {
                timeline: range.timeline,
                start: range.start,
                end: range.end,
            })
            .collect();
        Ok(Self {
            system_identifier: raw.system_identifier,
            files,
            wal,
        })
    }
}

#[derive(Deserialize)]
struct RawManifest {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u32,
    #[serde(rename = "System-Identifier")]
    system_identifier: Option<u64>,
    #[serde(rename = "Files")]
    files: Vec<RawFile>,
    #[serde(rename = "WAL-Ranges")]
    wal: Vec<RawRange>,
}

#[derive(Deserialize)]
struct RawFile {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

#[derive(Deserialize)]
struct RawRange {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: Lsn,
    #[serde(rename = "End-LSN")]
    end: Lsn,
}

impl RawFile {
    fn path(&self) -> Result<String, ManifestError> {
        let path = match (&self.path, &self.encoded_path) {
            (Some(path), None) => relative_path(path.as_bytes())?,
            (None, Some(hex)) => relative_path(&decode(hex, "path")?)?,
            _ => return Err(ManifestError::Malformed { what: "path" }),
        };
        if path.is_empty() {
            return Err(ManifestError::Malformed { what: "path" });
        }
        Ok(path)
    }

    fn sum(&self) -> Result<Sum, ManifestError> {
        let bad = || ManifestError::Malformed { what: "checksum" };
        match (self.algorithm.as_deref(), self.checksum.as_deref()) {
            (None, None) => Ok(Sum::None),
            (Some("SHA256"), Some(hex)) => {
                let bytes = decode(hex, "checksum")?;
                Ok(Sum::Sha256(bytes.try_into().map_err(|_| bad())?))
            }
            // PostgreSQL writes the four bytes in the machine's order; every machine of ours and
            // nearly every server is little-endian.
            (Some("CRC32C"), Some(hex)) => {
                let bytes = decode(hex, "checksum")?;
                let bytes = bytes.try_into().map_err(|_| bad())?;
                Ok(Sum::Crc32c(u32::from_le_bytes(bytes)))
            }
            _ => Err(bad()),
        }
    }
}

fn decode(hex: &str, what: &'static str) -> Result<Vec<u8>, ManifestError> {
    HEXLOWER_PERMISSIVE
        .decode(hex.as_bytes())
        .map_err(|_| ManifestError::Malformed { what })
}

fn check_own_sum(bytes: &[u8]) -> Result<(), ManifestError> {
    let body = bytes.strip_suffix(b"\n").ok_or(ManifestError::Checksum)?;
    let start = body
        .iter()
        .rposition(|byte| *byte == b'\n')
        .and_then(|at| at.checked_add(1))
        .ok_or(ManifestError::Checksum)?;
    let (before, last) = bytes
        .split_at_checked(start)
        .ok_or(ManifestError::Checksum)?;
    let stated = last
        .strip_prefix(b"\"Manifest-Checksum\": \"")
        .and_then(|rest| rest.strip_suffix(b"\"}\n"))
        .and_then(|hex| HEXLOWER_PERMISSIVE.decode(hex).ok())
        .ok_or(ManifestError::Checksum)?;
    if stated == Sha256::digest(before).as_slice() {
        Ok(())
    } else {
        Err(ManifestError::Checksum)
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    fn signed(body: &str) -> Vec<u8> {
        let sum = HEXLOWER.encode(&Sha256::digest(body.as_bytes()));
        format!("{body}\"Manifest-Checksum\": \"{sum}\"}}\n").into_bytes()
    }

    fn with_files(files: &str) -> Vec<u8> {
        signed(&format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7,\n\
             \"Files\": [\n{files}\n],\n\
             \"WAL-Ranges\": [\n{{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }}\n],\n"
        ))
    }

    const LABEL: &str = r#"{ "Path": "backup_label", "Size": 3, "Last-Modified": "2026-04-24 00:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "01020304" }"#;

    #[test]
    fn files_and_the_log_they_need_are_read() {
        let manifest = BackupManifest::parse(&with_files(LABEL)).unwrap();
        assert_eq!(manifest.system_identifier, Some(7));
        assert_eq!(
            manifest.files["backup_label"],
            ManifestFile {
                size: ByteCount(3),
                sum: Sum::Crc32c(0x0403_0201)
            }
        );
        assert_eq!(manifest.wal[0].end, Lsn(0x0200_0100));
        let encoded = r#"{ "Encoded-Path": "62617365", "Size": 1 }"#;
        let manifest = BackupManifest::parse(&with_files(encoded)).unwrap();
        assert_eq!(manifest.files["base"].sum, Sum::None);
    }

    #[test]
    fn a_changed_or_cut_manifest_is_refused() {
        let whole = with_files(LABEL);
        for cut in 0..whole.len() {
            assert!(BackupManifest::parse(&whole[..cut]).is_err(), "{cut}");
        }
        let text = String::from_utf8(whole).unwrap();
        let changed = text.replace("\"Size\": 3", "\"Size\": 4");
        assert!(matches!(
            BackupManifest::parse(changed.as_bytes()),
            Err(ManifestError::Checksum)
        ));
    }

    #[test]
    fn paths_that_leave_the_directory_and_doubles_are_refused() {
        for path in ["../x", "/etc/passwd", "a\\u0000b", ""] {
            let file = format!(r#"{{ "Path": "{path}", "Size": 1 }}"#);
            assert!(BackupManifest::parse(&with_files(&file)).is_err(), "{path}");
        }
        let twice = format!("{LABEL},\n{LABEL}");
        assert!(matches!(
            BackupManifest::parse(&with_files(&twice)),
            Err(ManifestError::Double(_))
        ));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(body: String) {
            let _ = BackupManifest::parse(&signed(&format!("{body}\n")));
        }
    }
}
