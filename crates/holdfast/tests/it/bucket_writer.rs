//! Two vaults and one bucket, as real processes, and what may go from it with which key.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use holdfast_testing::process::Process;
use holdfast_testing::s3::{ObjectStorage, S3Proxy};
use holdfast_testing::signals::{self, Signal};

use crate::desk::{Desk, Ran};

const LIMIT: Duration = Duration::from_secs(90);

/// Names the key of expiry.
const EXPIRE: &str =
    "expire_access_key_id = \"env:EXPIRE_ID\"\nexpire_secret_access_key = \"file:key\"\n";

/// A vault of a directory, which makes a point every second and keeps the newest alone.
fn vault(subject: &str, bucket: &str, address: SocketAddr) -> Desk {
    let desk = Desk::init(subject);
    for (name, text) in [
        ("key-id", ObjectStorage::GUEST),
        ("key", ObjectStorage::SECRET),
    ] {
        let file = desk.join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    }
    std::fs::create_dir(desk.join("files")).unwrap();
    std::fs::write(desk.join("files/large"), vec![7; 200_000]).unwrap();
    change(&desk, "the first text");
    let toml = desk.join("holdfast.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    let more = format!(
        "[vault]\nrepository = \"s3://{bucket}/vault\"\nheartbeat_s = 1\nlock_for = \"8s\"\n\
         [[source]]\nname = \"files\"\ndirectory = \"files\"\nevery_s = 1\n\
         [source.keep]\nall_for = \"0\"\nhourly_for = \"0\"\ndaily_for = \"0\"\nweekly_for = \"0\"\n\
         [vault.object_storage]\nendpoint = \"http://{address}\"\n\
         access_key_id = \"file:key-id\"\nsecret_access_key = \"file:key\"\n"
    );
    std::fs::write(&toml, text + &more).unwrap();
    desk
}

fn change(desk: &Desk, text: &str) {
    std::fs::write(desk.join("files/small"), text).unwrap();
}

fn name_more(desk: &Desk, lines: &str) {
    let toml = desk.join("holdfast.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    std::fs::write(&toml, text + lines).unwrap();
}

/// The same keys, as after moving to another machine.
fn take_keys(to: &Desk, from: &Desk) {
    for name in ["key", "keys"] {
        let (from, to) = (from.join("state/vault"), to.join("state/vault"));
        let from = from.join(name);
        if from.is_file() {
            std::fs::copy(&from, to.join(name)).unwrap();
            continue;
        }
        for entry in std::fs::read_dir(&from).unwrap() {
            let file = entry.unwrap().path();
            let name = file.file_name().unwrap();
            std::fs::copy(&file, to.join("keys").join(name)).unwrap();
        }
    }
    std::fs::copy(from.join("state/vault.pub"), to.join("state/vault.pub")).unwrap();
}

fn run(desk: &Desk, log: &str) -> Process {
    Process::spawn(desk.command(&["vault", "run"]), &desk.join(log)).unwrap()
}

/// Runs a command with an account's key for expiry.
fn with_key(desk: &Desk, id: &str, args: &[&str]) -> Ran {
    let output = desk.command(args).env("EXPIRE_ID", id).output().unwrap();
    crate::desk::ran(output)
}

/// What was stored, except what writers leave of themselves.
fn stored(proxy: &S3Proxy, from: usize) -> Vec<String> {
    let lines = proxy.seen().into_iter().skip(from);
    lines
        .filter(|line| line.starts_with("PUT ") && !line.contains("/holdfast-writer/"))
        .collect()
}

/// Waits until one more point is whole.
fn await_point(process: &mut Process, proxy: &S3Proxy) {
    let count = || {
        let lines = stored(proxy, 0);
        let is_manifest = |line: &&String| line.contains("manifest") && !line.contains("retention");
        lines.iter().filter(is_manifest).count()
    };
    let before = count();
    let came = signals::wait_until(LIMIT, || count() > before);
    assert!(came.is_ok(), "{}", process.log_tail());
    assert!(process.is_running(), "{}", process.log_tail());
}

#[test]
fn of_two_vaults_on_one_bucket_one_writes_and_the_one_that_slept_writes_nothing_more() {
    let storage = ObjectStorage::shared().unwrap();
    let bucket = storage.bucket().unwrap();
    storage.grant_least(&bucket).unwrap();
    let proxies = [
        S3Proxy::start(storage.address()).unwrap(),
        S3Proxy::start(storage.address()).unwrap(),
    ];
    let first = vault("bucket-first", &bucket, proxies[0].address());
    let second = vault("bucket-second", &bucket, proxies[1].address());
    take_keys(&second, &first);
    let mut sleeper = run(&first, "vault.log");
    await_point(&mut sleeper, &proxies[0]);
    second
        .run(&["vault", "run"])
        .refused(2, &["ZU353", "holdfast vault takeover"]);
    second
        .run(&["vault", "takeover"])
        .refused(1, &["ZS352", "was heard at"]);
    await_point(&mut sleeper, &proxies[0]);
    signals::send(sleeper.pid(), Signal::STOP).unwrap();
    // A point of it is due all the while.
    change(&first, "what the sleeper would store");
    signals::wait_until(LIMIT, || {
        let look = second.run(&["vault", "takeover", "--look", "--json"]);
        look.done().json()["gone"] == true
    })
    .unwrap();
    second.run(&["vault", "takeover"]).done();
    let mut running = run(&second, "vault.log");
    await_point(&mut running, &proxies[1]);

    let from = proxies[0].seen().len();
    signals::send(sleeper.pid(), Signal::CONT).unwrap();
    let ended = sleeper.wait(LIMIT).unwrap();
    assert!(
        !ended.success() && sleeper.log().contains("ZI352"),
        "{}",
        sleeper.log_tail()
    );
    assert_eq!(stored(&proxies[0], from), Vec::<String>::new());
    first
        .run(&["vault", "run"])
        .refused(1, &["ZI352", "holdfast vault takeover"]);
    await_point(&mut running, &proxies[1]);

    change(&second, "the last text");
    await_point(&mut running, &proxies[1]);
    await_point(&mut running, &proxies[1]);
    only_a_key_of_its_own_expires(&second);
    assert!(running.is_running(), "{}", running.log_tail());
    let into = second.join("back");
    second
        .run(&[
            "restore",
            "files",
            "--at",
            "latest",
            "--into",
            into.to_str().unwrap(),
        ])
        .done();
    assert_eq!(
        std::fs::read_to_string(into.join("small")).unwrap(),
        "the last text"
    );
    assert_eq!(std::fs::read(into.join("large")).unwrap(), vec![7; 200_000]);
    running.terminate(LIMIT).unwrap();
}

/// The vault goes on meanwhile.
fn only_a_key_of_its_own_expires(desk: &Desk) {
    let planned = {
        let planned = with_key(
            desk,
            ObjectStorage::EXPIRY,
            &["vault", "expire", "plan", "--json"],
        );
        planned.done().json()
    };
    // All points are of the last hour, in which another one may be building on them.
    let points = planned["plan"]["sources"][0]["points"].as_array().unwrap();
    assert!(points.len() > 3, "{planned}");
    let file = planned["file"].as_str().unwrap().to_owned();
    let apply = ["vault", "expire", "apply", &file, "--json"];
    desk.run(&apply[..4])
        .refused(2, &["ZU356", "no key of its own"]);
    name_more(desk, EXPIRE);
    with_key(desk, ObjectStorage::GUEST, &apply[..4]).refused(2, &["ZU356", "the vault's own"]);
    let applied = with_key(desk, ObjectStorage::EXPIRY, &apply).done().json();
    assert_eq!(applied["removed"]["objects"], 0, "{applied}");
    let listed = ["ledger", "list", "--half", "retention", "--json"];
    let listed = desk.run(&listed).done();
    assert!(listed.stdout.contains("expire.ended"), "{listed:?}");
}
