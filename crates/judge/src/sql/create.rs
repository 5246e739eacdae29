//! `CREATE` of tables, indexes, views, schemas, sequences, types and what else only adds.

use holdfast_core::{Effect, Resource};
use pg_raw_parse::Node;
use pg_raw_parse::nodes::{
    ColumnDef, Constraint, CreateDomainStmt, CreateSchemaStmt, CreateStmt, CreateTableAsStmt,
    DefineStmt, IndexStmt, ViewStmt,
};
use pg_raw_parse::raw::ObjectType;

use super::found::Found;
use super::{functions, name, select};

/// Judges `CREATE TABLE`.
pub(super) fn table<'a>(stmt: &'a CreateStmt, found: &mut Found<'a>) {
    let table = name::table_of(stmt.relation());
    if !stmt.if_not_exists {
        found.makes(&table.name);
    }
    found.adds(table, "it makes a table");
    found.visit_all(stmt.table_elts());
    found.visit_all(stmt.constraints().iter().map(Node::Constraint));
}

/// Judges `CREATE TABLE AS` and `CREATE MATERIALIZED VIEW`.
pub(super) fn table_as<'a>(stmt: &'a CreateTableAsStmt, found: &mut Found<'a>) {
    match stmt.into() {
        Some(into) => {
            let name = name::table_of(into.rel());
            if stmt.if_not_exists {
                found.adds(name, "it makes a table from a query");
            } else {
                select::makes(into, found);
            }
        }
        None => found.does_unnamed(Effect::Unknown, "it makes a table without a name"),
    }
    found.visit(stmt.query());
}

/// Puts what stands in a column's definition on the list of work.
pub(super) fn column<'a>(column: &'a ColumnDef, found: &mut Found<'a>) {
    functions::later(column.raw_default(), found);
    found.visit_all(column.constraints());
}

/// Puts what stands in a constraint on the list of work.
///
/// A default's call runs when a row is inserted; `nextval` there is what a sequence is for.
pub(super) fn constraint<'a>(constraint: &'a Constraint, found: &mut Found<'a>) {
    functions::later(constraint.raw_expr(), found);
    functions::later(constraint.where_clause(), found);
}

/// Judges `CREATE INDEX`.
///
/// Without `CONCURRENTLY` it only adds, but nobody can write to the table until it is built.
/// How long that takes is a matter of the table's size, which the text does not tell: it is an
/// interruption unless the same text made the table.
pub(super) fn index<'a>(stmt: &'a IndexStmt, found: &mut Found<'a>) {
    let table = name::table_of(stmt.relation());
    found.adds(table.clone(), "it builds an index");
    if stmt.concurrent {
        found.needs_no_block = true;
        let computes = stmt
            .index_params()
            .iter()
            .any(|element| !matches!(element.expr(), Node::None));
        if computes || !matches!(stmt.where_clause(), Node::None) {
            let because = "it computes values outside of a transaction, which cannot be measured \
                           before it is done";
            found.does_for_good(Effect::Interrupt, Some(table), because);
        }
    } else {
        let because = "writes to the table are blocked until the index is built; CONCURRENTLY \
                       does not block";
        found.blocks(table, because);
    }
    found.visit_all(stmt.index_params().iter().map(Node::IndexElem));
    found.visit(stmt.where_clause());
}

/// Judges `CREATE VIEW`.
pub(super) fn view<'a>(stmt: &'a ViewStmt, found: &mut Found<'a>) {
    let called = stmt.view().map(name::relation).unwrap_or_default();
    let view = Resource::new("pg:view", called);
    match stmt.replace {
        true => found.does(Effect::Write, view, "it makes or replaces a view"),
        false => found.adds(view, "it makes a view"),
    }
    found.visit(stmt.query());
}

/// Judges `CREATE SCHEMA` with all that it contains.
pub(super) fn schema<'a>(stmt: &'a CreateSchemaStmt, found: &mut Found<'a>) {
    let called = stmt.schemaname().unwrap_or_default().to_owned();
    found.adds(Resource::new("pg:schema", called), "it makes a schema");
    if stmt.authrole().is_some() {
        found.does_unnamed(Effect::Escalate, "the schema will belong to another role");
    }
    found.visit_all(stmt.schema_elts());
}

/// Judges `CREATE DOMAIN`.
pub(super) fn domain<'a>(stmt: &'a CreateDomainStmt, found: &mut Found<'a>) {
    adds("pg:type", joined(stmt.domainname()), found);
    found.visit_all(stmt.constraints().iter().map(Node::Constraint));
}

/// Judges `CREATE AGGREGATE`, `OPERATOR`, `TYPE`, `COLLATION` and text search objects.
pub(super) fn define<'a>(stmt: &'a DefineStmt, found: &mut Found<'a>) {
    let called = joined(stmt.defnames());
    let kind = name::kind(stmt.kind);
    if stmt.replace {
        let because = "it makes or replaces a definition";
        return found.does(Effect::Write, Resource::new(kind, called), because);
    }
    match stmt.kind {
        ObjectType::OBJECT_TYPE if !stmt.definition().is_empty() => {
            let because = "it makes a base type, whose functions are C code";
            found.does(Effect::Escape, Resource::new(kind, called), because);
        }
        ObjectType::OBJECT_TSPARSER | ObjectType::OBJECT_TSTEMPLATE => {
            let because = "it makes a parser, whose functions are C code";
            found.does(Effect::Escape, Resource::new(kind, called), because);
        }
        _ => adds(kind, called, found),
    }
}

/// Judges the statements that add one thing and do nothing else.
///
/// Answers `false` when the node is none of them.
pub(super) fn simple<'a>(node: Node<'a>, found: &mut Found<'a>) -> bool {
    match node {
        Node::CreateSeqStmt(x) => {
            let called = x.sequence().map(name::relation).unwrap_or_default();
            adds("pg:sequence", called, found);
        }
        Node::CompositeTypeStmt(x) => {
            let called = x.typevar().map(name::relation).unwrap_or_default();
            adds("pg:type", called, found);
        }
        Node::CreateEnumStmt(x) => adds("pg:type", joined(x.type_name()), found),
        Node::CreateRangeStmt(x) => adds("pg:type", joined(x.type_name()), found),
        Node::CreateStatsStmt(x) => adds("pg:object", joined(x.defnames()), found),
        Node::CreateConversionStmt(x) => {
            adds("pg:object", name::dotted(x.conversion_name()), found);
        }
        Node::CreateCastStmt(x) => {
            let called = x.targettype().map(name::type_name).unwrap_or_default();
            adds("pg:object", called, found);
        }
        Node::CreateOpClassStmt(x) => adds("pg:object", joined(x.opclassname()), found),
        Node::CreateOpFamilyStmt(x) => adds("pg:object", joined(x.opfamilyname()), found),
        _ => return false,
    }
    true
}

fn adds(kind: &str, called: String, found: &mut Found<'_>) {
    found.adds(Resource::new(kind, called), "it adds a definition");
}

fn joined(parts: &pg_raw_parse::list::CastNodeList<pg_raw_parse::nodes::String>) -> String {
    let parts: Vec<&str> = parts.iter().filter_map(|part| part.sval()).collect();
    parts.join(".")
}
