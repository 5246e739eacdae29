//! A seeded office on a server of its own, and the program `rental`.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use holdfast_testing::postgres::{Builder, Installation, Server};
use serde_json::Value;
use tokio_postgres::SimpleQueryMessage;

/// How long a condition may take to become true on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(10);

pub struct Office {
    pub server: Server,
    pub folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Office {
    /// An empty database on a server that survives a crash as a real one does.
    pub fn durable(installation: &Installation) -> Self {
        Self::on(Server::builder(installation))
    }

    /// An empty database on a server that must not crash.
    pub fn fast(installation: &Installation) -> Self {
        Self::on(Server::builder(installation).fast())
    }

    fn on(builder: Builder) -> Self {
        let office = Self {
            server: builder.start().unwrap(),
            folder: tempfile::tempdir().unwrap(),
            runtime: tokio::runtime::Runtime::new().unwrap(),
        };
        office.create("rental");
        std::fs::write(office.path("url"), office.url("rental")).unwrap();
        office
    }

    /// The same with the small set of rows.
    pub fn seeded(self) -> Self {
        let seeded = self.rental(&["seed"]).output().unwrap();
        assert!(seeded.status.success(), "{}", text(&seeded));
        self
    }

    pub fn create(&self, database: &str) {
        self.sql_in("postgres", &format!("CREATE DATABASE {database}"));
    }

    pub fn url(&self, database: &str) -> String {
        self.server.url_for(database)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `rental WORD --database-url-file URL ...`
    pub fn rental(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rental"));
        command.args(&arguments[..1]).arg("--database-url-file");
        command.arg(self.path("url")).args(&arguments[1..]);
        command
    }

    /// Runs `rental verify --json` with the journal of the name.
    pub fn verify(&self, journal: &str) -> Value {
        let mut verify = self.rental(&["verify", "--json", "--journal"]);
        let output = verify.arg(self.path(journal)).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs statements as the superuser and returns the rows of all of them as text.
    pub fn sql(&self, sql: &str) -> Vec<Vec<String>> {
        self.sql_in("rental", sql)
    }

    pub fn sql_in(&self, database: &str, sql: &str) -> Vec<Vec<String>> {
        self.try_sql(database, sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    pub fn try_sql(
        &self,
        database: &str,
        sql: &str,
    ) -> Result<Vec<Vec<String>>, tokio_postgres::Error> {
        let answer = self.runtime.block_on(async {
            let client = self.server.connect_to(database).await.unwrap();
            client.simple_query(sql).await
        })?;
        let rows = answer.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|column| row.get(column).unwrap_or_default().to_owned())
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
}

/// Waits until `holds` is true; says what was waited for otherwise.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "not after {LIMIT:?}: {what}");
        std::thread::sleep(POLL);
    }
}

pub fn text(output: &Output) -> String {
    let streams = [output.stdout.as_slice(), output.stderr.as_slice()];
    String::from_utf8_lossy(&streams.concat()).into_owned()
}
