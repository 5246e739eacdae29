//! Clones as their users meet them: processes of their own, which outlive what opened them.

mod sandbox;

use std::time::Duration;

use holdfast_testing::postgres::{self, Installation, Server};
use holdfast_testing::process::Process;
use holdfast_testing::signals::{self, Signal};
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

use crate::desk::Desk;

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

async fn connect(url: &str) -> Option<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}

/// Returns what a query says, or nothing when nobody answers.
fn ask(url: &str, sql: &str) -> Option<i64> {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let client = connect(url).await?;
        client.query_one(sql, &[]).await.ok()?.try_get(0).ok()
    })
}

fn execute(url: &str, sql: &str) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let client = connect(url).await.unwrap();
        client.batch_execute(sql).await.unwrap();
    });
}

const COUNT: &str = "SELECT count(*) FROM bookings";

/// A source with a thousand bookings, its vault, and a restore point.
fn protect(installation: &Installation, desk: &Desk) -> (Server, Process) {
    let source = Server::builder(installation)
        .setting("wal_level", "replica")
        .start()
        .unwrap();
    execute(
        &source.url(),
        "CREATE TABLE bookings AS SELECT generate_series(1, 1000) AS n",
    );
    desk.secret("vault-url", &source.url());
    desk.run(&["source", "add", "prod", "--vault-url", "file:vault-url"])
        .done();
    let toml = desk.join("holdfast.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    let bin = installation.bin_dir.display();
    let vault = format!(
        "{text}[vault]\npostgres_bin_dirs = [\"{bin}\"]\ndrill_every_s = 86400\n[vault.clones]\ncount_max = 4\n"
    );
    std::fs::write(&toml, vault).unwrap();
    let vault = run_vault(desk);
    let came = signals::wait_until(LIMIT, || {
        let listed = desk.run(&["point", "list", "--json"]);
        listed.status == 0 && listed.stdout.contains("\"point\"")
    });
    assert!(came.is_ok(), "{}", vault.log_tail());
    (source, vault)
}

fn run_vault(desk: &Desk) -> Process {
    Process::spawn(desk.command(&["vault", "run"]), &desk.join("vault.log")).unwrap()
}

fn open(desk: &Desk, more: &[&str]) -> Value {
    let args = ["clone", "open", "prod", "--at", "latest", "--json"];
    desk.run(&[&args[..], more].concat()).done().json()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// Returns the process that serves a clone.
fn server_of(id: &str) -> Option<u32> {
    let wanted = format!("clone\0serve\0{id}\0");
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
            line.is_ok_and(|line| line.contains(&wanted))
        })
}

fn wait(what: &str, holds: impl FnMut() -> bool) {
    assert!(signals::wait_until(LIMIT, holds).is_ok(), "{what}");
}

fn folders(desk: &Desk) -> usize {
    std::fs::read_dir(desk.join("state/clones"))
        .unwrap()
        .count()
}

#[test]
fn clones_outlive_the_vault_and_come_back_when_their_own_process_is_killed() {
    let installation = postgres::installation(15).unwrap();
    let desk = Desk::init("clones");
    let (source, mut vault) = protect(&installation, &desk);
    let opened: Vec<Value> = (0..3).map(|_| open(&desk, &[])).collect();
    for (index, one) in opened.iter().enumerate() {
        assert_eq!(ask(text(one, "url"), COUNT), Some(1000), "{one}");
        let made = format!(
            "CREATE TABLE mine AS SELECT {index} AS n; DELETE FROM bookings WHERE n > {index}"
        );
        execute(text(one, "url"), &made);
    }
    vault.kill_9().unwrap();
    let mine = |index: usize| {
        ask(
            text(&opened[index], "url"),
            "SELECT sum(n)::bigint FROM mine",
        )
    };
    for index in 0..3 {
        assert_eq!(mine(index), Some(index as i64));
    }
    assert_eq!(ask(&source.url(), COUNT), Some(1000));
    let listed = desk.run(&["clone", "list", "--json"]).done().json();
    assert_eq!(listed.as_array().unwrap().len(), 3);

    // Without a vault, whoever lists the clones brings a killed one back.
    let id = text(&opened[1], "id");
    let killed = server_of(id).unwrap();
    signals::send(killed, Signal::KILL).unwrap();
    wait("its server ends with it", || mine(1).is_none());
    let back = signals::wait_until(LIMIT, || {
        desk.run(&["clone", "list"]).done();
        mine(1) == Some(1)
    });
    assert!(back.is_ok(), "{}", desk.run(&["clone", "show", id]).stdout);
    assert_ne!(server_of(id), Some(killed));
    assert_eq!((mine(0), mine(2)), (Some(0), Some(2)));

    // A vault that is started again takes all of them over, and brings a killed one back itself.
    let _vault = run_vault(&desk);
    let id = text(&opened[2], "id");
    signals::send(server_of(id).unwrap(), Signal::KILL).unwrap();
    wait("it ends", || mine(2).is_none());
    wait("the vault brings it back", || mine(2) == Some(2));
    let shown = desk.run(&["clone", "show", id, "--json"]).done().json();
    assert_eq!(
        (text(&shown, "state"), &shown["reopened"]),
        ("open", &Value::from(1))
    );

    // Two are closed, served or not; one becomes an ordinary data directory.
    desk.run(&["clone", "close", text(&opened[0], "id")]).done();
    assert_eq!((mine(0), folders(&desk)), (None, 2));
    desk.run(&["clone", "close", id]).done();
    assert_eq!(folders(&desk), 1);
    let kept = desk.join("kept");
    let into = kept.to_str().unwrap();
    let id = text(&opened[1], "id");
    desk.run(&["clone", "keep", id, "--into", "/"])
        .refused(2, &["ZU373", "is there already"]);
    assert_eq!(mine(1), Some(1));
    desk.run(&["clone", "keep", id, "--into", into]).done();
    assert_eq!((mine(1), folders(&desk)), (None, 0));
    let ordinary = Server::builder(&installation).existing(&kept, source.password());
    let ordinary = ordinary.start().unwrap();
    assert_eq!(
        ask(&ordinary.url(), "SELECT sum(n)::bigint FROM mine"),
        Some(1)
    );
    desk.run(&["clone", "show", id]).refused(2, &["ZU372"]);
}

#[test]
fn a_clone_ends_when_its_time_is_up_and_what_is_refused_leaves_nothing() {
    let installation = postgres::installation(15).unwrap();
    let desk = Desk::init("clones-limits");
    let (_source, vault) = protect(&installation, &desk);
    let args = ["clone", "open", "prod"];
    let refuse = |more: &[&str], status: i32, words: &[&str]| {
        desk.run(&[&args[..], more].concat()).refused(status, words);
        let left = std::fs::read_dir(desk.join("state/clones")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{more:?}");
    };
    refuse(&["--ttl", "9d"], 2, &["ZU371", "lives for at most"]);
    refuse(&["--disk-max-mib", "1"], 2, &["ZU371", "of the disk"]);
    refuse(&["--at", "0/1"], 2, &["ZU304"]);
    refuse(&["--recovery-key", "-"], 2, &["stdin"]);
    let one = open(&desk, &["--ttl", "8s", "--writable-by", "lease-7"]);
    assert_eq!(text(&one, "writable_by"), "lease-7");
    assert_eq!(ask(text(&one, "url"), COUNT), Some(1000));
    let confinement = &one["confinement"];
    assert!(
        ["enforced", "advisory"].contains(&text(confinement, "kept")),
        "{confinement}"
    );
    let id = text(&one, "id");
    wait("it ends by itself", || folders(&desk) == 0);
    wait("its process ends", || server_of(id).is_none());
    assert_eq!(ask(text(&one, "url"), COUNT), None);
    // What takes more than it may is stopped, and says so.
    let one = open(&desk, &["--disk-max-mib", "100"]);
    let fill =
        "CREATE TABLE fill AS SELECT repeat(md5(n::text), 30) FROM generate_series(1, 100000) n";
    // It may be stopped in the middle of it.
    let _ = ask(text(&one, "url"), fill);
    let id = text(&one, "id");
    wait("it is stopped", || {
        let shown = desk.run(&["clone", "show", id, "--json"]).done().json();
        text(&shown, "state") == "halted" && text(&shown, "why").contains("of the disk")
    });
    desk.run(&["clone", "close", id]).done();
    assert_eq!(folders(&desk), 0, "{}", vault.log_tail());
}
