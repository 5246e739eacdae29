//! Restores one source to its newest moment, without a server, and prints what was done as JSON.
//!
//! `restore_one STATE REPOSITORY SOURCE INTO`; tests kill it.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use holdfast_store::keyring::Keyring;
use holdfast_vault::{
    DirectoryRequest, Place, PostgresConfig, ProgressFn, RestoreRequest, RestoreTarget, Start,
    Ways, is_directory, restore, restore_directory,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let mut next = || arguments.next().ok_or("an argument is missing");
    let (state, repository) = (PathBuf::from(next()?), PathBuf::from(next()?));
    let source = next()?.to_string_lossy().parse()?;
    let into = PathBuf::from(next()?);
    let place = Place {
        keys: Keyring::open(&state.join("keys"))?.keys(),
        state,
        repository: repository.into(),
        vault_key: None,
        postgres: PostgresConfig::default(),
    };
    let quiet: ProgressFn = Arc::new(|_| {});
    let told = if is_directory(&place, &source)? {
        let request = DirectoryRequest {
            source,
            at: RestoreTarget::Latest,
            into,
            ways: Ways::default(),
        };
        serde_json::to_string(&restore_directory(&place, &request, &quiet)?)?
    } else {
        let request = RestoreRequest::new(source, RestoreTarget::Latest, into, Start::No);
        serde_json::to_string(&restore(&place, &request, &quiet)?)?
    };
    std::io::stdout().write_all(told.as_bytes())?;
    Ok(())
}
