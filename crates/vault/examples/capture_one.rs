//! A vault for one source, as small as it can be: captures until SIGTERM and writes its status to a file.
//!
//! `capture_one STATE REPOSITORY STATUS asynchronous|synchronous [spool|repository]`, and the connection
//! string in `SOURCE_URL`, so that no password is in the process list. Folders with PostgreSQL's programs, for
//! drills, may be named in `PROGRAMS`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_store::{key, keyring::Keyring, ledger::Ledger};
use holdfast_vault::{
    DrillConfig, PointsConfig, PostgresConfig, RetentionConfig, SourceConfig, Vault, VaultConfig,
    system_clock,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let mut path = || {
        arguments
            .next()
            .map(PathBuf::from)
            .ok_or("an argument is missing")
    };
    let (state, repository, status) = (path()?, path()?, path()?);
    let mode = arguments.next().ok_or("the mode is missing")?;
    let ack = arguments.next().unwrap_or_else(|| "spool".into());
    let source = SourceConfig {
        name: "prod".parse()?,
        url: std::env::var("SOURCE_URL")?.parse()?,
        mode: mode.to_string_lossy().parse()?,
        ack: ack.to_string_lossy().parse()?,
        assertions: Vec::new(),
    };
    let clock = system_clock();
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    holdfast_store::durable::make_folder(&state)?;
    let key = key::load_or_create(&state.join("vault.key"), random)?;
    let ledger = Ledger::open(&state.join("ledger"), key.clone(), clock())?;
    let config = VaultConfig {
        keys: Keyring::open(&state.join("keys"))?.keys(),
        state,
        repository: repository.into(),
        sources: vec![source],
        directories: Vec::new(),
        postgres: PostgresConfig {
            dirs: std::env::split_paths(&std::env::var_os("PROGRAMS").unwrap_or_default())
                .filter(|path| !path.as_os_str().is_empty())
                .collect(),
            run_as: None,
        },
        drill: DrillConfig {
            every: Duration::from_secs(24 * 3600),
            ..DrillConfig::default()
        },
        points: PointsConfig::default(),
        retention: RetentionConfig::default(),
    };
    let vault = Vault::open(config, ledger, key, clock)?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        terminate.recv().await;
        told.cancel();
    });
    let (asked, mut wanted) = (vault.clone(), signal(SignalKind::user_defined1())?);
    tokio::spawn(async move {
        while wanted.recv().await.is_some() {
            for one in asked.status() {
                asked.ask_for_point(&one.source);
            }
        }
    });
    let shown = vault.clone();
    tokio::spawn(async move {
        loop {
            // A test that waits for the file reads the newest it finds; a lost write is made up for.
            let _ = show(&shown, &status);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    vault.run(stop).await?;
    Ok(())
}

fn show(vault: &Vault, path: &Path) -> Result<(), Box<dyn Error>> {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, serde_json::to_vec(&vault.status())?)?;
    std::fs::rename(fresh, path)?;
    Ok(())
}
