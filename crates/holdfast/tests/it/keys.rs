//! The keys of the repository's objects, as their user meets them.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::desk::{Desk, RECOVERY_KEY};

/// What every secret key begins with.
const SECRET: &str = "AGE-SECRET-KEY-1";

fn age_keygen(args: &[&str]) -> String {
    let output = Command::new("age-keygen").args(args).output();
    let output = output.unwrap_or_else(|error| panic!("age-keygen: {error}; run scripts/setup"));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Everything that lies below a state folder, as one text.
fn state(desk: &Desk, folder: &str) -> String {
    let mut text = String::new();
    let mut folders = vec![desk.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => text += &String::from_utf8_lossy(&std::fs::read(path).unwrap()),
            }
        }
    }
    text
}

/// The letters of a secret key in a text.
fn secret_in(text: &str) -> String {
    let at = text
        .find(SECRET)
        .unwrap_or_else(|| panic!("no key in {text}"));
    text[at..]
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect()
}

#[test]
fn the_recovery_key_goes_to_a_new_file_and_is_kept_nowhere_else() {
    let desk = Desk::init("keys-file");
    let path = desk.join(RECOVERY_KEY);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    let secret = secret_in(&text);
    assert!(!state(&desk, "state").contains(&secret[20..]));
    let vault_key = std::fs::read_to_string(desk.join("state/vault.pub")).unwrap();
    assert!(text.contains(vault_key.trim()), "the sheet says who signs");

    let recipient = age_keygen(&["-y", path.to_str().unwrap()]);
    let listed = desk.run(&["vault", "key", "list", "--json"]).done().json();
    assert_eq!(listed[0]["kind"], "machine");
    assert_eq!(listed[1]["kind"], "recovery");
    assert_eq!(listed[1]["recipient"], recipient.trim());
    assert_eq!(
        (&listed[0]["used"], &listed[1]["used"]),
        (&json!(true), &json!(true))
    );
    let machine = desk.join("state/vault/keys/machine-0001.key");
    assert_eq!(
        age_keygen(&["-y", machine.to_str().unwrap()]).trim(),
        listed[0]["recipient"]
    );

    // Again: what is there is kept, and a second key is not made.
    let again = desk
        .run(&["init", "--recovery-key-out", "other.key", "--json"])
        .done();
    assert_eq!(again.json()["recovery_key"], json!(null));
    assert!(!desk.join("other.key").exists());
    assert_eq!(
        desk.run(&["vault", "key", "list", "--json"]).done().json(),
        listed
    );
}

#[test]
fn without_somebody_who_keeps_the_recovery_key_init_stops_and_the_vault_does_not_run() {
    let desk = Desk::empty("keys-nobody");
    desk.run(&["init", "--no-approver"]).refused(
        2,
        &["ZU271", "--recovery-key-out", "nothing is sealed to it"],
    );
    desk.run(&["init", "--no-approver", "--recovery-key-in-json"])
        .refused(2, &["ZU271", "--json"]);
    std::fs::write(desk.join("taken"), "something").unwrap();
    desk.run(&["init", "--no-approver", "--recovery-key-out", "taken"])
        .refused(2, &["ZU201", "taken"]);
    assert_eq!(
        std::fs::read_to_string(desk.join("taken")).unwrap(),
        "something"
    );
    desk.run(&["init", "--no-approver", "--no-recovery-key"])
        .done();
    desk.run(&["vault", "run"])
        .refused(2, &["ZU272", "holdfast init"]);
    desk.run(&["vault", "key", "list"]).done();
}

#[test]
fn json_holds_the_secret_only_when_asked_for_by_name() {
    let desk = Desk::empty("keys-json");
    let init = ["init", "--no-approver", "--json"];
    let made = desk
        .run(&[&init[..], &["--recovery-key-out", RECOVERY_KEY]].concat())
        .done();
    assert!(
        !made.stdout.contains(SECRET) && !made.stderr.contains(SECRET),
        "{made:?}"
    );
    assert!(
        made.json()["recovery_key"]["recipient"]
            .as_str()
            .unwrap()
            .starts_with("age1")
    );

    let other = Desk::empty("keys-json-asked");
    let made = other
        .run(&[&init[..], &["--recovery-key-in-json"]].concat())
        .done();
    let secret = made.json()["recovery_key"]["secret"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(secret.starts_with(SECRET) && !made.stderr.contains(SECRET));
    assert!(!state(&other, "holdfast-state").contains(&secret[20..]));
}

#[test]
fn a_recipient_that_somebody_has_already_is_taken_and_a_secret_is_not() {
    let desk = Desk::empty("keys-recipient");
    let own = age_keygen(&[]);
    let secret = secret_in(&own);
    let recipient = own
        .lines()
        .find_map(|line| line.strip_prefix("# public key: "))
        .unwrap();
    let init = ["init", "--no-approver", "--recovery-recipient"];
    let swapped = desk.run(&[&init[..], &[&secret]].concat());
    assert_eq!(swapped.status, 2);
    assert!(swapped.stderr.contains("secret"), "{swapped:?}");
    let (start, end) = recipient.split_at(recipient.len() - 1);
    let mistyped = format!("{start}{}", if end == "q" { 'p' } else { 'q' });
    assert_eq!(desk.run(&[&init[..], &[&mistyped]].concat()).status, 2);
    let made = desk.run(&[&init[..], &[recipient]].concat()).done();
    assert!(!made.stdout.contains(SECRET) && !made.stderr.contains(SECRET));
    let listed = desk.run(&["vault", "key", "list", "--json"]).done().json();
    assert_eq!(listed[1]["recipient"], recipient);
}

#[test]
fn rotation_seals_to_new_keys_keeps_the_old_and_is_recorded() {
    let desk = Desk::init("keys-rotate");
    let before = desk.run(&["vault", "key", "list", "--json"]).done().json();
    desk.run(&["vault", "key", "rotate"])
        .refused(2, &["ZU605", "--machine"]);
    desk.run(&["vault", "key", "rotate", "--machine"]).done();
    let args = ["vault", "key", "rotate", "--recovery-key-out", "second.key"];
    let said = desk.run(&args).done();
    assert!(said.stdout.contains("old recovery key"), "{said:?}");
    let after = desk.run(&["vault", "key", "list", "--json"]).done().json();
    let used: Vec<bool> = after
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["used"] == true)
        .collect();
    assert_eq!(used, [false, true, false, true]);
    assert_eq!(
        (&after[0]["recipient"], &after[2]["recipient"]),
        (&before[0]["recipient"], &before[1]["recipient"])
    );

    let list = ["ledger", "list", "--kind", "vault.key.added", "--json"];
    let entries = desk.run(&list).done().json();
    let recorded: Vec<&str> = entries
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["body"]["recipient"].as_str().unwrap())
        .collect();
    let named = |at: usize| after[at]["recipient"].as_str().unwrap();
    assert_eq!(recorded, [named(0), named(2), named(1), named(3)]);
    assert_eq!(entries[2]["principal"]["name"], "tester");
    desk.run(&["ledger", "verify"]).done();
}

/// Runs `init` at a terminal of its own and types these lines when the key has been shown.
fn at_a_terminal(desk: &Desk, type_back: impl Fn(&str) -> String) -> (bool, String) {
    let binary = env!("CARGO_BIN_EXE_holdfast");
    let mut child = Command::new("script")
        .args([
            "--quiet",
            "--return",
            "--echo",
            "never",
            "--flush",
            "--command",
        ])
        .arg(format!("{binary} init --no-approver"))
        .arg("/dev/null")
        .current_dir(desk.path())
        .env("USER", "tester")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut said = String::new();
    let mut typed = false;
    let mut buffer = [0; 4096];
    loop {
        let read = std::io::Read::read(&mut stdout, &mut buffer).unwrap();
        if read == 0 {
            break;
        }
        said.push_str(&String::from_utf8_lossy(&buffer[..read]));
        if !typed && said.contains("type its last 6 characters") {
            typed = true;
            std::io::Write::write_all(&mut stdin, type_back(&said).as_bytes()).unwrap();
        }
    }
    (child.wait().unwrap().success(), said)
}

#[test]
fn at_a_terminal_the_key_is_shown_once_and_its_end_typed_back() {
    let desk = Desk::empty("keys-terminal");
    let (done, said) = at_a_terminal(&desk, |_| "nonono\nnonono\nnonono\n".to_owned());
    assert!(!done && said.contains("ZU271"), "{said}");
    let listed = desk.run(&["vault", "key", "list", "--json"]).done().json();
    assert_eq!(listed, json!([]), "a key that nobody kept is not used");

    let (done, said) = at_a_terminal(&desk, |said| {
        let secret = secret_in(said);
        format!("nonono\n{}\n", &secret[secret.len() - 6..])
    });
    assert!(done, "{said}");
    for word in [
        "Write it down",
        "away from this machine",
        "can read the whole database",
    ] {
        assert!(said.contains(word), "{said}");
    }
    let secret = secret_in(&said);
    assert!(!state(&desk, "holdfast-state").contains(&secret[20..]));
    let (done, said) = at_a_terminal(&desk, |_| String::new());
    assert!(done && !said.contains(SECRET), "it is shown once");
}
