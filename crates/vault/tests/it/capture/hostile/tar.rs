//! Archives that no PostgreSQL sends.

/// One entry.
pub struct Entry {
    name: &'static str,
    kind: u8,
    size: &'static str,
    link: &'static str,
    body: &'static [u8],
}

const fn file(name: &'static str) -> Entry {
    Entry {
        name,
        kind: b'0',
        size: "00000000004",
        link: "",
        body: b"evil",
    }
}

const fn other(name: &'static str, kind: u8, link: &'static str) -> Entry {
    Entry {
        name,
        kind,
        size: "00000000000",
        link,
        body: b"",
    }
}

/// Out of the directory; the victim lies three folders above a spool's.
pub const PARENT: &[Entry] = &[file("../../../victim")];
/// Anywhere.
pub const ABSOLUTE: &[Entry] = &[file("/tmp/holdfast-victim")];
/// Through a link that came just before.
pub const BELOW_LINK: &[Entry] = &[other("base", b'2', "/tmp"), file("base/holdfast-victim")];
/// A second name of something else.
pub const HARD_LINK: &[Entry] = &[other("PG_VERSION", b'1', "/etc/passwd")];
/// One name for two contents.
pub const TWICE: &[Entry] = &[file("PG_VERSION"), file("PG_VERSION")];
/// A name that looks like another one.
pub const CONTROL: &[Entry] = &[file("PG_\x07VERSION")];
/// A size that no disk holds, in base 256.
pub const HUGE: &[Entry] = &[Entry {
    size: "\u{0}HUGE",
    ..file("PG_VERSION")
}];
/// More is announced than comes.
pub const CUT: &[Entry] = &[Entry {
    size: "00010000000",
    ..file("PG_VERSION")
}];

/// As much as a header can say in octal digits.
pub const ENDLESS: &[Entry] = &[Entry {
    size: "77777777777",
    ..file("PG_VERSION")
}];

/// Puts the entries together, with right checksums and an end.
pub fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut all: Vec<u8> = entries.iter().flat_map(bytes).collect();
    all.resize(all.len() + 1024, 0);
    all
}

fn bytes(entry: &Entry) -> Vec<u8> {
    let mut header = vec![0_u8; 512];
    header[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
    header[100..108].copy_from_slice(b"0000600\0");
    if entry.size.ends_with("HUGE") {
        header[124] = 0x80;
        header[128..136].fill(0xFF);
    } else {
        header[124..124 + entry.size.len()].copy_from_slice(entry.size.as_bytes());
    }
    header[156] = entry.kind;
    header[157..157 + entry.link.len()].copy_from_slice(entry.link.as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header.extend_from_slice(entry.body);
    header.resize(header.len().next_multiple_of(512), 0);
    header
}
