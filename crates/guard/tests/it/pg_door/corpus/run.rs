//! One server, one door, a database for each worker, and the steps of a case.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::BytesMut;
use holdfast_testing::postgres::{Installation, Server};
use tokio_postgres::Client;

use super::super::bench::{self, Bench};
use super::super::raw::{Answer, Login, Raw, message, text};
use super::case::{Case, Label, Step};
use super::state::State;

/// How a case reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Direct,
    Door,
}

#[derive(Debug, Default)]
pub struct Outcome {
    pub lost: Vec<String>,
    pub wrong: Vec<String>,
    pub said: Vec<String>,
}

/// A case that is being played.
#[derive(Default)]
struct Played {
    sessions: BTreeMap<usize, Raw>,
    outcome: Outcome,
}

pub struct Stage {
    bench: Bench,
    folder: tempfile::TempDir,
    has_contrib: bool,
    /// What the server keeps of the application's password.
    password: String,
    mending: tokio::sync::Mutex<()>,
}

/// A database that is as it was made.
pub struct Database {
    name: String,
    before: State,
}

/// How long the door may take to put back what a ROLLBACK does not.
const SETTLES_MAX: std::time::Duration = std::time::Duration::from_secs(2);

const FIXTURE: &str = include_str!("../../../corpus/fixture.sql");

impl Stage {
    pub async fn new(installation: &Installation) -> Self {
        let server = Server::builder(installation)
            .fast()
            .setting("max_prepared_transactions", "20")
            .setting("max_connections", "300")
            .setting("wal_level", "logical")
            .setting("autovacuum", "off")
            // Deriving a key for every question to the server would take most of the time.
            .hba_line("host all postgres 127.0.0.1/32 trust")
            .start()
            .unwrap();
        let root = server.connect().await.unwrap();
        root.batch_execute(
            "CREATE ROLE app LOGIN PASSWORD 'app'; CREATE ROLE clerk LOGIN PASSWORD 'clerk'",
        )
        .await
        .unwrap();
        root.batch_execute("CREATE DATABASE shop_template OWNER app")
            .await
            .unwrap();
        root.batch_execute("CREATE DATABASE other_template OWNER app")
            .await
            .unwrap();
        let other = server.connect_to("other_template").await.unwrap();
        other
            .batch_execute("SET ROLE app; CREATE SCHEMA IF NOT EXISTS public; RESET ROLE; ALTER SCHEMA public OWNER TO app; SET ROLE app; CREATE TABLE ledger (id int, what text); INSERT INTO ledger SELECT n, 'entry' FROM generate_series(1, 50) n")
            .await
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let shop = server.connect_to("shop_template").await.unwrap();
        shop.batch_execute(&format!(
            "ALTER SCHEMA public OWNER TO app; SET ROLE app; {FIXTURE}"
        ))
        .await
        .unwrap();
        let port = server.port();
        let ways = format!(
            "RESET ROLE; CREATE EXTENSION dblink; CREATE EXTENSION postgres_fdw;
             CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{port}', dbname 'other');
             GRANT USAGE ON FOREIGN SERVER elsewhere TO app;
             CREATE USER MAPPING FOR PUBLIC SERVER elsewhere OPTIONS (user 'app', password 'app');
             SET ROLE app;
             CREATE FOREIGN TABLE remote_ledger (id int, what text) SERVER elsewhere OPTIONS (table_name 'ledger');"
        );
        let has_contrib = shop.batch_execute(&ways).await.is_ok();
        if !has_contrib {
            shop.batch_execute("RESET ROLE").await.unwrap();
        }
        shop.batch_execute("RESET ROLE; ANALYZE").await.unwrap();
        let kept = "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'";
        let password = root.query_one(kept, &[]).await.unwrap().get(0);
        drop(shop);
        let bench = Bench::around(server, "postgres").await;
        Self {
            bench,
            folder,
            has_contrib,
            password,
            mending: tokio::sync::Mutex::default(),
        }
    }

    /// Makes the database of a worker.
    pub async fn database(&self, number: usize) -> Database {
        let name = format!("shop_{number}");
        self.make_other(&other(&name)).await;
        self.make(&name).await;
        let before = self.state(&name).await;
        Database { name, before }
    }

    /// Makes the other database of a worker, unless it is there.
    async fn make_other(&self, name: &str) {
        let root = self.bench.server.connect().await.unwrap();
        let there = "SELECT 1 FROM pg_database WHERE datname = $1";
        if root.query_opt(there, &[&name]).await.unwrap().is_none() {
            let made = format!("CREATE DATABASE {name} TEMPLATE other_template OWNER app");
            root.batch_execute(&made).await.unwrap();
        }
    }

    async fn make(&self, name: &str) {
        let root = self.bench.server.connect().await.unwrap();
        let gone = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        root.batch_execute(&gone).await.unwrap();
        let made = format!("CREATE DATABASE {name} TEMPLATE shop_template OWNER app");
        // Another worker may copy the template at the same time.
        for _ in 0..200 {
            match root.batch_execute(&made).await {
                Ok(()) => return self.lead_elsewhere(name).await,
                Err(error) if error.code().is_some_and(|code| code.code() == "55006") => {
                    tokio::task::yield_now().await;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        panic!("the template stays busy");
    }

    /// The foreign server of a copy leads to the worker's own other database.
    async fn lead_elsewhere(&self, name: &str) {
        if self.has_contrib {
            let root = self.bench.server.connect_to(name).await.unwrap();
            let leads = format!(
                "ALTER SERVER elsewhere OPTIONS (SET dbname '{}')",
                other(name)
            );
            root.batch_execute(&leads).await.unwrap();
        }
    }

    async fn state(&self, database: &str) -> State {
        let shop = self.bench.server.connect_to(database).await;
        let other = self.bench.server.connect_to(&other(database)).await;
        let (Ok(shop), Ok(other)) = (shop, other) else {
            // Everything that was in them is gone.
            return State::default();
        };
        State::read(&shop, &other, self.folder.path()).await
    }

    /// Runs one case; afterwards the database is as it was made again.
    pub async fn run(&self, case: &Case, database: &mut Database, way: Way) -> Outcome {
        let outcome = Outcome::default();
        let needs = |word: &str| case.steps.iter().any(|step| step.text.contains(word));
        if !self.has_contrib && (needs("dblink") || needs("remote_ledger") || needs("elsewhere")) {
            return match way {
                Way::Direct => Outcome {
                    lost: vec!["not installed".to_owned()],
                    ..outcome
                },
                Way::Door => outcome,
            };
        }
        let mut before = None;
        for step in case.steps.iter().filter(|step| step.what == "given") {
            let client = self.bench.server.connect_to(&database.name).await.unwrap();
            act(&client, "app", &step.text).await.unwrap();
            before = Some(self.state(&database.name).await);
        }
        let before = before.unwrap_or_else(|| database.before.clone());
        let login = self.login(case, &database.name, way).await;
        let mut played = Played {
            outcome,
            ..Played::default()
        };
        for step in case.steps.iter().filter(|step| step.what != "given") {
            self.step(step, (&login, &database.name), &mut played).await;
        }
        drop(played.sessions);
        let mut outcome = played.outcome;
        let mut after = self.state(&database.name).await;
        self.check(case, &database.name, &mut outcome).await;
        if case.label == Label::Stop {
            outcome.lost = before.lost(&after, case.budget);
            // What was set behind the door is put back a moment after a ROLLBACK.
            let deadline = std::time::Instant::now() + SETTLES_MAX;
            while way == Way::Door
                && !outcome.lost.is_empty()
                && std::time::Instant::now() < deadline
            {
                after = self.state(&database.name).await;
                outcome.lost = before.lost(&after, case.budget);
            }
        }
        if after != database.before {
            self.tidy(&login.user, database, way).await;
            after = self.state(&database.name).await;
        }
        if after != database.before {
            self.mend(&database.name).await;
            after = self.state(&database.name).await;
            assert_eq!(database.before.lost(&after, 0), Vec::<String>::new());
            database.before = after;
        }
        outcome
    }

    async fn check(&self, case: &Case, database: &str, outcome: &mut Outcome) {
        if case.checks.is_empty() {
            return;
        }
        let root = self.bench.server.connect_to(database).await.unwrap();
        for (question, answer) in &case.checks {
            let row = root
                .query_one(&format!("SELECT ({question})::text"), &[])
                .await;
            let found: Option<String> = match row {
                Ok(row) => row.get(0),
                Err(error) => Some(error.to_string()),
            };
            if found.as_deref() != Some(answer) {
                let text = format!("{question} is {found:?}, not {answer}");
                outcome.wrong.push(text);
            }
        }
    }

    /// Takes away what the lease made and puts sequences back, which is all that most cases change.
    async fn tidy(&self, role: &str, database: &Database, way: Way) {
        let Ok(root) = self.bench.server.connect_to(&database.name).await else {
            return;
        };
        if way == Way::Door {
            drop(
                root.batch_execute(&format!("DROP OWNED BY {role} CASCADE"))
                    .await,
            );
        }
        for (sequence, value) in &database.before.sequences {
            let back = match value {
                0 => continue,
                value => format!("SELECT setval('{sequence}', {value})"),
            };
            drop(root.batch_execute(&back).await);
        }
    }

    /// Puts everything back that a case may have changed.
    async fn mend(&self, database: &str) {
        if let Ok(root) = self.bench.server.connect_to(database).await {
            let open = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
            for row in root.query(open, &[]).await.unwrap() {
                let gid: String = row.get(0);
                drop(
                    root.batch_execute(&format!("ROLLBACK PREPARED '{gid}'"))
                        .await,
                );
            }
        }
        self.make(database).await;
        let root = self.bench.server.connect().await.unwrap();
        root.batch_execute("DROP DATABASE IF EXISTS gone WITH (FORCE)")
            .await
            .unwrap();
        self.make_other(&other(database)).await;
        let roles = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'evil%'";
        for row in root.query(roles, &[]).await.unwrap() {
            let role: String = row.get(0);
            drop(root.batch_execute(&format!("DROP ROLE {role}")).await);
        }
        let _one_at_a_time = self.mending.lock().await;
        let password = &self.password;
        for statement in [
            &format!("ALTER ROLE app PASSWORD '{password}'"),
            "ALTER ROLE app RESET ALL",
            "ALTER ROLE clerk RESET ALL",
            "REVOKE app FROM clerk",
            "ALTER ROLE ALL RESET ALL",
        ] {
            root.batch_execute(statement).await.unwrap();
        }
        let other = self
            .bench
            .server
            .connect_to(&other(database))
            .await
            .unwrap();
        other
            .batch_execute("TRUNCATE ledger; INSERT INTO ledger SELECT n, 'entry' FROM generate_series(1, 50) n")
            .await
            .unwrap();
        for file in std::fs::read_dir(self.folder.path()).unwrap() {
            drop(std::fs::remove_file(file.unwrap().path()));
        }
    }

    async fn login(&self, case: &Case, database: &str, way: Way) -> Login {
        match way {
            Way::Direct => Login {
                address: SocketAddr::from(([127, 0, 0, 1], self.bench.server.port())),
                user: "app".to_owned(),
                password: "app".to_owned(),
                database: database.to_owned(),
            },
            Way::Door => {
                let terms = (case.mode, std::time::Duration::from_secs(600));
                let issued = bench::issue_in(
                    &self.bench.leases,
                    &self.bench.source,
                    terms,
                    Some(database),
                )
                .await;
                Login {
                    address: self.bench.door,
                    user: issued.lease.pg.as_ref().unwrap().role.clone(),
                    password: issued.token.expose().to_owned(),
                    database: database.to_owned(),
                }
            }
        }
    }

    fn filled(&self, text: &str, database: &str) -> String {
        text.replace("{folder}", &self.folder.path().to_string_lossy())
            .replace("{database}", database)
            .replace("{other}", &other(database))
            .replace("{port}", &self.bench.server.port().to_string())
    }

    async fn step(&self, step: &Step, (login, database): (&Login, &str), played: &mut Played) {
        let text = &self.filled(&step.text, database);
        let Played { sessions, outcome } = played;
        match step.what.as_str() {
            "app" | "root" => {
                if let Ok(client) = self.bench.server.connect_to(database).await {
                    drop(act(&client, &step.what, text).await);
                }
                return;
            }
            "new" => {
                sessions.remove(&step.session);
                return;
            }
            "gets" => {
                let last = outcome.said.last().cloned().unwrap_or_default();
                if last != *text {
                    outcome
                        .wrong
                        .push(format!("it gets `{last}`, not `{text}`"));
                }
                return;
            }
            "fails" => {
                // The step before was to be refused by the server itself.
                match outcome.wrong.pop() {
                    Some(error) if error.contains(text.as_str()) => {}
                    other => outcome.wrong.push(format!("{other:?} instead of {text}")),
                }
                return;
            }
            _ => {}
        }
        let raw = match sessions.remove(&step.session) {
            Some(raw) => Ok(raw),
            None => Raw::connect(login).await,
        };
        let mut raw = match raw {
            Ok(raw) => raw,
            Err(error) => return outcome.wrong.push(error),
        };
        let answer = sent(&mut raw, &step.what, text).await;
        outcome
            .said
            .push(match (answer.errors.first(), &answer.last) {
                (Some(error), _) => error.clone(),
                (None, Some(last)) => last.clone(),
                (None, None) => answer.tags.last().cloned().unwrap_or_default(),
            });
        if let Some(error) = answer.errors.first() {
            outcome.wrong.push(format!("{}: {error}", step.text));
        } else if answer.ended {
            outcome.wrong.push("the connection ended".to_owned());
        }
        if !answer.ended {
            sessions.insert(step.session, raw);
        }
    }
}

fn other(database: &str) -> String {
    database.replace("shop", "other")
}

async fn act(client: &Client, who: &str, text: &str) -> Result<(), tokio_postgres::Error> {
    if who == "app" {
        client
            .batch_execute("SET SESSION AUTHORIZATION app")
            .await?;
    }
    client.batch_execute(text).await
}

async fn sent(raw: &mut Raw, what: &str, sql: &str) -> Answer {
    let mut out = BytesMut::new();
    match what {
        "q" => raw.query(sql.as_bytes(), None).await,
        // Rows to copy stand behind the first line.
        "copy" => {
            let (sql, rows) = sql.split_once('\n').unwrap_or((sql, ""));
            let rows = rows.replace("\\t", "\t") + "\n";
            raw.query(sql.as_bytes(), Some(rows.as_bytes())).await
        }
        // A text in which `\xNN` stands for a byte.
        "bytes" => raw.query(&unescaped(sql), None).await,
        "x" => {
            message(
                b'P',
                &[text(b""), text(sql.as_bytes()), vec![0, 0]].concat(),
                &mut out,
            );
            message(b'B', &[0, 0, 0, 0, 0, 0, 0, 0], &mut out);
            message(b'D', b"P\0", &mut out);
            message(b'E', &[0, 0, 0, 0, 0], &mut out);
            message(b'S', &[], &mut out);
            finish(raw, &out, 1).await
        }
        "msg" => {
            let syncs = protocol(sql, &mut out);
            finish(raw, &out, syncs).await
        }
        "generate" => {
            // `N TEXT`: TEXT so many times, with `#` as the number.
            let (count, sql) = sql.split_once(' ').unwrap();
            let count: usize = count.parse().unwrap();
            let all: String = (0..count)
                .map(|n| sql.replace('#', &n.to_string()))
                .collect();
            raw.query(all.as_bytes(), None).await
        }
        "loop" => {
            let (count, sql) = sql.split_once(' ').unwrap();
            let mut all = Answer::default();
            for number in 0..count.parse::<usize>().unwrap() {
                let text = sql.replace('#', &number.to_string());
                let answer = raw.query(text.as_bytes(), None).await;
                all.errors.extend(answer.errors);
                all.last = answer.last;
                all.ended |= answer.ended;
            }
            all
        }
        other => panic!("`{other}` is no step"),
    }
}

async fn finish(raw: &mut Raw, out: &BytesMut, syncs: usize) -> Answer {
    match raw.send(out).await {
        Ok(()) => raw.answer(syncs, None).await,
        Err(_) => Answer {
            ended: true,
            ..Answer::default()
        },
    }
}

/// Messages of the protocol, one a line: `P NAME|SQL`, `B PORTAL|NAME|PARAMETER…`, `D S|NAME`,
/// `D P|PORTAL`, `E PORTAL|ROWS`, `C S|NAME`, `H`, `S`, `Q SQL`, `F OID|ARGUMENT`.
fn protocol(script: &str, out: &mut BytesMut) -> usize {
    let mut syncs = 0;
    for line in script.lines().filter(|line| !line.is_empty()) {
        let (tag, rest) = line.split_once(' ').unwrap_or((line, ""));
        let parts: Vec<&str> = rest.split('|').collect();
        let part = |at: usize| parts.get(at).copied().unwrap_or_default();
        match tag {
            "P" => {
                let (name, sql) = rest.split_once('|').unwrap();
                let body = [text(name.as_bytes()), text(sql.as_bytes()), vec![0, 0]].concat();
                message(b'P', &body, out);
            }
            "B" => {
                let mut body = [text(part(0).as_bytes()), text(part(1).as_bytes())].concat();
                body.extend([0, 0]);
                let values = parts.get(2..).unwrap_or_default();
                body.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
                for value in values {
                    body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
                    body.extend(value.as_bytes());
                }
                body.extend([0, 0]);
                message(b'B', &body, out);
            }
            "D" | "C" => {
                let body = [part(0).as_bytes(), &text(part(1).as_bytes())].concat();
                message(tag.as_bytes()[0], &body, out);
            }
            "E" => {
                let rows: u32 = part(1).parse().unwrap_or(0);
                let body = [&text(part(0).as_bytes())[..], &rows.to_be_bytes()].concat();
                message(b'E', &body, out);
            }
            "F" => {
                let oid: u32 = part(0).parse().unwrap();
                let argument: i32 = part(1).parse().unwrap();
                let mut body = oid.to_be_bytes().to_vec();
                body.extend([0, 1, 0, 1, 0, 1, 0, 0, 0, 4]);
                body.extend(argument.to_be_bytes());
                body.extend([0, 1]);
                message(b'F', &body, out);
                syncs += 1;
            }
            "Q" => {
                message(b'Q', &text(rest.as_bytes()), out);
                syncs += 1;
            }
            "H" => message(b'H', &[], out),
            "S" => {
                message(b'S', &[], out);
                syncs += 1;
            }
            other => panic!("`{other}` is no message"),
        }
    }
    syncs
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        out.extend(rest[..at].bytes());
        out.push(u8::from_str_radix(&rest[at + 2..at + 4], 16).unwrap());
        rest = &rest[at + 4..];
    }
    out.extend(rest.bytes());
    out
}
