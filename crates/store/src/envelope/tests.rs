//! Against the command `age`, against damage, against hostile headers.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use data_encoding::BASE64_NOPAD;
use proptest::prelude::*;

use super::*;

/// Sizes around the edges of chunks.
const SIZES: [usize; 9] = [0, 1, 100, 65_535, 65_536, 65_537, 131_072, 131_073, 300_000];

fn identity() -> Identity {
    Identity::generate().unwrap()
}

fn content(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap())
        .collect()
}

fn sealed_for(identity: &Identity, plain: &[u8]) -> Vec<u8> {
    seal(plain, &[identity.recipient()]).unwrap()
}

/// Runs a command of the package `age` with `input` and returns what it printed, if it succeeded.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| panic!("`{program}`: {error}; run scripts/setup"));
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // What it does not want to read it need not.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    });
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn key_file(folder: &Path, identity: &Identity) -> String {
    let path = folder.join("key.txt");
    std::fs::write(&path, identity.to_text().expose()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_is_sealed_is_opened_by_the_age_command() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (identity(), identity());
    let file = key_file(folder.path(), &ours);
    for size in SIZES {
        let plain = content(size);
        let sealed = seal(&plain, &[other.recipient(), ours.recipient()]).unwrap();
        assert_eq!(
            run("age", &["-d", "-i", &file], &sealed).unwrap(),
            plain,
            "{size}"
        );
    }
    let for_other = sealed_for(&other, b"x");
    assert!(run("age", &["-d", "-i", &file], &for_other).is_err());
}

#[test]
fn what_the_age_command_encrypts_is_opened() {
    let (ours, other) = (identity(), identity());
    let (first, second) = (other.recipient().to_string(), ours.recipient().to_string());
    for size in SIZES {
        let plain = content(size);
        let sealed = run("age", &["-r", &first, "-r", &second], &plain).unwrap();
        assert_eq!(
            open(&sealed, std::slice::from_ref(&ours)).unwrap(),
            plain,
            "{size}"
        );
        assert_eq!(
            open(&sealed, std::slice::from_ref(&other)).unwrap(),
            plain,
            "{size}"
        );
    }
}

#[test]
fn keys_are_written_and_read_as_age_keygen_does() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let ours = identity();
        let text = ours.to_text();
        assert_eq!(
            text.expose().parse::<Identity>().unwrap().recipient(),
            ours.recipient()
        );
        let file = key_file(folder.path(), &ours);
        let theirs = run("age-keygen", &["-y", &file], b"").unwrap();
        assert_eq!(
            String::from_utf8(theirs).unwrap().trim(),
            ours.recipient().to_string()
        );

        let made = String::from_utf8(run("age-keygen", &[], b"").unwrap()).unwrap();
        let read = Identity::read_all(&made).unwrap();
        assert!(
            made.contains(&format!("# public key: {}", read[0].recipient())),
            "{made}"
        );
    }
}

#[test]
fn every_recipient_opens_and_nobody_else() {
    let keys: Vec<Identity> = (0..5).map(|_| identity()).collect();
    let recipients: Vec<Recipient> = keys.iter().map(Identity::recipient).collect();
    let plain = content(70_000);
    let sealed = seal(&plain, &recipients).unwrap();
    for key in &keys {
        assert_eq!(open(&sealed, &[identity(), key.clone()]).unwrap(), plain);
    }
    let wrong = [identity(), identity()];
    assert_eq!(open(&sealed, &wrong), Err(EnvelopeError::NoKey(2)));
    assert_eq!(open(&sealed, &[]), Err(EnvelopeError::NoKey(0)));
    assert_eq!(seal(&plain, &[]), Err(EnvelopeError::NoRecipient));
    assert_ne!(
        seal(&plain, &recipients).unwrap(),
        sealed,
        "each has its own key and nonce"
    );
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let key = identity();
    let sealed = seal(&content(40), &[key.recipient(), identity().recipient()]).unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut bad = sealed.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&bad, std::slice::from_ref(&key)).is_err(), "bit {bit}");
    }
    let long = sealed_for(&key, &content(131_100));
    for byte in (0..long.len()).step_by(997).chain([66_000, long.len() - 1]) {
        let mut bad = long.clone();
        bad[byte] ^= 0x10;
        assert!(
            open(&bad, std::slice::from_ref(&key)).is_err(),
            "byte {byte}"
        );
    }
}

#[test]
fn every_truncation_and_every_addition_is_refused() {
    let key = identity();
    for size in [0, 40] {
        let sealed = sealed_for(&key, &content(size));
        for cut in 0..sealed.len() {
            assert!(
                open(&sealed[..cut], std::slice::from_ref(&key)).is_err(),
                "{size}: {cut}"
            );
        }
        assert!(open(&[&sealed[..], b"x"].concat(), std::slice::from_ref(&key)).is_err());
    }
    let long = sealed_for(&key, &content(131_072));
    let begin = long.len() - 2 * 65_552;
    for cut in [
        begin,
        begin + 65_552,
        begin + 65_551,
        begin + 65_553,
        long.len() - 1,
    ] {
        assert!(
            open(&long[..cut], std::slice::from_ref(&key)).is_err(),
            "{cut}"
        );
    }
    for more in [1, 16, 17, 65_552] {
        let longer = [&long[..], &vec![0; more]].concat();
        assert!(
            open(&longer, std::slice::from_ref(&key)).is_err(),
            "{more} more"
        );
    }
}

#[test]
fn chunks_of_one_envelope_are_not_taken_for_others() {
    let key = identity();
    let sealed = sealed_for(&key, &content(131_072 + 5));
    let begin = sealed.len() - (131_072 + 5 + 3 * 16);
    let (head, payload) = sealed.split_at(begin);
    let (first, rest) = payload.split_at(65_552);
    let (second, last) = rest.split_at(65_552);
    for parts in [
        [second, first, last],
        [first, first, last],
        [first, last, second],
    ] {
        let mixed = [head, &parts.concat()].concat();
        assert!(open(&mixed, std::slice::from_ref(&key)).is_err());
    }
    let shorter = [head, first, last].concat();
    assert!(open(&shorter, std::slice::from_ref(&key)).is_err());
}

/// Builds an envelope whose header has these stanzas and a right MAC, so that only their form can refuse it.
fn built(version: &str, stanzas: &str, key: &Secret, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{version}\n{stanzas}---").into_bytes();
    let mac_key = derive(key.expose_bytes(), &[], b"header").unwrap();
    let mac_key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, mac_key.expose_bytes());
    let mac = aws_lc_rs::hmac::sign(&mac_key, &bytes);
    bytes.extend(format!(" {}\n", BASE64_NOPAD.encode(mac.as_ref())).into_bytes());
    bytes.extend([9; 16]);
    let cipher = PayloadKey::derive(key, &[9; 16]).unwrap();
    cipher.seal(payload, &mut bytes).unwrap();
    bytes
}

struct Stanza {
    share: String,
    body: String,
}

/// A stanza by which `identity` can unwrap `key`.
fn stanza(identity: &Identity, key: &Secret) -> Stanza {
    let (share, body) = identity.recipient().wrap(key).unwrap();
    Stanza {
        share: BASE64_NOPAD.encode(&share),
        body: BASE64_NOPAD.encode(&body),
    }
}

/// Writes base64 whose unused bits are not zero: the same bytes, said in another way.
fn not_canonical(text: &str) -> String {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = text.as_bytes().to_vec();
    let last = text.last_mut().unwrap();
    let value = letters.iter().position(|letter| letter == last).unwrap();
    *last = letters[value + 1];
    String::from_utf8(text).unwrap()
}

const V1: &str = "age-encryption.org/v1";

#[test]
fn headers_that_the_format_allows_are_opened() {
    let (ours, key) = (identity(), Secret::from_bytes(vec![3; 16]));
    let Stanza { share, body } = stanza(&ours, &key);
    let good = format!("-> X25519 {share}\n{body}\n");
    let full = "A".repeat(64);
    let unknown = [
        String::new(),
        "-> grease\n\n".to_owned(),
        "-> x25519 lower\nAA\n".to_owned(),
        format!("-> example.com/enigma a b ~!\n{full}\n{full}\nAAAA\n"),
        format!("-> full\n{full}\n\n"),
    ];
    for stanzas in unknown
        .iter()
        .flat_map(|u| [format!("{u}{good}"), format!("{good}{u}")])
    {
        let bytes = built(V1, &stanzas, &key, b"content");
        assert_eq!(
            open(&bytes, std::slice::from_ref(&ours)).as_deref(),
            Ok(&b"content"[..]),
            "{stanzas}"
        );
    }
    let foreign = built(V1, "-> scrypt AAAAAAAAAAAAAAAAAAAAAA 10\nAAAA\n", &key, b"");
    assert_eq!(
        open(&foreign, std::slice::from_ref(&ours)),
        Err(EnvelopeError::NoKey(1))
    );
}

#[test]
fn headers_that_the_format_forbids_are_refused_although_their_mac_is_right() {
    let (ours, key) = (identity(), Secret::from_bytes(vec![3; 16]));
    let Stanza { share, body } = stanza(&ours, &key);
    let good = format!("-> X25519 {share}\n{body}\n");
    let (strange_share, strange_body) = (not_canonical(&share), not_canonical(&body));
    let full = "A".repeat(64);
    let low_order = BASE64_NOPAD.encode(&[0; 32]);
    let long_key = stanza(&ours, &Secret::from_bytes(vec![3; 25]));
    let bad = [
        String::new(),
        format!("-> X25519 {share} more\n{body}\n"),
        format!("-> X25519\n{body}\n"),
        format!("-> X25519 {strange_share}\n{body}\n"),
        format!("-> X25519 {share}\n{strange_body}\n"),
        format!("-> X25519 {share}=\n{body}\n"),
        format!("-> X25519 {}\n{body}\n", &share[..40]),
        format!("-> X25519 {share}AAAA\n{body}\n"),
        format!("-> X25519 {share}\n{}\n", &body[..40]),
        format!("-> X25519 {share}\n{body}AAAA\n"),
        format!("-> X25519 {}\n{}\n", long_key.share, long_key.body),
        format!("-> X25519 {low_order}\n{body}\n"),
        format!("-> X25519 {share}\r\n{body}\r\n"),
        format!("-> X25519  {share}\n{body}\n"),
        format!("->  X25519 {share}\n{body}\n"),
        format!("-> X25519 {share} \n{body}\n"),
        format!("->X25519 {share}\n{body}\n"),
        format!("-> X25519 {share}\n{}\n{}\n", &body[..20], &body[20..]),
        format!("{good}-> \n\n"),
        format!("{good}->\n\n"),
        format!("{good}-> tab\there\n\n"),
        format!("{good}-> \u{e9}\n\n"),
        format!("{good}-> long\n{full}A\n\n"),
        format!("{good}-> unfinished\n{full}\n"),
        format!("{good}-> letters\nA*AA\n"),
        format!("{good}-> bits\nAB\n"),
        format!("{good}-> scrypt AAAAAAAAAAAAAAAAAAAAAA 10\nAAAA\n"),
        format!("{good}\n"),
        format!("{good}{}", "-> grease\n\n".repeat(64)),
        format!("{good}-> {}\n\n", "a".repeat(17_000)),
    ];
    for stanzas in bad {
        let bytes = built(V1, &stanzas, &key, b"content");
        let refused = open(&bytes, std::slice::from_ref(&ours));
        assert!(
            matches!(refused, Err(EnvelopeError::Damaged(_))),
            "{stanzas}: {refused:?}"
        );
    }
    for version in [
        "age-encryption.org/v2",
        "age-encryption.org/v1\r",
        "",
        "gae",
    ] {
        let bytes = built(version, &good, &key, b"content");
        assert!(
            open(&bytes, std::slice::from_ref(&ours)).is_err(),
            "{version}"
        );
    }
}

#[test]
fn a_mac_in_any_other_form_is_refused() {
    let ours = identity();
    let sealed = sealed_for(&ours, b"content");
    let text: Vec<u8> = sealed.clone();
    let at = text.windows(4).position(|four| four == b"--- ").unwrap();
    let mac = std::str::from_utf8(&text[at + 4..at + 47]).unwrap();
    let rest = &text[at + 48..];
    let forms = [
        format!("---{mac}\n"),
        format!("---  {mac}\n"),
        format!("--- {mac} \n"),
        format!("--- {mac}\r\n"),
        format!("--- {mac}=\n"),
        format!("--- {}\n", not_canonical(mac)),
        format!("--- {}\n", &mac[..42]),
        "---\n".to_owned(),
        format!("--- {}\n", "A".repeat(43)),
    ];
    for form in forms {
        let bytes = [&text[..at], form.as_bytes(), rest].concat();
        assert!(
            matches!(
                open(&bytes, std::slice::from_ref(&ours)),
                Err(EnvelopeError::Damaged(_))
            ),
            "{form}"
        );
    }
}

#[test]
fn texts_that_are_not_keys_are_refused_without_being_shown() {
    let ours = identity();
    let text = ours.to_text();
    let secret = text.expose();
    let mixed = secret.replacen('A', "a", 1);
    let cut = &secret[..secret.len() - 1];
    for bad in [
        secret.to_lowercase().as_str(),
        &mixed,
        cut,
        "",
        "AGE-SECRET-KEY-1",
        "x",
    ] {
        assert_eq!(
            bad.parse::<Identity>().unwrap_err(),
            KeyTextError::NotAnIdentity
        );
    }
    assert_eq!(
        secret.parse::<Recipient>().unwrap_err(),
        KeyTextError::Swapped
    );
    let upper = ours.recipient().to_string().to_uppercase();
    assert!(matches!(
        upper.parse::<Recipient>(),
        Err(KeyTextError::NotARecipient(_))
    ));
    assert!(!format!("{ours:?}").contains(&secret[16..]));
    assert_eq!(
        Identity::read_all("# only a comment\n").unwrap_err(),
        KeyTextError::NotAnIdentity
    );
}

proptest! {
    #[test]
    fn a_range_of_chunks_holds_exactly_that_range_of_the_content(
        size in prop_oneof![0_usize..200, 65_500..65_600_usize, 131_000..131_200_usize, 0..400_000_usize],
        from in 0..=1000_u64,
        to in 0..=1000_u64,
    ) {
        let key = identity();
        let plain = content(size);
        let sealed = sealed_for(&key, &plain);
        let total = u64::try_from(sealed.len()).unwrap();
        let prefix = &sealed[..sealed.len().min(400)];
        let envelope = Envelope::open(prefix, total, &[key]).unwrap();
        prop_assert_eq!(envelope.plain_bytes(), u64::try_from(size).unwrap());

        let whole = u64::try_from(size).unwrap();
        let at = |part: u64| part * whole / 1000;
        let (from, to) = (at(from.min(to)), at(from.max(to)));
        let chunks = envelope.chunks_of(&(from..to)).unwrap();
        let stored = envelope.stored(&chunks);
        let bytes = &sealed[usize::try_from(stored.start).unwrap()..usize::try_from(stored.end).unwrap()];
        let opened = envelope.decrypt(chunks.start, bytes).unwrap();
        let skip = usize::try_from(from - chunks.start * CHUNK_BYTES).unwrap();
        let length = usize::try_from(to - from).unwrap();
        let (from, to) = (usize::try_from(from).unwrap(), usize::try_from(to).unwrap());
        prop_assert_eq!(&opened[skip..skip + length], &plain[from..to]);
        prop_assert_eq!(envelope.chunks_of(&(0..whole + 1)), None);
    }

    #[test]
    fn a_valid_header_that_is_mutated_never_opens_and_never_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4, any::<u8>()), 1..6),
    ) {
        let ours = identity();
        let sealed = seal(b"content", &[identity().recipient(), ours.recipient()]).unwrap();
        let mut bytes = sealed.clone();
        for (index, what, byte) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = index.index(bytes.len());
            match what {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, b"-> \nAX25519+/="[usize::from(byte) % 14]),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        if bytes != sealed {
            prop_assert!(open(&bytes, &[ours]).is_err());
        }
    }

    #[test]
    fn no_bytes_break_the_parser(tail in prop::collection::vec(any::<u8>(), 0..300), is_age in any::<bool>()) {
        let head: &[u8] = if is_age { b"age-encryption.org/v1\n-> " } else { b"" };
        prop_assert!(open(&[head, &tail].concat(), &[identity()]).is_err());
    }
}
