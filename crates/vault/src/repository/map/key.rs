//! What a block map is keyed by, and the values behind the keys.

use std::ops::Range;

use super::number::{Numbers, put_number};
use crate::repository::types::{Extent, FramePlace};

/// Begins the keys of bundles.
const BUNDLE: u8 = 0;
/// Begins the keys of files and extents.
const FILE: u8 = 1;

/// What a key of the map is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MapKey {
    /// A bundle's record.
    Bundle(u32),
    /// An extent that begins at this position of the file.
    Extent(String, u64),
    /// A file's record.
    File(String),
}

impl MapKey {
    /// Reads a key back.
    pub(crate) fn parse(key: &[u8]) -> Option<Self> {
        let (kind, rest) = key.split_first()?;
        match *kind {
            BUNDLE => Some(Self::Bundle(u32::from_be_bytes(rest.try_into().ok()?))),
            FILE => {
                let end = rest.iter().position(|byte| *byte == 0)?;
                let (path, after) = rest.split_at_checked(end)?;
                let path = String::from_utf8(path.to_vec()).ok()?;
                match after.get(1..)? {
                    [] => Some(Self::File(path)),
                    offset => Some(Self::Extent(
                        path,
                        u64::from_be_bytes(offset.try_into().ok()?),
                    )),
                }
            }
            _ => None,
        }
    }
}

/// Returns the key of a bundle's record.
pub(crate) fn bundle(serial: u32) -> Vec<u8> {
    let mut key = vec![BUNDLE];
    key.extend_from_slice(&serial.to_be_bytes());
    key
}

/// Returns the key of a file's record, which all keys of its extents begin with.
pub(crate) fn file(path: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(path.len().saturating_add(10));
    key.push(FILE);
    key.extend_from_slice(path.as_bytes());
    key.push(0);
    key
}

/// Returns the key of the extent that begins at `offset` of the file.
pub(crate) fn extent(path: &str, offset: u64) -> Vec<u8> {
    let mut key = file(path);
    key.extend_from_slice(&offset.to_be_bytes());
    key
}

/// Returns the first key of all files.
pub(crate) fn first_file() -> Vec<u8> {
    vec![FILE]
}

/// Returns a key behind everything of a file and before everything of the next.
pub(crate) fn after_file(path: &str) -> Vec<u8> {
    let mut key = file(path);
    key.pop();
    key.push(1);
    key
}

/// Returns a key before everything whose path begins with `prefix`.
pub(crate) fn below(prefix: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(prefix.len().saturating_add(1));
    key.push(FILE);
    key.extend_from_slice(prefix.as_bytes());
    key
}

/// Returns a key behind everything that lies in a folder and before everything of the next.
pub(crate) fn after_folder(path: &str) -> Vec<u8> {
    let mut key = below(path);
    // The byte that follows the slash.
    key.push(b'/'.saturating_add(1));
    key
}

/// Returns where in the file an extent begins when its key is one of this file, whose key is given.
pub(crate) fn offset_in(file_key: &[u8], key: &[u8]) -> Option<u64> {
    let offset = key.strip_prefix(file_key)?;
    Some(u64::from_be_bytes(offset.try_into().ok()?))
}

/// Returns the bytes of an extent: bundle, frame, position in the frame, length as numbers.
pub(crate) fn put_extent(extent: &Extent) -> Vec<u8> {
    let mut out = Vec::with_capacity(12);
    put_number(&mut out, u64::from(extent.place.bundle));
    put_number(&mut out, u64::from(extent.place.frame));
    put_number(&mut out, u64::from(extent.place.within));
    put_number(&mut out, extent.length);
    out
}

/// Reads an extent back; `None` when it is not one.
pub(crate) fn read_extent(offset: u64, value: &[u8]) -> Option<Extent> {
    let mut fields = Numbers(value);
    let mut small = || u32::try_from(fields.number()?).ok();
    let place = FramePlace {
        bundle: small()?,
        frame: small()?,
        within: small()?,
    };
    let length = fields.number()?;
    let is_whole = fields.0.is_empty() && length > 0 && offset.checked_add(length).is_some();
    is_whole.then_some(Extent {
        offset,
        length,
        place,
    })
}

/// Returns the part of an extent that lies in `range`, which must lie in it; `frame_bytes` is what
/// a full frame of its bundle holds.
pub(crate) fn part(extent: &Extent, range: &Range<u64>, frame_bytes: u32) -> Option<Extent> {
    let skip = range.start.checked_sub(extent.offset)?;
    let within = u64::from(extent.place.within).checked_add(skip)?;
    let full = u64::from(frame_bytes.max(1));
    Some(Extent {
        offset: range.start,
        length: range.end.checked_sub(range.start)?,
        place: FramePlace {
            bundle: extent.place.bundle,
            frame: u32::try_from(u64::from(extent.place.frame).checked_add(within / full)?).ok()?,
            within: u32::try_from(within % full).ok()?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_files_before_their_extents_and_extents_by_position() {
        let keys = [
            bundle(1),
            bundle(256),
            file("a"),
            extent("a", 0),
            extent("a", 8192),
            extent("a", 1 << 40),
            file("a/b"),
            extent("a/b", 0),
            file("ab"),
        ];
        assert!(keys.is_sorted());
        assert_eq!(MapKey::parse(&keys[1]), Some(MapKey::Bundle(256)));
        assert_eq!(MapKey::parse(&keys[2]), Some(MapKey::File("a".into())));
        let long = MapKey::Extent("a".into(), 1 << 40);
        assert_eq!(MapKey::parse(&keys[5]), Some(long));
        assert_eq!(offset_in(&file("a"), &keys[4]), Some(8192));
        assert_eq!(offset_in(&file("a"), &keys[6]), None);
        for bad in [
            &[][..],
            &[0, 1],
            &[2, 0],
            &[1, b'a'],
            &[1, b'a', 0, 1],
            &[1, 0xFF, 0],
        ] {
            assert_eq!(MapKey::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_part_of_an_extent_begins_in_the_right_frame() {
        let whole = Extent {
            offset: 1000,
            length: 300,
            place: FramePlace {
                bundle: 3,
                frame: 7,
                within: 90,
            },
        };
        assert_eq!(read_extent(1000, &put_extent(&whole)), Some(whole));
        let part = part(&whole, &(1115..1200), 100).unwrap();
        assert_eq!((part.offset, part.length), (1115, 85));
        assert_eq!((part.place.frame, part.place.within), (9, 5));
        assert_eq!(read_extent(u64::MAX, &put_extent(&whole)), None);
        assert_eq!(read_extent(0, b"\x01\x01\x01"), None);
    }
}
