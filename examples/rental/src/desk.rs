//! The desk: what the rental office does with its database, each thing in bounded time.
//!
//! Architecture invariant: an operation answers `Ok` only after PostgreSQL has acknowledged its
//! COMMIT, and `DeskError::Unknown` when nobody can say whether it was committed.

mod booking;
mod health;
mod lists;
mod pool;

use std::error::Error as _;

use jiff::Timestamp;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use crate::database::Connection;
use crate::limits::LIMIT_ROLLBACK;

pub use booking::{Booking, Customer, Method, Payment, Rental, StatusChange};
pub use health::Health;
pub use lists::{
    Company, CounterDay, CounterRow, Fleet, FleetRow, Location, MailRow, PaymentRow,
    ReservationPage, VehicleChoice,
};
pub use pool::{Away, Pool};

/// One person's turn at the database: a connection, and a time by which every answer is given.
pub struct Desk<'pool> {
    pool: &'pool Pool,
    connection: Option<Connection>,
    deadline: Instant,
    in_transaction: bool,
    _seat: SemaphorePermit<'pool>,
}

/// Why an operation was not done, or cannot be told to be done.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The database cannot be reached or cannot serve; nothing was saved.
    #[error("the database is away: {reason}; nothing was saved")]
    Away {
        /// What was observed.
        reason: String,
    },
    /// The database answered with something this program does not expect; nothing was saved.
    #[error("the database refused the operation: {reason}; nothing was saved")]
    Broken {
        /// SQLSTATE, if there is one.
        code: Option<SqlState>,
        /// SQLSTATE and message.
        reason: String,
    },
    /// Another transaction was in the way; nothing was saved, and trying again may succeed.
    #[error(
        "somebody else changed the same record at the same moment; nothing was saved; try again"
    )]
    Busy,
    /// There is no such thing.
    #[error("there is no such {what}; nothing was saved")]
    NotFound {
        /// What was asked for.
        what: &'static str,
    },
    /// The database can be read but not written; nothing was saved.
    #[error("the database can be read but not written; nothing was saved")]
    ReadOnly,
    /// The rules of the office do not allow it; nothing was saved.
    #[error("{reason}; nothing was saved")]
    Refused {
        /// Which rule.
        reason: String,
    },
    /// The vehicle is taken in that time; nothing was saved.
    #[error("{vehicle} is already booked from {from} to {to}; nothing was saved")]
    Taken {
        /// Model and plate.
        vehicle: String,
        /// Pickup of the booking that is in the way, local time.
        from: String,
        /// Return of the booking that is in the way, local time.
        to: String,
    },
    /// The connection was lost between COMMIT and its answer: it may be saved or not.
    #[error(
        "the connection was lost before the answer came ({reason}); it may be saved or not: look before repeating it"
    )]
    Unknown {
        /// What was observed.
        reason: String,
    },
}

/// A parameter of a statement with its type.
type Param<'a> = (&'a (dyn ToSql + Sync), Type);

impl Desk<'_> {
    /// Runs one statement outside or inside a transaction.
    async fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, DeskError> {
        let deadline = self.deadline;
        let connection = self.open()?;
        let answer = timeout_at(deadline, connection.client.query_typed(sql, params)).await;
        self.settle(answer)
    }

    /// Runs one statement and returns its only row.
    async fn row(
        &mut self,
        what: &'static str,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Row, DeskError> {
        self.query(sql, params)
            .await?
            .into_iter()
            .next()
            .ok_or(DeskError::NotFound { what })
    }

    /// Runs one statement that returns nothing, by the simple protocol.
    async fn batch(&mut self, sql: &str) -> Result<(), DeskError> {
        let deadline = self.deadline;
        let connection = self.open()?;
        let answer = timeout_at(deadline, connection.client.batch_execute(sql)).await;
        self.settle(answer)
    }

    async fn begin(&mut self) -> Result<(), DeskError> {
        self.in_transaction = true;
        self.batch("BEGIN").await
    }

    /// Commits, and tells a commit that failed from one whose outcome is unknown.
    async fn commit(&mut self) -> Result<(), DeskError> {
        let deadline = self.deadline;
        let connection = self.open()?;
        let answer = timeout_at(deadline, connection.client.batch_execute("COMMIT")).await;
        if let Ok(Err(error)) = &answer
            && error.code().is_some_and(is_certain_at_commit)
        {
            self.in_transaction = false;
            return self.settle(answer);
        }
        let outcome = self.settle(answer).map_err(|error| DeskError::Unknown {
            reason: error.reason(),
        });
        match outcome {
            Ok(()) => self.in_transaction = false,
            Err(_) => self.connection = None,
        }
        outcome
    }

    /// Gives up the transaction; a connection on which that fails is thrown away.
    async fn rollback(&mut self) {
        let Some(connection) = &self.connection else {
            return;
        };
        match timeout(LIMIT_ROLLBACK, connection.client.batch_execute("ROLLBACK")).await {
            Ok(Ok(())) => self.in_transaction = false,
            Ok(Err(_)) | Err(_) => self.connection = None,
        }
    }

    fn open(&self) -> Result<&Connection, DeskError> {
        self.connection.as_ref().ok_or_else(|| DeskError::Away {
            reason: "the connection was lost".to_owned(),
        })
    }

    /// Reads an answer, and remembers in the pool whether the database is there.
    fn settle<T>(
        &mut self,
        answer: Result<Result<T, tokio_postgres::Error>, tokio::time::error::Elapsed>,
    ) -> Result<T, DeskError> {
        let error = match answer {
            Ok(Ok(value)) => {
                self.pool.note_here();
                return Ok(value);
            }
            Ok(Err(error)) => classify(&error),
            Err(_elapsed) => DeskError::Away {
                reason: "the database did not answer in time".to_owned(),
            },
        };
        if let DeskError::Away { reason } = &error {
            self.connection = None;
            self.pool.note_away(reason, Timestamp::now());
        }
        Err(error)
    }
}

impl Drop for Desk<'_> {
    fn drop(&mut self) {
        // A connection that may still be in a transaction is closed, which rolls it back.
        if let Some(connection) = self.connection.take()
            && !self.in_transaction
        {
            self.pool.take_back(connection);
        }
    }
}

impl DeskError {
    /// What was observed, without what it means for the operation.
    pub fn reason(&self) -> String {
        match self {
            Self::Away { reason } | Self::Broken { reason, .. } | Self::Refused { reason } => {
                reason.clone()
            }
            Self::Unknown { reason } => reason.clone(),
            Self::Busy | Self::NotFound { .. } | Self::ReadOnly | Self::Taken { .. } => {
                self.to_string()
            }
        }
    }

    /// Whether the database, not the request, is at fault.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Away { .. } | Self::ReadOnly | Self::Unknown { .. } => true,
            Self::Broken { .. }
            | Self::Busy
            | Self::NotFound { .. }
            | Self::Refused { .. }
            | Self::Taken { .. } => false,
        }
    }
}

/// An error of a row whose shape is not what the statement says.
fn shape(error: tokio_postgres::Error) -> DeskError {
    DeskError::Broken {
        code: None,
        reason: describe(&error),
    }
}

fn classify(error: &tokio_postgres::Error) -> DeskError {
    let reason = describe(error);
    let Some(code) = error.code() else {
        return DeskError::Away { reason };
    };
    if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        return DeskError::ReadOnly;
    }
    if [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ]
    .contains(code)
    {
        return DeskError::Busy;
    }
    if is_missing(code) {
        let reason = format!("its tables are gone ({reason})");
        return DeskError::Away { reason };
    }
    // 08 connection, 28 password, 53 out of resources, 57P shutting down, 58 files, XX damage.
    let away = ["08", "28", "53", "57P", "58", "XX"];
    if away.iter().any(|class| code.code().starts_with(class)) {
        return DeskError::Away { reason };
    }
    DeskError::Broken {
        code: Some(code.clone()),
        reason,
    }
}

/// Whether the code says that a table, a schema, a function or the database is not there.
pub(crate) fn is_missing(code: &SqlState) -> bool {
    [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_COLUMN,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::UNDEFINED_OBJECT,
        SqlState::UNDEFINED_DATABASE,
        SqlState::INVALID_CATALOG_NAME,
        SqlState::INVALID_SCHEMA_NAME,
    ]
    .contains(code)
}

/// Whether an error in answer to COMMIT proves that nothing was committed: only a broken constraint
/// (23), a lost race (40) or an aborted transaction (25) do. A server that is stopping may send
/// its farewell after the commit record is durable.
fn is_certain_at_commit(code: &SqlState) -> bool {
    ["23", "25", "40"]
        .iter()
        .any(|class| code.code().starts_with(class))
}

/// An error and its causes, on one line.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(answer) = error.as_db_error() {
        return format!("{} {}", answer.code().code(), answer.message());
    }
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
