//! The commands of a replication connection, as text.

use holdfast_core::Lsn;

/// How a base backup is asked for.
#[derive(Clone, Debug)]
pub struct BaseBackupOptions<'a> {
    /// The label that the server writes into `backup_label`.
    pub label: &'a str,
    /// PostgreSQL's major version, which decides the grammar.
    pub major: u32,
}

/// Returns the command that starts a base backup: fast checkpoint, manifest with SHA-256, progress.
///
/// Versions 13 and 14 know only the older grammar without parentheses; the options mean the same.
///
/// # Source
/// <https://www.postgresql.org/docs/18/protocol-replication.html>, `BASE_BACKUP`, and the same page of
/// version 14.
pub fn base_backup(options: &BaseBackupOptions<'_>) -> String {
    let label = quote_literal(options.label);
    if options.major >= 15 {
        format!(
            "BASE_BACKUP (LABEL {label}, PROGRESS true, CHECKPOINT 'fast', WAIT false, WAL false, \
             TABLESPACE_MAP true, MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C', TARGET 'client')"
        )
    } else {
        format!(
            "BASE_BACKUP LABEL {label} PROGRESS FAST NOWAIT TABLESPACE_MAP MANIFEST 'yes' \
             MANIFEST_CHECKSUMS 'CRC32C'"
        )
    }
}

/// Returns the command that makes a physical slot which keeps WAL from now on.
///
/// Version 15 brought the grammar in parentheses; the older form is understood by all versions.
pub fn create_physical_slot(name: &str) -> String {
    format!(
        "CREATE_REPLICATION_SLOT {} PHYSICAL RESERVE_WAL",
        quote_identifier(name)
    )
}

/// Returns the command that drops a slot which nobody uses.
pub fn drop_slot(name: &str) -> String {
    format!("DROP_REPLICATION_SLOT {}", quote_identifier(name))
}

/// Returns the command that starts streaming WAL of `timeline` at `from`.
pub fn start_physical(slot: &str, from: Lsn, timeline: u32) -> String {
    format!(
        "START_REPLICATION SLOT {} PHYSICAL {from} TIMELINE {timeline}",
        quote_identifier(slot)
    )
}

/// Returns the command that asks for a timeline's history file.
pub fn timeline_history(timeline: u32) -> String {
    format!("TIMELINE_HISTORY {timeline}")
}

/// Quotes a name for SQL and replication commands.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text for SQL and replication commands, whatever `standard_conforming_strings` says.
///
/// A backslash is refused by the caller's types (labels and settings of ours have none); it is
/// doubled in an `E''` text here so that none can end the literal.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_end_their_quotes() {
        assert_eq!(quote_identifier("a\"; DROP"), "\"a\"\"; DROP\"");
        assert_eq!(quote_literal("a'; DROP"), "'a''; DROP'");
        assert_eq!(quote_literal("a\\'; DROP"), "E'a\\\\''; DROP'");
    }

    #[test]
    fn each_major_gets_its_own_grammar() {
        let of = |major| base_backup(&BaseBackupOptions { label: "x", major });
        assert!(of(13).starts_with("BASE_BACKUP LABEL 'x' PROGRESS"));
        assert!(of(18).starts_with("BASE_BACKUP (LABEL 'x', PROGRESS true"));
    }
}
