//! A restore of the newest moment, ending with a promoted server.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use holdfast_store::{key, keyring::Keyring};
use holdfast_vault::{
    Place, PostgresConfig, ProgressFn, RestoreRequest, RestoreTarget, Start, restore,
};

use super::SOURCE;

/// Restores and prints what was brought back as a line of JSON.
pub fn run(state: PathBuf, repository: PathBuf, into: PathBuf, programs: PathBuf) -> Result<()> {
    let key = key::load(&state.join("vault.key"))?;
    let place = Place {
        keys: Keyring::open(&state.join("keys"))?.keys(),
        state,
        repository: repository.into(),
        vault_key: Some(key.verifying_key()),
        postgres: PostgresConfig {
            dirs: vec![programs],
            run_as: None,
        },
    };
    let request = RestoreRequest::new(
        SOURCE.parse().context("name the source")?,
        RestoreTarget::Latest,
        into,
        Start::Yes { port: None },
    );
    let progress: ProgressFn = Arc::new(|_| {});
    let restored = restore(&place, &request, &progress)?;
    println!("{}", serde_json::to_string(&restored)?);
    Ok(())
}
