//! The provider's stand-in with the production database on one of its volumes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tokio_postgres::NoTls;

use super::limits::PROVIDER_UP;
use super::process::Process;
use super::stage::{Stage, text_at};
use super::trouble::Trouble;

/// A running stand-in.
#[derive(Debug)]
pub struct Provider {
    /// Everything that it says about itself: ids, tokens, places.
    pub ready: Value,
    /// Where its API listens.
    pub api: SocketAddr,
    /// Its certificate authority.
    pub ca_file: PathBuf,
    /// The database, as its owner: what the office and its developers connect with.
    pub database_url: String,
    /// The database, as the superuser.
    pub admin_url: String,
    /// The folder with the programs of that PostgreSQL.
    pub postgres_bin: PathBuf,
    _process: Process,
}

/// The names under which the provider's API is known.
pub const HOSTS: [&str; 2] = ["backboard.railway.app", "backboard.railway.com"];

impl Provider {
    /// Starts it, and waits until the database is there.
    ///
    /// # Errors
    /// [`Trouble::Part`] when it does not come up.
    pub fn start(stage: &Stage, scenario: &str) -> Result<Self, Trouble> {
        stage
            .progress
            .wait("provider", "starts, with production's database on a volume");
        let root = stage.make_folder("provider", 0o755)?;
        let file = stage.folder.join("provider.ready.json");
        let mut command = Command::new(&stage.programs.provider);
        command.arg("serve").arg("--root").arg(&root);
        command.args(["--scenario", scenario]);
        command.arg("--ready-file").arg(&file);
        let mut process = stage.start("provider", command)?;
        let mut ready: Value = process.wait_until(&stage.stop, PROVIDER_UP, |_| {
            serde_json::from_slice(&std::fs::read(&file).ok()?).ok()
        })?;
        let part = "provider";
        let url = text_at(&ready, "/url", part)?;
        let api = url
            .trim_start_matches("https://")
            .split('/')
            .next()
            .and_then(|place| place.replace("localhost", "127.0.0.1").parse().ok());
        let port = ready.pointer("/port").and_then(Value::as_u64);
        let port = port.and_then(|port| u16::try_from(port).ok());
        let api = api
            .or_else(|| Some(SocketAddr::from(([127, 0, 0, 1], port?))))
            .ok_or_else(|| Trouble::part(part, format!("`{url}` names no address")))?;
        let admin_url = text_at(&ready, "/database_url", part)?.to_owned();
        let database_url = owner(&admin_url)?;
        if let Some(facts) = ready.as_object_mut() {
            facts.insert(
                "database_url".to_owned(),
                Value::from(database_url.as_str()),
            );
        }
        Ok(Self {
            api,
            ca_file: text_at(&ready, "/ca_file", part)?.into(),
            postgres_bin: text_at(&ready, "/postgres_bin_dir", part)?.into(),
            database_url,
            admin_url,
            ready,
            _process: process,
        })
    }

    /// Returns what a provider account calls the things that carry the database.
    pub fn resources(&self) -> Vec<String> {
        let texts = |pointer: &str, kind: &str| -> Vec<String> {
            let found = self.ready.pointer(pointer);
            let values: Vec<&str> = match found {
                Some(Value::Object(map)) => map.values().filter_map(Value::as_str).collect(),
                Some(Value::String(text)) => vec![text],
                _ => Vec::new(),
            };
            values
                .into_iter()
                .map(|id| format!("{kind}:{id}"))
                .collect()
        };
        let mut all = texts("/volumes/production", "railway:volume");
        all.extend(texts("/volume_instances", "railway:volume-instance"));
        all.sort();
        all.dedup();
        all
    }
}

/// Gives the database to a role of its own, as an application has it, and returns its connection string.
fn owner(admin_url: &str) -> Result<String, Trouble> {
    let failed = |error: &dyn std::fmt::Display| {
        Trouble::part("provider", format!("the database gets no owner: {error}"))
    };
    let (login, place) = admin_url
        .rsplit_once('@')
        .ok_or_else(|| failed(&"its URL names no user"))?;
    let password = login.rsplit_once(':').map_or("", |(_, password)| password);
    let database = place.rsplit_once('/').map_or("", |(_, name)| name);
    let sql = format!(
        "CREATE ROLE office LOGIN PASSWORD '{}'; ALTER DATABASE \"{}\" OWNER TO office",
        password.replace('\'', "''"),
        database.replace('"', "\"\"")
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Trouble::system("start a thread"))?;
    let made = runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(admin_url, NoTls).await?;
        // It ends with its client.
        tokio::spawn(async move { drop(connection.await) });
        client.batch_execute(&sql).await
    });
    made.map_err(|error| failed(&error))?;
    Ok(format!("postgresql://office:{password}@{place}"))
}
