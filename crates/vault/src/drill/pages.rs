//! The checksum of every page of a stopped server's files.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use holdfast_core::Lsn;

use super::pace::Pace;

/// Bytes of a page.
const PAGE: usize = 8192;
/// Pages of one file of a relation; the next file continues the count.
const FILE_PAGES: u32 = 131_072;
const CHECKSUM_AT: std::ops::Range<usize> = 8..10;
const UPPER_AT: std::ops::Range<usize> = 14..16;

/// What was found in the pages.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PagesRead {
    /// Pages that were read.
    pub(crate) pages: u64,
    /// Files that were read.
    pub(crate) files: u64,
    /// Pages whose checksum is right.
    pub(crate) right: u64,
    /// Pages that replay writes anew, and were not looked at.
    pub(crate) newer: u64,
    /// Pages whose checksum is wrong.
    pub(crate) wrong: u64,
    /// Of those, pages without one.
    bare: u64,
    /// The first wrong one, as file and number.
    pub(crate) first_wrong: Option<(PathBuf, u32)>,
    /// The time was up before all files were read.
    pub(crate) is_cut: bool,
}

/// Which pages are looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'a> {
    deadline: Option<Instant>,
    /// What holds the reading back.
    pace: Option<&'a Pace>,
    /// Pages that were changed after this position are not.
    replay_from: Option<Lsn>,
}

impl<'a> Reading<'a> {
    /// All of a stopped server, until `deadline`.
    pub(crate) fn until(deadline: Instant) -> Self {
        Self {
            deadline: Some(deadline),
            pace: None,
            replay_from: None,
        }
    }

    /// Reads no faster than this lets it.
    #[must_use]
    pub(crate) fn paced(self, pace: Option<&'a Pace>) -> Self {
        Self { pace, ..self }
    }

    /// Those of a base that its log, from this position on, will not write anew.
    pub(crate) fn before_replay(from: Lsn) -> Self {
        Self {
            deadline: None,
            pace: None,
            replay_from: Some(from),
        }
    }
}

impl PagesRead {
    /// Tells whether no page has a checksum: the cluster was made without.
    pub(crate) fn has_none(&self) -> bool {
        self.right == 0 && self.wrong == self.bare
    }
}

/// Reads all pages below `data`.
///
/// # Errors
/// What the system says when a file cannot be read.
pub(crate) fn read_all(data: &Path, reading: &Reading<'_>) -> io::Result<PagesRead> {
    let mut read = PagesRead::default();
    let mut folders = vec![
        data.join("base"),
        data.join("global"),
        data.join("pg_tblspc"),
    ];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Some(segment) = segment_of(&name) else {
                continue;
            };
            if reading.deadline.is_some_and(|end| Instant::now() >= end) {
                read.is_cut = true;
                return Ok(read);
            }
            if let (Some(pace), Ok(facts)) = (reading.pace, path.metadata()) {
                pace.take(facts.len());
            }
            read_file((&path, segment), reading.replay_from, &mut read)?;
        }
    }
    Ok(read)
}

/// Returns which file of its relation `name` is, or `None` when it holds no pages.
fn segment_of(name: &str) -> Option<u32> {
    let (stem, segment) = match name.split_once('.') {
        Some((stem, segment)) => (stem, segment.parse().ok()?),
        None => (name, 0),
    };
    let number = ["_fsm", "_vm", "_init"]
        .iter()
        .find_map(|fork| stem.strip_suffix(fork))
        .unwrap_or(stem);
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    digits.then_some(segment)
}

fn read_file(
    (path, segment): (&Path, u32),
    replay_from: Option<Lsn>,
    read: &mut PagesRead,
) -> io::Result<()> {
    let mut file = BufReader::with_capacity(PAGE * 64, File::open(path)?);
    let mut page = [0_u8; PAGE];
    let mut number = segment.wrapping_mul(FILE_PAGES);
    read.files = read.files.saturating_add(1);
    loop {
        match file.read_exact(&mut page) {
            Ok(()) => {}
            // A rest shorter than a page is none: the server extends files a page at a time.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let state = judge(&mut page, number, replay_from);
        let count = match state {
            PageState::Bare | PageState::Wrong => &mut read.wrong,
            PageState::Newer => &mut read.newer,
            PageState::Right => &mut read.right,
            PageState::Unwritten => &mut 0,
        };
        *count = count.saturating_add(1);
        if state == PageState::Bare {
            read.bare = read.bare.saturating_add(1);
        }
        if matches!(state, PageState::Bare | PageState::Wrong) {
            read.first_wrong
                .get_or_insert_with(|| (path.to_owned(), number));
        }
        read.pages = read.pages.saturating_add(1);
        number = number.wrapping_add(1);
    }
}

/// What a page looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PageState {
    /// It has no checksum.
    Bare,
    /// It was changed after the position that replay begins at.
    Newer,
    /// Its checksum is right.
    Right,
    /// It was never written.
    Unwritten,
    /// Its checksum is wrong.
    Wrong,
}

/// Compares the checksum of one page.
fn judge(page: &mut [u8; PAGE], number: u32, replay_from: Option<Lsn>) -> PageState {
    if page.get(UPPER_AT) == Some(&[0, 0]) {
        return PageState::Unwritten;
    }
    // SOURCE: PostgreSQL 18, `storage/bufpage.h`: a page begins with the position of its last change,
    // the higher half first.
    let changed = page.first_chunk::<8>().map(|bytes| {
        let whole = u64::from_le_bytes(*bytes);
        Lsn(whole.rotate_left(32))
    });
    if replay_from.is_some_and(|from| changed >= Some(from)) {
        return PageState::Newer;
    }
    let Some(field) = page.get_mut(CHECKSUM_AT) else {
        return PageState::Wrong;
    };
    let stated = field.first_chunk::<2>().map(|two| u16::from_le_bytes(*two));
    field.fill(0);
    // No checksum is zero.
    match stated {
        Some(0) | None => PageState::Bare,
        Some(stated) if stated == checksum(page, number) => PageState::Right,
        Some(_) => PageState::Wrong,
    }
}

/// Computes a page's checksum; the field in the page must be zero.
///
/// # Source
/// PostgreSQL 18, `storage/checksum_impl.h`: 32 sums of FNV-1a with one more shift, side by side.
fn checksum(page: &[u8; PAGE], number: u32) -> u16 {
    let mut sums = BASES;
    for row in page.chunks_exact(sums.len() * 4) {
        for (sum, word) in sums.iter_mut().zip(row.as_chunks::<4>().0) {
            *sum = mix(*sum, u32::from_le_bytes(*word));
        }
    }
    for _ in 0..2 {
        for sum in &mut sums {
            *sum = mix(*sum, 0);
        }
    }
    let all = sums.iter().fold(0, |all, sum| all ^ sum) ^ number;
    u16::try_from(all % 65_535 + 1).unwrap_or(u16::MAX)
}

fn mix(sum: u32, word: u32) -> u32 {
    let mixed = sum ^ word;
    mixed.wrapping_mul(16_777_619) ^ (mixed >> 17)
}

const BASES: [u32; 32] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_testing::postgres::{self, Server};

    use super::*;

    #[test]
    fn only_names_of_relation_files_hold_pages() {
        for (name, segment) in [
            ("16384", Some(0)),
            ("16384.3", Some(3)),
            ("16384_vm", Some(0)),
            ("16384_fsm.1", Some(1)),
            ("16384_init", Some(0)),
            ("t3_16384", None),
            ("pg_filenode.map", None),
            ("pg_internal.init", None),
            ("PG_VERSION", None),
            ("_vm", None),
            ("", None),
        ] {
            assert_eq!(segment_of(name), segment, "{name}");
        }
    }

    #[test]
    fn pages_of_real_servers_are_right_until_a_bit_flips() {
        for installation in postgres::all().unwrap() {
            let mut server = Server::builder(&installation)
                .initdb_arg("--data-checksums")
                .setting("fsync", "off")
                .start()
                .unwrap();
            server.stop_fast().unwrap();
            let deadline = Instant::now() + Duration::from_secs(600);
            let read = read_all(server.data_dir(), &Reading::until(deadline)).unwrap();
            assert!(read.pages > 1_000 && read.files > 500, "{read:?}");
            assert_eq!((read.wrong, read.is_cut), (0, false), "{read:?}");
            assert!(!read.has_none() && read.right > 1_000, "{read:?}");
            let earlier = read_all(server.data_dir(), &Reading::before_replay(Lsn(1))).unwrap();
            assert!(
                earlier.right < read.right && earlier.newer > 1_000,
                "{earlier:?}"
            );

            let path = server.data_dir().join("base/1/1255");
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[PAGE * 2 + 5000] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let read = read_all(server.data_dir(), &Reading::until(deadline)).unwrap();
            assert_eq!(read.wrong, 1);
            assert_eq!(read.first_wrong, Some((path, 2)));
        }
    }
}
