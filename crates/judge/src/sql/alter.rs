//! `ALTER` of what is not a table, `RENAME`, `SET SCHEMA`, `OWNER TO`, and `COMMENT`.

use holdfast_core::{Effect, Resource};
use pg_raw_parse::Node;
use pg_raw_parse::nodes::{
    AlterDomainStmt, AlterEnumStmt, AlterObjectSchemaStmt, AlterOwnerStmt, CommentStmt, RangeVar,
    ReassignOwnedStmt, RenameStmt, SecLabelStmt,
};
use pg_raw_parse::raw::ObjectType;

use super::found::Found;
use super::name;

/// Judges `RENAME`.
pub(super) fn rename<'a>(stmt: &'a RenameStmt, found: &mut Found<'a>) {
    let resource = named(stmt.rename_type, stmt.relation(), stmt.object());
    let resource = match (&resource.name.is_empty(), stmt.subname()) {
        (true, Some(subname)) => Resource::new(name::kind(stmt.rename_type), subname),
        _ => resource,
    };
    match stmt.rename_type {
        ObjectType::OBJECT_INDEX
        | ObjectType::OBJECT_TABCONSTRAINT
        | ObjectType::OBJECT_DOMCONSTRAINT
        | ObjectType::OBJECT_TRIGGER
        | ObjectType::OBJECT_POLICY
        | ObjectType::OBJECT_RULE
        | ObjectType::OBJECT_STATISTIC_EXT => {
            found.does(Effect::Write, resource, "it gets another name");
        }
        _ => {
            let because = "it gets another name, and whoever uses the old one no longer finds it";
            found.does(Effect::Redirect, resource, because);
        }
    }
}

/// Judges `SET SCHEMA`.
pub(super) fn schema<'a>(stmt: &'a AlterObjectSchemaStmt, found: &mut Found<'a>) {
    let resource = named(stmt.object_type, stmt.relation(), stmt.object());
    let because = "it moves to another schema, and whoever uses the old name no longer finds it";
    found.does(Effect::Redirect, resource, because);
}

/// Judges `OWNER TO`.
pub(super) fn owner<'a>(stmt: &'a AlterOwnerStmt, found: &mut Found<'a>) {
    let resource = named(stmt.object_type, stmt.relation(), stmt.object());
    found.does(Effect::Escalate, resource, "another role becomes its owner");
}

/// Judges `REASSIGN OWNED`.
pub(super) fn reassign<'a>(stmt: &'a ReassignOwnedStmt, found: &mut Found<'a>) {
    for role in stmt.roles() {
        let resource = Resource::new("pg:role", name::object(role));
        let because = "another role becomes owner of all that it owns";
        found.does(Effect::Escalate, resource, because);
    }
}

/// Judges `ALTER TYPE ... ADD VALUE` and `RENAME VALUE`.
pub(super) fn enumeration<'a>(stmt: &'a AlterEnumStmt, found: &mut Found<'a>) {
    let parts: Vec<&str> = stmt.type_name().iter().filter_map(|x| x.sval()).collect();
    let resource = Resource::new("pg:type", parts.join("."));
    match stmt.old_val() {
        None => found.adds(resource, "it adds a value to a type"),
        Some(_) => {
            let because = "a value gets another name, and whoever uses the old one fails";
            found.does(Effect::Redirect, resource, because);
        }
    }
}

/// Judges `ALTER DOMAIN`.
pub(super) fn domain<'a>(stmt: &'a AlterDomainStmt, found: &mut Found<'a>) {
    let resource = Resource::new("pg:type", name::dotted(stmt.type_name()));
    let (effect, because) = match u8::try_from(stmt.subtype) {
        Ok(b'C' | b'O') => (
            Effect::Interrupt,
            "all tables that use it are read to their end and blocked meanwhile",
        ),
        Ok(b'X') => (
            Effect::Destroy,
            "a constraint that kept the rows right is gone",
        ),
        Ok(b'T' | b'N' | b'V') => (Effect::Write, "a domain changes"),
        _ => (Effect::Unknown, "a domain changes in an unknown way"),
    };
    found.does(effect, resource, because);
    match stmt.def() {
        Node::Constraint(constraint) => found.visit(constraint.raw_expr()),
        other => found.visit(other),
    }
}

/// Judges the statements that change one definition and take nothing away.
///
/// Answers `false` when the node is none of them.
pub(super) fn simple<'a>(node: Node<'a>, found: &mut Found<'a>) -> bool {
    let (kind, called) = match node {
        Node::AlterSeqStmt(x) => {
            let called = x.sequence().map(name::relation).unwrap_or_default();
            ("pg:sequence", called)
        }
        Node::AlterTypeStmt(x) => ("pg:type", name::dotted(x.type_name())),
        Node::AlterOperatorStmt(_)
        | Node::AlterOpFamilyStmt(_)
        | Node::AlterCollationStmt(_)
        | Node::AlterStatsStmt(_)
        | Node::AlterTSDictionaryStmt(_)
        | Node::AlterTSConfigurationStmt(_)
        | Node::AlterObjectDependsStmt(_)
        | Node::AlterTableSpaceOptionsStmt(_) => ("pg:object", String::new()),
        _ => return false,
    };
    found.does(
        Effect::Write,
        Resource::new(kind, called),
        "a definition changes",
    );
    true
}

/// Judges `COMMENT`.
pub(super) fn comment<'a>(stmt: &'a CommentStmt, found: &mut Found<'a>) {
    let resource = Resource::new(name::kind(stmt.objtype), name::object(stmt.object()));
    found.adds(resource, "it comments on something");
}

/// Judges `SECURITY LABEL`.
pub(super) fn label<'a>(stmt: &'a SecLabelStmt, found: &mut Found<'a>) {
    let resource = Resource::new(name::kind(stmt.objtype), name::object(stmt.object()));
    let because = "who may do what with it changes";
    found.does(Effect::Escalate, resource, because);
}

fn named(kind: ObjectType::Type, relation: Option<&RangeVar>, object: Node<'_>) -> Resource {
    let called = relation.map_or_else(|| name::object(object), name::relation);
    Resource::new(name::kind(kind), called)
}
