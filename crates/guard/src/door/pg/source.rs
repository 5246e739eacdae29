//! One source behind the door: how it is reached, and what is kept about it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use holdfast_core::{LeaseId, Secret, SourceName};
use holdfast_wire::pg::scram::client::{Keys, Salted};
use holdfast_wire::pg::url::ConnectionUrl;
use tokio::sync::Mutex;

use super::outside::Control;
use crate::lease::role::{self, RoleError};

/// Keys of logins that were computed, one for each password.
#[derive(Default)]
pub(super) struct KnownKeys(std::sync::Mutex<HashMap<String, (Salted, Keys)>>);

impl KnownKeys {
    /// Finds the keys of a password under the salt that the server names.
    pub(super) fn find(&self, password: &Secret, salted: &Salted) -> Option<Keys> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (found, keys) = known.get(password.expose())?;
        (found == salted).then(|| keys.clone())
    }

    /// Keeps the keys of a password.
    pub(super) fn keep(&self, password: &Secret, salted: &Salted, keys: &Keys) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = (salted.clone(), keys.clone());
        known.insert(password.expose().to_owned(), kept);
    }
}

/// A source behind the door.
pub(super) struct Source {
    pub name: SourceName,
    pub environment: String,
    pub url: ConnectionUrl,
    /// What is gone in it is still whole elsewhere.
    pub is_copy: bool,
    /// Guard's own connections.
    pub control: Control,
    /// Passwords of the roles of leases, drawn by this process and kept nowhere else.
    passwords: Mutex<HashMap<String, Secret>>,
    /// What those passwords come to in the server's login.
    pub keys: KnownKeys,
    /// One gate a lease, so that two sessions cannot spend the same rows.
    gates: Mutex<HashMap<LeaseId, Arc<Mutex<()>>>>,
}

impl Source {
    pub(super) fn new(source: super::PgDoorSource) -> Self {
        Self {
            control: Control::new(source.url.clone()),
            name: source.name,
            environment: source.environment,
            url: source.url,
            is_copy: source.copy_of.is_some(),
            passwords: Mutex::default(),
            keys: KnownKeys::default(),
            gates: Mutex::default(),
        }
    }

    /// Returns the password of a lease's role, giving it a new one on first use.
    pub(super) async fn password(&self, role: &str, database: &str) -> Result<Secret, RoleError> {
        let mut passwords = self.passwords.lock().await;
        if let Some(password) = passwords.get(role) {
            return Ok(password.clone());
        }
        let client = self
            .control
            .client(database)
            .await
            .map_err(RoleError::Connect)?;
        let password = role::draw_password(&client, role).await?;
        passwords.insert(role.to_owned(), password.clone());
        Ok(password)
    }

    /// Returns the gate of a lease.
    pub(super) async fn gate(&self, lease: &LeaseId) -> Arc<Mutex<()>> {
        let mut gates = self.gates.lock().await;
        Arc::clone(gates.entry(lease.clone()).or_default())
    }
}
