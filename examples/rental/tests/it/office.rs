//! A server with an office in it, and the program run against it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_testing::dirs::TestDir;
use holdfast_testing::postgres::{Installation, Server};
use holdfast_testing::process::Process;
use serde_json::Value;

pub struct Office {
    pub server: Server,
    pub dir: TestDir,
}

pub const LIMIT: Duration = Duration::from_secs(90);

impl Office {
    /// A server with an empty database `rental`; fsync is on, as crashes are part of the tests.
    pub fn empty(installation: &Installation) -> Self {
        let server = Server::builder(installation).start().unwrap();
        let office = Self {
            server,
            dir: TestDir::new("rental").unwrap(),
        };
        office.sql_in("postgres", "CREATE DATABASE rental");
        office
    }

    /// The same with one company, seeded for a fixed day.
    pub fn seeded(installation: &Installation) -> Self {
        let office = Self::empty(installation);
        office.seed("1");
        office
    }

    pub fn seed(&self, seed: &str) -> Value {
        self.run("seed", &["--seed", seed, "--companies", "1", "--json"])
    }

    pub fn journal(&self) -> PathBuf {
        self.dir.path().join("journal.jsonl")
    }

    /// Runs a command that writes JSON to its end.
    pub fn run(&self, name: &str, arguments: &[&str]) -> Value {
        let output = self.command(name, arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let trouble = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {text} {trouble}");
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{name}: {text} {trouble}"))
    }

    pub fn verify(&self) -> Value {
        let journal = self.journal();
        self.run(
            "verify",
            &["--json", "--journal", journal.to_str().unwrap()],
        )
    }

    pub fn spawn(&self, name: &str, arguments: &[&str], log: &Path) -> Process {
        Process::spawn(self.command(name, arguments), log).unwrap()
    }

    pub fn sql(&self, text: &str) -> Vec<Vec<String>> {
        self.sql_in("rental", text)
    }

    fn sql_in(&self, database: &str, text: &str) -> Vec<Vec<String>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let messages = runtime.block_on(async {
            let client = self.server.connect_to(database).await.unwrap();
            client.simple_query(text).await.unwrap()
        });
        let rows = messages.into_iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|at| row.get(at).unwrap_or_default().to_owned())
                    .collect(),
            ),
            _ => None,
        });
        rows.collect()
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rental"));
        command
            .arg(name)
            .arg("--database-url")
            .arg(self.server.url_for("rental"))
            .args(arguments);
        command
    }
}
