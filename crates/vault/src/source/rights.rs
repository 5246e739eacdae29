//! The functions with which changed blocks are read, and who may execute them.

use holdfast_wire::pg::replication::{quote_identifier, quote_literal};

use super::{Connection, SourceError};

const STEP: &str = "look at the role's rights";

/// Returns the functions that are needed, with their arguments.
fn functions(major: u32) -> [&'static str; 5] {
    let (start, stop) = if major >= 15 {
        ("pg_backup_start(text, boolean)", "pg_backup_stop(boolean)")
    } else {
        (
            "pg_start_backup(text, boolean, boolean)",
            "pg_stop_backup(boolean, boolean)",
        )
    };
    [
        start,
        stop,
        "pg_ls_dir(text, boolean, boolean)",
        "pg_stat_file(text, boolean)",
        "pg_read_binary_file(text, bigint, bigint, boolean)",
    ]
}

/// Returns the functions that this connection's role may not execute.
pub(crate) fn missing_rights(
    connection: &mut Connection,
) -> Result<Vec<&'static str>, SourceError> {
    let functions = functions(connection.major());
    let ask = |name: &&str| format!("has_function_privilege({}, 'EXECUTE')", quote_literal(name));
    let asked: Vec<String> = functions.iter().map(ask).collect();
    let reply = connection.query(&format!("SELECT {}", asked.join(", ")), STEP)?;
    let answers = reply.rows().first().map(Vec::as_slice).unwrap_or_default();
    let refused = functions.iter().zip(answers);
    let refused = refused.filter(|(_, answer)| answer.as_deref() != Some("t"));
    Ok(refused.map(|(name, _)| *name).collect())
}

/// Returns the statement that lets `user` execute them.
pub(super) fn grant(missing: &[&str], user: &str, database: &str) -> String {
    format!(
        "GRANT EXECUTE ON FUNCTION {} TO {};  -- in the database {}",
        missing.join(", "),
        quote_identifier(user),
        quote_identifier(database)
    )
}
