//! The durable record of which blocks of a file are in the overlay.
//!
//! # Shape
//! A file of two slots of the same size; the valid one with the greater generation counts, so a torn
//! write leaves the one before. A slot, little-endian: magic `HFPRES01`, generation u64, visible
//! bytes u64, length to cut the file to u64 (all ones: none), bytes of the restore point's file u64,
//! words u32, CRC-32C u32 of the slot with this field zero, 16 bytes that tell the overlay; then the
//! words, one bit for each block of 8 KiB; zeros up to a multiple of 512 bytes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::presence::{BLOCK_BYTES, Presence};

const MAGIC: &[u8; 8] = b"HFPRES01";
const HEADER_BYTES: usize = 64;
const SECTOR_BYTES: usize = 512;
/// Where the checksum lies in a slot.
const SUM: std::ops::Range<usize> = 44..48;

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) presence: Presence,
    /// A cut of the file that was begun.
    pub(super) cut: Option<u64>,
    pub(super) generation: u64,
}

/// Bytes of one slot of a file of this size.
fn slot_bytes(size: u64) -> usize {
    let words = usize::try_from(size.div_ceil(BLOCK_BYTES).div_ceil(64)).unwrap_or(usize::MAX);
    let bytes = words.saturating_mul(8).saturating_add(HEADER_BYTES);
    bytes.div_ceil(SECTOR_BYTES).saturating_mul(SECTOR_BYTES)
}

fn encode(kept: &Kept, size: u64, overlay: &[u8; 16]) -> Vec<u8> {
    let words = kept.presence.words();
    let mut slot = Vec::with_capacity(slot_bytes(size));
    slot.extend_from_slice(MAGIC);
    slot.extend_from_slice(&kept.generation.to_le_bytes());
    slot.extend_from_slice(&kept.presence.visible().to_le_bytes());
    slot.extend_from_slice(&kept.cut.unwrap_or(u64::MAX).to_le_bytes());
    slot.extend_from_slice(&size.to_le_bytes());
    let count = u32::try_from(words.len()).unwrap_or(u32::MAX);
    slot.extend_from_slice(&count.to_le_bytes());
    slot.extend_from_slice(&[0; 4]);
    slot.extend_from_slice(overlay);
    for word in words {
        slot.extend_from_slice(&word.to_le_bytes());
    }
    slot.resize(slot_bytes(size), 0);
    let sum = crc32c::crc32c(&slot);
    if let Some(field) = slot.get_mut(SUM) {
        field.copy_from_slice(&sum.to_le_bytes());
    }
    slot
}

fn u64_at(slot: &[u8], at: usize) -> Option<u64> {
    let bytes = slot.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

fn decode(slot: &[u8], size: u64, overlay: &[u8; 16]) -> Option<Kept> {
    let stated = u32::from_le_bytes(slot.get(SUM)?.try_into().ok()?);
    let mut bare = slot.to_vec();
    bare.get_mut(SUM)?.fill(0);
    let is_ours = slot.starts_with(MAGIC)
        && crc32c::crc32c(&bare) == stated
        && slot.get(48..HEADER_BYTES)? == overlay
        && u64_at(slot, 32)? == size;
    if !is_ours {
        return None;
    }
    let count = u32::from_le_bytes(slot.get(40..44)?.try_into().ok()?);
    let bytes = usize::try_from(count).ok()?.checked_mul(8)?;
    let words = slot.get(HEADER_BYTES..HEADER_BYTES.checked_add(bytes)?)?;
    let words = words
        .as_chunks::<8>()
        .0
        .iter()
        .map(|word| u64::from_le_bytes(*word));
    let presence = Presence::of_words(size, u64_at(slot, 16)?, words.collect())?;
    Some(Kept {
        presence,
        cut: u64_at(slot, 24).filter(|cut| *cut != u64::MAX),
        generation: u64_at(slot, 8)?,
    })
}

/// Reads the record of a file of this size: `None` when there is none.
///
/// # Errors
/// `InvalidData` when it is damaged: what it said is then not known, and nothing may be made up.
pub(super) fn read(path: &Path, size: u64, overlay: &[u8; 16]) -> io::Result<Option<Kept>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a presence record is damaged");
    let slot = slot_bytes(size);
    if bytes.len() != slot.saturating_mul(2) {
        return Err(damaged());
    }
    let (first, second) = bytes.split_at_checked(slot).ok_or_else(damaged)?;
    let found = [first, second].map(|slot| decode(slot, size, overlay));
    let newest = found
        .into_iter()
        .flatten()
        .max_by_key(|kept| kept.generation);
    newest.map(Some).ok_or_else(damaged)
}

/// Writes a record durably: over the older slot, or as a new file that appears whole.
pub(super) fn write(
    path: &Path,
    fresh: &Path,
    kept: &Kept,
    (size, overlay): (u64, &[u8; 16]),
) -> io::Result<()> {
    let slot = encode(kept, size, overlay);
    let length = u64::try_from(slot.len()).unwrap_or(u64::MAX);
    match OpenOptions::new().write(true).open(path) {
        Ok(file) => {
            file.write_all_at(&slot, length.saturating_mul(kept.generation % 2))?;
            file.sync_data()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = File::create(fresh)?;
            file.set_len(length.saturating_mul(2))?;
            file.write_all_at(&slot, length.saturating_mul(kept.generation % 2))?;
            file.sync_all()?;
            fs::rename(fresh, path)?;
            sync_parent(path)
        }
        Err(error) => Err(error),
    }
}

/// Makes the names in the folder of a path durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERLAY: [u8; 16] = [7; 16];
    const SIZE: u64 = 1000 * BLOCK_BYTES + 3;

    fn kept(generation: u64) -> Kept {
        let mut presence = Presence::absent(SIZE);
        presence.put(generation);
        Kept {
            presence,
            cut: None,
            generation,
        }
    }

    fn put(dir: &Path, generation: u64) {
        let record = (SIZE, &OVERLAY);
        write(&dir.join("r"), &dir.join("f"), &kept(generation), record).unwrap();
    }

    #[test]
    fn the_newest_record_counts_and_a_torn_one_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        assert_eq!(read(&path, SIZE, &OVERLAY).unwrap(), None);
        for generation in 1..=4 {
            put(dir.path(), generation);
            let found = read(&path, SIZE, &OVERLAY).unwrap().unwrap();
            assert_eq!(found, kept(generation));
        }
        // The fourth was torn: its second sector is of another time.
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[1; 64], 64).unwrap();
        assert_eq!(read(&path, SIZE, &OVERLAY).unwrap(), Some(kept(3)));
    }

    #[test]
    fn a_record_that_is_cut_short_or_of_another_overlay_or_all_torn_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        put(dir.path(), 1);
        let whole = fs::read(&path).unwrap();
        assert!(read(&path, SIZE, &[8; 16]).is_err());
        assert!(read(&path, SIZE + BLOCK_BYTES * 5000, &OVERLAY).is_err());
        for length in [0, 1, 64, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            let error = read(&path, SIZE, &OVERLAY).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{length}");
        }
        for at in [0, 9, 17, 30, 40, 45, 50, 64, 100] {
            let mut bytes = whole.clone();
            let slot = bytes.len() / 2;
            bytes[slot + at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert!(read(&path, SIZE, &OVERLAY).is_err(), "{at}");
        }
    }
}
