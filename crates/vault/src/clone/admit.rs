//! One role of the source that is let into a clone, by us alone: what runs there then has its rights.

use std::time::Instant;

use data_encoding::HEXLOWER;

use super::ThinClone;
use super::record::Role;
use super::settings;
use crate::limits;
use crate::source::{Connection, SourceError};

const STEP: &str = "admit a role to a clone";

/// A role of the source with a password that is kept nowhere.
pub(crate) struct Admitted(Role);

impl ThinClone {
    /// Lets a role of the source into a database beside ours, under a password that only the caller gets; its rights
    /// stay what they are. A role that was let in before is not any more.
    pub(crate) fn admit(&self, name: &str, database: &str) -> Result<Admitted, SourceError> {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        if name.is_empty() || !name.chars().all(is_plain) {
            return Err(SourceError::nonsense(
                STEP,
                "it has not the name of a lease's role",
            ));
        }
        let nonsense =
            |error: &dyn std::fmt::Display| SourceError::nonsense(STEP, error.to_string());
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| nonsense(&error))?;
        let role = Role {
            name: name.to_owned(),
            password: HEXLOWER.encode(&random),
        };
        let mut keeper = self.connect(database)?;
        keeper.query(
            &format!(
                "SET default_transaction_read_only = off; SET password_encryption = 'scram-sha-256';
                 ALTER ROLE \"{name}\" LOGIN CONNECTION LIMIT -1 VALID UNTIL 'infinity' PASSWORD '{}'",
                role.password
            ),
            STEP,
        )?;
        let ours = settings::admitted([&self.record.keeper, &self.record.role]);
        let text = format!("local all \"{name}\" scram-sha-256\n{ours}");
        settings::write_hba(self.path(), &text).map_err(|error| nonsense(&error))?;
        keeper.query("SELECT pg_catalog.pg_reload_conf()", STEP)?;
        let deadline = Instant::now() + limits::CLONE_RELOAD;
        let admitted = Admitted(role);
        loop {
            match self.connect_as(&admitted, database) {
                Ok(_) => return Ok(admitted),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => std::thread::sleep(limits::CLONE_POLL),
            }
        }
    }

    /// Connects as a role that was let in.
    pub(crate) fn connect_as(
        &self,
        admitted: &Admitted,
        database: &str,
    ) -> Result<Connection, SourceError> {
        match &self.server {
            Some(server) => server.connect(&admitted.0, database),
            None => Err(SourceError::nonsense(STEP, "the clone has no server")),
        }
    }
}
