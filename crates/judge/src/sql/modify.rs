//! `INSERT`, `UPDATE`, `DELETE` and `MERGE`, at the top or inside `WITH`.

mod condition;

use holdfast_core::Effect;
use pg_raw_parse::Node;
use pg_raw_parse::nodes::{DeleteStmt, InsertStmt, MergeStmt, RangeVar, UpdateStmt, WithClause};
use pg_raw_parse::raw::CmdType;

use super::found::Found;
use super::{name, select};

/// Judges `INSERT`.
pub(super) fn insert<'a>(stmt: &'a InsertStmt, found: &mut Found<'a>) {
    writes(stmt.relation(), "it inserts rows", found);
    with(stmt.with_clause(), found);
    found.visit_all(stmt.cols());
    match stmt.select_stmt() {
        Node::SelectStmt(values) if !values.values_lists().is_empty() => {
            select::parts(values, found);
        }
        query => found.visit(query),
    }
    found.visit_all(stmt.on_conflict_clause().map(Node::OnConflictClause));
    found.visit_all(stmt.returning_clause().map(Node::ReturningClause));
}

/// Judges `UPDATE`.
pub(super) fn update<'a>(stmt: &'a UpdateStmt, found: &mut Found<'a>) {
    match condition::takes_all(stmt.where_clause(), stmt.relation()) {
        true => masses(stmt.relation(), "it changes all rows", found),
        false => writes(stmt.relation(), "it changes rows", found),
    }
    with(stmt.with_clause(), found);
    found.visit_all(stmt.target_list().iter().map(Node::ResTarget));
    found.visit_all(stmt.from_clause());
    found.visit(stmt.where_clause());
    found.visit_all(stmt.returning_clause().map(Node::ReturningClause));
}

/// Judges `DELETE`.
pub(super) fn delete<'a>(stmt: &'a DeleteStmt, found: &mut Found<'a>) {
    match condition::takes_all(stmt.where_clause(), stmt.relation()) {
        true => masses(stmt.relation(), "it removes all rows", found),
        false => writes(stmt.relation(), "it removes rows", found),
    }
    with(stmt.with_clause(), found);
    found.visit_all(stmt.using_clause());
    found.visit(stmt.where_clause());
    found.visit_all(stmt.returning_clause().map(Node::ReturningClause));
}

/// Judges `MERGE`.
pub(super) fn merge<'a>(stmt: &'a MergeStmt, found: &mut Found<'a>) {
    writes(stmt.relation(), "it merges rows", found);
    let joins_all = condition::takes_all(stmt.join_condition(), stmt.relation());
    for clause in stmt.merge_when_clauses() {
        let takes = matches!(
            clause.command_type,
            CmdType::CMD_DELETE | CmdType::CMD_UPDATE
        );
        let unmatched = clause.match_kind
            == pg_raw_parse::raw::MergeMatchKind::MERGE_WHEN_NOT_MATCHED_BY_SOURCE;
        let unconditional = condition::takes_all(clause.condition(), stmt.relation());
        if takes && unconditional && (joins_all || unmatched) {
            let because = "it changes or removes all rows that the source does not name";
            masses(stmt.relation(), because, found);
        }
        found.visit(clause.condition());
        found.visit_all(clause.target_list());
        found.visit_all(clause.values());
    }
    with(stmt.with_clause(), found);
    found.visit(stmt.source_relation());
    found.visit(stmt.join_condition());
    found.visit_all(stmt.returning_clause().map(Node::ReturningClause));
}

fn with<'a>(clause: Option<&'a WithClause>, found: &mut Found<'a>) {
    found.visit_all(clause.map(Node::WithClause));
}

/// Rows of one table are written; a catalog's rows are the structure itself.
pub(super) fn writes(table: Option<&RangeVar>, because: &str, found: &mut Found<'_>) {
    let resource = name::table_of(table);
    if table.is_some_and(name::is_catalog) {
        let because = "it writes to the catalog behind the server's back";
        found.does_for_good(Effect::Disarm, Some(resource), because);
    } else if table.is_some_and(|table| table.schemaname() == Some("cron")) {
        let because = "it schedules what runs later, out of sight";
        found.does_for_good(Effect::Escape, Some(resource), because);
    } else {
        found.does(Effect::Write, resource, because);
    }
}

fn masses(table: Option<&RangeVar>, because: &str, found: &mut Found<'_>) {
    let is_own = table.is_some_and(name::is_temporary);
    let is_special =
        table.is_some_and(|var| name::is_catalog(var) || var.schemaname() == Some("cron"));
    if is_own || is_special {
        return writes(table, because, found);
    }
    let resource = name::table_of(table);
    found.does(Effect::Destroy, resource, because);
    found.hidden = true;
}
