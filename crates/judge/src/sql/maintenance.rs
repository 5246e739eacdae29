//! `VACUUM`, `ANALYZE`, `CLUSTER`, `REINDEX`, `REFRESH MATERIALIZED VIEW`, `CHECKPOINT`.

use holdfast_core::{Effect, Resource};
use pg_raw_parse::list::CastNodeList;
use pg_raw_parse::nodes::{ClusterStmt, DefElem, RefreshMatViewStmt, ReindexStmt, VacuumStmt};
use pg_raw_parse::raw::ReindexObjectType;

use super::found::Found;
use super::name;

/// Judges `VACUUM` and `ANALYZE`.
pub(super) fn vacuum<'a>(stmt: &'a VacuumStmt, found: &mut Found<'a>) {
    found.needs_no_block |= stmt.is_vacuumcmd;
    found.stop_before |= stmt.is_vacuumcmd;
    let full = stmt.is_vacuumcmd && is_set(stmt.options(), "full");
    let (effect, because) = match (stmt.is_vacuumcmd, full) {
        (true, true) => (
            Effect::Interrupt,
            "tables are written anew, and nobody can use them meanwhile",
        ),
        (true, false) => (Effect::Write, "it tidies tables while others go on"),
        (false, _) => (Effect::Write, "it counts values for the planner"),
    };
    if stmt.rels().is_empty() {
        return found.does_unnamed(effect, because);
    }
    for relation in stmt.rels() {
        found.does(effect, name::table_of(relation.relation()), because);
    }
}

/// Judges `CLUSTER`.
pub(super) fn cluster<'a>(stmt: &'a ClusterStmt, found: &mut Found<'a>) {
    let because = "the table is written anew, and nobody can use it meanwhile";
    found.needs_no_block |= stmt.relation().is_none();
    let resource = stmt.relation().map(name::table);
    found.does_for_good(Effect::Interrupt, resource, because);
}

/// Judges `REINDEX`.
pub(super) fn reindex<'a>(stmt: &'a ReindexStmt, found: &mut Found<'a>) {
    let concurrently = is_set(stmt.params(), "concurrently");
    let one = matches!(
        stmt.kind,
        ReindexObjectType::REINDEX_OBJECT_INDEX | ReindexObjectType::REINDEX_OBJECT_TABLE
    );
    found.needs_no_block |= concurrently || !one;
    found.stop_before = true;
    let resource = match stmt.relation() {
        Some(var) if stmt.kind == ReindexObjectType::REINDEX_OBJECT_INDEX => {
            Resource::new("pg:index", name::relation(var))
        }
        Some(var) => name::table(var),
        None => Resource::new("pg:schema", stmt.name().unwrap_or_default()),
    };
    match concurrently {
        true => found.does(
            Effect::Write,
            resource,
            "indexes are built again while others go on",
        ),
        false => found.does(
            Effect::Interrupt,
            resource,
            "writes are blocked until the indexes are built again",
        ),
    }
}

/// Judges `REFRESH MATERIALIZED VIEW`.
pub(super) fn refresh<'a>(stmt: &'a RefreshMatViewStmt, found: &mut Found<'a>) {
    let called = stmt.relation().map(name::relation).unwrap_or_default();
    let resource = Resource::new("pg:materialized_view", called);
    if stmt.skip_data {
        let because = "the view is emptied and cannot be read until it is filled again";
        return found.does(Effect::Interrupt, resource, because);
    }
    match stmt.concurrent {
        true => found.does(
            Effect::Write,
            resource,
            "the view is filled again while others read it",
        ),
        false => found.does(
            Effect::Interrupt,
            resource,
            "nobody can read the view until it is filled again; CONCURRENTLY does not block",
        ),
    }
}

/// Judges `CHECKPOINT`.
pub(super) fn checkpoint(found: &mut Found<'_>) {
    found.does_for_good(
        Effect::Interrupt,
        None,
        "all that is changed is written to disk at once",
    );
}

fn is_set(options: &CastNodeList<DefElem>, word: &str) -> bool {
    options
        .iter()
        .filter(|option| option.defname() == Some(word))
        .any(|option| {
            let value = name::constant(option.arg()).map(|value| value.to_ascii_lowercase());
            !matches!(value.as_deref(), Some("false" | "off" | "0" | "no"))
        })
}
