//! Tar archives, written so that every common `tar` reads them.
//!
//! # Source
//! POSIX.1-2017, `pax`, "ustar Interchange Format" and "pax Extended Header"; GNU tar 1.35 manual,
//! "Basic Tar Format", for names longer than 100 bytes and numbers that do not fit into octal digits.

/// Bytes of a block; everything in an archive is a multiple.
pub const BLOCK: usize = 512;

/// Two empty blocks end an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Bytes of a name that fit into a header.
const NAME_BYTES: usize = 100;

/// What an entry of an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind<'a> {
    /// A folder.
    Directory,
    /// A file of so many bytes, which follow the header, and then [`padding`].
    File {
        /// Its size.
        size: u64,
    },
    /// Another name of a file that came before.
    Hardlink {
        /// The path of that file in the archive.
        target: &'a [u8],
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: &'a [u8],
    },
}

/// An entry of an archive, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its path, relative, with `/` between parts.
    pub path: &'a [u8],
    /// What it is.
    pub kind: EntryKind<'a>,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner's number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
    /// The name of owner and group, which wins over the numbers; may be empty.
    pub owner: &'a str,
    /// When its content was changed last, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Its extended attributes: names and values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Returns the header of an entry, with what must stand before it.
pub fn header(entry: &Entry<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(BLOCK);
    let mut records = Vec::new();
    if entry.mtime_ns.rem_euclid(NANOSECONDS) != 0 {
        let time = decimal(entry.mtime_ns);
        records.extend_from_slice(&record(b"mtime", time.as_bytes()));
    }
    for (name, value) in &entry.xattrs {
        let key = [b"SCHILY.xattr.", name.as_slice()].concat();
        records.extend_from_slice(&record(&key, value));
    }
    if !records.is_empty() {
        extension(b'x', b"pax", &records, &mut out);
    }
    let target = match entry.kind {
        EntryKind::Directory | EntryKind::File { .. } => &[],
        EntryKind::Hardlink { target } | EntryKind::Symlink { target } => target,
    };
    let mut path = entry.path.to_vec();
    if entry.kind == EntryKind::Directory {
        path.push(b'/');
    }
    for (kind, name) in [(b'K', target), (b'L', path.as_slice())] {
        if name.len() > NAME_BYTES {
            let ended = [name, &[0]].concat();
            extension(kind, b"././@LongLink", &ended, &mut out);
        }
    }
    let (kind, size) = match entry.kind {
        EntryKind::Directory => (b'5', 0),
        EntryKind::File { size } => (b'0', size),
        EntryKind::Hardlink { .. } => (b'1', 0),
        EntryKind::Symlink { .. } => (b'2', 0),
    };
    let mut block = Block([0; BLOCK]);
    block.text(0, NAME_BYTES, &path);
    block.number(100, 8, i128::from(entry.mode & 0o7777));
    block.number(108, 8, i128::from(entry.uid));
    block.number(116, 8, i128::from(entry.gid));
    block.number(124, 12, i128::from(size));
    block.number(136, 12, i128::from(entry.mtime_ns.div_euclid(NANOSECONDS)));
    block.text(157, NAME_BYTES, target);
    block.text(265, 31, entry.owner.as_bytes());
    block.text(297, 31, entry.owner.as_bytes());
    block.close(kind, &mut out);
    out
}

/// Returns how many zeros follow a content of so many bytes.
pub fn padding(size: u64) -> usize {
    let block = u64::try_from(BLOCK).unwrap_or(512);
    let rest = size.next_multiple_of(block).saturating_sub(size);
    usize::try_from(rest).unwrap_or(0)
}

const NANOSECONDS: i64 = 1_000_000_000;

/// Returns a time in seconds with its fraction.
fn decimal(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    let second = NANOSECONDS.unsigned_abs();
    format!("{sign}{}.{:09}", all / second, all % second)
}

/// Returns a record of a pax header, which begins with its own length.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key, b"=", value, b"\n"].concat();
    let mut length = rest.len();
    // The digits of the length count as well.
    loop {
        let whole = rest.len().saturating_add(length.to_string().len());
        if whole == length {
            break;
        }
        length = whole;
    }
    [length.to_string().as_bytes(), &rest].concat()
}

/// Appends an entry that says something of the next one.
fn extension(kind: u8, name: &[u8], content: &[u8], out: &mut Vec<u8>) {
    let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
    let mut block = Block([0; BLOCK]);
    block.text(0, NAME_BYTES, name);
    block.number(100, 8, 0o600);
    block.number(108, 8, 0);
    block.number(116, 8, 0);
    block.number(124, 12, i128::from(size));
    block.number(136, 12, 0);
    block.close(kind, out);
    out.extend_from_slice(content);
    out.resize(out.len().saturating_add(padding(size)), 0);
}

/// A header that is being filled.
///
/// # Shape
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 100 | name |
/// | 100 | 8 | mode |
/// | 108, 116 | 8 each | owner, group |
/// | 124 | 12 | size |
/// | 136 | 12 | time |
/// | 148 | 8 | sum of all bytes, this field counted as blanks |
/// | 156 | 1 | kind |
/// | 157 | 100 | target |
/// | 257 | 8 | magic and version |
/// | 265, 297 | 32 each | names of owner and group |
struct Block([u8; BLOCK]);

impl Block {
    fn text(&mut self, at: usize, bytes: usize, text: &[u8]) {
        let field = self.0.iter_mut().skip(at).take(bytes);
        for (place, byte) in field.zip(text) {
            *place = *byte;
        }
    }

    /// Writes a number in octal digits, or in binary where those do not suffice.
    fn number(&mut self, at: usize, bytes: usize, value: i128) {
        let digits = bytes.saturating_sub(1);
        let text = format!("{value:0digits$o}");
        if value >= 0 && text.len() <= digits {
            self.text(at, bytes, text.as_bytes());
            return;
        }
        let binary = value.to_be_bytes();
        let from = binary.len().saturating_sub(bytes);
        let mut field = binary.get(from..).unwrap_or_default().to_vec();
        if let Some(first) = field.first_mut() {
            *first = if value < 0 { 0xFF } else { 0x80 };
        }
        self.text(at, bytes, &field);
    }

    fn close(mut self, kind: u8, out: &mut Vec<u8>) {
        self.text(156, 1, &[kind]);
        self.text(257, 8, b"ustar  \0");
        self.text(148, 8, b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.text(148, 8, format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(path: &'a [u8], kind: EntryKind<'a>) -> Entry<'a> {
        Entry {
            path,
            kind,
            mode: 0o640,
            uid: 7,
            gid: 8,
            owner: "postgres",
            mtime_ns: 1_000_000_000,
            xattrs: Vec::new(),
        }
    }

    #[test]
    fn a_small_entry_is_one_block_with_its_sum() {
        let made = header(&entry(b"base/1/1255", EntryKind::File { size: 8192 }));
        assert_eq!(made.len(), BLOCK);
        assert!(made.starts_with(b"base/1/1255\0"));
        let fields: Vec<&[u8]> = made[100..148].split(|byte| *byte == 0).collect();
        let octal: [&[u8]; 6] = [
            b"0000640",
            b"0000007",
            b"0000010",
            b"00000020000",
            b"00000000001",
            b"",
        ];
        assert_eq!(fields, octal);
        let mut blank = made.clone();
        blank[148..156].fill(b' ');
        let sum: u32 = blank.iter().map(|byte| u32::from(*byte)).sum();
        assert_eq!(made[148..156], *format!("{sum:06o}\0 ").as_bytes());
        assert_eq!((padding(0), padding(1), padding(512)), (0, 511, 0));
    }

    #[test]
    fn what_does_not_fit_goes_into_extensions() {
        let long = vec![b'x'; 300];
        let mut odd = entry(&long, EntryKind::Symlink { target: &long });
        odd.mtime_ns = -1_500_000_000;
        odd.xattrs = vec![(b"user.note".to_vec(), b"a\0b".to_vec())];
        let made = header(&odd);
        let kinds: Vec<u8> = made
            .chunks(BLOCK)
            .filter(|block| block.get(257..262) == Some(b"ustar"))
            .map(|block| block[156])
            .collect();
        assert_eq!(kinds, b"xKL2");
        let text = String::from_utf8_lossy(&made);
        assert!(text.contains("22 mtime=-1.500000000\n"), "{text}");
        assert!(text.contains("30 SCHILY.xattr.user.note=a\0b\n"), "{text}");
        let huge = header(&entry(b"f", EntryKind::File { size: 1 << 40 }));
        assert_eq!(huge[124..136], [0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    }
}
