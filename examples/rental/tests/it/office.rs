//! A server with an office in it, and the program run against it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use holdfast_testing::dirs::TestDir;
use holdfast_testing::postgres::{Builder, Installation, Server};
use holdfast_testing::process::Process;
use holdfast_testing::signals;
use serde_json::Value;
use tokio_postgres::SimpleQueryMessage;

type Rows = Vec<Vec<String>>;

pub struct Office {
    pub server: Server,
    pub dir: TestDir,
}

/// How long a condition may take to become true on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(90);

impl Office {
    /// A server with an empty database `rental`; fsync is on, as crashes are part of the tests.
    pub fn empty(installation: &Installation) -> Self {
        Self::on(Server::builder(installation))
    }

    /// The same on a server that must not crash.
    pub fn fast(installation: &Installation) -> Self {
        Self::on(Server::builder(installation).fast())
    }

    /// An empty office with the rows of one company.
    pub fn seeded(installation: &Installation) -> Self {
        let office = Self::empty(installation);
        office.seed("1");
        office
    }

    /// The same office with the rows that `rental seed` makes when it is not told otherwise.
    pub fn filled(self) -> Self {
        let seeded = self.rental(&["seed"]).output().unwrap();
        assert!(seeded.status.success(), "{}", text(&seeded));
        self
    }

    fn on(builder: Builder) -> Self {
        let office = Self {
            server: builder.start().unwrap(),
            dir: TestDir::new("rental").unwrap(),
        };
        office.sql_in("postgres", "CREATE DATABASE rental");
        std::fs::write(office.path("url"), office.url("rental")).unwrap();
        office
    }

    pub fn seed(&self, seed: &str) -> Value {
        self.run("seed", &["--seed", seed, "--companies", "1", "--json"])
    }

    pub fn url(&self, database: &str) -> String {
        self.server.url_for(database)
    }

    /// A file of this office.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn journal(&self) -> PathBuf {
        self.path("journal.jsonl")
    }

    /// `rental WORD --database-url-file URL ...`
    pub fn rental(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rental"));
        command.args(&arguments[..1]).arg("--database-url-file");
        command.arg(self.path("url")).args(&arguments[1..]);
        command
    }

    /// Runs a command that writes JSON to its end.
    pub fn run(&self, name: &str, arguments: &[&str]) -> Value {
        let output = self.command(name, arguments).output().unwrap();
        assert!(output.status.success(), "{name}: {}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{name}: {output:?}"))
    }

    pub fn verify(&self) -> Value {
        self.verify_with("journal.jsonl")
    }

    /// Runs `rental verify` with the journal of the name.
    pub fn verify_with(&self, journal: &str) -> Value {
        let journal = self.path(journal);
        self.run(
            "verify",
            &["--json", "--journal", journal.to_str().unwrap()],
        )
    }

    pub fn spawn(&self, name: &str, arguments: &[&str], log: &Path) -> Process {
        Process::spawn(self.command(name, arguments), log).unwrap()
    }

    /// Runs statements as the superuser and returns the rows of all of them as text.
    pub fn sql(&self, sql: &str) -> Rows {
        self.sql_in("rental", sql)
    }

    pub fn sql_in(&self, database: &str, sql: &str) -> Rows {
        self.try_sql(database, sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    pub fn try_sql(&self, database: &str, sql: &str) -> Result<Rows, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let messages = runtime.block_on(async {
            let client = self.server.connect_to(database).await.unwrap();
            client.simple_query(sql).await
        })?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|at| row.get(at).unwrap_or_default().to_owned())
                    .collect(),
            ),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// The first column of the first row.
    pub fn one(&self, sql: &str) -> String {
        self.sql(sql)[0][0].clone()
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut words = vec![name];
        words.extend(arguments);
        self.rental(&words)
    }
}

/// Waits until `holds` is true; says what was waited for otherwise.
pub fn until(what: &str, holds: impl FnMut() -> bool) {
    signals::wait_until(LIMIT, holds).unwrap_or_else(|error| panic!("{what}: {error}"));
}

/// What a command wrote.
pub fn text(output: &Output) -> String {
    let streams = [output.stdout.as_slice(), output.stderr.as_slice()];
    String::from_utf8_lossy(&streams.concat()).into_owned()
}
