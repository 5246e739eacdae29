//! `holdfast recover` as its users meet it: a vault process, a source under load, and its loss.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdfast_testing::postgres::{self, Installation, Server};
use holdfast_testing::process::Process;
use holdfast_testing::signals::{self, Signal};
use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};

use crate::desk::Desk;

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn execute(url: &str, sql: &str) {
    runtime().block_on(async { connect(url).await.batch_execute(sql).await.unwrap() });
}

/// Returns the first column of every row.
fn numbers(url: &str, sql: &str) -> Vec<i64> {
    runtime().block_on(async {
        let rows = connect(url).await.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    })
}

/// Clerks that book until the server is gone, and remember what was acknowledged to them.
struct Load {
    acknowledged: Arc<Mutex<Vec<i64>>>,
    end: Arc<AtomicBool>,
    clerks: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(url: &str, first: i64) -> Self {
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let end = Arc::new(AtomicBool::new(false));
        let clerks = (0..2).map(|clerk| {
            let (told, end, url) = (acknowledged.clone(), end.clone(), url.to_owned());
            std::thread::spawn(move || {
                runtime().block_on(async {
                    let client = connect(&url).await;
                    let mut number = first + clerk;
                    while !end.load(Ordering::Relaxed) {
                        let sql = "INSERT INTO bookings VALUES ($1)";
                        if client.execute(sql, &[&number]).await.is_err() {
                            return;
                        }
                        told.lock().unwrap().push(number);
                        number += 2;
                    }
                });
            })
        });
        let clerks = clerks.collect();
        Self {
            acknowledged,
            end,
            clerks,
        }
    }

    fn wait(&self, count: usize) {
        let booked = || self.acknowledged.lock().unwrap().len() >= count;
        signals::wait_until(LIMIT, booked).unwrap();
    }

    /// Waits until every clerk has ended, and returns what was acknowledged.
    fn acknowledged(self) -> Vec<i64> {
        self.end.store(true, Ordering::Relaxed);
        for clerk in self.clerks {
            clerk.join().unwrap();
        }
        let told = self.acknowledged.lock().unwrap();
        told.clone()
    }
}

/// A source with its vault, in a process of its own.
struct Stage {
    desk: Desk,
    source: Server,
    vault: Option<Process>,
    /// The servers that were recovered.
    recovered: Vec<u32>,
}

impl Stage {
    fn start(subject: &str, installation: &Installation, add: &str) -> Self {
        let source = Server::builder(installation)
            // No machine goes down here; that commits wait is what counts.
            .setting("fsync", "off")
            .setting("wal_level", "replica")
            .start()
            .unwrap();
        execute(&source.url(), "CREATE TABLE bookings (n bigint)");
        let desk = Desk::init(subject);
        desk.secret("vault-url", &source.url());
        let add = format!("source add prod --vault-url file:vault-url {add}");
        desk.run(&add.split_whitespace().collect::<Vec<_>>()).done();
        let toml = desk.join("holdfast.toml");
        let text = std::fs::read_to_string(&toml).unwrap();
        let bin = installation.bin_dir.display();
        let vault =
            format!("{text}[vault]\npostgres_bin_dirs = [\"{bin}\"]\ndrill_every_s = 86400\n");
        std::fs::write(&toml, vault).unwrap();
        let mut stage = Self {
            desk,
            source,
            vault: None,
            recovered: Vec::new(),
        };
        stage.run_vault();
        stage
    }

    fn run_vault(&mut self) {
        let command = self.desk.command(&["vault", "run"]);
        self.vault = Some(Process::spawn(command, &self.desk.join("vault.log")).unwrap());
    }

    fn wait_for(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let came = signals::wait_until(LIMIT, || {
            last = self.desk.run(&["source", "list", "--json"]).json()[0].clone();
            holds(&last)
        });
        let said = self.vault.as_ref().map(Process::log_tail);
        assert!(came.is_ok(), "{what}: {last}\n{said:?}");
        last
    }

    /// Waits until the mirror follows what the source is now.
    fn wait_mirror(&self, timeline: u32) {
        self.wait_for("a mirror that follows", |one| {
            one["state"] == "streaming"
                && one["timeline"] == timeline
                && one["mirror"]["state"] == "following"
                && one["mirror"]["lag"] == 0
        });
    }

    fn recover(&mut self, more: &[&str]) -> Recovered {
        let began = Instant::now();
        let args = ["recover", "prod", "--json"];
        let ran = self.desk.run(&[&args[..], more].concat()).done();
        let told = ran.json();
        assert_ne!(told["wal_end"], "0/0", "{told}");
        let server = &told["server"];
        self.recovered
            .push(u32::try_from(server["pid"].as_u64().unwrap()).unwrap());
        let password = format!(":{}@", self.source.password());
        let url = server["url"].as_str().unwrap().replacen('@', &password, 1);
        execute(&url, "INSERT INTO bookings VALUES (-1)");
        println!(
            "from the command to the first committed write, by {}: {:?}",
            told["way"],
            began.elapsed()
        );
        Recovered {
            url,
            told,
            said: ran.stderr,
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for pid in &self.recovered {
            let _ = signals::send(*pid, Signal::QUIT);
        }
        let gone = || self.recovered.iter().all(|pid| !signals::is_running(*pid));
        let _ = signals::wait_until(LIMIT, gone);
        let pid = self.vault.as_ref().map(Process::pid);
        if let (Some(vault), Some(pid)) = (&mut self.vault, pid) {
            // In order, so that it takes its mirror along.
            let _ = signals::send(pid, Signal::TERM);
            let _ = vault.wait(LIMIT);
        }
    }
}

struct Recovered {
    url: String,
    told: Value,
    said: String,
}

const EVERY: &str = "SELECT n FROM bookings WHERE n > 0 ORDER BY n";

fn assert_has(url: &str, acknowledged: &[i64], what: &str) {
    let there = numbers(url, EVERY);
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|number| there.binary_search(number).is_err())
        .collect();
    assert!(
        lost.is_empty(),
        "{what}: of {} {lost:?}",
        acknowledged.len()
    );
}

#[test]
fn a_source_that_is_lost_under_load_is_back_by_its_mirror_with_every_acknowledged_row() {
    let installation = postgres::newest().unwrap();
    let mut stage = Stage::start("recover", &installation, "--mirror --synchronous");
    stage.wait_mirror(1);
    // A vault that is killed leaves the mirror running, and the next one takes it up; what becomes of a
    // drill that is killed is a matter of other tests.
    let proven = |one: &Value| one["proof"]["state"] == "verified";
    stage.wait_for("a proven point", proven);
    stage.vault.take().unwrap().kill_9().unwrap();
    stage.run_vault();
    stage.wait_mirror(1);
    let laid = ["ledger", "list", "--half", "vault", "--json", "--kind"];
    let laid = stage.desk.run(&[&laid[..], &["mirror.laid"]].concat());
    assert_eq!(laid.json().as_array().map(Vec::len), Some(1), "{laid:?}");
    stage.wait_for("commits that wait", |one| one["synchronous"] == true);
    let load = Load::start(&stage.source.url(), 1);
    load.wait(200);
    // Total loss: the server, and everything that lay beside it.
    stage.source.kill_9().unwrap();
    std::fs::remove_dir_all(stage.source.data_dir()).unwrap();
    let first = load.acknowledged();
    let second = stage.recover(&[]);
    assert_eq!(second.told["way"], "mirror", "{}", second.told);
    assert_eq!(second.told["timeline"], 2);
    assert_has(&second.url, &first, "the first life");

    // The vault goes on with it; then the vault is killed, and the second server is lost as well.
    stage.wait_mirror(2);
    stage.wait_for("commits that wait", |one| one["synchronous"] == true);
    let load = Load::start(&second.url, 1_000_001);
    load.wait(200);
    let mut vault = stage.vault.take().unwrap();
    let pid = stage.recovered[0];
    // The server first: a commit that waits for a vault that is gone is not acknowledged.
    signals::send(pid, Signal::QUIT).unwrap();
    vault.kill_9().unwrap();
    signals::wait_until(LIMIT, || !signals::is_running(pid)).unwrap();
    let later = load.acknowledged();
    let third = stage.recover(&[]);
    assert_eq!(third.told["way"], "mirror", "{}", third.told);
    assert_eq!(third.told["timeline"], 3);
    let both = [first, later].concat();
    assert_has(&third.url, &both, "the first two lives");

    // A vault that is started again protects it, and nothing between the lives is missing.
    stage.run_vault();
    stage.wait_mirror(3);
    let table = "INSERT INTO bookings VALUES (5000001); CHECKPOINT";
    execute(&third.url, table);
    let end = numbers(&third.url, "SELECT (pg_current_wal_lsn() - '0/0')::bigint")[0];
    stage.wait_for("the third life", |one| position(&one["flushed"]) >= end);
    let into = stage.desk.join("back").display().to_string();
    let restore = ["restore", "prod", "--into", &into, "--start", "--json"];
    let back = stage.desk.run(&restore).done().json();
    stage
        .recovered
        .push(u32::try_from(back["server"]["pid"].as_u64().unwrap()).unwrap());
    let url = format!(
        "postgresql://postgres:{}@127.0.0.1:{}/postgres",
        stage.source.password(),
        back["server"]["port"]
    );
    let all = [both, vec![5_000_001]].concat();
    assert_has(&url, &all, "a restore of all lives");
    assert!(
        !stage
            .desk
            .run(&["ledger", "verify"])
            .stderr
            .contains("error")
    );
}

fn position(text: &Value) -> i64 {
    let (high, low) = text.as_str().unwrap().split_once('/').unwrap();
    let part = |text| i64::from_str_radix(text, 16).unwrap();
    part(high) << 32 | part(low)
}

#[test]
fn a_table_that_was_dropped_is_back_by_the_mirror_that_waits_before_the_drop() {
    let installation = postgres::oldest().unwrap();
    let mut stage = Stage::start("dropped", &installation, "--mirror");
    stage.wait_mirror(1);
    let url = stage.source.url();
    execute(&url, "INSERT INTO bookings SELECT generate_series(1, 100)");
    execute(&url, "DROP TABLE bookings");
    execute(&url, "CREATE TABLE later (n int)");
    let seen = || {
        let kind = ["ledger", "list", "--half", "vault", "--kind"];
        let listed = stage
            .desk
            .run(&[&kind[..], &["source.destruction_seen", "--json"]].concat());
        let entry = listed.json();
        entry[0]["action"].as_str().map(str::to_owned)
    };
    let mut action = None;
    signals::wait_until(LIMIT, || {
        action = seen();
        action.is_some()
    })
    .unwrap();
    let action = action.unwrap();
    let held = stage.wait_for("a mirror that waits", |one| {
        one["mirror"]["state"] == "holding"
    });
    assert!(held["mirror"]["holds_before"].is_string(), "{held}");

    // Whoever asks for what it cannot give is refused, or served by a restore; it waits on.
    let ask = |more: &[&str]| stage.desk.run(&[&["recover", "prod"], more].concat());
    ask(&["--at", "2020-01-01T00:00:00Z"]).refused(2, &["ZU304", "nearest possible"]);
    ask(&["--at", "2999-01-01T00:00:00Z"]).refused(2, &["ZU304", "has not come yet"]);
    ask(&["--at", "before:act-nosuch"]).refused(2, &["ZU304"]);
    stage.desk.run(&["recover", "other"]).refused(2, &["ZU603"]);
    let into = stage.desk.join("holdfast.toml").display().to_string();
    ask(&["--into", &into]).refused(2, &["ZU305", "nothing was"]);

    let back = stage.recover(&["--at", &format!("before:{action}")]);
    assert_eq!(back.told["way"], "mirror", "{}", back.told);
    assert_eq!(numbers(&back.url, EVERY).len(), 100);

    // The new mirror has more than an earlier time asks for: a restore leads there, and says so.
    stage.wait_mirror(2);
    let early = numbers(
        &back.url,
        "SELECT (extract(epoch FROM now()) * 1000000)::bigint",
    );
    execute(
        &back.url,
        "INSERT INTO bookings SELECT generate_series(101, 200)",
    );
    let end = numbers(&back.url, "SELECT (pg_current_wal_lsn() - '0/0')::bigint")[0];
    stage.wait_for("everything replayed", |one| {
        position(&one["mirror"]["replayed"]) >= end
    });
    let at = holdfast_core::Timestamp(early[0]).to_string();
    let earlier = stage.recover(&["--at", &at]);
    assert_eq!(earlier.told["way"], "restore", "{}", earlier.told);
    assert!(
        earlier.said.contains("not by the mirror"),
        "{}",
        earlier.said
    );
    assert_eq!(numbers(&earlier.url, EVERY).len(), 100);
    stage.wait_mirror(3);
    cut_over(&stage, &back.told, &earlier.told);
}

/// What makes others find the recovered server, through the command line.
fn cut_over(stage: &Stage, from: &Value, to: &Value) {
    let address = |told: &Value| format!("127.0.0.1:{}", told["server"]["port"]);
    let (from, to) = (address(from), address(to));
    let desk = &stage.desk;
    let file = format!("DATABASE_URL=postgresql://app:s3cret@{from}/shop\n");
    std::fs::write(desk.join(".env"), &file).unwrap();
    let rewrite = ["recover", "rewrite", ".env", "--from", &from, "--to", &to];
    let shown = desk.run(&rewrite).done();
    assert!(
        !shown.stdout.contains("s3cret") && shown.stdout.contains(&to),
        "{shown:?}"
    );
    assert_eq!(std::fs::read_to_string(desk.join(".env")).unwrap(), file);
    desk.run(&[&rewrite[..], &["--apply"]].concat()).done();
    let written = std::fs::read_to_string(desk.join(".env")).unwrap();
    assert_eq!(written, file.replace(&from, &to));
    desk.run(&rewrite)
        .refused(2, &["ZU380", "no connection string"]);

    let listen = format!("127.0.0.1:{}", free_port());
    let point = |to: &str| desk.run(&["recover", "point", "--listen", &listen, "--to", to]);
    point(&to).refused(2, &["ZU381", "there is no forwarder"]);
    let forward = ["recover", "forward", "--listen", &listen, "--to", &from];
    let forwarder = Process::spawn(desk.command(&forward), &desk.join("forward.log")).unwrap();
    let password = stage.source.password();
    let url = format!("postgresql://postgres:{password}@{listen}/postgres");
    let port = || -> Option<i64> {
        runtime().block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await.ok()?;
            tokio::spawn(connection);
            let sql = "SELECT current_setting('port')::bigint";
            client.query_one(sql, &[]).await.ok().map(|row| row.get(0))
        })
    };
    let leads_to = |address: &str| {
        let wanted = address.rsplit(':').next().unwrap().parse::<i64>().unwrap();
        let came = signals::wait_until(LIMIT, || port() == Some(wanted));
        assert!(came.is_ok(), "{address}: {}", forwarder.log_tail());
    };
    leads_to(&from);
    point(&to).done();
    leads_to(&to);
    let kinds = ["ledger", "list", "--half", "vault", "--json", "--kind"];
    for (kind, count) in [("recovery.rewritten", 1), ("recovery.pointed", 2)] {
        let listed = desk.run(&[&kinds[..], &[kind]].concat()).done().json();
        assert_eq!(listed.as_array().map(Vec::len), Some(count), "{listed}");
    }
    assert_ne!(json!(from), json!(to));
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
