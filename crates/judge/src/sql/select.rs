//! `SELECT`, `VALUES` and `TABLE`, wherever they stand.

use holdfast_core::{Effect, Resource};
use pg_raw_parse::Node;
use pg_raw_parse::nodes::{IntoClause, RangeVar, SelectStmt};

use super::found::Found;
use super::name;

/// Judges a query: it reads, unless it locks rows, makes a table or contains something that writes.
pub(super) fn select<'a>(stmt: &'a SelectStmt, found: &mut Found<'a>) {
    found.reads(None);
    parts(stmt, found);
}

/// Judges what stands in a query; the plain values of an `INSERT` are no reading by themselves.
pub(super) fn parts<'a>(stmt: &'a SelectStmt, found: &mut Found<'a>) {
    if !stmt.locking_clause().is_empty() {
        // It locks rows, which the server refuses in a READ ONLY transaction.
        found.beyond_read_only = true;
    }
    if let Some(into) = stmt.into_clause() {
        makes(into, found);
    }
    found.visit_all(stmt.with_clause().map(Node::WithClause));
    found.visit_all(stmt.larg().map(Node::SelectStmt));
    found.visit_all(stmt.rarg().map(Node::SelectStmt));
    found.visit_all(stmt.distinct_clause());
    found.visit_all(stmt.target_list().iter().map(Node::ResTarget));
    found.visit_all(stmt.from_clause());
    found.visit_all([
        stmt.where_clause(),
        stmt.having_clause(),
        stmt.limit_offset(),
        stmt.limit_count(),
    ]);
    found.visit_all(stmt.group_clause());
    found.visit_all(stmt.window_clause());
    found.visit_all(stmt.values_lists());
    found.visit_all(stmt.sort_clause().iter().map(Node::SortBy));
}

/// Judges the target of `SELECT INTO` and `CREATE TABLE AS`.
pub(super) fn makes<'a>(into: &'a IntoClause, found: &mut Found<'a>) {
    let table = name::table_of(into.rel());
    found.makes(&table.name);
    found.adds(table, "it makes a table from a query");
}

/// Notes that a relation is read; some of the catalog's hold secrets.
pub(super) fn relation<'a>(var: &'a RangeVar, found: &mut Found<'a>) {
    let table = name::table(var);
    let relation = var.relname().unwrap_or_default();
    if name::is_catalog(var) && SECRETS.contains(&relation) {
        found.does(
            Effect::Escalate,
            table.clone(),
            "it reads what the catalog keeps secret",
        );
    }
    if FILES.contains(&relation) {
        let resource = Resource::new("pg:view", name::relation(var));
        found.does(
            Effect::Escalate,
            resource,
            "it reads who may log in from where",
        );
    }
    found.reads(Some(table));
}

/// Catalogs with password hashes and passwords of other servers.
const SECRETS: &[&str] = &[
    "pg_authid",
    "pg_shadow",
    "pg_subscription",
    "pg_user_mapping",
    "pg_user_mappings",
];

const FILES: &[&str] = &["pg_hba_file_rules", "pg_ident_file_mappings"];
