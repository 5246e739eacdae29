//! The keys of the repository's objects: where they lie, how new ones come in, who reads with which.

use std::path::{Path, PathBuf};

use holdfast_core::ledger::Draft;
use holdfast_core::{Code, Principal};
use holdfast_store::envelope::{Identity, Recipient};
use holdfast_store::keyring::{Kept, Keyring};
use holdfast_store::ledger::Ledger;
use holdfast_store::object::Keys;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::config::Config;
use crate::report::Failure;
use crate::wiring::{Half, now};

/// The entry of the vault's ledger about a new key.
const ADDED: &str = "vault.key.added";

/// Returns the folder of the vault's keys.
pub fn folder(config: &Config) -> PathBuf {
    config.vault_dir().join("keys")
}

/// Reads the vault's keys; there may be none.
///
/// # Errors
/// When one of them cannot be read or can be read by others.
pub fn open(config: &Config) -> Result<Keyring, Failure> {
    Ok(Keyring::open(&folder(config))?)
}

/// Reads the keys that the vault needs to write.
///
/// # Errors
/// When there is no machine key or nobody has a recovery key: what only this machine could open would be
/// lost with it.
pub fn required(config: &Config) -> Result<Keys, Failure> {
    let ring = open(config)?;
    if ring.recipients().is_empty() {
        return Err(Failure::new(
            Code::ZU272,
            format!(
                "there is no recovery key or no key of this machine in `{}`; nothing was started",
                folder(config).display()
            ),
            "run `holdfast init`: it makes what is missing and keeps the rest",
        ));
    }
    Ok(ring.keys())
}

/// Keys that are to be used from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewKeys {
    /// Whether the vault's machine gets a new identity.
    pub machine: bool,
    /// The recipient of a new recovery key.
    pub recovery: Option<Recipient>,
    /// Who asked.
    pub by: Principal,
}

/// Which kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// The vault's own: its secret lies in the vault's folder.
    Machine,
    /// Somebody keeps the secret; only the recipient is here.
    Recovery,
}

/// One key, as it is listed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// Which kind.
    pub kind: KeyKind,
    /// Its number among its kind.
    pub number: u32,
    /// What is sealed to.
    pub recipient: Recipient,
    /// Since when it was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<holdfast_core::Timestamp>,
    /// Whether new objects are sealed to it.
    pub used: bool,
}

/// Lists all keys, oldest first.
pub fn list(ring: &Keyring) -> Vec<Listed> {
    let newest = |number: u32, last: Option<u32>| last == Some(number);
    let last = ring.machine.last().map(|kept| kept.number);
    let machines = ring.machine.iter().map(|kept| Listed {
        kind: KeyKind::Machine,
        number: kept.number,
        recipient: kept.key.recipient(),
        since: kept.since,
        used: newest(kept.number, last),
    });
    let last = ring.recovery.last().map(|kept| kept.number);
    let recoveries = ring.recovery.iter().map(|kept: &Kept<Recipient>| Listed {
        kind: KeyKind::Recovery,
        number: kept.number,
        recipient: kept.key,
        since: kept.since,
        used: newest(kept.number, last),
    });
    machines.chain(recoveries).collect()
}

/// Adds keys: by the running vault, which seals to them at once, or to its folder when it does not run.
///
/// # Errors
/// When they cannot be recorded or kept; what was used before is used on.
pub async fn add_anywhere(config: &Config, new: &NewKeys) -> Result<Vec<Listed>, Failure> {
    match Half::Vault
        .client(config)
        .ask("vault.key.add", json!(new))
        .await
    {
        Err(failure) if failure.code == Code::ZS601 => {
            let key = Half::Vault.key(config)?;
            let ledger = Ledger::open(&Half::Vault.ledger(config), key, now())?;
            add(&folder(config), &ledger, new)
        }
        answer => answer,
    }
}

/// Records and keeps new keys, in this order; returns all keys.
///
/// # Errors
/// When they cannot be recorded or kept.
pub fn add(folder: &Path, ledger: &Ledger, new: &NewKeys) -> Result<Vec<Listed>, Failure> {
    let mut ring = Keyring::open(folder)?;
    let record = |kind: KeyKind, recipient: &Recipient| {
        let summary = match kind {
            KeyKind::Machine => "the vault seals to a new key of its machine",
            KeyKind::Recovery => "the vault seals to a new recovery key",
        };
        let entry = Draft::new(ADDED, new.by.clone(), now())
            .with("summary", summary)
            .with("kind", json!(kind))
            .with("recipient", recipient.to_string());
        ledger.append(entry).map(|_| ())
    };
    if new.machine {
        let key = Identity::generate()?;
        record(KeyKind::Machine, &key.recipient())?;
        ring.add_machine(key, now())?;
    }
    if let Some(recipient) = new.recovery {
        record(KeyKind::Recovery, &recipient)?;
        ring.add_recovery(recipient, now())?;
    }
    Ok(list(&ring))
}
