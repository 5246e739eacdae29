use proptest::prelude::*;

use super::*;

struct Made {
    name: &'static [u8],
    kind: u8,
    size: Vec<u8>,
    link: &'static [u8],
    body: Vec<u8>,
}

fn plain(name: &'static [u8], body: &[u8]) -> Made {
    Made {
        name,
        kind: b'0',
        size: format!("{:011o}\0", body.len()).into_bytes(),
        link: b"",
        body: body.to_vec(),
    }
}

fn other(name: &'static [u8], kind: u8, link: &'static [u8]) -> Made {
    Made {
        kind,
        link,
        ..plain(name, b"")
    }
}

fn bytes(made: &Made) -> Vec<u8> {
    let mut header = vec![0_u8; 512];
    header[..made.name.len()].copy_from_slice(made.name);
    header[100..108].copy_from_slice(b"0000600 ");
    header[124..136].copy_from_slice(&made.size);
    header[156] = made.kind;
    header[157..157 + made.link.len()].copy_from_slice(made.link);
    header[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut header);
    header.extend_from_slice(&made.body);
    header.resize(header.len().next_multiple_of(512), 0);
    header
}

fn seal(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn archive(entries: &[Made]) -> Vec<u8> {
    let mut all: Vec<u8> = entries.iter().flat_map(bytes).collect();
    all.resize(all.len() + 1024, 0);
    all
}

type Read = (Vec<(TarEntry, Vec<u8>)>, usize);

fn read(archive: &[u8], step: usize) -> Result<Read, TarError> {
    let mut reader = TarReader::default();
    let mut entries: Vec<(TarEntry, Vec<u8>)> = Vec::new();
    let mut ends = 0;
    for chunk in archive.chunks(step.max(1)) {
        let mut input = chunk;
        while let Some(event) = reader.next(&mut input)? {
            match event {
                TarEvent::Entry(entry) => entries.push((entry, Vec::new())),
                TarEvent::Bytes(bytes) => entries.last_mut().unwrap().1.extend_from_slice(bytes),
                TarEvent::FileEnd => ends += 1,
            }
        }
        assert!(input.is_empty());
    }
    reader.finish()?;
    Ok((entries, ends))
}

#[test]
fn an_archive_is_read_the_same_in_pieces_of_any_size() {
    let body = vec![7; 1300];
    let all = archive(&[
        other(b"base/", b'5', b""),
        plain(b"base/1", &body),
        plain(b"empty", b""),
        plain(b"full", &[1; 512]),
        other(b"pg_tblspc/16385", b'2', b"/srv/ts"),
    ]);
    let (whole, ends) = read(&all, all.len()).unwrap();
    assert_eq!((whole.len(), ends), (5, 3));
    assert_eq!(whole[0].0.kind, TarKind::Directory);
    assert_eq!(
        whole[1],
        (
            TarEntry {
                path: "base/1".to_owned(),
                kind: TarKind::File(ByteCount(1300)),
                mode: 0o600,
            },
            body
        )
    );
    assert_eq!(whole[4].0.kind, TarKind::Symlink("/srv/ts".to_owned()));
    for step in [1, 3, 511, 512, 513, 1300] {
        assert_eq!(read(&all, step).unwrap(), (whole.clone(), ends), "{step}");
    }
}

#[test]
fn a_cut_archive_is_never_complete() {
    let all = archive(&[plain(b"a", &[1; 700])]);
    for cut in 0..all.len() {
        assert_eq!(read(&all[..cut], 512), Err(TarError::Cut), "{cut}");
    }
    let longer = [all.clone(), vec![1]].concat();
    assert_eq!(read(&longer, 512), Err(TarError::Longer));
    assert!(read(&[all, vec![0; 4096]].concat(), 512).is_ok());
}

#[test]
fn tricks_with_paths_and_kinds_are_refused() {
    for name in [
        &b"../x"[..],
        b"/etc/passwd",
        b"a/../../b",
        b"",
        b"a\nb",
        b"\xff\xfe",
    ] {
        let refused = read(&archive(&[plain(name, b"x")]), 512);
        assert!(
            matches!(refused, Err(TarError::Path(_) | TarError::Malformed { .. })),
            "{name:?}"
        );
    }
    for kind in [b'1', b'3', b'4', b'6', b'7', b'x', b'g', b'L', b'K', b'S'] {
        let refused = read(&archive(&[other(b"a", kind, b"b")]), 512);
        assert!(
            matches!(refused, Err(TarError::Unsupported { .. })),
            "{kind}"
        );
    }
    let empty_link = read(&archive(&[other(b"a", b'2', b"")]), 512);
    assert_eq!(empty_link, Err(TarError::Malformed { what: "link" }));
}

#[test]
fn a_long_name_in_two_fields_is_put_together() {
    let mut all = bytes(&plain(b"file", b""));
    all[345..351].copy_from_slice(b"folder");
    seal(&mut all);
    all.resize(1536, 0);
    let (entries, _) = read(&all, 512).unwrap();
    assert_eq!(entries[0].0.path, "folder/file");
}

#[test]
fn a_changed_header_is_refused() {
    let mut all = archive(&[plain(b"a", b"x")]);
    all[0] = b'b';
    assert_eq!(read(&all, 512), Err(TarError::Checksum));
}

#[test]
fn sizes_beyond_octal_are_read_and_absurd_ones_refused() {
    let size = |bytes: [u8; 12]| number(&bytes);
    let mut large = [0; 12];
    large[0] = 0x80;
    large[7] = 3;
    assert_eq!(size(large), Ok(3 << 32));
    large[1] = 1;
    assert!(size(large).is_err());
    large[1] = 0;
    large[4] = 0xff;
    assert!(size(large).is_err());
    assert_eq!(size(*b"00000001000\0"), Ok(512));
    assert!(size(*b"-0000001000\0").is_err());
    assert!(size([0; 12]).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>, step in 1..600_usize) {
        let _ = read(&bytes, step);
    }
}
