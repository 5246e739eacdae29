//! Whether the catalogs of a database agree with each other and with its files.

use holdfast_core::Untrusted;

use super::tally::Tally;
use crate::source::{Connection, SourceError};

/// Finds what cannot be in a database that is whole; each row is one finding.
///
/// Index scans are switched off first, so that the catalogs' tables themselves are read: their indexes
/// are checked elsewhere.
///
/// SOURCE: PostgreSQL 18, chapter 52, for what refers to what in every version since 13.
const SANITY: &str = "
    SELECT 'two relations have the number ' || oid FROM pg_catalog.pg_class
      GROUP BY oid HAVING count(*) > 1
    UNION ALL SELECT 'two columns ' || attnum || ' of relation ' || attrelid FROM pg_catalog.pg_attribute
      GROUP BY attrelid, attnum HAVING count(*) > 1
    UNION ALL SELECT 'the schema of ' || c.relname || ' is missing' FROM pg_catalog.pg_class c
      LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.oid IS NULL
    UNION ALL SELECT c.relname || ' has ' || count(a.attnum) || ' columns instead of ' || c.relnatts
      FROM pg_catalog.pg_class c
      LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
      GROUP BY c.oid, c.relname, c.relnatts HAVING count(a.attnum) <> c.relnatts
    UNION ALL SELECT 'columns of a relation ' || a.attrelid || ' that is missing'
      FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
      WHERE c.oid IS NULL GROUP BY a.attrelid
    UNION ALL SELECT 'an index ' || i.indexrelid || ' of a table ' || i.indrelid || ', one of which is missing'
      FROM pg_catalog.pg_index i
      LEFT JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
      LEFT JOIN pg_catalog.pg_class t ON t.oid = i.indrelid WHERE x.oid IS NULL OR t.oid IS NULL
    UNION ALL SELECT 'the TOAST table of ' || c.relname || ' is missing' FROM pg_catalog.pg_class c
      LEFT JOIN pg_catalog.pg_class t ON t.oid = c.reltoastrelid
      WHERE c.reltoastrelid <> 0 AND t.oid IS NULL
    UNION ALL SELECT 'the type of column ' || a.attname || ' of relation ' || a.attrelid || ' is missing'
      FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
      WHERE NOT a.attisdropped AND a.atttypid <> 0 AND t.oid IS NULL
    UNION ALL SELECT 'the table of constraint ' || k.conname || ' is missing' FROM pg_catalog.pg_constraint k
      LEFT JOIN pg_catalog.pg_class c ON c.oid = k.conrelid WHERE k.conrelid <> 0 AND c.oid IS NULL
    UNION ALL SELECT 'the schema of function ' || p.proname || ' is missing' FROM pg_catalog.pg_proc p
      LEFT JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.oid IS NULL
    UNION ALL SELECT 'the file of ' || c.relname || ' is missing' FROM pg_catalog.pg_class c
      WHERE c.relkind IN ('r', 'i', 'm', 't', 'S') AND c.relpersistence = 'p'
        AND pg_catalog.pg_relation_filenode(c.oid) IS NOT NULL
        AND (pg_catalog.pg_stat_file(pg_catalog.pg_relation_filepath(c.oid), true)).size IS NULL
    LIMIT 20";

const ASK: &str = "compare the catalogs";

/// Looks at the catalogs of the database that the connection is in.
pub(super) fn look(
    connection: &mut Connection,
    database: &str,
    tally: &mut Tally,
    ask: impl FnOnce(&mut Connection, &str) -> Result<crate::source::Reply, SourceError>,
) -> Result<(), SourceError> {
    connection.query(
        "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off",
        ASK,
    )?;
    match ask(connection, SANITY) {
        Ok(reply) => {
            tally.done = tally.done.saturating_add(1);
            for finding in reply.firsts() {
                tally.find(format!("{}: {}", Untrusted(database), Untrusted(finding)));
            }
        }
        Err(error) => tally.note(database, &error)?,
    }
    connection.query(
        "RESET enable_indexscan; RESET enable_indexonlyscan; RESET enable_bitmapscan",
        ASK,
    )?;
    Ok(())
}
