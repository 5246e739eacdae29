//! A look through a source for what makes leases weaker, on a connection of its own.

use super::{PgDoorSource, dial};
use crate::lease::weak::{WeakError, Weaknesses, weaknesses};

/// Looks through a database of a source for what makes leases weaker; changes nothing.
///
/// # Errors
/// [`WeakError`].
pub async fn look_for_weaknesses(
    source: &PgDoorSource,
    database: Option<&str>,
) -> Result<Weaknesses, WeakError> {
    let database = database.unwrap_or(&source.url.database);
    let client = dial::control(&source.url, database)
        .await
        .map_err(WeakError::Connect)?;
    weaknesses(&client).await
}
