//! The schema of the rental office, and how it gets into a database.

use tokio_postgres::Client;

/// Version of the schema that this program reads and writes.
pub const SCHEMA_VERSION: i32 = 1;

/// Why the schema was not created; the database is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The server lacks the extension behind the rule against double bookings.
    #[error(
        "this PostgreSQL server has no extension `btree_gist`, which keeps vehicles from being booked \
         twice; nothing was created; install the contrib modules of the server (Debian: they are part of \
         postgresql-15; Fedora, RHEL: postgresql-contrib) and try again"
    )]
    ExtensionMissing,
    /// A statement failed.
    #[error("cannot create the rental schema; nothing was created")]
    Statement(#[from] tokio_postgres::Error),
    /// The schema was made by another version of this program.
    #[error(
        "the database holds version {found} of the rental schema and this program needs version \
         {SCHEMA_VERSION}; nothing was changed; use an empty database"
    )]
    Version {
        /// The version that is there.
        found: i32,
    },
}

/// Creates the schema in an empty database; does nothing where it is already there.
///
/// # Errors
/// All of `SchemaError`; it runs in one transaction, so a failure leaves nothing behind.
pub async fn apply(client: &mut Client) -> Result<(), SchemaError> {
    let there = client
        .query_one(
            "SELECT to_regclass('public.rental_schema') IS NOT NULL",
            &[],
        )
        .await?
        .try_get::<_, bool>(0)?;
    if there {
        let row = client
            .query_one("SELECT coalesce(max(version), 0) FROM rental_schema", &[])
            .await?;
        let found: i32 = row.try_get(0)?;
        return if found == SCHEMA_VERSION {
            Ok(())
        } else {
            Err(SchemaError::Version { found })
        };
    }
    let extension = "SELECT count(*) > 0 FROM pg_available_extensions WHERE name = 'btree_gist'";
    if !client
        .query_one(extension, &[])
        .await?
        .try_get::<_, bool>(0)?
    {
        return Err(SchemaError::ExtensionMissing);
    }
    let transaction = client.transaction().await?;
    transaction
        .batch_execute(include_str!("schema.sql"))
        .await?;
    transaction.commit().await?;
    Ok(())
}
