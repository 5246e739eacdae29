//! The role that a lease has in its source: only its rights, an end, and a password nobody keeps.
//!
//! The agent never logs in to the source with it: it logs in to the door with its token, and the
//! door logs in to the source with a password that it draws anew in every process.

use holdfast_core::{Code, Coded, Secret, Timestamp};
use tokio_postgres::Client;

use super::LeaseMode;
use crate::clock::{self, RandomError};
use crate::limits::ROLE_CONNECTIONS_MAX;

/// A role to be made.
#[derive(Clone, Debug)]
pub struct LeaseRole {
    /// Its name.
    pub name: String,
    /// The database that it may connect to.
    pub database: String,
    /// Its rights.
    pub mode: LeaseMode,
    /// When the source itself stops to let it in.
    pub expires: Timestamp,
}

/// Why a role cannot be made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// The source cannot be reached, or does not let guard in.
    #[error("the source cannot be reached: {0}")]
    Connect(String),
    /// No randomness for a password.
    #[error("no password can be made for the role")]
    Random(#[source] RandomError),
    /// The source refused a statement.
    #[error("the source refused to {step}")]
    Refused {
        /// What was to be done.
        step: &'static str,
        /// What the source said.
        source: tokio_postgres::Error,
    },
    /// The source is older than the door supports.
    #[error("the source is PostgreSQL {0}, and the door needs 15 or newer")]
    Version(String),
}

impl Coded for RoleError {
    fn code(&self) -> Code {
        match self {
            Self::Connect(_) => Code::ZS401,
            Self::Random(_) => Code::ZS202,
            Self::Refused { .. } | Self::Version(_) => Code::ZL402,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Connect(_) => Some("check `guard_url` of the source".to_owned()),
            Self::Random(_) => None,
            Self::Refused { .. } => Some(
                "the role of `guard_url` needs CREATEROLE and, from PostgreSQL 16 on, ADMIN OPTION on the roles it gives"
                    .to_owned(),
            ),
            Self::Version(_) => Some("upgrade the source".to_owned()),
        }
    }
}

/// Makes the role with its rights, in one transaction; it has no password yet, so nobody can log in.
///
/// # Errors
/// [`RoleError`]; no role was made.
pub async fn create_role(client: &mut Client, role: &LeaseRole) -> Result<(), RoleError> {
    let name = quoted(&role.name);
    let until = literal(&role.expires.to_string());
    let mut statements = vec![format!(
        "CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS \
         INHERIT CONNECTION LIMIT {ROLE_CONNECTIONS_MAX} PASSWORD NULL VALID UNTIL {until}"
    )];
    statements.push(format!(
        "GRANT CONNECT ON DATABASE {} TO {name}",
        quoted(&role.database)
    ));
    match role.mode {
        LeaseMode::ReadOnly => statements.push(format!("GRANT pg_read_all_data TO {name}")),
        LeaseMode::Data => statements.push(format!(
            "GRANT pg_read_all_data, pg_write_all_data TO {name}"
        )),
        LeaseMode::Schema => {
            statements.push(format!(
                "GRANT pg_read_all_data, pg_write_all_data TO {name}"
            ));
            let (owner, is_superuser) = owner_of(client, &role.database).await?;
            // Whoever may become a superuser is past every gate, so a superuser's things stay his.
            statements.push(if is_superuser {
                format!("GRANT USAGE, CREATE ON SCHEMA public TO {name}")
            } else {
                format!("GRANT {} TO {name}", quoted(&owner))
            });
        }
    }
    let step = "make the role of the lease";
    let transaction = client.transaction().await.map_err(refused(step))?;
    transaction
        .batch_execute(&statements.join(";"))
        .await
        .map_err(refused(step))?;
    transaction.commit().await.map_err(refused(step))
}

/// Gives the role a new password that only the caller knows, until the same end as before.
///
/// The source gets its SCRAM verifier, so the password is in no log.
///
/// # Errors
/// [`RoleError`]; the role has the password that it had.
pub async fn draw_password(client: &Client, role: &str) -> Result<Secret, RoleError> {
    let random = clock::random::<24>().map_err(RoleError::Random)?;
    let password = data_encoding::HEXLOWER.encode(&random);
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    let statement = format!(
        "ALTER ROLE {} PASSWORD {}",
        quoted(role),
        literal(&verifier)
    );
    client
        .batch_execute(&statement)
        .await
        .map_err(refused("give the role of the lease a password"))?;
    Ok(Secret::new(password))
}

/// Ends the role's sessions and removes it; what it owns goes to the owner of the database.
///
/// A role that is gone already is as good as removed.
///
/// # Errors
/// [`RoleError`]; the role can no longer log in if the step was `remove the role of the lease`.
pub async fn drop_role(client: &mut Client, role: &str, database: &str) -> Result<(), RoleError> {
    let there = client
        .query_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&role])
        .await
        .map_err(refused("look for the role of the lease"))?;
    if there.is_none() {
        return Ok(());
    }
    let name = quoted(role);
    client
        .batch_execute(&format!("ALTER ROLE {name} NOLOGIN PASSWORD NULL"))
        .await
        .map_err(refused("close the role of the lease"))?;
    client
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1",
            &[&role],
        )
        .await
        .map_err(refused("end the sessions of the lease"))?;
    let (owner, _) = owner_of(client, database).await?;
    let owner = quoted(&owner);
    let step = "remove the role of the lease";
    let member = client
        .query_one("SELECT pg_has_role($1, 'MEMBER')", &[&role])
        .await
        .map_err(refused(step))?;
    if !member.try_get::<_, bool>(0).map_err(refused(step))? {
        client
            .batch_execute(&format!("GRANT {name} TO CURRENT_USER"))
            .await
            .map_err(refused(step))?;
    }
    let transaction = client.transaction().await.map_err(refused(step))?;
    transaction
        .batch_execute(&format!(
            "REASSIGN OWNED BY {name} TO {owner}; DROP OWNED BY {name}; DROP ROLE {name}"
        ))
        .await
        .map_err(refused(step))?;
    transaction.commit().await.map_err(refused(step))
}

/// Returns the owner of a database and whether it is a superuser.
async fn owner_of(client: &Client, database: &str) -> Result<(String, bool), RoleError> {
    let step = "find the owner of the database";
    let row = client
        .query_one(
            "SELECT r.rolname::text, r.rolsuper FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE d.datname = $1",
            &[&database],
        )
        .await
        .map_err(refused(step))?;
    let owner = row.try_get(0).map_err(refused(step))?;
    Ok((owner, row.try_get(1).map_err(refused(step))?))
}

fn refused(step: &'static str) -> impl Fn(tokio_postgres::Error) -> RoleError {
    move |source| RoleError::Refused { step, source }
}

/// Writes a name so that it can be nothing but a name.
fn quoted(name: &str) -> String {
    postgres_protocol::escape::escape_identifier(name)
}

fn literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text)
}
