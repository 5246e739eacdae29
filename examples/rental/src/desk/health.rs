//! Whether the office can really work: read a real table, write a row and commit it.

use serde::Serialize;

use super::{Desk, DeskError, Pool, shape};

/// What was really done a moment ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// A table of the office was read.
    pub reads: bool,
    /// A row was written and its COMMIT acknowledged.
    pub writes: bool,
    /// Why not, when one of them is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Health {
    /// Reads and writes through `pool`, within the pool's limit.
    pub async fn check(pool: &Pool) -> Self {
        let mut health = Self {
            reads: false,
            writes: false,
            reason: None,
        };
        if let Err(error) = health.try_both(pool).await {
            health.reason = Some(error.to_string());
        }
        health
    }

    /// Whether both worked.
    pub fn is_well(&self) -> bool {
        self.reads && self.writes
    }

    async fn try_both(&mut self, pool: &Pool) -> Result<(), DeskError> {
        let mut desk = pool.desk().await?;
        desk.read_something().await?;
        self.reads = true;
        desk.beat().await?;
        self.writes = true;
        Ok(())
    }
}

impl Desk<'_> {
    async fn read_something(&mut self) -> Result<(), DeskError> {
        let sql =
            "SELECT (SELECT count(*) FROM companies), (SELECT max(lower(during)) FROM reservations
                   WHERE location_id = (SELECT min(id) FROM locations))";
        self.row("table", sql, &[]).await.map(drop)
    }

    async fn beat(&mut self) -> Result<(), DeskError> {
        self.begin().await?;
        let sql = "UPDATE heartbeat SET beats = beats + 1, beaten_at = now() WHERE id = 1 RETURNING beats";
        let written = self.row("heartbeat row", sql, &[]).await;
        if let Err(error) = written.and_then(|row| row.try_get::<_, i64>(0).map_err(shape)) {
            self.rollback().await;
            return Err(error);
        }
        self.commit().await
    }
}
