//! Two vaults and one repository, as real processes; and what may go from it.

use std::path::Path;
use std::time::Duration;

use holdfast_testing::process::Process;
use holdfast_testing::signals;

use crate::desk::Desk;

const LIMIT: Duration = Duration::from_secs(60);

/// A vault whose repository is shared and whose heart beats every second.
fn vault(subject: &str, repository: &Path) -> Desk {
    let desk = Desk::init(subject);
    let toml = desk.join("holdfast.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    let repository = repository.display();
    let vault = format!("[vault]\nrepository = \"{repository}\"\nheartbeat_s = 1\n");
    std::fs::write(&toml, text + &vault).unwrap();
    desk
}

fn run(desk: &Desk, log: &str) -> Process {
    Process::spawn(desk.command(&["vault", "run"]), &desk.join(log)).unwrap()
}

/// Waits until the vault answers, and returns the epoch that it writes with.
fn epoch(desk: &Desk) -> i64 {
    let mut epoch = None;
    signals::wait_until(LIMIT, || {
        let asked = desk.run(&["vault", "locks", "--json"]);
        if asked.status == 0 {
            epoch = asked.json()["epoch"].as_i64();
        }
        epoch.is_some()
    })
    .unwrap();
    epoch.unwrap()
}

#[test]
fn a_second_vault_takes_over_only_after_the_first_was_silent_and_the_first_does_not_come_back() {
    let shared = Desk::empty("writer-shared");
    let repository = shared.join("repository");
    let first = vault("writer-first", &repository);
    let second = vault("writer-second", &repository);
    // The same keys, as after moving to another machine.
    for name in ["state/vault/key", "state/vault.pub"] {
        std::fs::copy(first.join(name), second.join(name)).unwrap();
    }
    for entry in std::fs::read_dir(first.join("state/vault/keys")).unwrap() {
        let from = entry.unwrap().path();
        let to = second.join("state/vault/keys");
        std::fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
    }
    let mut running = run(&first, "first.log");
    assert_eq!(epoch(&first), 1);
    second.run(&["vault", "run"]).refused(2, &["ZU254"]);
    second
        .run(&["vault", "takeover"])
        .refused(1, &["ZS352", "was heard at"]);
    running.kill_9().unwrap();
    // Its lock is gone with it; its epoch is not.
    second
        .run(&["vault", "run"])
        .refused(2, &["ZU353", "takeover"]);
    signals::wait_until(LIMIT, || {
        let look = second.run(&["vault", "takeover", "--look", "--json"]);
        look.done().json()["gone"] == true
    })
    .unwrap();
    second.run(&["vault", "takeover"]).done();
    let mut running = run(&second, "second.log");
    assert_eq!(epoch(&second), 3);
    running.kill_9().unwrap();
    first.run(&["vault", "run"]).refused(2, &["ZU353"]);
    // The same state directory goes on at once, and says at its end that it stops.
    let mut running = run(&second, "second-again.log");
    assert_eq!(epoch(&second), 4);
    running.terminate(LIMIT).unwrap();
    let mut running = run(&first, "first-again.log");
    assert_eq!(epoch(&first), 5);
    running.terminate(LIMIT).unwrap();
}

#[test]
fn a_point_is_kept_by_name_and_reason_and_released_again() {
    let shared = Desk::empty("keep-shared");
    let desk = vault("keep", &shared.join("repository"));
    std::fs::create_dir(desk.join("files")).unwrap();
    std::fs::write(desk.join("files/a"), "a text").unwrap();
    let toml = desk.join("holdfast.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    let source = "[[source]]\nname = \"files\"\ndirectory = \"files\"\n";
    std::fs::write(&toml, text + source).unwrap();
    let because = ["--because", "the auditors asked for it"];
    let keep = |point: &str, more: &[&str]| {
        let args = [&["point", "keep", "files", point], &because[..], more].concat();
        desk.run(&args)
    };
    keep("point-0123456789", &[]).refused(1, &["ZS601"]);
    let mut running = run(&desk, "vault.log");
    let list = || desk.run(&["point", "list", "--json"]).done().json();
    signals::wait_until(LIMIT, || {
        // There is no repository before the vault has made it.
        let listed = desk.run(&["point", "list", "--json"]);
        listed.status == 0 && listed.json()[0]["points"][0]["point"].is_string()
    })
    .unwrap();
    let point = list()[0]["points"][0]["point"].as_str().unwrap().to_owned();
    let unknown = keep("point-0123456789", &[]);
    assert!(
        unknown.status != 0 && unknown.stderr.contains("point-0123456789"),
        "{unknown:?}"
    );
    keep("manifest", &[]).refused(2, &["ZU307", "point list"]);
    keep(&point, &["--until", "2020-01-01T00:00:00Z"]).refused(2, &["ZU354", "is past"]);
    keep(&point, &[]).done();
    keep(&point, &["--until", "2080-01-01T00:00:00Z"]).refused(2, &["ZU354"]);
    let kept = list()[0]["points"][0]["kept"].clone();
    assert_eq!(kept["because"], "the auditors asked for it", "{kept}");
    let told = desk.run(&["point", "list"]).done().stdout;
    assert!(told.contains("is kept until released by"), "{told}");
    let planned = desk.run(&["vault", "expire", "plan", "--json"]).done();
    let fate = planned.json()["plan"]["sources"][0]["points"][0]["fate"].clone();
    assert_eq!(fate, "marked");
    let args = [
        "point",
        "release",
        "files",
        &point,
        "--because",
        "they have gone",
    ];
    desk.run(&args).done();
    assert!(list()[0]["points"][0]["kept"].is_null());
    let listed = desk
        .run(&["ledger", "list", "--half", "vault", "--json"])
        .done();
    for kind in ["point.kept", "point.released", "they have gone", "human"] {
        assert!(listed.stdout.contains(kind), "{kind}: {listed:?}");
    }
    running.terminate(LIMIT).unwrap();
}

#[test]
fn a_plan_is_recorded_in_a_ledger_of_its_own_and_a_smaller_lock_window_is_refused() {
    let shared = Desk::empty("expire-shared");
    let desk = vault("expire", &shared.join("repository"));
    let mut running = run(&desk, "vault.log");
    assert_eq!(epoch(&desk), 1);
    let planned = desk
        .run(&["vault", "expire", "plan", "--json"])
        .done()
        .json();
    assert_eq!(planned["plan"]["sources"], serde_json::json!([]));
    let file = planned["file"].as_str().unwrap();
    let applied = desk.run(&["vault", "expire", "apply", file, "--json"]);
    assert_eq!(applied.done().json()["removed"]["objects"], 0);
    let listed = desk
        .run(&["ledger", "list", "--half", "retention", "--json"])
        .done();
    for kind in ["expire.planned", "expire.begun", "expire.ended"] {
        assert!(listed.stdout.contains(kind), "{listed:?}");
    }
    std::fs::write(desk.join("other.json"), "{}").unwrap();
    desk.run(&["vault", "expire", "apply", "other.json"])
        .refused(2, &["ZU352"]);
    running.terminate(LIMIT).unwrap();
    let toml = desk.join("holdfast.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    std::fs::write(&toml, text + "lock_for = \"13d\"\n").unwrap();
    desk.run(&["vault", "run"]).refused(2, &["ZU351", "2w"]);
    desk.run(&["vault", "expire", "plan"])
        .refused(2, &["ZU351"]);
}
