//! Whether this machine ran out of something while a drill ran: what failed then is known of no point.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use holdfast_core::ByteCount;

use super::folder::DATA;
use crate::limits;

/// How much of the end of a server's log is looked at, in bytes.
const LOG_BYTES: u64 = 64 * 1024;
/// The server's log, in its data directory.
const LOG: &str = "holdfast.log";

/// What a server writes when the system refuses it disk or memory.
///
/// SOURCE: the texts of `ENOSPC`, `EDQUOT` and `ENOMEM` in glibc, and of PostgreSQL's own 53200.
const SHORT: [&str; 4] = [
    "No space left on device",
    "Disk quota exceeded",
    "Cannot allocate memory",
    "out of memory",
];

/// Says what is missing on the disk of a drill's folder, or was missed by its server.
pub(super) fn missing(folder: &Path) -> Option<String> {
    if let Ok(disk) = rustix::fs::statvfs(folder) {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < limits::DRILL_ROOM_BYTES {
            return Some(format!("its disk has {} free", ByteCount(free)));
        }
        if disk.f_files > 0 && disk.f_favail == 0 {
            return Some("its disk takes no more files".to_owned());
        }
    }
    let log = log(&folder.join(DATA).join(LOG)).unwrap_or_default();
    let said = SHORT.into_iter().find(|text| log.contains(text));
    said.map(|text| format!("its server said `{text}`"))
}

fn log(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
