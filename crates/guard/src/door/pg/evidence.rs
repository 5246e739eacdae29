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
    /// Inside: it is there.
    pub is_there: bool,
    /// Inside: the number of its file, where it has one.
    pub file: u32,
    /// Inside: bytes of what others cannot write to meanwhile.
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
    /// There are cursors that would run inside `COMMIT`.
    pub holds_cursors: bool,
    pub locks: Vec<Locked>,
    /// Rows of relations, catalogs included.
    pub rows: Vec<(u32, Rows)>,
}

/// One row of the answer as text.
pub(super) type Row = Vec<Option<String>>;

/// What a transaction is asked before its `COMMIT`, in this order and in one go.
///
/// Each is as small as can be: what costs is not what they look at, but that they are parsed and planned
/// each time. A join with `pg_class` alone would take longer than all of them.
pub(super) struct Questions {
    pub each: [String; 4],
    /// All of them as one text.
    pub joined: String,
}

impl Questions {
    pub(super) fn new() -> Self {
        let each = questions();
        Self {
            joined: each.join(";"),
            each,
        }
    }
}

fn questions() -> [String; 4] {
    let catalogs: Vec<String> = CATALOGS.iter().map(|(oid, ..)| oid.to_string()).collect();
    let catalogs = catalogs.join(",");
    let strong = STRONG.join(",");
    let counters = |of: &str| {
        let counter = |what| format!("pg_catalog.pg_stat_get_xact_tuples_{what}({of})");
        ["inserted", "updated", "deleted"].map(counter)
    };
    let (locked, counted) = (counters("k.relation").join(", "), counters("r.o"));
    let any = counted.join(" OPERATOR(pg_catalog.+) ");
    let counted = counted.join(", ");
    [
        // What was deferred to the COMMIT happens now, so that it is counted.
        "SET CONSTRAINTS ALL IMMEDIATE".to_owned(),
        // From here on it reads only: what defers itself again can no longer write when the COMMIT runs it.
        "SELECT 'x', pg_catalog.pg_current_xact_id_if_assigned(), \
           pg_catalog.current_setting('track_counts'), \
           EXISTS (SELECT FROM pg_catalog.pg_cursor() c WHERE c.is_holdable), \
           pg_catalog.set_config('transaction_read_only', 'on', true), \
           pg_catalog.pg_stat_force_next_flush()"
            .to_owned(),
        // Whether it is visible is NULL when it is gone.
        format!(
            "SELECT 'l', k.relation, k.mode, pg_catalog.pg_table_is_visible(k.relation), \
               pg_catalog.pg_relation_filenode(k.relation), \
               CASE WHEN k.mode OPERATOR(pg_catalog.=) ANY('{{{strong}}}'::pg_catalog.text[]) \
                 THEN pg_catalog.pg_table_size(k.relation) END, {locked} \
             FROM pg_catalog.pg_lock_status() k \
             WHERE k.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() \
               AND k.locktype OPERATOR(pg_catalog.=) 'relation'::pg_catalog.text \
               AND k.mode OPERATOR(pg_catalog.<>) 'AccessShareLock'::pg_catalog.text"
        ),
        format!(
            "SELECT 'c', r.o, {counted} \
             FROM pg_catalog.unnest('{{{catalogs}}}'::pg_catalog.oid[]) r(o) \
             WHERE {any} OPERATOR(pg_catalog.>) 0::pg_catalog.int8"
        ),
    ]
}

/// Reads the answers; `None` when anything about them is not as expected.
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
                said.holds_cursors = field(3)? != "f";
                if field(4)? != "on" {
                    return None;
                }
            }
            "l" => {
                let oid = field(1)?.parse().ok()?;
                said.locks.push(Locked {
                    oid,
                    mode: field(2)?.to_owned(),
                    is_there: field(3).is_some(),
                    file: field(4).map_or(Some(0), |file| file.parse().ok())?,
                    bytes: field(5).and_then(|bytes| bytes.parse().ok()),
                });
                said.count(oid, counters(&field, 6)?);
            }
            "c" => said.count(field(1)?.parse().ok()?, counters(&field, 2)?),
            _ => return None,
        }
    }
    // One and only one header: an answer that was cut or doubled is none.
    (headers == 1).then_some(said)
}

fn counters<'t>(field: &impl Fn(usize) -> Option<&'t str>, at: usize) -> Option<Rows> {
    Some(Rows {
        inserted: field(at)?.parse().ok()?,
        changed: field(at.saturating_add(1))?.parse().ok()?,
        removed: field(at.saturating_add(2))?.parse().ok()?,
    })
}

impl Said {
    /// Notes the counters of a relation, which may be locked in more than one way.
    fn count(&mut self, oid: u32, rows: Rows) {
        let is_known = self.rows.iter().any(|(known, _)| *known == oid);
        if rows != Rows::default() && !is_known {
            self.rows.push((oid, rows));
        }
    }
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
            row(&["x", "740", "on", "t", "on", ""]),
            row(&[
                "l",
                "16385",
                "RowExclusiveLock",
                "t",
                "16385",
                "-",
                "1",
                "2",
                "3",
            ]),
            row(&[
                "l",
                "16385",
                "ShareLock",
                "f",
                "16385",
                "8192",
                "1",
                "2",
                "3",
            ]),
            row(&[
                "l",
                "16390",
                "AccessExclusiveLock",
                "-",
                "-",
                "-",
                "0",
                "0",
                "0",
            ]),
            row(&["c", "1259", "0", "1", "0"]),
        ];
        let said = read(&rows).unwrap();
        assert!(said.transaction == Some(740) && said.counts && said.holds_cursors);
        let there: Vec<bool> = said.locks.iter().map(|lock| lock.is_there).collect();
        assert_eq!(
            (there, said.locks[1].bytes),
            (vec![true, true, false], Some(8192))
        );
        let rows = |inserted, changed, removed| Rows {
            inserted,
            changed,
            removed,
        };
        assert_eq!(said.rows, [(16385, rows(1, 2, 3)), (1259, rows(0, 1, 0))]);
    }

    #[test]
    fn an_answer_that_was_cut_doubled_or_forged_is_none() {
        let header = row(&["x", "-", "on", "f", "on", ""]);
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[header.clone(), header.clone()]), None);
        for other in [
            row(&["?"]),
            row(&["x", "-", "on", "f", "off", ""]),
            row(&["c", "1", "-1", "0", "0"]),
            row(&["c", "1", "1", "0"]),
            row(&["l", "x", "m", "t", "1", "-", "0", "0", "0"]),
            row(&["l", "1", "m", "t", "x", "-", "0", "0", "0"]),
            row(&["l", "1", "m", "t", "1", "-", "0", "0"]),
        ] {
            assert_eq!(read(&[header.clone(), other.clone()]), None);
            assert_eq!(read(&[other]), None);
        }
    }

    #[test]
    fn the_questions_name_nothing_without_its_schema() {
        let questions = Questions::new().joined;
        for word in [
            "pg_lock_status",
            "pg_cursor",
            "pg_stat_get",
            "set_config",
            "pg_relation_filenode",
            "unnest",
            "text[]",
            "oid[]",
            "int8",
        ] {
            for (at, _) in questions.match_indices(word) {
                assert!(questions[..at].ends_with("pg_catalog."), "{word}");
            }
        }
        for bare in [" = ", " > ", " + ", " <> "] {
            assert!(!questions.contains(bare), "{bare}");
        }
    }
}
