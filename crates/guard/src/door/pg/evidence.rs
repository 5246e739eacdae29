//! What an open transaction says about itself, asked inside it before its `COMMIT`.
//!
//! Every name, type and operator is qualified, because the transaction may have put its own in front.
//! Numbers are returned, not names: a name may not be expressible in the client's encoding.

/// Catalogs whose rows are the structure, the rights and the settings of a database.
///
/// SOURCE: src/include/catalog/*.h of PostgreSQL 15 and 18: these numbers never change.
const CATALOGS: &[(u32, &str, Change)] = &[
    (1259, "pg_class", Change::Structure),
    (1249, "pg_attribute", Change::Structure),
    (1247, "pg_type", Change::Structure),
    (1255, "pg_proc", Change::Code),
    (2615, "pg_namespace", Change::Structure),
    (2606, "pg_constraint", Change::Structure),
    (2610, "pg_index", Change::Structure),
    (2604, "pg_attrdef", Change::Structure),
    (2611, "pg_inherits", Change::Structure),
    (3350, "pg_partitioned_table", Change::Structure),
    (2224, "pg_sequence", Change::Structure),
    (3501, "pg_enum", Change::Structure),
    (3541, "pg_range", Change::Structure),
    (3381, "pg_statistic_ext", Change::Structure),
    (2600, "pg_aggregate", Change::Code),
    (2617, "pg_operator", Change::Code),
    (2616, "pg_opclass", Change::Code),
    (2753, "pg_opfamily", Change::Code),
    (2602, "pg_amop", Change::Code),
    (2603, "pg_amproc", Change::Code),
    (2605, "pg_cast", Change::Code),
    (2607, "pg_conversion", Change::Code),
    (3456, "pg_collation", Change::Code),
    (3602, "pg_ts_config", Change::Code),
    (3603, "pg_ts_config_map", Change::Code),
    (3600, "pg_ts_dict", Change::Code),
    (3601, "pg_ts_parser", Change::Code),
    (3764, "pg_ts_template", Change::Code),
    (2612, "pg_language", Change::Power),
    (3576, "pg_transform", Change::Power),
    (2601, "pg_am", Change::Power),
    (3079, "pg_extension", Change::Power),
    (2618, "pg_rewrite", Change::Guard),
    (2620, "pg_trigger", Change::Guard),
    (3256, "pg_policy", Change::Guard),
    (3466, "pg_event_trigger", Change::Power),
    (6104, "pg_publication", Change::Guard),
    (6106, "pg_publication_rel", Change::Guard),
    (6237, "pg_publication_namespace", Change::Guard),
    (1260, "pg_authid", Change::Rights),
    (1261, "pg_auth_members", Change::Rights),
    (2964, "pg_db_role_setting", Change::Rights),
    (826, "pg_default_acl", Change::Rights),
    (6243, "pg_parameter_acl", Change::Rights),
    (3596, "pg_seclabel", Change::Rights),
    (3592, "pg_shseclabel", Change::Rights),
    (1262, "pg_database", Change::Rights),
    (1213, "pg_tablespace", Change::Rights),
    (2328, "pg_foreign_data_wrapper", Change::Outside),
    (1417, "pg_foreign_server", Change::Outside),
    (3118, "pg_foreign_table", Change::Outside),
    (1418, "pg_user_mapping", Change::Outside),
    (6100, "pg_subscription", Change::Outside),
    (6102, "pg_subscription_rel", Change::Outside),
    (6000, "pg_replication_origin", Change::Outside),
    (2613, "pg_largeobject", Change::LargeObjects),
    (2995, "pg_largeobject_metadata", Change::LargeObjects),
];

/// What a change of a catalog means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Functions, operators, languages.
    Code,
    /// Triggers, rules, policies, publications.
    Guard,
    /// Large objects.
    LargeObjects,
    /// Ways to other servers.
    Outside,
    /// Extensions, languages, event triggers: code that acts for whoever comes by.
    Power,
    /// Roles, rights, settings.
    Rights,
    /// Tables and what belongs to them.
    Structure,
}

/// Rows that were inserted, changed and removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    pub inserted: u64,
    pub changed: u64,
    pub removed: u64,
}

/// A relation that the transaction has locked more than for reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Locked {
    pub oid: u32,
    /// The lock's mode, such as `AccessExclusiveLock`.
    pub mode: String,
    /// Inside: its kind, or `None` when it is gone.
    pub kind: Option<u8>,
    /// Inside: the number of its file.
    pub file: u32,
    /// Inside: it belongs to this session only.
    pub temporary: bool,
    /// Inside: bytes of a table that others cannot write to meanwhile.
    pub bytes: Option<u64>,
}

impl Locked {
    /// Nobody else can write to it until the transaction ends.
    pub(super) fn keeps_writers_out(&self) -> bool {
        STRONG.contains(&self.mode.as_str())
    }
}

/// SOURCE: the table of conflicting lock modes in PostgreSQL's documentation, "Explicit Locking".
const STRONG: [&str; 4] = [
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
];

/// What the transaction said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// Its id, when it has one: it has written something or locked rows.
    pub transaction: Option<u32>,
    /// The counters are on.
    pub counts: bool,
    /// Cursors that would run inside `COMMIT`.
    pub holdable_cursors: u64,
    pub locks: Vec<Locked>,
    /// Rows of relations, catalogs included.
    pub rows: Vec<(u32, Rows)>,
}

/// One row of the answer as text.
pub(super) type Row = Vec<Option<String>>;

/// Returns the question.
pub(super) fn question() -> String {
    let catalogs: Vec<String> = CATALOGS.iter().map(|(oid, ..)| oid.to_string()).collect();
    let strong = STRONG.join(",");
    let locked = "SELECT DISTINCT k.relation, k.mode FROM pg_catalog.pg_lock_status() k \
        WHERE k.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() \
        AND k.locktype OPERATOR(pg_catalog.=) 'relation'::pg_catalog.text \
        AND k.mode OPERATOR(pg_catalog.<>) 'AccessShareLock'::pg_catalog.text";
    format!(
        "WITH l AS MATERIALIZED ({locked}) \
         SELECT 'x'::pg_catalog.text, \
           pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text, \
           pg_catalog.current_setting('track_counts'::pg_catalog.text), \
           (SELECT pg_catalog.count(*) FROM pg_catalog.pg_cursor() c WHERE c.is_holdable)::pg_catalog.text, \
           pg_catalog.pg_stat_force_next_flush()::pg_catalog.text, NULL::pg_catalog.text, \
           NULL::pg_catalog.text \
         UNION ALL SELECT 'l'::pg_catalog.text, l.relation::pg_catalog.text, l.mode, \
           c.relkind::pg_catalog.text, c.relfilenode::pg_catalog.text, c.relpersistence::pg_catalog.text, \
           CASE WHEN l.mode OPERATOR(pg_catalog.=) ANY('{{{strong}}}'::pg_catalog.text[]) \
             AND c.relkind OPERATOR(pg_catalog.=) ANY('{{r,m}}'::pg_catalog.\"char\"[]) \
             THEN pg_catalog.pg_table_size(l.relation)::pg_catalog.text END \
         FROM l LEFT JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) l.relation \
         UNION ALL SELECT 'c'::pg_catalog.text, r.o::pg_catalog.text, s.i::pg_catalog.text, \
           s.u::pg_catalog.text, s.d::pg_catalog.text, NULL::pg_catalog.text, NULL::pg_catalog.text \
         FROM (SELECT pg_catalog.unnest('{{{}}}'::pg_catalog.oid[]) AS o UNION SELECT l.relation FROM l) r, \
         LATERAL (SELECT pg_catalog.pg_stat_get_xact_tuples_inserted(r.o) AS i, \
           pg_catalog.pg_stat_get_xact_tuples_updated(r.o) AS u, \
           pg_catalog.pg_stat_get_xact_tuples_deleted(r.o) AS d OFFSET 0) s \
         WHERE s.i OPERATOR(pg_catalog.>) 0::pg_catalog.int8 OR s.u OPERATOR(pg_catalog.>) 0::pg_catalog.int8 \
           OR s.d OPERATOR(pg_catalog.>) 0::pg_catalog.int8",
        catalogs.join(",")
    )
}

/// Reads the answer; `None` when anything about it is not as expected.
pub(super) fn read(rows: &[Row]) -> Option<Said> {
    let mut said = Said::default();
    let mut headers = 0_usize;
    for row in rows {
        let field = |at: usize| row.get(at).and_then(Option::as_deref);
        match field(0)? {
            "x" => {
                headers = headers.saturating_add(1);
                let id = field(1).map(str::parse::<u64>).transpose().ok()?;
                // Where ids are compared, they are without their epoch.
                said.transaction = id.map(|id| u32::try_from(id & 0xffff_ffff).unwrap_or(0));
                said.counts = field(2)? == "on";
                said.holdable_cursors = field(3)?.parse().ok()?;
            }
            "l" => said.locks.push(Locked {
                oid: field(1)?.parse().ok()?,
                mode: field(2)?.to_owned(),
                kind: field(3).and_then(|kind| kind.bytes().next()),
                file: match field(4) {
                    Some(file) => file.parse().ok()?,
                    None => 0,
                },
                temporary: field(5) == Some("t"),
                bytes: field(6).and_then(|bytes| bytes.parse().ok()),
            }),
            "c" => {
                let rows = Rows {
                    inserted: field(2)?.parse().ok()?,
                    changed: field(3)?.parse().ok()?,
                    removed: field(4)?.parse().ok()?,
                };
                said.rows.push((field(1)?.parse().ok()?, rows));
            }
            _ => return None,
        }
    }
    // One and only one header: an answer that was cut or doubled is none.
    (headers == 1).then_some(said)
}

/// Returns name and meaning of a catalog.
pub(super) fn catalog(oid: u32) -> Option<(&'static str, Change)> {
    let mut catalogs = CATALOGS.iter();
    catalogs
        .find(|(one, ..)| *one == oid)
        .map(|(_, name, change)| (*name, *change))
}

/// The first number that a relation of a user can have.
///
/// SOURCE: src/include/access/transam.h, `FirstNormalObjectId`.
pub(super) const FIRST_USER_OID: u32 = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fields: &[&str]) -> Row {
        fields
            .iter()
            .map(|field| (*field != "-").then(|| (*field).to_owned()))
            .collect()
    }

    #[test]
    fn an_answer_is_read() {
        let rows = [
            row(&["x", "740", "on", "0", "", "-"]),
            row(&["l", "16385", "RowExclusiveLock", "r", "16385", "p"]),
            row(&["l", "16390", "AccessExclusiveLock", "-", "-", "-"]),
            row(&["c", "16385", "1", "2", "3", "-"]),
        ];
        let said = read(&rows).unwrap();
        assert!(said.transaction == Some(740) && said.counts && said.holdable_cursors == 0);
        assert_eq!(said.locks[1].kind, None);
        let expected = Rows {
            inserted: 1,
            changed: 2,
            removed: 3,
        };
        assert_eq!(said.rows, [(16385, expected)]);
    }

    #[test]
    fn an_answer_that_was_cut_doubled_or_forged_is_none() {
        let header = row(&["x", "-", "on", "0", "", "-"]);
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[header.clone(), header.clone()]), None);
        assert_eq!(read(&[header.clone(), row(&["?"])]), None);
        assert_eq!(
            read(&[header.clone(), row(&["c", "1", "-1", "0", "0", "-"])]),
            None
        );
        assert_eq!(read(&[header, row(&["l", "x", "m", "-", "-", "-"])]), None);
    }

    #[test]
    fn the_question_names_nothing_without_its_schema() {
        let question = question();
        for word in [
            "pg_lock_status",
            "pg_class",
            "unnest",
            "count(",
            "oid[]",
            "int8",
        ] {
            for (at, _) in question.match_indices(word) {
                assert!(question[..at].ends_with("pg_catalog."), "{word}");
            }
        }
        assert!(!question.contains(" = ") && !question.contains(" > "));
    }
}
