//! Which function has a number.

use holdfast_core::ErrorChain;

use super::Control;

/// A function as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Function {
    /// Schema and name, quoted where needed.
    pub name: String,
    /// The types of its arguments.
    pub types: Vec<u32>,
}

impl Control {
    /// Finds a function by its number, if others see one.
    pub(in super::super) async fn function(
        &self,
        database: &str,
        oid: u32,
    ) -> Result<Option<Function>, String> {
        let bad = |error: tokio_postgres::Error| ErrorChain(&error).to_string();
        let client = self.client(database).await?;
        let row = client.query_opt(FUNCTION, &[&oid]).await.map_err(bad)?;
        row.map(|row| {
            Ok(Function {
                name: row.try_get(0).map_err(bad)?,
                types: row.try_get(1).map_err(bad)?,
            })
        })
        .transpose()
    }
}

const FUNCTION: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, p.proname), \
    p.proargtypes::pg_catalog.oid[] FROM pg_catalog.pg_proc p \
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = $1";
