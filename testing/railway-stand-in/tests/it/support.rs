//! Starts the stand-in and asks it with curl.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_testing::dirs::TestDir;
use holdfast_testing::process::Process;
use serde_json::{Value, json};

pub struct StandIn {
    pub process: Process,
    pub facts: Value,
    pub root: PathBuf,
    // Removed when the stand-in and its database run no more.
    dir: TestDir,
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

pub const START: Duration = Duration::from_secs(90);
pub const STOP: Duration = Duration::from_secs(60);

impl StandIn {
    pub fn start(arguments: &[&str]) -> Self {
        let dir = TestDir::for_server("railway").unwrap();
        let root = dir.path().join("root");
        let ready = dir.path().join("ready.json");
        let mut command = Command::new(env!("CARGO_BIN_EXE_railway-stand-in"));
        command.arg("serve").arg("--root").arg(&root);
        command.arg("--ready-file").arg(&ready).args(arguments);
        let mut process = Process::spawn(command, &dir.path().join("stand-in.log")).unwrap();
        process.wait_for_file(&ready, START).unwrap();
        let facts = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
        Self {
            process,
            facts,
            root,
            dir,
        }
    }

    /// A fact of the ready file, such as `/volumes/production`.
    pub fn fact(&self, pointer: &str) -> String {
        let found = self.facts.pointer(pointer);
        let found = found.unwrap_or_else(|| panic!("no {pointer} in {}", self.facts));
        found
            .as_str()
            .map_or_else(|| found.to_string(), str::to_owned)
    }

    pub fn volume_dir(&self, environment: &str) -> PathBuf {
        let id = self.fact(&format!("/volumes/{environment}"));
        self.root.join("volumes").join(id)
    }

    pub fn postgres_pid(&self) -> u32 {
        self.fact("/postgres_pid").parse().unwrap()
    }

    /// Sends a body as the agent did: to the provider's name, which leads here.
    pub fn post(&self, header: &str, body: &str) -> Answer {
        let path = self.dir.path().join("body.json");
        std::fs::write(&path, body).unwrap();
        self.curl(
            &[
                "-X",
                "POST",
                "-H",
                header,
                "-H",
                "Content-Type: application/json",
                "--data-binary",
                &format!("@{}", path.display()),
            ],
            URL,
        )
    }

    pub fn curl(&self, arguments: &[&str], url: &str) -> Answer {
        let port = self.fact("/port");
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "120",
                "--noproxy",
                "*",
            ])
            .arg("--cacert")
            .arg(self.fact("/ca_file"))
            .arg("--connect-to")
            .arg(format!("backboard.railway.com:443:127.0.0.1:{port}"))
            .args(["--write-out", "\n%{http_code}"])
            .args(arguments)
            .arg(url)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        let trouble = String::from_utf8_lossy(&output.stderr);
        Answer {
            status: status
                .parse()
                .unwrap_or_else(|_| panic!("{text} {trouble}")),
            body: serde_json::from_str(body).unwrap_or_else(|_| panic!("{text} {trouble}")),
        }
    }

    /// Asks with the account's token.
    pub fn ask(&self, query: &str, variables: Value) -> Value {
        self.ask_as(&self.account(), query, variables)
    }

    pub fn ask_as(&self, header: &str, query: &str, variables: Value) -> Value {
        let body = json!({ "query": query, "variables": variables });
        self.post(header, &body.to_string()).body
    }

    pub fn account(&self) -> String {
        format!("Authorization: Bearer {}", self.fact("/account_token"))
    }

    pub fn project_token(&self, environment: &str) -> String {
        format!(
            "Project-Access-Token: {}",
            self.fact(&format!("/project_tokens/{environment}"))
        )
    }

    /// The lines of the log of requests.
    pub fn requests(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.root.join("requests.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Runs SQL in the database `rental` and returns the first column of the first row.
    pub fn sql(&self, text: &str) -> Option<String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let url = self.fact("/database_url");
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
                .await
                .unwrap();
            let running = tokio::spawn(connection);
            let rows = client.simple_query(text).await.unwrap();
            drop(client);
            running.await.unwrap().unwrap();
            rows.into_iter().find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            })
        })
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.process.terminate(STOP);
    }
}

/// The first message of an answer with errors.
pub fn message(answer: &Value) -> &str {
    answer
        .pointer("/errors/0/message")
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no error in {answer}"))
}

/// What a root field gave.
pub fn given<'a>(answer: &'a Value, field: &str) -> &'a Value {
    assert!(answer.get("errors").is_none(), "{answer}");
    answer
        .pointer(&format!("/data/{field}"))
        .unwrap_or_else(|| panic!("no {field} in {answer}"))
}

/// The folders and files in a folder, by name.
pub fn listed(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

const URL: &str = "https://backboard.railway.com/graphql/v2";
