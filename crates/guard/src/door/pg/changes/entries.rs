//! The catalogs that are looked at row by row, and what of each row is compared.
//!
//! Both sides run the same text. Every name, type and operator is qualified, because the transaction
//! may have put its own in front.

/// A catalog and the expressions that describe one of its rows `x`.
#[derive(Debug)]
pub(in crate::door::pg) struct Catalog {
    pub oid: u32,
    pub name: &'static str,
    key: &'static str,
    sub: &'static str,
    parent: &'static str,
    called: &'static str,
    owner: &'static str,
    rights: &'static str,
    /// Joined without a separator; booleans are `t` and `f`.
    kind: &'static str,
    body: &'static str,
    /// Expressions whose calls are listed.
    expressions: &'static [&'static str],
    /// A type whose values may call functions, or nothing.
    of_type: &'static str,
    /// What is left out.
    only: &'static str,
}

/// Nothing, as text.
const NONE: &str = "''::pg_catalog.text";
const NO_OID: &str = "0::pg_catalog.oid";
const NO_SUB: &str = "0::pg_catalog.int4";

const PLAIN: Catalog = Catalog {
    oid: 0,
    name: "",
    key: "x.oid",
    sub: NO_SUB,
    parent: NO_OID,
    called: NONE,
    owner: NONE,
    rights: NONE,
    kind: NONE,
    body: NONE,
    expressions: &[],
    of_type: NO_OID,
    only: "",
};

/// The catalogs, by the numbers that `evidence` knows them by.
pub(in crate::door::pg) const CATALOGS: &[Catalog] = &[
    Catalog {
        oid: 1259,
        name: "pg_class",
        parent: "x.relnamespace",
        called: "x.relname",
        owner: "x.relowner",
        rights: "x.relacl",
        kind: "x.relkind, x.relpersistence, x.relrowsecurity, x.relforcerowsecurity, x.relreplident, \
               x.reloftype OPERATOR(pg_catalog.<>) 0::pg_catalog.oid",
        body: "x.reloptions, x.reltablespace, x.relam, x.reloftype, x.relpartbound",
        ..PLAIN
    },
    Catalog {
        oid: 1249,
        name: "pg_attribute",
        key: "x.attrelid",
        sub: "x.attnum",
        parent: "x.attrelid",
        called: "x.attname",
        rights: "x.attacl",
        kind: "x.attisdropped, x.attnotnull, x.attislocal, x.attidentity",
        body: "x.atttypid, x.atttypmod, x.attcollation, x.attidentity, x.attgenerated",
        of_type: "x.atttypid",
        only: " AND x.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2",
        ..PLAIN
    },
    Catalog {
        oid: 1255,
        name: "pg_proc",
        sub: "x.pronargs",
        parent: "x.pronamespace",
        called: "x.proname",
        owner: "x.proowner",
        rights: "x.proacl",
        kind: "x.prosecdef, x.proleakproof, x.prokind, \
               x.pronargdefaults OPERATOR(pg_catalog.<>) 0::pg_catalog.int2 \
               OR x.provariadic OPERATOR(pg_catalog.<>) 0::pg_catalog.oid",
        body: "x.prosrc, x.probin, x.prosqlbody, x.prolang, x.provolatile, x.proisstrict, \
               x.proretset, x.prorettype, x.proargtypes, x.proallargtypes, x.proargmodes, \
               x.proargnames, x.proargdefaults, x.protrftypes, x.proconfig, x.prosupport, \
               x.prosecdef, x.proleakproof, x.provariadic",
        ..PLAIN
    },
    Catalog {
        oid: 2604,
        name: "pg_attrdef",
        sub: "x.adnum",
        parent: "x.adrelid",
        kind: "(SELECT a.attgenerated FROM pg_catalog.pg_attribute a \
               WHERE a.attrelid OPERATOR(pg_catalog.=) x.adrelid \
               AND a.attnum OPERATOR(pg_catalog.=) x.adnum)",
        body: "x.adbin",
        expressions: &["x.adbin"],
        ..PLAIN
    },
    Catalog {
        oid: 2606,
        name: "pg_constraint",
        parent: "CASE WHEN x.conrelid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid THEN x.conrelid \
                 ELSE x.contypid END",
        called: "x.conname",
        kind: "x.contype, x.convalidated, x.confdeltype, x.conislocal, x.conkey",
        body: "x.conrelid, x.contypid, x.conkey, x.confrelid, x.confkey, x.confdeltype, \
               x.confupdtype, x.confmatchtype, x.conbin, x.condeferrable, x.condeferred, x.conexclop",
        expressions: &["x.conbin"],
        ..PLAIN
    },
    Catalog {
        oid: 2610,
        name: "pg_index",
        key: "x.indexrelid",
        parent: "x.indrelid",
        kind: "x.indisunique, x.indisprimary",
        body: "x.indkey, x.indclass, x.indcollation, x.indoption, x.indexprs, x.indpred",
        expressions: &["x.indexprs", "x.indpred"],
        ..PLAIN
    },
    Catalog {
        oid: 2611,
        name: "pg_inherits",
        key: "x.inhrelid",
        sub: "x.inhseqno",
        parent: "x.inhparent",
        body: "x.inhparent, x.inhdetachpending",
        ..PLAIN
    },
    Catalog {
        oid: 2618,
        name: "pg_rewrite",
        parent: "x.ev_class",
        called: "x.rulename",
        kind: "x.ev_type, x.is_instead, x.ev_enabled",
        body: "x.ev_qual, x.ev_action, x.ev_type, x.is_instead",
        ..PLAIN
    },
    Catalog {
        oid: 2620,
        name: "pg_trigger",
        parent: "x.tgrelid",
        called: "x.tgname",
        kind: "x.tgisinternal, x.tgenabled, \
               x.tgparentid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid",
        body: "x.tgfoid, x.tgtype, x.tgconstrrelid, x.tgargs, x.tgattr, x.tgqual, x.tgdeferrable, \
               x.tginitdeferred",
        ..PLAIN
    },
    Catalog {
        oid: 3256,
        name: "pg_policy",
        parent: "x.polrelid",
        called: "x.polname",
        body: "x.polcmd, x.polpermissive, x.polroles, x.polqual, x.polwithcheck",
        ..PLAIN
    },
    Catalog {
        oid: 2615,
        name: "pg_namespace",
        called: "x.nspname",
        owner: "x.nspowner",
        rights: "x.nspacl",
        ..PLAIN
    },
    Catalog {
        oid: 1247,
        name: "pg_type",
        parent: "x.typnamespace",
        called: "x.typname",
        owner: "x.typowner",
        rights: "x.typacl",
        kind: "x.typtype, x.typcategory",
        body: "x.typbasetype, x.typtypmod, x.typnotnull, x.typdefault, x.typcollation, x.typinput",
        // The type of a table's rows, and arrays, come and go with what they are of.
        only: " AND x.typcategory OPERATOR(pg_catalog.<>) 'A'::pg_catalog.\"char\" \
               AND x.typtype OPERATOR(pg_catalog.<>) 'c'::pg_catalog.\"char\"",
        ..PLAIN
    },
    Catalog {
        oid: 3501,
        name: "pg_enum",
        parent: "x.enumtypid",
        called: "x.enumlabel",
        body: "x.enumsortorder",
        ..PLAIN
    },
    Catalog {
        oid: 3381,
        name: "pg_statistic_ext",
        parent: "x.stxrelid",
        called: "x.stxname",
        owner: "x.stxowner",
        body: "x.stxkeys, x.stxkind, x.stxexprs",
        expressions: &["x.stxexprs"],
        ..PLAIN
    },
    Catalog {
        oid: 2224,
        name: "pg_sequence",
        key: "x.seqrelid",
        parent: "x.seqrelid",
        body: "x.seqtypid, x.seqstart, x.seqincrement, x.seqmax, x.seqmin, x.seqcache, x.seqcycle",
        ..PLAIN
    },
    Catalog {
        oid: 2617,
        name: "pg_operator",
        parent: "x.oprnamespace",
        called: "x.oprname",
        owner: "x.oprowner",
        body: "x.oprleft, x.oprright, x.oprcode, x.oprcom, x.oprnegate, x.oprrest, x.oprjoin",
        ..PLAIN
    },
    Catalog {
        oid: 2605,
        name: "pg_cast",
        parent: "x.castsource",
        body: "x.castsource, x.casttarget, x.castfunc, x.castcontext, x.castmethod",
        ..PLAIN
    },
];

impl Catalog {
    /// Returns the text that describes all rows for which `condition` holds.
    pub(in crate::door::pg) fn select(&self, condition: &str) -> String {
        let Self { oid, name, key, .. } = self;
        let (sub, parent, only) = (self.sub, self.parent, self.only);
        let digest = |of: &str| match of {
            NONE => NONE.to_owned(),
            of => format!("pg_catalog.md5((ROW({of}))::pg_catalog.text)"),
        };
        let (called, rights, body) = (digest(self.called), digest(self.rights), digest(self.body));
        let owner = match self.owner {
            NONE => NONE.to_owned(),
            owner => format!("({owner})::pg_catalog.text"),
        };
        let kind = match self.kind {
            NONE => NONE.to_owned(),
            kind => format!("pg_catalog.concat({kind})"),
        };
        let calls = self.calls();
        format!(
            "SELECT '{oid}'::pg_catalog.text, ({key})::pg_catalog.text, ({sub})::pg_catalog.text, \
             ({parent})::pg_catalog.text, {called}, {owner}, {rights}, {kind}, {body}, {calls} \
             FROM pg_catalog.{name} x WHERE {condition}{only}"
        )
    }

    /// Returns the text that lists the functions called by the row's expressions and by the types in
    /// them: a domain checks its values, a range measures them.
    fn calls(&self) -> String {
        let has_type = self.of_type != NO_OID;
        if self.expressions.is_empty() && !has_type {
            return NONE.to_owned();
        }
        let text = match self.expressions {
            [] => NONE.to_owned(),
            some => format!("(ROW({}))::pg_catalog.text", some.join(", ")),
        };
        let of_type = self.of_type;
        let (direct, types) = (matches(&text, CALLS), matches(&text, TYPES));
        // A type of the server's own calls nothing, and most columns are of such a type.
        let first = format!(
            "SELECT {of_type} AS o UNION ALL SELECT (m.m[1])::pg_catalog.oid FROM {types} AS m(m)"
        );
        let whole = format!(
            "(WITH RECURSIVE t(o) AS (SELECT f.o FROM ({first}) f \
               WHERE f.o OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid UNION {INNER_TYPES}) \
             SELECT pg_catalog.string_agg(c.f, ','::pg_catalog.text) FROM ( \
               SELECT m.m[1] AS f FROM {direct} AS m(m) UNION ALL {}) c)",
            by_types()
        );
        match has_type {
            true => format!(
                "CASE WHEN {of_type} OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid THEN {whole} END"
            ),
            false => whole,
        }
    }

    /// Returns the expression that is the key of a row.
    pub(in crate::door::pg) fn key(&self) -> &'static str {
        self.key
    }
}

// SOURCE: src/backend/nodes/outfuncs.c: how stored expressions name what they call, and types.
const CALLS: &str = ":(?:funcid|opfuncid|aggfnoid|winfnoid) ([0-9]+)";
const TYPES: &str = ":[a-zA-Z_]*[tT]ype[a-zA-Z_]* ([0-9]+)";

fn matches(text: &str, pattern: &str) -> String {
    format!("pg_catalog.regexp_matches({text}, '{pattern}'::pg_catalog.text, 'g'::pg_catalog.text)")
}

/// The types that those in `t` are made of.
const INNER_TYPES: &str = "SELECT u.o FROM t JOIN pg_catalog.pg_type y ON y.oid OPERATOR(pg_catalog.=) t.o, \
    LATERAL (SELECT y.typbasetype AS o UNION ALL SELECT y.typelem \
      UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r \
        WHERE r.rngtypid OPERATOR(pg_catalog.=) y.oid OR r.rngmultitypid OPERATOR(pg_catalog.=) y.oid \
      UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a \
        WHERE a.attrelid OPERATOR(pg_catalog.=) y.typrelid \
        AND a.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2) u \
    WHERE u.o OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid";

/// The functions that the types in `t` call.
fn by_types() -> String {
    let checks = matches("(ROW(k.conbin))::pg_catalog.text", CALLS);
    let defaults = matches("(ROW(y.typdefaultbin))::pg_catalog.text", CALLS);
    let range = |function: &str| {
        format!(
            "SELECT (r.{function})::pg_catalog.oid::pg_catalog.text FROM t JOIN pg_catalog.pg_range r \
               ON r.rngtypid OPERATOR(pg_catalog.=) t.o OR r.rngmultitypid OPERATOR(pg_catalog.=) t.o \
             WHERE (r.{function})::pg_catalog.oid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid"
        )
    };
    format!(
        "SELECT m.m[1] FROM t JOIN pg_catalog.pg_constraint k \
           ON k.contypid OPERATOR(pg_catalog.=) t.o, {checks} AS m(m) \
         UNION ALL SELECT m.m[1] FROM t JOIN pg_catalog.pg_type y \
           ON y.oid OPERATOR(pg_catalog.=) t.o, {defaults} AS m(m) \
         UNION ALL {} UNION ALL {}",
        range("rngsubdiff"),
        range("rngcanonical")
    )
}
