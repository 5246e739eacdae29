//! Commands that need no server.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::desk::{Desk, PASSPHRASE};

#[test]
fn every_command_explains_itself_and_an_unknown_one_is_a_usage_error() {
    let desk = Desk::empty("cli-help");
    let help = desk.run(&["--help"]).done().stdout;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let help = desk.run(&[name, "--help"]).done().stdout;
        assert!(help.contains("Usage: holdfast"), "{help}");
        assert!(help.contains("--json"), "{help}");
    }
    assert_eq!(desk.run(&["obey"]).status, 2);
    assert_eq!(desk.run(&["restore", "prod"]).status, 2);
    assert_eq!(desk.run(&[]).status, 2);
}

#[test]
fn without_a_configuration_it_says_what_to_do() {
    let desk = Desk::empty("cli-none");
    for args in [
        &["source", "list"][..],
        &["up"],
        &["ledger", "verify"],
        &["lease", "list"],
        &["point", "list"],
    ] {
        desk.run(args)
            .refused(2, &["error[ZU601]", "holdfast init"]);
    }
    let json = desk.run(&["hold", "list", "--json"]);
    assert_eq!(json.stdout, "");
    let error: serde_json::Value = serde_json::from_str(&json.stderr).unwrap();
    assert_eq!(error["error"]["code"], "ZU601");
}

#[test]
fn init_makes_keys_once_and_keeps_what_is_there() {
    let desk = Desk::empty("cli-init");
    desk.run(&["init"])
        .refused(2, &["ZU607", "--passphrase-stdin"]);
    desk.says(&["init", "--passphrase-stdin"], "short")
        .refused(2, &["ZU201"]);
    desk.says(
        &[
            "init",
            "--approver",
            "ann",
            "--passphrase-stdin",
            "--no-recovery-key",
        ],
        PASSPHRASE,
    )
    .done();
    let state = desk.join("holdfast-state");
    let key = std::fs::read_to_string(state.join("guard/key")).unwrap();
    let mode = |path: &str| {
        let meta = std::fs::metadata(state.join(path)).unwrap();
        meta.permissions().mode() & 0o777
    };
    assert_eq!(mode("guard/key"), 0o600);
    assert_eq!(mode("vault/key"), 0o600);
    assert_eq!((mode("guard"), mode("vault")), (0o700, 0o700));
    let again = ["init", "--no-recovery-key", "--json"];
    let again = desk.run(&again).done().json();
    assert_eq!(again["config_made"], false);
    assert_eq!(again["approver"], json!(null));
    assert_eq!(
        std::fs::read_to_string(state.join("guard/key")).unwrap(),
        key
    );
    // A key that is not the one that signed before is noticed, and nothing starts.
    std::fs::write(state.join("guard/key"), format!("{}\n", "7".repeat(64))).unwrap();
    desk.run(&["init"])
        .refused(1, &["ZI601", "nothing was started"]);
    desk.run(&["guard", "run"]).refused(1, &["ZI601"]);
}

#[test]
fn a_wrong_configuration_is_refused_at_the_start() {
    let desk = Desk::init("cli-config");
    let file = desk.join("holdfast.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    for (line, words) in [
        ("retain = 7", &["ZU601", "retain"][..]),
        ("[guard]", &["ZU601"]),
        (
            "[[source]]\nname = \"p\"\nvault_url = \"postgresql://u:hunter2@h/d\"",
            &["ZU601", "env:NAME"],
        ),
    ] {
        std::fs::write(&file, format!("{good}{line}\n")).unwrap();
        let ran = desk.run(&["source", "list"]);
        ran.refused(2, words);
        assert!(!ran.stderr.contains("hunter2"), "{ran:?}");
    }
    std::fs::write(
        &file,
        format!("{good}[[source]]\nname = \"p\"\nvault_url = \"env:NONE\"\n"),
    )
    .unwrap();
    desk.run(&["vault", "run"]).refused(2, &["ZU602", "NONE"]);
    desk.run(&["source", "check", "p"]).refused(2, &["ZU602"]);
    desk.run(&["source", "check", "q"]).refused(2, &["ZU603"]);
}

#[test]
fn sources_are_added_listed_and_removed_with_consent() {
    let desk = Desk::init("cli-source");
    desk.run(&["source", "add", "prod"]).refused(2, &["ZU608"]);
    desk.run(&[
        "source",
        "add",
        "prod",
        "--guard-url",
        "env:G",
        "--resource",
        "railway:volume:v1",
    ])
    .done();
    desk.run(&["source", "add", "prod", "--guard-url", "env:G"])
        .refused(2, &["ZU608", "already"]);
    let list = desk.run(&["source", "list", "--json"]).done().json();
    assert_eq!(list[0]["source"], "prod");
    assert_eq!(list[0]["resources"], json!(["railway:volume:v1"]));
    desk.run(&["source", "remove", "prod"])
        .refused(2, &["ZU608", "--yes prod"]);
    desk.run(&["source", "remove", "prod", "--yes", "prod"])
        .done();
    assert_eq!(
        desk.run(&["source", "list", "--json"]).done().json(),
        json!([])
    );
    assert_eq!(
        desk.run(&["source", "add", "Prod!", "--guard-url", "env:G"])
            .status,
        2
    );
}

#[test]
fn a_source_that_is_not_there_is_told_with_a_code() {
    let desk = Desk::init("cli-unreachable");
    let port = holdfast_testing::ports::ReservedPort::take()
        .unwrap()
        .number();
    let url = format!("postgresql://u:secret-word@127.0.0.1:{port}/d");
    let mut command = desk.command(&["source", "add", "prod", "--vault-url", "env:URL"]);
    let output = command.env("URL", url).output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert_eq!(output.status.code(), Some(1), "{stdout}{stderr}");
    assert!(
        stderr.contains("ZS301") && stderr.contains("nothing was changed"),
        "{stderr}"
    );
    assert!(!format!("{stdout}{stderr}").contains("secret-word"));
}

#[test]
fn a_changed_ledger_does_not_verify() {
    let desk = Desk::init("cli-ledger");
    let verified = desk.run(&["ledger", "verify", "--json"]).done().json();
    assert_eq!(verified[0]["entries"], 2);
    let shown = desk.run(&["ledger", "show", "1", "--json"]).done().json();
    assert_eq!(shown[0]["kind"], "approver.added");
    desk.run(&["ledger", "show", "99"]).refused(2, &["ZU605"]);
    let file = desk.join("state/guard/ledger/ledger.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(
        desk.run(&["ledger", "export", "--half", "guard"])
            .done()
            .stdout,
        text
    );
    std::fs::write(&file, text.replace("ann", "eve")).unwrap();
    desk.run(&["ledger", "verify"]).done();
    // The newest entry is vouched for by the next one or a signed head only; the one before it is.
    std::fs::write(&file, text.replace("ledger.begun", "ledger.begum")).unwrap();
    desk.run(&["ledger", "verify"])
        .refused(1, &["ZI001", "keep the file"]);
    desk.run(&["ledger", "list"]).refused(1, &["ZI001"]);
    desk.run(&["hold", "list"]).refused(1, &["ZI001"]);
}

#[test]
fn only_an_approver_makes_an_approver() {
    let desk = Desk::init("cli-approver");
    desk.says(
        &["hold", "approver", "eve", "--passphrase-stdin"],
        "eve's own words\neve's own words",
    )
    .refused(1, &["ZL601"]);
    let both = format!("{PASSPHRASE}\nbob's own words");
    desk.says(&["hold", "approver", "bob", "--passphrase-stdin"], &both)
        .done();
    let list = desk
        .run(&["ledger", "list", "--kind", "approver.added", "--json"])
        .done()
        .json();
    assert_eq!(list[1]["body"]["endorsed_by"], "ann");
    desk.says(
        &["hold", "approve", "hold-aaaaaaaa", "--passphrase-stdin"],
        PASSPHRASE,
    )
    .refused(2, &["ZU402"]);
}

#[test]
fn judge_answers_each_line_and_executes_nothing() {
    let desk = Desk::empty("cli-judge");
    let call = json!({
        "id": 1, "method": "POST", "url": "https://backboard.railway.com/graphql/v2",
        "headers": {"content-type": "application/json"},
        "body": json!({"query": "mutation { volumeDelete(volumeId: \"3d2c\") }"}).to_string(),
    });
    let lines = format!(
        "{call}\n\n{}",
        json!({"id": "b", "method": "POST", "url": "https://example.com/"})
    );
    let ran = desk.says(&["judge", "http"], &lines).done();
    let answers: Vec<serde_json::Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&answers[0]["id"], &answers[0]["verdict"]),
        (&json!(1), &json!("hold"))
    );
    assert!(
        answers[0]["effects"]
            .as_array()
            .unwrap()
            .contains(&json!("destroy")),
        "{answers:?}"
    );
    assert_ne!(answers[1]["verdict"], "allow");
    let sql = format!(
        "{}\n{}",
        json!({"id": 7, "sql": "COMMIT; DROP SCHEMA public CASCADE"}),
        json!({"id": 8, "sql": "SELECT 1"})
    );
    let ran = desk.says(&["judge", "sql"], &sql).done();
    let answers: Vec<serde_json::Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers[0]["verdict"], "hold", "{answers:?}");
    assert_eq!(answers[1]["verdict"], "allow", "{answers:?}");
    desk.says(&["judge", "sql"], "DROP TABLE x")
        .refused(2, &["ZU605", "line 1"]);
    std::fs::write(desk.join("bad.cedar"), "permit(everything)").unwrap();
    desk.says(&["judge", "sql", "--policy", "bad.cedar"], "")
        .refused(2, &["ZU101"]);
}

#[test]
fn a_token_that_lies_about_is_named_taken_and_put_back() {
    let desk = Desk::init("cli-scan");
    desk.run(&["source", "add", "prod", "--guard-url", "env:G"])
        .done();
    let token = "3d2f0c5e-1f6b-4a7e-9d0e-6a2f6a9b1c42";
    let work = desk.join("work");
    std::fs::create_dir(&work).unwrap();
    let file = work.join(".env");
    let text = format!("RAILWAY_API_TOKEN={token}\nDEBUG=1\n");
    std::fs::write(&file, &text).unwrap();
    let found = desk.run(&["scan", "work", "--json"]).done();
    assert!(
        !found.stdout.contains(token) && !found.stderr.contains(token),
        "{found:?}"
    );
    let found = found.json();
    assert_eq!(found["findings"][0]["provider"], "railway");
    assert!(
        !found["findings"][0]["can_destroy"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert_eq!(desk.run(&["scan", "work", "--take"]).status, 2);
    desk.run(&["scan", "nowhere"]).refused(2, &["ZU508"]);

    let mut take = desk.command(&[
        "scan", "work", "--take", "--source", "prod", "--agent", "cursor",
    ]);
    // The lease needs a role in the source, and nothing answers there: the file stays as it is.
    let refused = take
        .env("G", "postgresql://u:p@127.0.0.1:1/d")
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);

    let toml = desk.join("holdfast.toml");
    let config = std::fs::read_to_string(&toml)
        .unwrap()
        .replace("guard_url = \"env:G\"\n", "");
    std::fs::write(&toml, config).unwrap();
    let taken = desk
        .run(&[
            "scan", "work", "--take", "--source", "prod", "--agent", "cursor",
        ])
        .done();
    assert!(!format!("{taken:?}").contains(token), "{taken:?}");
    let left = std::fs::read_to_string(&file).unwrap();
    assert!(
        !left.contains(token) && left.contains("RAILWAY_API_TOKEN=hfl_"),
        "{left}"
    );
    assert!(left.ends_with("\nDEBUG=1\n"));
    let custody = desk.run(&["scan", "--custody", "--json"]).done().json();
    let id = custody[0]["id"].as_str().unwrap().to_owned();
    let exported = desk.run(&["ledger", "export"]).done().stdout;
    assert!(exported.contains("custody.taken") && !exported.contains(token));
    desk.run(&["scan", "--put-back", &id]).done();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    desk.run(&["scan", "--put-back", "custody-none"])
        .refused(2, &["ZU506"]);
}
