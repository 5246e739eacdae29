//! The role that a lease has in its source: only its rights, an end, and a password nobody keeps.
//!
//! The agent never logs in to the source with it: it logs in to the door with its token, and the
//! door logs in to the source with a password that it draws anew in every process.

mod removal;

use holdfast_core::{Code, Coded, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use super::LeaseMode;
use crate::clock::{self, RandomError};
use crate::limits::{ROLE_CONNECTIONS_MAX, ROLE_IDLE_MAX, ROLE_LOCK_WAITS_MAX, ROLE_STATEMENT_MAX};
pub use removal::{drop_role, marked};

/// What is written beside a role, so that a leftover is known for what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleMark {
    /// What it is: always `lease`.
    pub holdfast: String,
    /// Which guard made it, by its public key: another guard's roles are left alone.
    pub guard: String,
    /// The database that the lease leads to.
    pub database: String,
}

impl RoleMark {
    /// Marks a role of `guard`'s for a lease that leads to `database`.
    pub fn new(guard: &str, database: &str) -> Self {
        Self {
            holdfast: "lease".to_owned(),
            guard: guard.to_owned(),
            database: database.to_owned(),
        }
    }
}

/// A role to be made.
#[derive(Clone, Debug)]
pub struct LeaseRole {
    /// Its name.
    pub name: String,
    /// The database that it may connect to.
    pub database: String,
    /// The guard that makes it, by its public key.
    pub guard: String,
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
    let owner = owner_of(client, &role.database).await?;
    let mut statements = own_statements(role);
    match (role.mode, owner) {
        (LeaseMode::ReadOnly, _) => statements.push(format!("GRANT pg_read_all_data TO {name}")),
        (LeaseMode::Data, _) => statements.push(format!(
            "GRANT pg_read_all_data, pg_write_all_data TO {name}"
        )),
        (LeaseMode::Schema, Some((owner, false))) => statements.extend(as_owner(&name, &owner)),
        // Whoever may become a superuser is past every gate, so a superuser's things stay his.
        (LeaseMode::Schema, _) => statements.push(format!(
            "GRANT pg_read_all_data, pg_write_all_data TO {name}; \
             GRANT USAGE, CREATE ON SCHEMA public TO {name}"
        )),
    }
    let step = "make the role of the lease";
    let transaction = client.transaction().await.map_err(refused(step))?;
    transaction
        .batch_execute(&statements.join(";"))
        .await
        .map_err(refused(step))?;
    transaction.commit().await.map_err(refused(step))
}

/// Lets the role of a lease into a copy, which admits nobody else but the members of one role.
///
/// # Errors
/// [`RoleError`]; the role cannot log in to the copy.
pub async fn admit_to_copy(client: &Client, role: &str, keeper: &str) -> Result<(), RoleError> {
    let admitted = quoted(&format!("{keeper}{ADMITTED}"));
    client
        .batch_execute(&format!("GRANT {admitted} TO {}", quoted(role)))
        .await
        .map_err(refused("let the role of the lease into the clone"))
}

/// What the name of the role ends with whose members a copy admits.
const ADMITTED: &str = "_leases";

/// What every role of a lease gets: an end, a mark, and times after which a statement is given up.
///
/// The times are defaults, which its sessions may change; the end is not.
fn own_statements(role: &LeaseRole) -> Vec<String> {
    let name = quoted(&role.name);
    let until = literal(&role.expires.to_string());
    let mark = RoleMark::new(&role.guard, &role.database);
    let mark = serde_json::to_string(&mark).unwrap_or_default();
    let mut statements = vec![
        format!(
            "CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS \
             INHERIT CONNECTION LIMIT {ROLE_CONNECTIONS_MAX} PASSWORD NULL VALID UNTIL {until}"
        ),
        format!("COMMENT ON ROLE {name} IS {}", literal(&mark)),
        format!(
            "GRANT CONNECT ON DATABASE {} TO {name}",
            quoted(&role.database)
        ),
    ];
    let times = [
        ("statement_timeout", ROLE_STATEMENT_MAX),
        ("lock_timeout", ROLE_LOCK_WAITS_MAX),
        ("idle_in_transaction_session_timeout", ROLE_IDLE_MAX),
    ];
    statements.extend(times.map(|(setting, time)| {
        format!("ALTER ROLE {name} SET {setting} = '{}ms'", time.as_millis())
    }));
    statements
}

/// Rights of the owner, who in turn may use at once what the lease makes, before it is his.
///
/// Guard must be a member of the lease's role to say so, and must not stay one: it may be the owner,
/// and two roles cannot be members of each other.
fn as_owner(name: &str, owner: &str) -> Vec<String> {
    let owner = quoted(owner);
    let mut statements = vec![
        format!("GRANT pg_read_all_data, pg_write_all_data TO {name}"),
        format!("GRANT {name} TO CURRENT_USER"),
    ];
    let kinds = ["TABLES", "SEQUENCES", "FUNCTIONS", "TYPES", "SCHEMAS"];
    statements.extend(kinds.map(|kind| {
        format!("ALTER DEFAULT PRIVILEGES FOR ROLE {name} GRANT ALL ON {kind} TO {owner}")
    }));
    statements.push(format!("REVOKE {name} FROM CURRENT_USER"));
    statements.push(format!("GRANT {owner} TO {name}"));
    statements
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

/// Returns the owner of a database and whether it is a superuser; `None` when there is no such
/// database any more.
async fn owner_of(client: &Client, database: &str) -> Result<Option<(String, bool)>, RoleError> {
    let step = "find the owner of the database";
    let row = client
        .query_opt(
            "SELECT r.rolname::text, r.rolsuper FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE d.datname = $1",
            &[&database],
        )
        .await
        .map_err(refused(step))?;
    let Some(row) = row else { return Ok(None) };
    let owner = row.try_get(0).map_err(refused(step))?;
    Ok(Some((owner, row.try_get(1).map_err(refused(step))?)))
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
