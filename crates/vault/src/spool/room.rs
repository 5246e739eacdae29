//! Room in a segment's file, made before its log comes: where commits wait for a sync, it need not
//! make the file longer as well, which costs the file system as much again.
//!
//! A file as long as a segment has all of it. A shorter one may end in zeros that were never received;
//! its last page is never made in advance. Whoever ends well gives the room back.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::limits;

/// Returns how much of the file of a segment was received, at most: the page with its last byte that
/// is not zero is the last that may have been.
pub(crate) fn received(path: &Path, segment_bytes: u64) -> io::Result<u64> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length >= segment_bytes {
        return Ok(segment_bytes);
    }
    let end = end_of_content(&file, length)?;
    Ok(end.next_multiple_of(limits::PAGE_BYTES).min(length))
}

/// Returns the position after the last byte that is not zero.
pub(super) fn end_of_content(file: &File, length: u64) -> io::Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut end = length;
    while end > 0 {
        let count = usize::try_from(end).unwrap_or(PIECE).min(PIECE);
        let start = end.saturating_sub(u64::try_from(count).unwrap_or(0));
        let bytes = piece.get_mut(..count).unwrap_or_default();
        file.read_exact_at(bytes, start)?;
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            let last = u64::try_from(last).unwrap_or(0);
            return Ok(start.saturating_add(last).saturating_add(1));
        }
        end = start;
    }
    Ok(0)
}

/// Makes room in a file that has `room` bytes, so that it holds more than `end`; returns what it has
/// then.
pub(super) fn make(file: &File, room: u64, end: u64, segment_bytes: u64) -> io::Result<u64> {
    let most = segment_bytes.saturating_sub(limits::PAGE_BYTES);
    let wanted = end.saturating_add(limits::ROOM_BYTES).min(most);
    if end <= room || wanted <= room {
        return Ok(room);
    }
    let count = usize::try_from(wanted.saturating_sub(room)).unwrap_or(0);
    file.write_all_at(&vec![0; count], room)?;
    Ok(wanted)
}

const PIECE: usize = 64 << 10;
