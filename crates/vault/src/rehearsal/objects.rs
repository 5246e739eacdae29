//! The objects of a database by name, before and after, and what became of them.
//!
//! An object is recognized by its number and has changed when its row in the catalog is another one:
//! every change of a row leaves another `xmin` there. Every name, type and operator of the question is
//! qualified: what runs on the clone may have put its own in front.

use std::collections::BTreeMap;

use holdfast_core::{ObjectChange, ObjectFate};

use crate::limits;
use crate::source::{Connection, SourceError};

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// The table that it belongs to; 0 when it belongs to none.
    parent: u32,
    pub(super) name: String,
    version: String,
    /// The number of its file, for what has one.
    file: String,
}

/// All objects of a database, by kind and number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Objects(BTreeMap<(String, u32), Object>);

/// Kinds whose rows can be counted, and whose new file means new contents.
const TABLES: [&str; 2] = ["materialized view", "table"];

impl Objects {
    /// Reads them as `connection` sees them.
    pub(super) fn read(connection: &mut Connection) -> Result<Self, SourceError> {
        let reply = connection.query(QUESTION, "list the objects of the clone")?;
        if reply.rows().len() >= limits::ANSWER_ROWS {
            let what = "there are more objects than can be compared";
            return Err(SourceError::nonsense("list the objects of the clone", what));
        }
        let mut objects = Self::default();
        for row in reply.rows() {
            let field = |at: usize| row.get(at).and_then(Option::as_deref).unwrap_or_default();
            let number = |at: usize| field(at).parse().unwrap_or_default();
            let object = Object {
                parent: number(2),
                name: field(3).to_owned(),
                version: field(4).to_owned(),
                file: field(5).to_owned(),
            };
            let key = (kind(field(0)).to_owned(), number(1));
            objects.0.insert(key, object);
        }
        Ok(objects)
    }

    /// Returns the name of a relation.
    pub(super) fn relation(&self, oid: u32) -> Option<&str> {
        RELATIONS.iter().find_map(|kind| {
            let found = self.0.get(&((*kind).to_owned(), oid));
            found.map(|object| object.name.as_str())
        })
    }

    /// Returns the numbers and names of all tables.
    pub(super) fn tables(&self) -> impl Iterator<Item = (u32, &str)> {
        let tables = self.0.iter().filter(|((kind, _), _)| is_table(kind));
        tables.map(|((_, oid), object)| (*oid, object.name.as_str()))
    }

    /// Returns what became of each object; what only goes with its table is left out.
    pub(super) fn changes(&self, after: &Self) -> Vec<ObjectChange> {
        let mut changes = Vec::new();
        for (key, before) in &self.0 {
            match after.0.get(key) {
                None if self.goes_with_table(key, after) => {}
                None => changes.push(change(key, before, ObjectFate::Dropped)),
                Some(now) => {
                    let is_rewritten = before.file != now.file;
                    if is_rewritten && !self.is_rewritten_with_table(key, after) {
                        // By the name that it has outside: it may have been given another one.
                        changes.push(change(key, before, ObjectFate::Rewritten));
                    }
                    if before.version != now.version && !is_rewritten {
                        changes.push(change(key, now, ObjectFate::Altered));
                    }
                }
            }
        }
        for (key, now) in &after.0 {
            if !self.0.contains_key(key) && !after.goes_with_table(key, self) {
                changes.push(change(key, now, ObjectFate::Created));
            }
        }
        changes.sort_by_key(rank);
        changes
    }

    /// Its table is in `other` neither.
    fn goes_with_table(&self, key: &(String, u32), other: &Self) -> bool {
        let parent = self.0.get(key).map_or(0, |object| object.parent);
        parent != 0 && self.relation(parent).is_some() && other.relation(parent).is_none()
    }

    fn is_rewritten_with_table(&self, key: &(String, u32), after: &Self) -> bool {
        let parent = self.0.get(key).map_or(0, |object| object.parent);
        let file = |objects: &Self| {
            let found = TABLES
                .iter()
                .find_map(|kind| objects.0.get(&((*kind).to_owned(), parent)));
            found.map(|object| object.file.clone())
        };
        parent != 0 && file(self) != file(after)
    }
}

/// Tells whether rows of this kind of thing are somebody's.
pub(super) fn is_table(kind: &str) -> bool {
    TABLES.contains(&kind)
}

fn change((kind, _): &(String, u32), object: &Object, fate: ObjectFate) -> ObjectChange {
    ObjectChange {
        kind: kind.clone(),
        name: object.name.clone(),
        fate,
        rows: None,
    }
}

/// What is gone comes first, and tables before what belongs to them.
fn rank(change: &ObjectChange) -> (u8, bool, String, String) {
    let fate = match change.fate {
        ObjectFate::Dropped => 0,
        ObjectFate::Rewritten => 1,
        ObjectFate::Altered => 2,
        ObjectFate::Created => 3,
    };
    let is_other = !is_table(&change.kind);
    (fate, is_other, change.kind.clone(), change.name.clone())
}

const RELATIONS: [&str; 6] = [
    "table",
    "index",
    "sequence",
    "view",
    "materialized view",
    "foreign table",
];

fn kind(said: &str) -> &str {
    match said {
        "r" | "p" => "table",
        "i" | "I" => "index",
        "S" => "sequence",
        "v" => "view",
        "m" => "materialized view",
        "f" => "foreign table",
        other => other,
    }
}

/// Kind, number, table, name, version, file.
///
/// SOURCE: PostgreSQL 15 and 18, "System Catalogs". 16384 is `FirstNormalObjectId`.
const QUESTION: &str = "\
SELECT c.relkind::pg_catalog.text, c.oid::pg_catalog.text, \
  pg_catalog.concat(i.indrelid), pg_catalog.format('%I.%I', n.nspname, c.relname), \
  pg_catalog.md5(pg_catalog.concat(c.xmin, '/', a.version, '/', w.version)), c.relfilenode::pg_catalog.text \
FROM pg_catalog.pg_class c \
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
LEFT JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) c.oid \
LEFT JOIN LATERAL (SELECT pg_catalog.string_agg(pg_catalog.concat(attnum, ' ', xmin), ',' ORDER BY attnum) AS version \
  FROM pg_catalog.pg_attribute WHERE attrelid OPERATOR(pg_catalog.=) c.oid) a ON true \
LEFT JOIN LATERAL (SELECT pg_catalog.string_agg(pg_catalog.concat(xmin), ',' ORDER BY oid) AS version \
  FROM pg_catalog.pg_rewrite WHERE ev_class OPERATOR(pg_catalog.=) c.oid \
  AND rulename OPERATOR(pg_catalog.=) '_RETURN'::pg_catalog.name) w ON true \
WHERE c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
  AND c.relpersistence OPERATOR(pg_catalog.<>) 't'::pg_catalog.\"char\" \
  AND c.relkind OPERATOR(pg_catalog.<>) 't'::pg_catalog.\"char\" \
  AND c.relkind OPERATOR(pg_catalog.<>) 'c'::pg_catalog.\"char\" \
UNION ALL SELECT 'constraint', o.oid::pg_catalog.text, o.conrelid::pg_catalog.text, \
  pg_catalog.format('%I on %I.%I', o.conname, n.nspname, c.relname), o.xmin::pg_catalog.text, NULL \
FROM pg_catalog.pg_constraint o JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) o.conrelid \
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
UNION ALL SELECT 'trigger', o.oid::pg_catalog.text, o.tgrelid::pg_catalog.text, \
  pg_catalog.format('%I on %I.%I', o.tgname, n.nspname, c.relname), o.xmin::pg_catalog.text, NULL \
FROM pg_catalog.pg_trigger o JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) o.tgrelid \
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace WHERE NOT o.tgisinternal \
UNION ALL SELECT 'policy', o.oid::pg_catalog.text, o.polrelid::pg_catalog.text, \
  pg_catalog.format('%I on %I.%I', o.polname, n.nspname, c.relname), o.xmin::pg_catalog.text, NULL \
FROM pg_catalog.pg_policy o JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) o.polrelid \
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
UNION ALL SELECT 'rule', o.oid::pg_catalog.text, o.ev_class::pg_catalog.text, \
  pg_catalog.format('%I on %I.%I', o.rulename, n.nspname, c.relname), o.xmin::pg_catalog.text, NULL \
FROM pg_catalog.pg_rewrite o JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) o.ev_class \
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
WHERE o.rulename OPERATOR(pg_catalog.<>) '_RETURN'::pg_catalog.name \
UNION ALL SELECT CASE WHEN o.prokind OPERATOR(pg_catalog.=) 'p'::pg_catalog.\"char\" THEN 'procedure' ELSE 'function' END, \
  o.oid::pg_catalog.text, NULL, pg_catalog.format('%I.%I(%s)', n.nspname, o.proname, \
  pg_catalog.pg_get_function_identity_arguments(o.oid)), o.xmin::pg_catalog.text, NULL \
FROM pg_catalog.pg_proc o JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) o.pronamespace \
WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
UNION ALL SELECT 'type', o.oid::pg_catalog.text, NULL, pg_catalog.format('%I.%I', n.nspname, o.typname), \
  pg_catalog.md5(pg_catalog.concat(o.xmin, '/', e.version)), NULL \
FROM pg_catalog.pg_type o JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) o.typnamespace \
LEFT JOIN LATERAL (SELECT pg_catalog.string_agg(pg_catalog.concat(xmin), ',' ORDER BY oid) AS version \
  FROM pg_catalog.pg_enum WHERE enumtypid OPERATOR(pg_catalog.=) o.oid) e ON true \
WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AND o.typrelid OPERATOR(pg_catalog.=) 0::pg_catalog.oid \
  AND o.typelem OPERATOR(pg_catalog.=) 0::pg_catalog.oid \
UNION ALL SELECT 'schema', o.oid::pg_catalog.text, NULL, pg_catalog.format('%I', o.nspname), o.xmin::pg_catalog.text, NULL \
FROM pg_catalog.pg_namespace o WHERE o.oid OPERATOR(pg_catalog.=) 2200::pg_catalog.oid \
  OR o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
UNION ALL SELECT 'extension', o.oid::pg_catalog.text, NULL, pg_catalog.format('%I', o.extname), o.xmin::pg_catalog.text, NULL \
FROM pg_catalog.pg_extension o \
UNION ALL SELECT 'publication', o.oid::pg_catalog.text, NULL, pg_catalog.format('%I', o.pubname), \
  pg_catalog.md5(pg_catalog.concat(o.xmin, '/', e.version)), NULL FROM pg_catalog.pg_publication o \
LEFT JOIN LATERAL (SELECT pg_catalog.string_agg(pg_catalog.concat(xmin), ',' ORDER BY oid) AS version \
  FROM pg_catalog.pg_publication_rel WHERE prpubid OPERATOR(pg_catalog.=) o.oid) e ON true \
UNION ALL SELECT 'event trigger', o.oid::pg_catalog.text, NULL, pg_catalog.format('%I', o.evtname), o.xmin::pg_catalog.text, NULL \
FROM pg_catalog.pg_event_trigger o \
UNION ALL SELECT 'foreign server', o.oid::pg_catalog.text, NULL, pg_catalog.format('%I', o.srvname), o.xmin::pg_catalog.text, NULL \
FROM pg_catalog.pg_foreign_server o \
UNION ALL SELECT 'database', o.oid::pg_catalog.text, NULL, pg_catalog.format('%I', o.datname), o.xmin::pg_catalog.text, NULL \
FROM pg_catalog.pg_database o \
UNION ALL SELECT 'role', o.oid::pg_catalog.text, NULL, pg_catalog.format('%I', o.rolname), \
  pg_catalog.concat(o.rolsuper, o.rolinherit, o.rolcreaterole, o.rolcreatedb, o.rolcanlogin, o.rolreplication, \
  o.rolbypassrls, o.rolconnlimit, o.rolvaliduntil, m.version), NULL FROM pg_catalog.pg_roles o \
LEFT JOIN LATERAL (SELECT pg_catalog.string_agg(pg_catalog.concat(roleid, ' ', xmin), ',' ORDER BY roleid) AS version \
  FROM pg_catalog.pg_auth_members WHERE member OPERATOR(pg_catalog.=) o.oid) m ON true \
UNION ALL SELECT 'default rights', o.oid::pg_catalog.text, NULL, \
  pg_catalog.format('of %I', pg_catalog.pg_get_userbyid(o.defaclrole)), o.xmin::pg_catalog.text, NULL \
FROM pg_catalog.pg_default_acl o";

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(rows: &[(&str, u32, u32, &str, &str, &str)]) -> Objects {
        let rows = rows.iter().map(|(said, oid, parent, name, version, file)| {
            let object = Object {
                parent: *parent,
                name: (*name).to_owned(),
                version: (*version).to_owned(),
                file: (*file).to_owned(),
            };
            ((kind(said).to_owned(), *oid), object)
        });
        Objects(rows.collect())
    }

    fn told(before: &Objects, after: &Objects) -> Vec<String> {
        let changes = before.changes(after).into_iter();
        changes
            .map(|one| format!("{} {} {}", one.fate.word(), one.kind, one.name))
            .collect()
    }

    #[test]
    fn what_goes_with_its_table_is_not_named_and_what_stays_behind_is() {
        let before = objects(&[
            ("r", 1, 0, "public.a", "1", "10"),
            ("i", 2, 1, "public.a_pkey", "1", "11"),
            ("constraint", 3, 1, "a_pkey on public.a", "1", ""),
            ("r", 4, 0, "public.b", "1", "12"),
            ("constraint", 5, 4, "b_a_fkey on public.b", "1", ""),
            ("function", 6, 0, "public.f()", "1", ""),
        ]);
        let after = objects(&[
            ("r", 4, 0, "public.b", "1", "12"),
            ("function", 6, 0, "public.f()", "2", ""),
            ("r", 7, 0, "public.c", "1", "13"),
            ("i", 8, 7, "public.c_pkey", "1", "14"),
        ]);
        let expected = [
            "dropped table public.a",
            "dropped constraint b_a_fkey on public.b",
            "altered function public.f()",
            "created table public.c",
        ];
        assert_eq!(told(&before, &after), expected);
        assert!(told(&after, &after).is_empty());
    }

    #[test]
    fn a_rewritten_table_is_named_once_without_its_indexes() {
        let before = objects(&[
            ("r", 1, 0, "public.a", "1", "10"),
            ("i", 2, 1, "public.a_pkey", "1", "11"),
        ]);
        let after = objects(&[
            ("r", 1, 0, "public.a", "2", "20"),
            ("i", 2, 1, "public.a_pkey", "2", "21"),
        ]);
        assert_eq!(told(&before, &after), ["rewritten table public.a"]);
        let reindexed = objects(&[
            ("r", 1, 0, "public.a", "1", "10"),
            ("i", 2, 1, "public.a_pkey", "2", "21"),
        ]);
        assert_eq!(told(&before, &reindexed), ["rewritten index public.a_pkey"]);
    }

    #[test]
    fn the_question_compares_with_operators_of_the_catalog_only() {
        for word in [" = ", " > ", " <> ", " >= ", " IN ", " LIKE ", " || "] {
            assert!(!QUESTION.contains(word), "{word}");
        }
        for call in [
            "concat(",
            "format(",
            "md5(",
            "string_agg(",
            "pg_get_userbyid(",
        ] {
            for (at, _) in QUESTION.match_indices(call) {
                assert!(QUESTION[..at].ends_with("pg_catalog."), "{call}");
            }
        }
    }
}
