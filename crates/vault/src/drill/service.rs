//! The first thing that is asked of a restored server: a write, and how far it came.

use std::time::{Duration, Instant};

use holdfast_core::{Lsn, Timestamp};

use super::server::Server;
use crate::source::{Connection, SourceError};

/// What the restored server says of itself.
pub(super) struct Served {
    /// From the start of the restore to the first committed write.
    pub(super) rto: Duration,
    pub(super) reached: Option<Lsn>,
    pub(super) newest_commit: Option<Timestamp>,
    pub(super) has_checksums: bool,
    /// Such as `15.18`.
    pub(super) version: Option<String>,
}

/// Commits a write and asks how far the server came.
pub(super) fn serve(server: &Server, begun: Instant) -> Result<Served, SourceError> {
    const WRITE: &str = "write to the restored server";
    const ASK: &str = "ask how far the restored server came";
    let mut connection: Connection = server.connect_anywhere()?;
    connection.query(
        "CREATE SCHEMA holdfast_drill; CREATE TABLE holdfast_drill.written AS SELECT now() AS at",
        WRITE,
    )?;
    let written = connection.query("SELECT count(*) FROM holdfast_drill.written", WRITE)?;
    if written.single() != Some("1") {
        return Err(SourceError::nonsense(WRITE, "the row is not there"));
    }
    let rto = begun.elapsed();
    connection.query("DROP SCHEMA holdfast_drill CASCADE", WRITE)?;
    let reply = connection.query(
        "SELECT pg_catalog.pg_last_wal_replay_lsn() AS reached,
                (extract(epoch FROM pg_catalog.pg_last_xact_replay_timestamp()) * 1000000)::bigint AS newest,
                pg_catalog.current_setting('data_checksums') AS checksums,
                pg_catalog.split_part(pg_catalog.current_setting('server_version'), ' ', 1) AS version",
        ASK,
    )?;
    Ok(Served {
        rto,
        reached: reply.value("reached").and_then(|lsn| lsn.parse().ok()),
        newest_commit: reply
            .value("newest")
            .and_then(|micros| micros.parse().ok())
            .map(Timestamp),
        has_checksums: reply.value("checksums") == Some("on"),
        version: reply.value("version").map(str::to_owned),
    })
}
